"""What the breaker remembers of each VM and of each call that is out, and what follows from one of them alone. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from virtflow.producer.hung_calls.breaker_types import MOST_AT_A_TIME, NEVER, Action, Choice, Health, Limits, Located
from virtflow.producer.hung_calls.budget import Lease
from virtflow.producer.types import STOPPED, HealthCheck


@dataclass(slots=True)
class VmMonitor:
    """What is known of a VM: its health, what the last health check said, and when it is probed next."""

    health: Health = Health.UNKNOWN
    occupied: bool = False
    process: str = ""
    since: float = 0.0
    """When it was skipped last (monotonic seconds); ``skipped_since`` is when it was skipped first since it answered."""
    skipped_since: float = 0.0
    probing: bool = False
    pause: float = 0.0
    due: float = NEVER

    @property
    def stopped(self) -> bool:
        """Whether the process table says that its QEMU does not answer."""
        return self.process in STOPPED

    @property
    def known_healthy(self) -> bool:
        """Whether it can be asked at small risk: it answered last time, or the process table says that it runs."""
        return self.health is Health.HEALTHY or (self.process != "" and not self.stopped)

    @property
    def suspect(self) -> bool:
        """Whether it may be stuck, as far as is known."""
        return self.health is Health.SKIPPED or self.probing or self.occupied or self.stopped

    @property
    def alone(self) -> bool:
        """Whether it is probed by a call of its own: it was skipped, and only libvirt says that it recovered."""
        return self.probing and not self.process

    def skip(self, limits: Limits, spread: float, now: float) -> None:
        """Nobody asks it until its next probe is due."""
        if self.health is not Health.SKIPPED and not self.probing:
            self.skipped_since = now
        self.health, self.probing, self.since = Health.SKIPPED, False, now
        self.postpone(limits, spread, now)

    def postpone(self, limits: Limits, spread: float, now: float) -> None:
        """The next probe is due after a pause twice as long as the last one, times ``spread``."""
        self.pause = min(limits.longest_pause, max(limits.first_pause, self.pause * 2))
        self.due = now + self.pause * spread

    def mark_healthy(self) -> bool:
        """It has answered. Whether it was skipped or probed before."""
        recovered = self.health is Health.SKIPPED or self.probing
        self.health, self.occupied, self.probing, self.pause, self.due = Health.HEALTHY, False, False, 0.0, NEVER
        return recovered


@dataclass(slots=True)
class CallOut:
    """A call under way: which VMs it still asks in which order, when it is checked next, and what checks have seen.

    ``began`` is when it began to ask the first ``most`` of them.
    """

    number: int
    uuids: tuple[str, ...]
    round: int
    lease: Lease
    began: float
    most: int = MOST_AT_A_TIME
    check_at: float = NEVER
    idle_checks: int = 0
    culprit: str = ""
    since: float = 0.0
    """Of a hung call: when it began to ask the VMs it hangs in one of."""
    entered: float = 0.0
    left: float = 0.0
    """Between these it got into the VM that it is in; while that one is known, ``left`` is when the call was last seen to be in it."""

    def hangs(self, seen: HealthCheck, limits: Limits, usual: float, now: float) -> bool:
        """Whether it hangs, after a health check of its VMs, which may name its ``culprit``; else when it is checked next.

        ``usual`` is how many seconds a VM usually takes.
        """
        # Occupied for longer than the call is out: somebody else's call is in there, and ours has passed the VM by.
        age = now - self.began
        inside = {u: seconds for u in self.uuids if 0 < (seconds := seen.occupied.get(u, 0.0)) <= age + limits.stall_timeout / 2}
        named = [u for u, seconds in inside.items() if seconds >= limits.stall_timeout_of(seen.processes.get(u, ""))]
        named = named or [u for u in self.uuids if seen.processes.get(u, "") in STOPPED]
        if named:
            self.culprit = named[0]
            return True
        left = (limits.stall_timeout_of(seen.processes.get(u, "")) - seconds for u, seconds in inside.items())
        self.check_at = now + max(limits.stall_timeout / 10, min(left, default=limits.stall_timeout))
        self.idle_checks = 0 if inside else self.idle_checks + 1
        return self.idle_checks > 1 and age >= max(4 * limits.stall_timeout, 3 * usual * min(self.most, len(self.uuids)))


def located(hung: Iterable[CallOut], uuid: str, earliest: float = NEVER, latest: float = -NEVER) -> list[Action]:
    """A hung call of which it is not known in which VM it is now must be the one in this VM, whose job lock is taken.

    Where it is known, the lock was taken between ``earliest`` and ``latest``, which has to be while that call was out.
    """
    for call in hung:
        if not call.lease.vm and uuid in call.uuids and earliest >= call.entered and latest <= call.left:
            call.culprit = uuid
            call.lease.abandon(uuid)
            return [Located(uuid, call.since)]
    return []


def followed(hung: Iterable[CallOut], uuid: str, vm: VmMonitor, now: float) -> None:
    """What a health check of this VM says of the calls that hang in it: they still do, or it has recovered."""
    if vm.probing:
        moved_on(hung, uuid)
    elif vm.occupied or vm.stopped:
        for call in hung:
            if call.lease.vm == uuid:
                call.left = now


def moved_on(hung: Iterable[CallOut], uuid: str) -> None:
    """This VM has recovered: a call that hung in it returns now, or hangs in a VM after it."""
    for call in hung:
        if call.lease.vm == uuid:
            call.lease.move_on()
            call.entered, call.left = call.left, NEVER


def chosen(choice: Choice, left: Sequence[tuple[str, VmMonitor]], batch: int, risked: int) -> tuple[str, ...]:
    """The VMs that the next call asks of those ``left`` in the round, none of which is skipped.

    ``batch`` is how many of unknown health are asked at once, 0 for all; ``risked`` on how many of them the last call that may hang is spent.
    """
    asked = [(uuid, vm) for uuid, vm in left if vm.health is not Health.SKIPPED and not vm.alone]
    if choice is Choice.BATCH:
        return tuple(uuid for uuid, _ in asked[:risked])
    known_healthy = tuple(uuid for uuid, vm in asked if vm.known_healthy)
    if choice is Choice.HEALTHY:
        return known_healthy
    others = tuple(uuid for uuid, vm in asked if not vm.known_healthy)
    return (known_healthy or others[:batch]) if batch else known_healthy + others
