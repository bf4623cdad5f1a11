"""A host with VMs that hang, as libvirt was measured to behave, without libvirt: for driving the captives through random interleavings.

A call asks its VMs one after another. One whose job lock another call holds is passed by; one that is frozen holds the call until it
thaws. A look tells who is occupied since when, and the processes' states where they can be seen.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from virtflow.producer.captive import (
    Abandon,
    Action,
    Answered,
    Ask,
    Limits,
    Look,
    Looked,
    Moved,
    Observation,
    Reconnected,
    RoundBegan,
    Started,
    Ticked,
)
from virtflow.producer.captives import Captives

INTERVAL = 1.0
PATIENCE = 0.2
STEP = 0.01
MONITOR_SECONDS = 0.6


@dataclass(eq=False)
class CallInVm:
    """A call under way in the daemon: whom it has yet to ask, what it has found, in which VM it is."""

    number: int
    run: int
    left: list[str]
    full: set[str] = field(default_factory=set)
    partial: set[str] = field(default_factory=set)
    inside: str = ""


class StuckHost:
    """VMs, a daemon and one producer at a time. ``honest``: controlInfo tells; ``visible``: the process table can be read."""

    def __init__(self, vms: int, cap: int, *, honest: bool = True, visible: bool = True, seed: int = 0) -> None:
        """All VMs answer and nothing has been asked."""
        self.uuids = tuple(f"vm-{number:03d}" for number in range(vms))
        self.cap, self.honest, self.visible = cap, honest, visible
        self.now = 0.0
        self.frozen: set[str] = set()
        self.holders: dict[str, tuple[CallInVm, float]] = {}
        self.calls: list[CallInVm] = []
        self.run = 0
        self.most_captured = 0
        self.answered_at: dict[str, float] = {}
        self._rng = random.Random(seed)  # noqa: S311, a test's
        self._inbox: list[tuple[float, Observation]] = []
        self.start()

    # -- the producer

    def start(self) -> None:
        """A new run of the producer: the one before was killed, and its calls stay in the daemon."""
        self.run += 1
        self._inbox.clear()
        self.captives = Captives(Limits(self.cap, PATIENCE, 2 * INTERVAL, 8 * INTERVAL), random.Random(1))  # noqa: S311, a test's

    def round(self) -> None:
        """One round of the producer, in small steps of time."""
        end = self.now + INTERVAL
        self.tell(RoundBegan(self.uuids, self.now + MONITOR_SECONDS))
        while self.now < end:
            self.step()

    def step(self) -> None:
        """A moment passes."""
        self.now += STEP
        for call in list(self.calls):
            self._advance(call)
        due = [item for item in self._inbox if item[0] <= self.now]
        self._inbox = [item for item in self._inbox if item[0] > self.now]
        for _, observation in due:
            self.tell(observation)
        if self.now >= self.captives.due:
            self.tell(Ticked())

    def tell(self, observation: Observation) -> None:
        """The producer observes, and does what it decides."""
        for action in self.captives.observe(observation, self.now):
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Ask():
                order = list(self.uuids if action.everyone else action.uuids)
                self.calls.append(CallInVm(action.call, self.run, order))
                self.tell(Started(action.call))
            case Look(uuids):
                self._inbox.append((self.now + self._rng.uniform(0, 0.05), self._look(uuids or self.uuids)))
            case Abandon():
                pass

    def _look(self, uuids: tuple[str, ...]) -> Looked:
        held = {uuid: max(self.now - self.holders[uuid][1], 0.001) if uuid in self.holders and self.honest else 0.0 for uuid in uuids}
        return Looked(held, {uuid: "T" if uuid in self.frozen else "S" for uuid in uuids} if self.visible else {})

    def reconnect(self) -> None:
        """The producer's connection is a new one; its looks are gone."""
        self._inbox = [item for item in self._inbox if not isinstance(item[1], Looked)]
        self.tell(Reconnected())

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
        if call.run == self.run:
            answer = Answered(call.number, frozenset(call.full), frozenset(call.partial))
            self._inbox.append((self.now + self._rng.uniform(0, 0.05), answer))

    def _count(self) -> None:
        self.most_captured = max(self.most_captured, len(self.holders))

    # -- what befalls it

    def freeze(self, uuid: str) -> None:
        """The VM's QEMU stops."""
        self.frozen.add(uuid)

    def thaw(self, uuid: str) -> None:
        """It goes on."""
        self.frozen.discard(uuid)

    def event(self, uuid: str) -> None:
        """An event announces something of the VM."""
        self.tell(Moved(uuid))
