"""A host with VMs that hang, as libvirt was measured to behave, without libvirt: for driving the breaker through random interleavings.

A call asks its VMs one after another. One whose job lock another call holds is skipped; in one that is frozen the call hangs until it
thaws. A health check reports which VMs are occupied since when, and the processes' states where they can be seen. A daemon that hangs
loses all connections, and opens none before it goes on; the calls stay in it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from virtflow.producer.hung_calls.breaker import Breaker
from virtflow.producer.hung_calls.breaker_types import (
    Abandon,
    Action,
    Answered,
    Ask,
    BatchAnswered,
    BudgetChanged,
    CheckHealth,
    ConnectionChanged,
    EventSeen,
    Failed,
    HungElsewhere,
    Limits,
    Observation,
    Reconnected,
    RoundBegan,
    Ticked,
)
from virtflow.producer.hung_calls.budget import CallBudget, Kind, Lease
from virtflow.producer.types import HealthCheck

INTERVAL = 1.0
STALL_TIMEOUT = 0.2
STEP = 0.01
MONITOR_SECONDS = 0.6
OPENING_SECONDS = 2.5
"""After which an opening counts as hanging."""
CONNECTIONS = ("safe", "own", "poll")


@dataclass(eq=False)
class CallInVm:
    """A call under way: whom it has yet to ask, ``most`` by each of libvirt's calls, what it has found, in which VM it is."""

    number: int
    run: int
    left: list[str]
    most: int = 1
    full: set[str] = field(default_factory=set)
    partial: set[str] = field(default_factory=set)
    inside: str = ""


