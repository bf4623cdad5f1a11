"""A host with VMs that hang, as libvirt was measured to behave, without libvirt: for driving the captives through random interleavings.

A call asks its VMs one after another. One whose job lock another call holds is passed by; one that is frozen holds the call until it
thaws. A look tells who is occupied since when, and the processes' states where they can be seen. A daemon that hangs loses all
connections, and opens none before it goes on; the calls stay in it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from virtflow.producer.hung_calls.breaker import Captives
from virtflow.producer.hung_calls.breaker_types import (
    Abandon,
    Action,
    Answered,
    Ask,
    Failed,
    Limits,
    Look,
    Looked,
    Moved,
    Observation,
    Openings,
    Reconnected,
    RoundBegan,
    Started,
    Ticked,
)

INTERVAL = 1.0
PATIENCE = 0.2
STEP = 0.01
MONITOR_SECONDS = 0.6
OPENING_SECONDS = 2.5
"""After which an opening counts as hanging."""
LINKS = ("safe", "own", "poll")


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
        self.most_lost = 0
        """The producer's own count, without an opening that it may make beyond the cap."""
        self.hung = False
        self.answered_at: dict[str, float] = {}
        self._rng = random.Random(seed)  # noqa: S311, a test's
        self._inbox: list[tuple[float, Observation]] = []
        self.start()

    # -- the producer

    def start(self) -> None:
        """A new run of the producer: the one before was killed, and its calls stay in the daemon."""
        self.run += 1
        self._inbox.clear()
        self.lanes = set() if self.hung else set(LINKS)
        self._openings: list[tuple[str, float]] = []
        self._beyond = False
        self._wanted: Ask | None = None
        self.captives = Captives(Limits(self.cap, PATIENCE, 2 * INTERVAL, 8 * INTERVAL), random.Random(1))  # noqa: S311, a test's

    def round(self) -> None:
        """One round of the producer, in small steps of time."""
        end = self.now + INTERVAL
        if "safe" in self.lanes:
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
        if self.now >= self.captives.due:
            self.tell(Ticked())

    def tell(self, observation: Observation) -> None:
        """The producer observes, and does what it decides."""
        for action in self.captives.observe(observation, self.now):
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Ask():
                self._wanted = action
                self._submit()
            case Look(uuids):
                if "safe" in self.lanes:
                    self._inbox.append((self.now + self._rng.uniform(0, 0.05), self._look(uuids or self.uuids)))
            case Abandon():
                self.lanes.discard("own")

    def _submit(self) -> None:
        """What is to be asked is asked once there is a connection for it."""
        ask = self._wanted
        if ask is not None and "own" in self.lanes:
            self._wanted = None
            self.calls.append(CallInVm(ask.call, self.run, list(self.uuids if ask.everyone else ask.uuids)))
            self.tell(Started(ask.call))

    def _look(self, uuids: tuple[str, ...]) -> Looked:
        held = {uuid: max(self.now - self.holders[uuid][1], 0.001) if uuid in self.holders and self.honest else 0.0 for uuid in uuids}
        return Looked(held, {uuid: "T" if uuid in self.frozen else "S" for uuid in uuids} if self.visible else {})

    def reconnect(self) -> None:
        """The producer's connection is a new one; its looks are gone."""
        self._inbox = [item for item in self._inbox if not isinstance(item[1], Looked)]
        self._wanted = self._wanted if "own" in self.lanes else None
        self.tell(Reconnected())

    def _connect(self) -> None:
        """Connections that are missing are opened, as far as the cap allows; nothing comes of it while the daemon hangs."""
        if not self.hung and self._openings:
            opened = {link for link, _ in self._openings} - self.lanes
            self._openings.clear()
            self.lanes |= opened
            self._beyond = False
            self._tell_openings()
            if "safe" in opened:
                self.reconnect()
            self._submit()
        for link in LINKS:
            mine = [began for name, began in self._openings if name == link]
            if link in self.lanes or len(mine) == len(LINKS) or (mine and self.now - mine[-1] < OPENING_SECONDS):
                continue
            allowed = self._tell_openings()
            if allowed or (link == "safe" and not mine):
                self._beyond = self._beyond or not allowed
                self._openings.append((link, self.now))
        self._tell_openings()
        self.most_lost = max(self.most_lost, self.captives.slots.lost - self._beyond)

    def _tell_openings(self) -> bool:
        out = [link for link, began in self._openings if self.now - began < OPENING_SECONDS]
        own = out.count("own")
        found = Openings(own, len(out) - own, len(self._openings) - len(out))
        if found != self.captives.slots.openings:
            self.tell(found)
        return self.captives.may_open()

    def poll(self, uuid: str) -> None:
        """The VM's job is polled, if that may be: a frozen one keeps the call."""
        if "poll" not in self.lanes or not self.captives.may_poll(uuid, vouched=False):
            return
        if uuid in self.frozen and uuid not in self.holders:
            call = CallInVm(0, 0, [], inside=uuid)
            self.calls.append(call)
            self.holders[uuid] = (call, self.now)
            self._count()
            self.captives.poll_lost(uuid, self.now)
            self.lanes.discard("poll")
        else:
            self.captives.poll_returned(uuid)

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

    def hang(self) -> None:
        """The daemon stops: all connections are lost, and with them our calls, which stay in it."""
        self.hung = True
        self.lanes.clear()
        self._inbox.clear()
        self.reconnect()
        for call in self.calls:
            if call.run == self.run:
                call.run = 0
                self.tell(Failed(call.number, lost=True))

    def resume(self) -> None:
        """The daemon goes on."""
        self.hung = False

    def event(self, uuid: str) -> None:
        """An event announces something of the VM."""
        self.tell(Moved(uuid))
