"""Rounds as a reducer makes them: observations in, actions out; libvirt's part is played by hand."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from virtflow.producer.hung_calls.budget import CallBudget, Kind
from virtflow.producer.hypervisor.messages import (
    Action,
    Announce,
    FindVersions,
    Interrupted,
    Lost,
    Message,
    Open,
    Opened,
    OpenFailed,
    Progress,
    Retire,
    Returned,
    Submit,
    Tick,
    VersionsFound,
)
from virtflow.producer.sampling import Sampling
from virtflow.producer.source import Round
from virtflow.producer.types import Answer, HealthCheck, HypervisorEvent, Listed, Vm
from virtflow.runtime.settings import Libvirt, Producer, Settings

A, B = "01c4627c-7455-4be4-b014-9523f6d7e739", "00000000-0000-4000-8000-000000000001"
BOOKWORM, TRIXIE = 9_000_000, 11_003_000
INTERVAL = 10.0
STALL = 2.0
"""A fifth of the interval."""
LISTED: dict[str, object] = {"state.state": 1, "net.count": 0}
FULL: dict[str, object] = {**LISTED, "cpu.time": 5, "balloon.rss": 1}


class Stage:
    """A sampling whose workers do what the test says. Connections open at once, unless ``closed`` names them."""

    def __init__(self, version: int = BOOKWORM, *, closed: Iterable[str] = (), follows: bool = False, uri: str = "qemu:///system") -> None:
        """The first tick has passed."""
        settings = Settings(libvirt=Libvirt(uri=uri), producer=Producer(interval_seconds=INTERVAL))
        self.budget = CallBudget(3)
        self.sampling = Sampling(settings, self.budget, random.Random(1), lambda _: {}, follows=follows)  # noqa: S311, jitter
        self.version, self.closed = version, set(closed)
        self.now = 0.0
        self.names: dict[int, str] = {}
        self.out: dict[str, list[int]] = {}
        self.actions: list[Action] = []
        self.events: list[HypervisorEvent] = []
        self.tell(Tick(), waiting=True)

    def tell(self, message: Message, *, waiting: bool = False) -> None:
        """The sampling observes, and its actions are carried out."""
        self._perform(self.sampling.observe(message, self.now, waiting=waiting))

    def begin(self) -> None:
        """A round begins."""
        self._perform(self.sampling.begin(1000.0 + self.now, self.now))

    def finish(self) -> Round:
        """The round goes out."""
        return self.sampling.finish(self.now)

    def _perform(self, actions: list[Action]) -> None:
        self.actions += actions
        for action in actions:
            match action:
                case Open(worker, name):
                    self.names[worker] = name
                    if name not in self.closed:
                        self.tell(Opened(worker, self.version), waiting=True)
                case Submit(call=number):
                    call = self.sampling._outbox.call(number)
                    assert call is not None
                    self.out.setdefault(call.purpose, []).append(number)
                case Announce(event):
                    self.events.append(event)
                case FindVersions():
                    self.tell(VersionsFound("9.0.0", "7.2.0"), waiting=True)
                case _:
                    pass

    def answer(self, purpose: str, result: object = None, error: Exception | None = None, *, alive: bool = True) -> None:
        """The oldest call of that purpose returns."""
        call = self.out[purpose].pop(0)
        self.tell(Returned(call, self.now, 1000.0 + self.now, 0.1, result, error, alive))

    def read(self, uuid: str, value: Any, purpose: str = "xml", *, waiting: bool = False) -> None:  # noqa: ANN401, whatever was asked for
        """The newest call of that purpose has got on by a VM."""
        self.tell(Progress(self.out[purpose][-1], uuid, value), waiting=waiting)

    def stall(self) -> None:
        """The monitor call takes longer than a call may stay in one VM: the VMs are listed, and their health is checked."""
        for share in (0.9, 0.1):
            self.now += share * STALL
            self.tell(Tick())

    def run(self, health: HealthCheck, monitors: Mapping[str, Mapping[str, object]]) -> None:
        """A round in which no VM is asked by the one call for all; each call is answered at once, but for the XML."""
        self.begin()
        answers = {"health": health, "list": listed(), "monitor": monitors, "fill": None}
        while pending := [purpose for purpose in answers if self.calls(purpose)]:
            self.answer(pending[0], answers[pending[0]])

    def calls(self, purpose: str) -> int:
        """How many calls of that purpose have not returned."""
        return len(self.out.get(purpose, []))


def listed(data: Mapping[str, object] | None = None, uuids: Iterable[str] = (A, B)) -> Listed:
    return Listed({uuid: Vm(uuid, f"vm-{uuid[:2]}", dict(data or LISTED)) for uuid in uuids})


def healthy(stage: Stage) -> Stage:
    """After the first round: health is checked, and all VMs have answered."""
    stage.begin()
    stage.answer("list", listed())
    stage.answer("health", HealthCheck({A: 0.0, B: 0.0}))
    stage.answer("monitor", listed(FULL))
    for uuid in (A, B):
        stage.read(uuid, f"<domain><uuid>{uuid}</uuid></domain>")
    stage.answer("xml")
    assert stage.sampling.complete(stage.now)
    first = stage.finish()
    assert (first.up, first.late, set(first.inventories)) == (True, False, {A, B})
    stage.now = INTERVAL
    return stage


def test_while_all_is_well_a_round_is_one_call() -> None:
    stage = healthy(Stage())
    stage.begin()
    assert (stage.calls("list"), stage.calls("monitor"), stage.calls("xml")) == (0, 1, 0)
    stage.answer("monitor", listed(FULL))
    assert stage.sampling.complete(stage.now)
    found = stage.finish()
    assert [reading.monitor_collected for reading in found.readings] == [1000.0 + INTERVAL] * 2
    assert (found.hung_calls.count, found.hung_calls.limit, stage.budget.outstanding) == (0, 3, 0)


def test_a_late_call_costs_only_its_own_values() -> None:
    """The VMs are listed and filled in without it; what it brings goes into the round in which it comes."""
    stage = healthy(Stage())
    stage.begin()
    stage.stall()
    stage.answer("list", listed())
    stage.answer("health", HealthCheck({A: 0.01, B: 0.0}))
    assert not stage.sampling.complete(stage.now)
    stage.now = INTERVAL + 0.8 * INTERVAL
    stage.tell(Tick())
    stage.answer("health", HealthCheck({A: 0.0, B: 0.01}))
    stage.read(A, Answer({"cpu.time": 7}, stage.now, 1000.0 + stage.now), "fill")
    stage.answer("fill")
    assert stage.sampling.complete(stage.now)
    found = stage.finish()
    by_uuid = {reading.uuid: reading for reading in found.readings}
    assert (found.late, by_uuid[A].data["cpu.time"]) == (True, 7)
    assert all(math.isnan(reading.monitor_collected) for reading in found.readings)
    stage.answer("monitor", listed(FULL))
    stage.now = 2 * INTERVAL
    stage.begin()
    stage.answer("monitor", listed(FULL))
    assert not stage.finish().late


def test_a_stuck_vm_costs_the_others_nothing_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """The call hangs, is left alone with its worker, and the other VM is asked by a new one in the same round; then it recovers."""
    stage = healthy(Stage())
    stage.begin()
    stage.stall()
    stage.answer("list", listed())
    hung = stage.out["monitor"].pop()
    with caplog.at_level(logging.INFO):
        stage.answer("health", HealthCheck({A: STALL, B: 0.0}))
        stage.answer("monitor", {B: FULL})
        found = stage.finish()
        by_uuid = {reading.uuid: reading for reading in found.readings}
        assert by_uuid[A].data["monitor.responsive"] == 0
        assert by_uuid[B].data["monitor.responsive"] == 1
        assert not math.isnan(by_uuid[B].monitor_collected)
        assert (found.hung_calls.count, stage.budget.hung_vms()) == (1, frozenset({A}))
        assert any(isinstance(action, Retire) for action in stage.actions)
        stage.now += 600.0
        stage.tell(Returned(hung, stage.now - 600.0, 1000.0, 600.0, listed(FULL)), waiting=True)
    assert stage.budget.outstanding == 0
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == f"a monitor call hangs in vm-01 ({A}): 1 hung calls of at most 3 on this host"
    assert said[-1] == f"answers again: vm-01 ({A}) after 600 s; 0 hung calls are left"


@pytest.mark.parametrize("version", [BOOKWORM, TRIXIE])
def test_a_hung_xml_read_delays_no_round_and_counts_when_it_comes(version: int) -> None:
    """It is on a connection of its own; the VMs go on being listed, and what it says at last is used."""
    stage = healthy(Stage(version))
    stage.tell(HypervisorEvent(A, "vm-01", "lifecycle", (2, 0)), waiting=True)
    stage.begin()
    stage.answer("monitor", listed(FULL))
    assert stage.calls("xml") == 1
    assert not stage.sampling.complete(stage.now)
    assert stage.sampling.complete(stage.now + INTERVAL / 4), "it is given up for this round"
    assert stage.finish().inventories == {}
    stage.now += 2 * STALL + 0.1
    stage.tell(Tick(), waiting=True)
    assert stage.budget.hung_by_kind() == {Kind.XML: 1}
    stage.now = 2 * INTERVAL
    stage.begin()
    stage.answer("list", listed())
    stage.answer("health", HealthCheck({A: 12.0, B: 0.0}))
    stage.answer("monitor", {B: FULL})
    stage.read(A, "<domain><title>late</title></domain>")
    found = stage.finish()
    assert found.inventories[A].title == "late"
    assert len(found.readings) == 2
    stage.answer("xml")
    assert stage.budget.outstanding == 0


@pytest.mark.parametrize(
    ("purpose", "event"),
    [("xml", HypervisorEvent(A, "vm-01", "lifecycle", (2, 0))), ("job", HypervisorEvent(A, "vm-01", "migration_iteration", (1,)))],
    ids=["an XML", "a poll"],
)
def test_a_read_of_xml_and_a_poll_may_take_twice_as_long_as_a_monitor_call(purpose: str, event: HypervisorEvent) -> None:
    """QEMU is slow at the end of a migration: within two stall timeouts neither hangs, and after them it does."""
    stage = healthy(Stage(TRIXIE, follows=True))
    stage.answer("job", [])  # the search at the start
    stage.tell(event, waiting=True)
    stage.begin()
    stage.answer("monitor", listed(FULL))
    assert stage.calls(purpose) == 1
    stage.now += 2 * STALL
    stage.tell(Tick(), waiting=True)
    assert stage.budget.hung == 0
    stage.now += 0.01
    stage.tell(Tick(), waiting=True)
    assert stage.budget.hung_by_kind() == {Kind(purpose): 1}


def test_xml_of_a_vm_that_may_be_stuck_is_not_read() -> None:
    """However often its events make it due; it is read once it has recovered."""
    stage = healthy(Stage(TRIXIE))
    stage.begin()
    stage.stall()
    stage.answer("list", listed())
    stage.answer("health", HealthCheck({A: STALL, B: 0.0}))
    stage.out["monitor"] = stage.out["monitor"][-1:]
    stage.answer("monitor", {B: FULL})
    stage.finish()
    for _ in range(3):
        stage.now += INTERVAL
        stage.tell(HypervisorEvent(A, "vm-01", "lifecycle", (2, 0)), waiting=True)
        stage.run(HealthCheck({A: stage.now, B: 0.0}), {B: FULL})
        assert len(stage.finish().readings) == 2
        assert stage.calls("xml") == 0
    stage.now += INTERVAL
    stage.run(HealthCheck({A: 0.0, B: 0.0}), {A: FULL, B: FULL})
    assert stage.calls("xml") == 1


@pytest.mark.parametrize("version", [BOOKWORM, TRIXIE])
def test_xml_of_vms_without_a_qemu_is_read(version: int) -> None:
    """Libvirt's own test driver answers for its VMs, and what only a QEMU can say is missing for ever."""
    stage = Stage(version, uri="test:///default")
    stage.begin()
    stage.answer("list", listed())
    stage.answer("health", HealthCheck({A: 0.0, B: 0.0}))
    stage.answer("monitor", listed())
    assert stage.calls("xml") == 1