class StuckHost:
    """VMs, a daemon and one producer at a time. ``honest``: controlInfo tells; ``visible``: the process table can be read.

    ``most`` VMs are asked at a time, whatever the breaker thinks.
    """

    def __init__(self, vms: int, limit: int, *, honest: bool = True, visible: bool = True, most: int = 128) -> None:
        """All VMs answer and nothing has been asked."""
        self.uuids = tuple(f"vm-{number:03d}" for number in range(vms))
        self.limit, self.honest, self.visible, self.most = limit, honest, visible, most
        self.now = 0.0
        self.frozen: set[str] = set()
        self.holders: dict[str, tuple[CallInVm, float]] = {}
        self.calls: list[CallInVm] = []
        self.run = 0
        self.most_occupied = 0
        self.most_outstanding = 0
        """The budget's own count, without an opening that may be made beyond the limit."""
        self.hung = False
        self.answered_at: dict[str, float] = {}
        self._rng = random.Random(0)  # noqa: S311, a test's
        self._inbox: list[tuple[float, Observation]] = []
        self.start()

    # -- the producer

    def start(self) -> None:
        """A new run of the producer: the one before was killed, and its calls stay in the daemon."""
        self.run += 1
        self._inbox.clear()
        self.connections = set() if self.hung else set(CONNECTIONS)
        self._openings: list[tuple[str, float, Lease]] = []
        self._beyond = False
        self._version = 0
        self._polled: dict[CallInVm, Lease] = {}
        self.budget = CallBudget(self.limit)
        limits = Limits(STALL_TIMEOUT, 2 * INTERVAL, 8 * INTERVAL)
        self.breaker = Breaker(limits, self.budget, random.Random(1))  # noqa: S311, a test's
        if "own" in self.connections:
            self.tell(ConnectionChanged(ready=True))

    def round(self) -> None:
        """One round of the producer, in small steps of time."""
        end = self.now + INTERVAL
        if "safe" in self.connections:
            self.tell(RoundBegan(self.uuids, self.now + MONITOR_SECONDS))
        while self.now < end:
            self.step()

    def step(self) -> None:
        """A moment passes."""
        self.now += STEP
        for call in [] if self.hung else list(self.calls):
            self._advance(call)
        self._connect()
        due = [item for item in self._inbox if item[0] <= self.now]
        self._inbox = [item for item in self._inbox if item[0] > self.now]
        for _, observation in due:
            self.tell(observation)
        if self.budget.version != self._version:
            self.tell(BudgetChanged())
        if self.now >= self.breaker.due:
            self.tell(Ticked())

    def tell(self, observation: Observation) -> None:
        """The producer observes, and does what it decides."""
        actions = self.breaker.observe(observation, self.now)
        self._version = self.budget.version
        for action in actions:
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Ask(number, uuids, everyone):
                assert "own" in self.connections
                self.calls.append(CallInVm(number, self.run, list(self.uuids if everyone else uuids), self.most))
            case CheckHealth(uuids):
                if "safe" in self.connections:
                    self._inbox.append((self.now + self._rng.uniform(0, 0.05), self._check(uuids or self.uuids)))
            case Abandon():
                self.connections.discard("own")
                self.tell(ConnectionChanged(ready=False))
            case _:
                pass

    def _check(self, uuids: tuple[str, ...]) -> HealthCheck:
        held = {uuid: max(self.now - self.holders[uuid][1], 0.001) if uuid in self.holders and self.honest else 0.0 for uuid in uuids}
        return HealthCheck(held, {uuid: "T" if uuid in self.frozen else "S" for uuid in uuids} if self.visible else {})

    def reconnect(self) -> None:
        """The producer's connection is a new one; its health checks are gone."""
        self._inbox = [item for item in self._inbox if not isinstance(item[1], HealthCheck)]
        self.tell(Reconnected())

    def _connect(self) -> None:
        """Connections that are missing are opened, as far as the budget allows; nothing comes of it while the daemon hangs."""
        if not self.hung and self._openings:
            opened = {name for name, _, _ in self._openings} - self.connections
            for _, _, opening in self._openings:
                opening.release()
            self._openings.clear()
            self.connections |= opened
            self._beyond = False
            if "safe" in opened:
                self.reconnect()
            if "own" in opened:
                self.tell(ConnectionChanged(ready=True))
        self._open()
        self.most_outstanding = max(self.most_outstanding, self.budget.outstanding - self._beyond)

    def _open(self) -> None:
        for _, began, opening in self._openings:
            if self.now - began >= OPENING_SECONDS and not opening.hung:
                opening.abandon()
        for name in CONNECTIONS:
            mine = [began for other, began, _ in self._openings if other == name]
            if name in self.connections or len(mine) == len(CONNECTIONS) or (mine and self.now - mine[-1] < OPENING_SECONDS):
                continue
            lease = self.budget.acquire(Kind.OPENING)
            if lease is None and name == "safe" and not mine:
                lease, self._beyond = self.budget.acquire_essential(Kind.OPENING), True
            if lease is not None:
                self._openings.append((name, self.now, lease))

    def poll(self, uuid: str) -> None:
        """The VM's job is polled, if that may be: in a frozen one the call hangs."""
        if "poll" not in self.connections or not self.breaker.may_ask(uuid, healthy=False):
            return
        lease = self.budget.acquire(Kind.JOB, uuid)
        if lease is None:
            return
        if uuid in self.frozen and uuid not in self.holders:
            call = CallInVm(0, 0, [], inside=uuid)
            self._polled[call] = lease
            self.calls.append(call)
            self.holders[uuid] = (call, self.now)
            self._count()
            lease.abandon()
            self.tell(HungElsewhere(uuid))
            self.connections.discard("poll")
        else:
            lease.release()

    # -- the daemon

    def _advance(self, call: CallInVm) -> None:
        if call.inside:
            if call.inside in self.frozen:
                self._count()
                return
            del self.holders[call.inside]
            call.full.add(call.inside)
            call.inside = ""
        while call.left:
            if len(call.full) + len(call.partial) == call.most:
                self._tell_batch(call)
            uuid = call.left.pop(0)
            if uuid in self.holders:
                call.partial.add(uuid)
            elif uuid in self.frozen:
                call.inside = uuid
                self.holders[uuid] = (call, self.now)
                self._count()
                return
            else:
                call.full.add(uuid)
                self.answered_at[uuid] = self.now
        self.calls.remove(call)
        if (lease := self._polled.pop(call, None)) is not None:
            lease.release()
        if call.run == self.run:
            self._answer(Answered(call.number, frozenset(call.full), frozenset(call.partial)))

    def _tell_batch(self, call: CallInVm) -> None:
        if call.run == self.run:
            self._answer(BatchAnswered(call.number, frozenset(call.full), frozenset(call.partial)))
        call.full.clear()
        call.partial.clear()

    def _answer(self, answer: Answered | BatchAnswered) -> None:
        """It arrives a moment later, and never before one that was sent earlier."""
        sent = [when for when, earlier in self._inbox if isinstance(earlier, Answered | BatchAnswered) and earlier.call == answer.call]
        self._inbox.append((max([self.now + self._rng.uniform(0, 0.05), *sent]), answer))

    def _count(self) -> None:
        self.most_occupied = max(self.most_occupied, len(self.holders))

    # -- what befalls it

    def freeze(self, uuid: str) -> None:
        """The VM's QEMU stops."""
        self.frozen.add(uuid)

    def thaw(self, uuid: str) -> None:
        """It goes on."""
        self.frozen.discard(uuid)

    def hang(self) -> None:
        """The daemon stops: all connections are lost, and with them our calls, which stay in it."""
        self.hung = True
        self.connections.clear()
        self._inbox.clear()
        self.tell(ConnectionChanged(ready=False))
        self.reconnect()
        for lease in self._polled.values():
            lease.leave_behind()
        self._polled.clear()
        for call in self.calls:
            if call.run == self.run:
                call.run = 0
                self.tell(Failed(call.number, lost=True))

    def resume(self) -> None:
        """The daemon goes on."""
        self.hung = False

    def event(self, uuid: str) -> None:
        """An event announces something of the VM."""
        self.tell(EventSeen(uuid))
