"""The schedule against hosts that do anything: its bounds hold always, and who behaves is asked soon."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from virtflow.producer.agent.backoff import Restarts
from virtflow.producer.agent.ipc import AGENT, Answered, Ask, Command, Happened, Listed, Up
from virtflow.producer.agent.poll_cycle import Down, Limits, Ticked
from virtflow.producer.agent.scheduler import Schedule
from virtflow.producer.hung_calls.budget import CallBudget, Kind, Lease
from virtflow.producer.records.guest_devices import Look
from virtflow.schemas.guest import GuestReason
from virtflow.schemas.records import GuestSample

FIRST_SECONDS = 1.0
STEADY = 2

VMS: Final = 6
CYCLE: Final = 20.0
STEP: Final = 0.5
REASONS: Final = [
    None,
    *(reason for reason in GuestReason if reason not in {GuestReason.CAPPED, GuestReason.WAITING, GuestReason.NO_CHANNEL}),
]
UUIDS: Final = [f"vm-{number}" for number in range(VMS)]


@dataclass
class Host:
    """VMs that answer as they are told to, or not at all; every bound is checked at every call that is asked for."""

    limits: Limits
    limit: int = 3
    now: float = 0.0
    mute: set[str] = field(default_factory=set)
    reason: dict[str, GuestReason | None] = field(default_factory=dict)
    out: dict[int, Ask] = field(default_factory=dict)
    made: deque[float] = field(default_factory=deque)
    asked: dict[str, list[tuple[float, Command]]] = field(default_factory=dict)
    foreign: list[Lease] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Nothing is up yet."""
        self.budget = CallBudget(self.limit)
        self.schedule = Schedule(self.limits, lambda *_: True, random.Random(1), self.budget)  # noqa: S311, a test's

    def up(self) -> None:
        self.out.clear()
        self._take(self.schedule.observe(Up(list(Command)), self.now))

    def down(self, *, struck: bool) -> None:
        self.out.clear()
        self._take(self.schedule.observe(Down(struck), self.now))

    def lose(self, calls: int) -> None:
        """So many calls of the producer's own hang."""
        for lease in self.foreign:
            lease.release()
        self.foreign = [self.budget.adopt(Kind.MONITOR, f"other-{number}") for number in range(calls)]
        self._take(self.schedule.observe(Ticked(), self.now))

    def happen(self, uuid: str, what: str, event: int) -> None:
        self._take(self.schedule.observe(Happened(uuid, what, event), self.now))

    def run(self, seconds: float) -> None:
        """Time passes; who is not mute answers at once."""
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            self._take(self.schedule.observe(Ticked(), self.now))
            while answerable := [number for number, ask in self.out.items() if ask.uuid not in self.mute]:
                for number in answerable:
                    answer = self._answer(self.out.pop(number))
                    self._take(self.schedule.observe(answer, self.now))

    def _take(self, asks: list[Ask]) -> None:
        for ask in asks:
            assert ask.uuid not in {other.uuid for other in self.out.values()} or ask.command is Command.LIST, "two calls in one VM"
            self.out[ask.number] = ask
            self.made.append(self.now)
            self.asked.setdefault(ask.uuid, []).append((self.now, ask.command))
        calls = [ask for ask in self.out.values() if ask.command is not Command.LIST]
        if any(ask.command is not Command.LIST for ask in asks):
            assert len(calls) + len(self.foreign) <= max(1, self.limit - 1)
            assert self.budget.outstanding <= max(1, self.limit - 1)
        assert len(calls) <= self.limits.in_flight
        while self.made and self.made[0] <= self.now - 60.0:
            self.made.popleft()
        assert len(self.made) <= self.limits.per_minute

    def _answer(self, ask: Ask) -> Answered:
        reason = self.reason.get(ask.uuid) if ask.command in AGENT else None
        if reason is not None:
            return Answered(ask.number, self.now, 0.1, reason=reason)
        match ask.command:
            case Command.LIST:
                return Answered(ask.number, self.now, 0.1, vms=[Listed(uuid, uuid, running=True) for uuid in UUIDS])
            case Command.LOOK:
                return Answered(ask.number, self.now, 0.1, look=Look("connected", balloon=True))
            case _:
                return Answered(ask.number, self.now, 0.1, sample=GuestSample(hostname="h", cut=0, dropped=0))