def test_unknown_versions_are_filled_in_by_no_call() -> None:
    """The calls that fill in once took the VM's lock."""
    stage = healthy(Stage(99_000_000))
    stage.begin()
    stage.stall()
    stage.answer("list", listed())
    stage.now = INTERVAL + 0.8 * INTERVAL
    stage.tell(Tick())
    assert stage.calls("fill") == 0
    assert stage.finish().up


def test_no_libvirt_is_a_round_as_well() -> None:
    stage = Stage(closed=("safe", "monitor", "xml", "job"))
    stage.begin()
    assert not stage.sampling.complete(stage.now)
    assert stage.sampling.deadline == pytest.approx(stage.now + Producer().deadline_ratio * INTERVAL)
    found = stage.finish()
    assert (found.up, found.late, found.readings) == (False, False, ())


def test_a_lost_connection_is_opened_again_and_counted() -> None:
    """All VMs' health is checked anew, and every XML is due."""
    stage = healthy(Stage())
    safe = next(number for number, name in stage.names.items() if name == "safe")
    stage.tell(Lost(safe), waiting=True)
    stage.now += INTERVAL
    stage.tell(Tick(), waiting=True)
    stage.begin()
    stage.answer("list", listed())
    assert sum(name == "safe" for name in stage.names.values()) == 2
    assert stage.finish().reconnects == 1


