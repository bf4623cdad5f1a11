"""Whom the schedule asks what, step by step."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from virtflow.producer.agent.ipc import AGENT, Answered, Ask, Command, Happened, Listed, Up
from virtflow.producer.agent.poll_cycle import AGENT_CONNECTED, STARTED, Down, Limits, Ticked
from virtflow.producer.agent.scheduler import Schedule
from virtflow.producer.agent.selection import allowed, asks, wanted
from virtflow.producer.hung_calls.budget import CallBudget, Kind
from virtflow.producer.records.guest_devices import Look
from virtflow.runtime.settings import Guest
from virtflow.schemas.guest import GuestReason
from virtflow.schemas.records import GuestAddress, GuestInterface, GuestSample

A, B = "vm-a", "vm-b"
LIMITS = Limits(cycle=60.0, timeout=2.0, per_minute=1000, in_flight=2)
CAP = 3
UP = Up(list(Command))
CONNECTED = Look("connected", balloon=True, period_seconds=10)
ADDRESS = GuestSample(
    cut=0,
    dropped=0,
    interfaces=[GuestInterface(name="eth0", addresses=[GuestAddress(address="192.0.2.1", family="ipv4")])],
    address_source="agent",
)
NAMED = GuestSample(cut=0, dropped=0, hostname="h")


class Stage:
    """A schedule that the test answers to."""

    def __init__(self, limits: Limits = LIMITS, uuids: Iterable[str] = (A,)) -> None:
        """Libvirt is there and has listed the VMs; each may have its first turn."""
        self.budget = CallBudget(CAP)
        self.schedule = Schedule(limits, lambda *_: True, random.Random(1), self.budget)  # noqa: S311, a test's
        self.now = 0.0
        (listed,) = self.schedule.observe(UP, self.now)
        self.asked = self.answer(listed, vms=[Listed(uuid, uuid, running=True) for uuid in uuids])

    def answer(self, ask: Ask, reason: GuestReason | None = None, **found: object) -> list[Ask]:
        """What follows from an answer."""
        return self.schedule.observe(Answered(ask.number, 1000.0 + self.now, 0.1, reason=reason, **found), self.now)  # type: ignore[arg-type]

    def after(self, seconds: float) -> list[Ask]:
        """What follows from the time that passed, but for the list, which is answered."""
        self.now += seconds
        asked = self.schedule.observe(Ticked(), self.now)
        for ask in [ask for ask in asked if ask.command is Command.LIST]:
            listed = [Listed(vm.uuid, vm.name, vm.running) for vm in self.schedule.vms.values()]
            asked += self.answer(ask, vms=listed)
        return [ask for ask in asked if ask.command is not Command.LIST]

    def turn(self, seconds: float, look: Look = CONNECTED, refused: dict[Command, GuestReason] | None = None) -> list[Command]:
        """One VM's whole turn after so many seconds: what was asked, in order."""
        done: list[Command] = []
        asked = self.after(seconds)
        while asked:
            (ask,) = asked
            done.append(ask.command)
            if ask.command is Command.LOOK:
                asked = self.answer(ask, look=look)
            elif reason := (refused or {}).get(ask.command):
                asked = self.answer(ask, reason)
            else:
                asked = self.answer(ask, sample=ADDRESS if ask.command is Command.INTERFACES else NAMED)
        return done

    def told(self, uuid: str = A) -> GuestSample | None:
        """What is known of a VM now."""
        return self.schedule.held.samples(self.now).get(uuid)


def test_a_turn_asks_every_command_once() -> None:
    """The XML first; libvirt's own sources only for addresses that the agent did not tell."""
    stage = Stage()
    assert stage.turn(15.0) == [Command.LOOK, *AGENT]
    told = stage.told()
    assert told is not None
    assert (told.agent_up, told.reason, told.hostname, told.address_source, told.taken) == (1, "", "h", "agent", 1015.0)
    assert stage.turn(50.0) == []
    assert stage.turn(15.0) == [Command.LOOK, *AGENT]


@pytest.mark.parametrize(
    ("look", "reason"), [(Look("disconnected"), GuestReason.DISCONNECTED), (Look(), GuestReason.NO_CHANNEL)], ids=["disconnected", "none"]
)
def test_nobody_is_asked_who_does_not_listen(look: Look, reason: GuestReason) -> None:
    """Only libvirt's own sources are; the agent's commands are never sent."""
    stage = Stage()
    assert stage.turn(15.0, look) == [Command.LOOK, Command.LEASE, Command.ARP]
    told = stage.told()
    assert told is not None
    assert (told.agent_up, told.reason) == (0, reason)


@pytest.mark.parametrize("anew", [Happened(A, "lifecycle", STARTED), Happened(A, "agent", AGENT_CONNECTED)], ids=["the VM", "its agent"])
def test_a_blocked_command_is_not_asked_again_before_anything_starts_anew(anew: Happened) -> None:
    """Its data are missing, the others' are there."""
    stage = Stage()
    blocked = {Command.HOSTNAME: GuestReason.BLOCKED, Command.INTERFACES: GuestReason.BLOCKED}
    assert stage.turn(15.0, refused=blocked) == [Command.LOOK, *AGENT, Command.LEASE, Command.ARP]
    rest = [command for command in AGENT if command not in blocked]
    assert stage.turn(60.0) == [Command.LOOK, *rest, Command.LEASE, Command.ARP]
    told = stage.told()
    assert told is not None
    assert told.agent_up == 1
    stage.schedule.observe(anew, stage.now)
    assert stage.turn(60.0) == [Command.LOOK, *AGENT]