LIMITS = st.builds(
    Limits,
    cycle=st.just(CYCLE),
    timeout=st.just(2.0),
    per_minute=st.integers(1, 200),
    in_flight=st.integers(1, 4),
    agent=st.booleans(),
    period=st.booleans(),
)
NUMBERS = st.integers(0, VMS - 1)
MISHAPS = st.one_of(
    st.tuples(st.just("mute"), NUMBERS),
    st.tuples(st.just("speak"), NUMBERS),
    st.tuples(st.just("reason"), st.integers(0, VMS * len(REASONS) - 1)),
    st.tuples(st.just("down"), st.integers(0, 1)),
    st.tuples(st.just("lost"), st.integers(0, 6)),
    st.tuples(st.just("agent"), NUMBERS),
    st.tuples(st.just("lifecycle"), NUMBERS),
    st.tuples(st.just("run"), st.integers(1, 60)),
)


def befall(host: Host, what: str, number: int) -> None:
    match what:
        case "mute":
            host.mute.add(UUIDS[number])
        case "speak":
            host.mute.discard(UUIDS[number])
        case "reason":
            host.reason[UUIDS[number % VMS]] = REASONS[number // VMS]
        case "down":
            host.down(struck=bool(number))
            host.run(1.0)
            host.up()
        case "lost":
            host.lose(number)
        case "agent" | "lifecycle":
            host.happen(UUIDS[number], what, 1 + number % 2)
        case "run":
            host.run(number)


@settings(deadline=None, max_examples=200)
@given(LIMITS, st.integers(1, 6), st.lists(MISHAPS, max_size=40))
def test_the_bounds_hold(limits: Limits, limit: int, mishaps: list[tuple[str, int]]) -> None:
    """One call a VM, a few a host, never above what the cap leaves, never above the minute's budget, whatever happens."""
    host = Host(limits, limit)
    host.up()
    for what, number in mishaps:
        befall(host, what, number)


@settings(deadline=None, max_examples=60)
@given(st.lists(MISHAPS, max_size=30), st.integers(1, 4))
def test_who_behaves_is_known_within_two_cycles(mishaps: list[tuple[str, int]], in_flight: int) -> None:
    """Whatever was before, unless libvirt was lost in its calls: then it is left alone."""
    host = Host(Limits(CYCLE, 2.0, 10_000, in_flight))
    host.up()
    for what, number in mishaps:
        if (what, number) != ("down", 1):
            befall(host, what, number)
    host.mute.clear()
    host.reason.clear()
    host.lose(0)
    host.run(60.0)  # what a dead process left behind is over
    for vm in host.schedule.vms.values():
        vm.blocked.clear()
    host.run(2 * CYCLE)
    told = host.schedule.held.samples(host.now)
    assert {uuid: (one.agent_up, one.hostname) for uuid, one in told.items()} == dict.fromkeys(UUIDS, (1, "h"))


@settings(deadline=None, max_examples=60)
@given(st.sets(NUMBERS, max_size=VMS - 1), st.integers(2, 4))
def test_who_does_not_answer_costs_nobody_else(silent: set[int], in_flight: int) -> None:
    """The others are asked every cycle, however many time out."""
    host = Host(Limits(CYCLE, 2.0, 10_000, in_flight), 6)
    for number in silent:
        host.reason[UUIDS[number]] = GuestReason.TIMEOUT
    host.up()
    host.run(10 * CYCLE)
    for number in set(range(VMS)) - silent:
        turns = [at for at, command in host.asked[UUIDS[number]] if command is Command.OS]
        assert max(after - before for before, after in pairwise(turns)) <= CYCLE + 2 * STEP
    for number in silent:
        turns = [at for at, command in host.asked[UUIDS[number]] if command is Command.OS]
        gaps = [after - before for before, after in pairwise(turns)]
        assert min(gaps[3:]) > CYCLE
        assert max(gaps) <= 2 * CYCLE + 2 * STEP


@given(st.integers(0, 2**32), st.floats(0.1, 3600.0), st.lists(st.floats(0.0, 10.0), max_size=40))
def test_pauses_between_processes_grow(seed: int, longest: float, lives: list[float]) -> None:
    """Up to the longest one; a life that was long enough lets them begin again."""
    restarts = Restarts(longest, random.Random(seed))  # noqa: S311, a test's
    expected = min(FIRST_SECONDS, longest)
    for lived in lives:
        if lived >= STEADY * longest:
            expected = min(FIRST_SECONDS, longest)
        pause = restarts.pause(lived)
        assert 0.75 * expected <= pause <= expected
        expected = min(2 * expected, longest)
