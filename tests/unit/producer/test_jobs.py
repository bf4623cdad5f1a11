"""Which VMs' jobs are polled when, and what is told of them; libvirt's part is played by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import libvirt
import pytest

from virtflow.producer.hung_calls.job_poller import GRACE_POLLS, NEVER, Jobs
from virtflow.producer.hypervisor.connection import Lane, Link
from virtflow.producer.hypervisor.mailbox import Call, Happened, Inbox
from virtflow.producer.hypervisor.queries import Polled, poll_job
from virtflow.runtime.settings import Libvirt

A, B = "01c4627c-7455-4be4-b014-9523f6d7e739", "00000000-0000-4000-8000-000000000001"
OUT = {"type": 2, "operation": 5, "time_elapsed": 1000}
NONE = {"type": 0}
MOMENT = 1_795_476_000.0


class Cap:
    """A cap that allows what the test says."""

    def __init__(self) -> None:
        """Everything may be asked."""
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        self.out: list[str] = []
        self.lost_calls: list[str] = []

    def may_poll(self, uuid: str, *, vouched: bool) -> bool:
        allowed = uuid not in self.refused and not (vouched and uuid in self.unknown)
        if allowed:
            self.out.append(uuid)
        return allowed

    def returned(self, uuid: str) -> None:
        self.out.remove(uuid)

    def lost(self, uuid: str) -> None:
        self.out.remove(uuid)
        self.lost_calls.append(uuid)


class HandLane(Lane):
    """A lane whose calls come back when the test says so."""

    def __init__(self) -> None:
        """Opened, and idle."""
        self.name = "job"
        self.submitted: list[Call] = []
        self.opened, self.retired, self.standing = True, False, True

    def submit(self, purpose: str, job: Callable[[Any], Any]) -> Call:
        del job
        call = Call(self, purpose, MOMENT, self.now)
        self.submitted.append(call)
        return call

    now = 0.0

    def retire(self) -> None:
        self.retired = True

    @property
    def alive(self) -> bool:
        return self.standing


class Refused(libvirt.libvirtError):  # type: ignore[misc]
    """An error of libvirt's with a code."""

    def __init__(self, code: int) -> None:
        """As if libvirt had said it."""
        super().__init__("refused")
        self._code = code

    def get_error_code(self) -> int:
        return self._code


class Stage:
    """Jobs with a cap and a lane, and everything they told."""

    def __init__(self) -> None:
        """Connected."""
        self.cap, self.lane, self.told = Cap(), HandLane(), list[Happened]()
        link = Link("job", Libvirt(), Inbox(), 10.0)
        link.lane = self.lane
        self.jobs = Jobs(link, self.cap, self.told.append, every=1.0, patience=5.0)

    def at(self, now: float) -> None:
        """Time has come to ``now``."""
        self.lane.now = now
        self.jobs.tend(now)

    def answer(self, now: float, statistics: Mapping[str, object] | None = None, code: int = 0, state: tuple[int, int] = (1, 1)) -> None:
        """The poll comes back with statistics, or with an error of libvirt's."""
        call = self.lane.submitted[-1]
        call.ended = True
        if code:
            call.error = Refused(code)
        else:
            call.result = Polled("web-1", dict(statistics or {}), *state, moment=MOMENT + now)
        self.jobs.take(call, now)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def iteration(uuid: str = A) -> Happened:
    return Happened(uuid, "web-1", "migration_iteration", (1,), MOMENT)


def test_an_event_that_only_a_job_makes_begins_the_polls(stage: Stage) -> None:
    """Every second, until the completed event: that is the end's own word."""
    stage.jobs.happened(iteration(), 0.0)
    for second in range(3):
        stage.at(second * 1.2)
        stage.answer(second * 1.2 + 0.1, OUT)
    assert [(event.uuid, event.what, event.detail[0]) for event in stage.told] == [(A, "job", OUT)] * 3
    assert [event.time for event in stage.told] == [MOMENT + second * 1.2 + 0.1 for second in range(3)]
    assert stage.jobs.running == 1
    stage.jobs.happened(Happened(A, "web-1", "job_completed", ({},)), 2.5)
    stage.at(10.0)
    assert len(stage.lane.submitted) == 3
    assert (stage.jobs.running, stage.jobs.due, stage.cap.out) == (0, NEVER, [])


@pytest.mark.parametrize("event", [("lifecycle", (5, 3)), ("balloon_change", (1,)), ("agent_lifecycle", (1, 1)), ("lifecycle", (4, 0))])
def test_other_events_begin_none(stage: Stage, event: tuple[str, tuple[int, ...]]) -> None:
    stage.jobs.happened(Happened(A, "web-1", *event), 0.0)
    stage.at(1.0)
    assert stage.lane.submitted == []


def test_a_job_that_is_gone_without_a_word_is_told_after_a_grace(stage: Stage) -> None:
    """The completed event may come a moment after the job has gone: it is waited for. QEMU's word, where it was heard, goes along."""
    stage.jobs.happened(iteration(), 0.0)
    stage.at(0.0)
    stage.answer(0.1, OUT)
    stage.jobs.happened(Happened(A, "web-1", "migration_status", ("cancelled",)), 0.5)
    for poll in range(1, GRACE_POLLS + 1):
        stage.at(float(poll) + 0.2)
        stage.answer(float(poll) + 0.2, NONE, state=(1, 6))
    assert stage.told[-1].what == "job_gone"
    assert stage.told[-1].detail == (1, 6, "cancelled")
    stage.at(100.0)
    assert len(stage.lane.submitted) == 1 + GRACE_POLLS