def test_all_blocked_is_a_reason() -> None:
    """An agent of another kind than QEMU's."""
    stage = Stage()
    stage.turn(15.0, refused=dict.fromkeys(AGENT, GuestReason.BLOCKED))
    told = stage.told()
    assert told is not None
    assert (told.agent_up, told.reason) == (0, GuestReason.BLOCKED)


def test_a_timeout_ends_the_turn_and_pauses_grow() -> None:
    """What was told before is kept until it is too old; half a cycle, one, two, and never more."""
    stage = Stage()
    stage.turn(15.0)
    assert stage.turn(60.0, refused={Command.OS: GuestReason.TIMEOUT}) == [Command.LOOK, Command.OS, Command.LEASE, Command.ARP]
    told = stage.told()
    assert told is not None
    assert (told.agent_up, told.reason, told.hostname) == (0, GuestReason.TIMEOUT, "h")
    gaps = []
    for _ in range(4):
        begin = stage.now
        while not stage.turn(1.0, refused={Command.OS: GuestReason.TIMEOUT}):
            pass
        gaps.append(stage.now - begin)
    assert [round(gap / 60.0, 1) for gap in gaps] == pytest.approx([0.5, 1.0, 2.0, 2.0], rel=0.25)
    assert max(gaps) <= 2 * LIMITS.cycle
    told = stage.told()
    assert told is not None
    assert (told.hostname, told.agent_up) == ("", 0)


def test_nothing_is_repeated_when_nothing_is_asked() -> None:
    """The helper process is gone for long: nothing is known any more, not even that the agent was up."""
    stage = Stage()
    stage.turn(15.0)
    stage.schedule.observe(Down(struck=False), stage.now)
    assert stage.after(LIMITS.cycle) == []
    assert stage.told() is not None
    assert stage.after(3 * LIMITS.cycle) == []
    assert stage.told() is None


def test_who_was_asked_when_libvirt_went_away_is_left_alone() -> None:
    """For two cycles, for an hour, for good; others go on."""
    stage = Stage(uuids=(A, B))
    pauses = []
    for _ in range(3):
        asked: list[Ask] = []
        while not any(ask.uuid == A for ask in asked):
            for ask in asked:
                stage.answer(ask, GuestReason.NOT_RUNNING)
            asked = stage.after(1.0)
        (ask,) = stage.answer(next(ask for ask in asked if ask.uuid == A), look=CONNECTED)
        assert ask.command in AGENT
        stage.schedule.observe(Down(struck=True), stage.now)
        pauses.append(stage.schedule.vms[A].due - stage.now)
        stage.after(LIMITS.left(ask.command))
        listing = next(ask for ask in stage.schedule.observe(UP, stage.now) if ask.command is Command.LIST)
        stage.answer(listing, vms=[Listed(uuid, uuid, running=True) for uuid in (A, B)])
        told = stage.told()
        assert told is not None
        assert told.reason == GuestReason.SUSPECT
    assert pauses == [2 * LIMITS.cycle, 3600.0, float("inf")]


def test_a_call_that_does_not_come_back_is_lost_and_counts_against_the_cap() -> None:
    """Its VM is not asked again before it is back; what it says then is nobody's."""
    stage = Stage(replace(LIMITS, in_flight=4))
    (look,) = stage.after(15.0)
    (ask,) = stage.answer(look, look=CONNECTED)
    assert stage.after(LIMITS.deadline(ask.command) + 1.0) == []
    assert (stage.schedule.lost, stage.schedule.calls["lost"]) == (1, 1)
    assert stage.after(10 * LIMITS.cycle) == []
    stage.answer(ask, sample=NAMED)
    assert stage.schedule.lost == 0
    assert stage.told() is None
    assert stage.turn(30.0)[0] is Command.LOOK


def test_nothing_is_asked_while_calls_hang_up_to_the_limit() -> None:
    """Calls of the producer's own, or of a process that died; one is left to the producer."""
    stage = Stage()
    hung = [stage.budget.adopt(Kind.MONITOR, vm) for vm in ("other", "another")]
    assert stage.after(15.0) == []
    for lease in hung:
        lease.release()
    assert len(stage.schedule.observe(Ticked(), stage.now)) == 1
    stage.schedule.observe(Down(struck=False), stage.now)
    assert (stage.schedule.lost, stage.budget.hung) == (1, 1)
    stage.after(LIMITS.left(Command.LOOK))
    assert (stage.schedule.lost, stage.budget.outstanding) == (0, 0)