def test_a_connection_that_is_refused_is_tried_again_later() -> None:
    stage = Stage(closed=("safe",))
    safe = next(number for number, name in stage.names.items() if name == "safe")
    stage.tell(OpenFailed(safe, "refused"), waiting=True)
    assert sum(name == "safe" for name in stage.names.values()) == 1
    stage.now += INTERVAL
    stage.tell(Tick(), waiting=True)
    assert sum(name == "safe" for name in stage.names.values()) == 2


def test_versions_are_asked_for_once_a_connection_and_take_a_lease() -> None:
    stage = healthy(Stage())
    assert [type(action) for action in stage.actions].count(FindVersions) == 1
    stage.begin()
    versions = stage.finish().versions
    assert (versions.libvirt, versions.hypervisor) == ("9.0.0", "7.2.0")


def test_events_are_announced_and_jobs_polled_where_somebody_follows() -> None:
    stage = healthy(Stage(follows=True))
    stage.events.clear()
    event = HypervisorEvent(A, "vm-01", "migration_iteration", (1,), 1010.0)
    stage.tell(event, waiting=True)
    assert stage.events == [event]
    assert stage.calls("job") == 1


def test_vms_that_migrate_are_announced_after_a_connection() -> None:
    """What happened before nobody has heard."""
    stage = Stage(follows=True)
    stage.begin()
    stage.answer("list", listed({"state.state": 3, "state.reason": 11}, [A]))
    assert [(event.uuid, event.what, event.detail) for event in stage.events] == [(A, "state", (3, 11))]


def test_an_interruption_ends_the_waiting() -> None:
    stage = Stage()
    assert not stage.sampling.interrupted
    stage.tell(Interrupted(), waiting=True)
    assert stage.sampling.interrupted


def test_vhost_user_nics_leave_the_groups_that_never_wait() -> None:
    """Seen in the XML; from the next list on."""
    stage = healthy(Stage())
    assert stage.sampling._groups.interfaces_safe
    stage.tell(HypervisorEvent(A, "vm-01", "device_added", ("net1",)), waiting=True)
    stage.begin()
    stage.answer("monitor", listed(FULL))
    stage.read(A, "<domain><devices><interface type='vhostuser'/></devices></domain>")
    stage.answer("xml")
    stage.finish()
    assert not stage.sampling._groups.interfaces_safe
