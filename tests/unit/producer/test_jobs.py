"""Which VMs' jobs are polled when, and what is announced of them; libvirt's part is played by hand."""

from __future__ import annotations

from collections.abc import Mapping

import libvirt
import pytest

from tests.support.job_answers import MOMENT, NONE, OUT, A, B, C, Refused
from virtflow.producer.hung_calls.budget import CallBudget, Kind
from virtflow.producer.hung_calls.job_poller import NEVER, Jobs
from virtflow.producer.hung_calls.reconnecting import Outbox, ReconnectingConnection
from virtflow.producer.hypervisor.messages import Retire, Returned, Submit
from virtflow.producer.types import HypervisorEvent, Polled
from virtflow.runtime.settings import Libvirt

GRACE = 2
"""Polls without a job before it counts as gone."""
SEARCH = 256
"""VMs that one search asks."""


class Vms:
    """Which VMs may be asked, as the test says."""

    def __init__(self) -> None:
        """Everything may be asked."""
        self.refused: set[str] = set()
        self.unknown: set[str] = set()

    def may_ask(self, uuid: str, *, healthy: bool) -> bool:
        return uuid not in self.refused and not (healthy and uuid in self.unknown)


class Stage:
    """Jobs with a connection whose calls return when the test says so, and everything they announced."""

    def __init__(self) -> None:
        """Connected."""
        self.vms, self.budget, self.announced = Vms(), CallBudget(3), list[HypervisorEvent]()
        self.hung: list[tuple[Kind, str]] = []
        self.outbox = Outbox()
        connection = ReconnectingConnection("job", Libvirt(), self.outbox, self.budget, 10.0)
        connection.tick(0.0)
        connection.opened(1, 9_000_000)
        self.outbox.take()
        self.submitted: list[Submit] = []
        self.retired = False

        def hung(kind: Kind, uuid: str, now: float) -> None:
            del now
            self.hung.append((kind, uuid))

        self.jobs = Jobs(connection, self.vms, self.budget, self.announced.append, hung, every=1.0, stall_timeout=5.0)

    @property
    def out(self) -> list[str]:
        """The VM that is being polled, or the VMs that are asked for a job."""
        poll = self.jobs._poll
        return [] if poll is None else list(poll.asked) or [poll.position.at[0]]

    def found(self, now: float, jobs: Mapping[str, Mapping[str, object]] | None = None, code: int = 0, *, alive: bool = True) -> None:
        """The search comes back with the jobs of these VMs, or with an error of libvirt's."""
        found = [(uuid, Polled("web-1", dict(statistics), moment=MOMENT + now)) for uuid, statistics in (jobs or {}).items()]
        self._returned(now, None if code else found, Refused(code) if code else None, alive=alive)

    def at(self, now: float) -> None:
        """Time has come to ``now``."""
        self.jobs.tick(now)
        actions = self.outbox.take()
        self.submitted += [action for action in actions if isinstance(action, Submit)]
        self.retired = self.retired or any(isinstance(action, Retire) for action in actions)

    def answer(
        self,
        now: float,
        statistics: Mapping[str, object] | None = None,
        code: int = 0,
        state: tuple[int, int] = (1, 1),
        *,
        alive: bool = True,
    ) -> None:
        """The newest poll comes back with statistics, or with an error of libvirt's."""
        result, error = (None, Refused(code)) if code else (Polled("web-1", dict(statistics or {}), *state, moment=MOMENT + now), None)
        self._returned(now, result, error, alive=alive)

    def _returned(self, now: float, result: object, error: Refused | None, *, alive: bool) -> None:
        call = self.outbox.returned(Returned(self.submitted[-1].call, now, MOMENT, 0.1, result, error, alive))
        assert call is not None
        self.jobs.take(call, now)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def iteration(uuid: str = A) -> HypervisorEvent:
    return HypervisorEvent(uuid, "web-1", "migration_iteration", (1,), MOMENT)


def test_an_event_that_only_a_job_makes_begins_the_polls(stage: Stage) -> None:
    """Every second, until the completed event: that is the end's own word."""
    stage.jobs.happened(iteration(), 0.0)
    for second in range(3):
        stage.at(second * 1.2)
        stage.answer(second * 1.2 + 0.1, OUT)
    assert [(event.uuid, event.what, event.detail[0]) for event in stage.announced] == [(A, "job", OUT)] * 3
    assert [event.time for event in stage.announced] == [MOMENT + second * 1.2 + 0.1 for second in range(3)]
    assert stage.jobs.running == 1
    stage.jobs.happened(HypervisorEvent(A, "web-1", "job_completed", ({},)), 2.5)
    stage.at(10.0)
    assert len(stage.submitted) == 3
    assert (stage.jobs.running, stage.jobs.due, stage.out) == (0, NEVER, [])