@pytest.mark.parametrize(("kind", "word"), [(4, "failed"), (5, "cancelled")])
def test_the_jobs_own_type_says_how_it_ended(stage: Stage, kind: int, word: str) -> None:
    stage.jobs.happened(iteration(), 0.0)
    stage.at(0.0)
    stage.answer(0.1, {**OUT, "type": kind})
    for poll in range(1, GRACE_POLLS + 1):
        stage.at(float(poll) + 0.2)
        stage.answer(float(poll) + 0.2, code=libvirt.VIR_ERR_NO_DOMAIN)
    assert stage.told[-1].detail == (-1, -1, word)


def test_a_save_that_was_too_quick_to_be_seen_is_not_told(stage: Stage) -> None:
    """Suspended for a save: polled, nothing found, forgotten."""
    stage.jobs.happened(Happened(A, "web-1", "lifecycle", (3, 0)), 0.0)
    for poll in range(GRACE_POLLS):
        stage.at(float(poll))
        stage.answer(float(poll), NONE)
    assert stage.told == []
    assert stage.jobs.due == NEVER


def test_running_jobs_are_found_at_the_start(stage: Stage) -> None:
    """Each VM is asked once, as soon as its monitor is known to answer; only one that has a job is asked again."""
    stage.cap.unknown = {B}
    stage.jobs.look([A, B])
    stage.at(0.0)
    stage.answer(0.1, NONE)
    stage.at(0.2)
    assert len(stage.lane.submitted) == 1
    stage.cap.unknown = set()
    stage.at(0.3)
    stage.answer(0.4, OUT)
    assert [event.uuid for event in stage.told] == [B]
    stage.at(0.5)
    stage.at(1.4)
    assert len(stage.lane.submitted) == 3


def test_the_cap_is_obeyed(stage: Stage) -> None:
    """A VM that may not be asked is put off, and another takes its turn."""
    stage.cap.refused = {A}
    stage.jobs.happened(iteration(A), 0.0)
    stage.jobs.happened(iteration(B), 0.0)
    stage.at(0.0)
    assert stage.cap.out == [B]
    stage.answer(0.1, OUT)
    stage.at(0.2)
    assert stage.cap.out == []
    assert stage.jobs.polls == {"skipped": 1, "answered": 1}
    stage.cap.refused = set()
    stage.at(1.15)
    assert stage.cap.out == [B]
    stage.answer(1.2, OUT)
    stage.at(1.25)
    assert stage.cap.out == [A]


def test_a_poll_that_does_not_come_back_is_left_alone(stage: Stage) -> None:
    """With its lane, counted against the cap; when it comes back after all nobody listens."""
    stage.jobs.happened(iteration(), 0.0)
    stage.at(0.0)
    stage.at(4.9)
    assert stage.cap.lost_calls == []
    stage.at(5.1)
    assert (stage.cap.lost_calls, stage.lane.retired, stage.jobs.polls) == ([A], True, {"captured": 1})
    stage.answer(60.0, OUT)
    assert stage.told == []


def test_a_lost_connection_is_tried_again_without_haste(stage: Stage) -> None:
    """The job stays watched; the next poll waits for a connection, and asking when costs no time."""
    stage.jobs.happened(iteration(), 0.0)
    stage.at(0.0)
    stage.lane.standing = False
    stage.answer(0.1, code=libvirt.VIR_ERR_INTERNAL_ERROR)
    assert stage.jobs.polls == {"failed": 1}
    assert stage.jobs.link.lane is None
    assert stage.jobs.due >= 1.1


def test_a_refused_poll_is_tried_again(stage: Stage) -> None:
    stage.jobs.happened(iteration(), 0.0)
    stage.at(0.0)
    stage.answer(0.1, code=libvirt.VIR_ERR_OPERATION_TIMEOUT)
    stage.at(1.2)
    assert len(stage.lane.submitted) == 2


class SlowDaemon:
    """A connection and a VM in one, whose calls take time on a clock of its own."""

    def __init__(self, statistics: dict[str, int]) -> None:
        """It tells these statistics."""
        self.now, self.statistics = MOMENT, statistics

    def time(self) -> float:
        return self.now

    def lookupByUUIDString(self, _uuid: str) -> SlowDaemon:  # noqa: N802, libvirt's name
        self.now += 10.0
        return self

    def jobStats(self) -> dict[str, int]:  # noqa: N802, libvirt's name
        self.now += 2.0
        return self.statistics

    def state(self) -> tuple[int, int]:
        self.now += 30.0
        return 3, 1

    @staticmethod
    def name() -> str:
        return "web-1"


@pytest.mark.parametrize(("statistics", "state"), [(OUT, (-1, -1)), (NONE, (3, 1))])
def test_numbers_are_of_the_moment_they_were_asked_for(
    statistics: dict[str, int], state: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the whole poll's: looking the VM up first took ten seconds here."""
    daemon = SlowDaemon(statistics)
    monkeypatch.setattr("virtflow.producer.hypervisor.queries.time", daemon)
    assert poll_job(A, known=True)(daemon) == Polled("web-1", statistics, *state, moment=MOMENT + 11.0)