def test_a_turn_waits_while_other_calls_are_under_way() -> None:
    """They are expected to return: nothing is given up for them."""
    stage = Stage()
    leases = [stage.budget.acquire(Kind.MONITOR) for _ in range(2)]
    assert stage.after(15.0) == []
    for lease in leases:
        assert lease is not None
        lease.release()
    assert [ask.command for ask in stage.after(0.5)] == [Command.LOOK]
    assert stage.budget.outstanding == 1


def test_a_vm_in_which_a_call_hangs_is_not_asked() -> None:
    """Its turn ends, and it is told as busy."""
    stage = Stage()
    stage.budget.adopt(Kind.XML, A)
    assert stage.after(15.0) == []
    told = stage.told()
    assert told is not None
    assert told.reason == GuestReason.BUSY


def test_an_agent_that_appears_is_asked_soon_and_not_too_often() -> None:
    """One that restarts in a loop is asked every half cycle at most."""
    stage = Stage()
    stage.turn(15.0, Look("disconnected"))
    stage.schedule.observe(Happened(A, "agent", 1), stage.now)
    turns = 0
    for _ in range(60):
        stage.schedule.observe(Happened(A, "agent", 1), stage.now)
        turns += bool(stage.turn(1.0))
    assert 1 <= turns <= 2
    stage.schedule.observe(Happened(A, "agent", 2), stage.now)
    told = stage.told()
    assert told is not None
    assert (told.agent_up, told.reason) == (0, GuestReason.DISCONNECTED)


def test_no_period_is_set_where_the_agent_did_not_answer() -> None:
    """That call waits for the VM's QEMU, which may be what the agent's call waited for."""
    stage = Stage(replace(LIMITS, period=True))
    first = next(command for command in AGENT)
    asked = stage.turn(15.0, Look("connected", balloon=True), refused={first: GuestReason.TIMEOUT})
    assert asked[:2] == [Command.LOOK, first]
    assert Command.PERIOD not in asked
    assert Command.PERIOD in stage.turn(300.0, Look("connected", balloon=True))


def test_agents_of_avoided_vms_are_not_asked() -> None:
    """The sampler skips or suspects the VM: not even its XML is looked at."""
    stage = Stage()
    stage.budget.avoid(frozenset({A}))
    assert stage.turn(15.0) == []
    assert (told := stage.told()) is None or told.agent_up != 1
    stage.budget.avoid(frozenset())
    assert stage.turn(300.0) == [Command.LOOK, *AGENT]


def test_a_period_is_set_once_where_there_is_none() -> None:
    """Not where there is no balloon, and not again after a refusal, but for one of the moment: the VM's lock was taken."""
    stage = Stage(replace(LIMITS, agent=False, period=True))
    assert stage.turn(15.0, CONNECTED) == [Command.LOOK]
    assert stage.turn(60.0, Look(balloon=False)) == [Command.LOOK]
    for reason in (GuestReason.BUSY, GuestReason.TIMEOUT, GuestReason.FAILED):
        assert stage.turn(60.0, Look(balloon=True), refused={Command.PERIOD: reason}) == [Command.LOOK, Command.PERIOD]
    assert stage.turn(60.0, Look(balloon=True)) == [Command.LOOK]
    assert stage.schedule.periods == []
    other = Stage(replace(LIMITS, agent=False, period=True))
    other.turn(15.0, Look(balloon=True))
    assert other.schedule.periods == [A]
    assert other.told() is None


def test_vms_that_are_gone_or_stopped_are_forgotten() -> None:
    """A stopped one says so; a deleted one says nothing."""
    stage = Stage(uuids=(A, B))
    for ask in stage.after(15.0):
        stage.answer(ask, GuestReason.NOT_RUNNING)
    stage.now += 61.0
    (listing,) = [ask for ask in stage.schedule.observe(Ticked(), stage.now) if ask.command is Command.LIST]
    stage.answer(listing, vms=[Listed(A, A, running=False)])
    told = stage.told()
    assert told is not None
    assert (told.agent_up, told.reason) == (0, GuestReason.NOT_RUNNING)
    assert stage.told(B) is None


@pytest.mark.parametrize(
    ("guest", "name", "metadata", "expected"),
    [
        (Guest(enabled=True), "any", [], True),
        (Guest(names=["web-*"]), "web-1", [], True),
        (Guest(enabled=True, names=["web-*"]), "db-1", [], False),
        (Guest(uuids=[A]), "any", None, True),
        (Guest(uuids=[B]), "any", None, False),
        (Guest(metadata=["urn:x"]), "any", None, True),
        (Guest(metadata=["urn:x"]), "any", ["urn:y"], False),
        (Guest(metadata=["urn:x"]), "any", ["urn:y", "urn:x"], True),
    ],
)
def test_who_may_be_asked(guest: Guest, name: str, metadata: list[str] | None, expected: bool) -> None:  # noqa: FBT001, drawn
    """By pattern, UUID or metadata; all where none is named."""
    assert allowed(guest, A, name, metadata) is expected
    assert asks(guest)


def test_by_default_nothing_is_wanted() -> None:
    """So that nothing is started."""
    assert not wanted(Guest())
    assert wanted(Guest(balloon_period_seconds=10))
    assert not asks(Guest(balloon_period_seconds=10))