@pytest.mark.parametrize("event", [("lifecycle", (5, 3)), ("balloon_change", (1,)), ("agent_lifecycle", (1, 1)), ("lifecycle", (4, 0))])
def test_other_events_begin_none(stage: Stage, event: tuple[str, tuple[int, ...]]) -> None:
    stage.jobs.happened(HypervisorEvent(A, "web-1", *event), 0.0)
    stage.at(1.0)
    assert stage.submitted == []


def test_a_job_that_is_gone_without_a_word_is_told_after_a_grace(stage: Stage) -> None:
    """The completed event may come a moment after the job has gone: it is waited for. QEMU's word, where it was heard, goes along."""
    stage.jobs.happened(iteration(), 0.0)
    stage.at(0.0)
    stage.answer(0.1, OUT)
    stage.jobs.happened(HypervisorEvent(A, "web-1", "migration_status", ("cancelled",)), 0.5)
    for poll in range(1, GRACE + 1):
        stage.at(float(poll) + 0.2)
        stage.answer(float(poll) + 0.2, NONE, state=(1, 6))
    assert stage.announced[-1].what == "job_gone"
    assert stage.announced[-1].detail == (1, 6, "cancelled")
    stage.at(100.0)
    assert len(stage.submitted) == 1 + GRACE


@pytest.mark.parametrize(("kind", "word"), [(4, "failed"), (5, "cancelled")])
def test_the_jobs_own_type_says_how_it_ended(stage: Stage, kind: int, word: str) -> None:
    stage.jobs.happened(iteration(), 0.0)
    stage.at(0.0)
    stage.answer(0.1, {**OUT, "type": kind})
    for poll in range(1, GRACE + 1):
        stage.at(float(poll) + 0.2)
        stage.answer(float(poll) + 0.2, code=libvirt.VIR_ERR_NO_DOMAIN)
    assert stage.announced[-1].detail == (-1, -1, word)


def test_a_save_that_was_too_quick_to_be_seen_is_not_told(stage: Stage) -> None:
    """Suspended for a save: polled, nothing found, forgotten."""
    stage.jobs.happened(HypervisorEvent(A, "web-1", "lifecycle", (3, 0)), 0.0)
    for poll in range(GRACE):
        stage.at(float(poll))
        stage.answer(float(poll), NONE)
    assert stage.announced == []
    assert stage.jobs.due == NEVER


def test_running_jobs_are_found_at_the_start(stage: Stage) -> None:
    """All VMs are asked in one call, each as soon as its monitor is known to answer; only one that has a job is asked again."""
    stage.vms.unknown = {B}
    stage.jobs.look([A, B, C])
    stage.at(0.0)
    assert stage.out == [A, C]
    stage.found(0.1)
    stage.at(0.2)
    assert len(stage.submitted) == 1
    stage.vms.unknown = set()
    stage.at(0.3)
    assert stage.out == [B]
    stage.found(0.4, {B: OUT})
    assert [event.uuid for event in stage.announced] == [B]
    assert stage.jobs.polls == {"answered": 3}
    stage.at(0.5)
    stage.at(1.4)
    assert len(stage.submitted) == 3


def test_a_watched_vm_is_not_searched(stage: Stage) -> None:
    """Its own polls ask for its state as well, which tells how a job ended that is gone."""
    stage.jobs.look([A, B])
    stage.jobs.happened(iteration(A), 0.0)
    stage.jobs.look([A])
    stage.at(0.0)
    assert stage.out == [A]
    stage.answer(0.1, OUT)
    stage.at(0.2)
    assert stage.out == [B]


def test_a_search_is_of_so_many_vms_at_most(stage: Stage) -> None:
    """A poll of a running job waits for it no longer than that."""
    vms = [f"00000000-0000-4000-8000-{number:012x}" for number in range(SEARCH + 1)]
    stage.jobs.look(vms)
    stage.at(0.0)
    stage.jobs.happened(iteration(A), 0.0)
    assert stage.out == vms[:SEARCH]
    stage.found(0.1)
    stage.at(0.2)
    assert stage.out == [A]
    stage.answer(0.3, OUT)
    stage.at(0.4)
    assert stage.out == vms[SEARCH:]


def test_a_search_that_hangs_is_left_alone_in_its_vm(stage: Stage) -> None:
    """However long it took before; the others are asked again, and what it returns in the end is ignored."""
    stage.jobs.look([A, B, C])
    stage.at(0.0)
    poll = stage.jobs._poll
    assert poll is not None
    poll.position.at = B, 4.0
    stage.at(5.1)
    assert (stage.hung, stage.jobs.due) == ([], 9.0)
    stage.at(9.1)
    assert (stage.hung, stage.retired, stage.jobs.polls) == ([(Kind.JOB, B)], True, {"hung": 1})
    assert (stage.budget.hung, stage.budget.hung_vms()) == (1, frozenset({B}))
    assert list(stage.jobs._candidates) == [A, C]
    stage.found(60.0, {B: OUT})
    assert (stage.announced, stage.budget.outstanding) == ([], 0)


def test_a_search_that_was_left_alone_is_followed_into_the_next_vm_that_it_hangs_in(stage: Stage) -> None:
    """Once it has been in there for longer than the stall timeout; the VM before is free then, and no other VM is skipped on its way."""
    stage.jobs.look([A, B, C])
    stage.at(0.0)
    poll = stage.jobs._poll
    assert poll is not None
    poll.position.at = A, 0.0
    stage.at(5.1)
    for vm, since, now in ((A, 0.0, 60.0), (B, 60.0, 61.0), (C, 61.0, 66.0)):
        poll.position.at = vm, since
        stage.at(now)
        assert stage.hung == [(Kind.JOB, A)]
    assert A in stage.budget.hung_vms()
    for now in (66.1, 67.0):
        stage.at(now)
        assert stage.hung == [(Kind.JOB, A), (Kind.JOB, C)]
        assert C in stage.budget.hung_vms()
        assert A not in stage.budget.hung_vms()


def test_a_search_spares_a_vm_in_which_a_call_hangs(stage: Stage) -> None:
    stage.budget.adopt(Kind.MONITOR, A)
    stage.jobs.look([A, B])
    stage.at(0.0)
    assert stage.out == [B]


@pytest.mark.parametrize("alive", [True, False])
def test_a_search_that_fails_is_counted(stage: Stage, alive: bool) -> None:  # noqa: FBT001, a parameter
    """Its VMs have their turn again, with the next search or the next connection."""
    stage.jobs.look([A])
    stage.at(0.0)
    stage.found(0.1, code=libvirt.VIR_ERR_INTERNAL_ERROR, alive=alive)
    assert stage.jobs.polls == {"failed": 1}
    assert (stage.jobs.connection.worker is None) is not alive


def test_vms_that_may_not_be_asked_are_skipped(stage: Stage) -> None:
    """A VM that may not be asked is put off, and another takes its turn."""
    stage.vms.refused = {A}
    stage.jobs.happened(iteration(A), 0.0)
    stage.jobs.happened(iteration(B), 0.0)
    stage.at(0.0)
    assert stage.out == [B]
    stage.answer(0.1, OUT)
    stage.at(0.2)
    assert stage.out == []
    assert stage.jobs.polls == {"skipped": 1, "answered": 1}
    stage.vms.refused = set()
    stage.at(1.15)
    assert stage.out == [B]
    stage.answer(1.2, OUT)
    stage.at(1.25)
    assert stage.out == [A]


def test_a_poll_that_hangs_is_left_alone(stage: Stage) -> None:
    """With its worker, counted in the budget until it returns; what it says then is ignored."""
    stage.jobs.happened(iteration(), 0.0)
    stage.at(0.0)
    stage.at(4.9)
    assert stage.hung == []
    stage.at(5.1)
    assert (stage.hung, stage.retired, stage.jobs.polls) == ([(Kind.JOB, A)], True, {"hung": 1})
    assert (stage.budget.hung, stage.budget.hung_vms()) == (1, frozenset({A}))
    stage.answer(60.0, OUT)
    assert (stage.announced, stage.budget.outstanding) == ([], 0)


def test_without_a_lease_no_poll_is_made(stage: Stage) -> None:
    leases = [stage.budget.acquire(Kind.MONITOR) for _ in range(3)]
    stage.jobs.happened(iteration(), 0.0)
    stage.at(0.0)
    assert (stage.submitted, stage.jobs.polls) == ([], {"skipped": 1})
    for lease in leases:
        assert lease is not None
        lease.release()
    stage.at(1.1)
    assert stage.out == [A]


def test_a_lost_connection_is_tried_again_without_haste(stage: Stage) -> None:
    """The job stays watched; the next poll waits for a connection, and asking when costs no time."""
    stage.jobs.happened(iteration(), 0.0)
    stage.at(0.0)
    stage.answer(0.1, code=libvirt.VIR_ERR_INTERNAL_ERROR, alive=False)
    assert stage.jobs.polls == {"failed": 1}
    assert stage.jobs.connection.worker is None
    assert stage.jobs.due >= 1.1


def test_a_refused_poll_is_tried_again(stage: Stage) -> None:
    stage.jobs.happened(iteration(), 0.0)
    stage.at(0.0)
    stage.answer(0.1, code=libvirt.VIR_ERR_OPERATION_TIMEOUT)
    stage.at(1.2)
    assert len(stage.submitted) == 2
