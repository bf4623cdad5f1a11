"""Schedule of guest-agent calls: which VM is asked what, and when. Pure: observations in, calls to make out; no clock, pipe, process or thread.

A VM's *turn* is a chain of single calls: look at its XML; if its agent is connected, the agent's commands one by one; if those told
no addresses, libvirt's own sources; at last the balloon's period where that is wanted. A turn has one call out at most.

    turns at a time     <= in_flight
    calls out           <= what the daemon's budget of calls that may hang leaves, less one for the producer's own calls
    calls in any minute <= per_minute

A VM that answered is due again a cycle later, one that did not after a pause that grows from half a cycle to two: long enough to
spare the host, short enough to see within two cycles that the guest behaves. Turns of VMs that fail never take the last place.
A command that the agent does not know or allow is not asked again before the VM or its agent starts again. When libvirt goes away during a call to
an agent, that VM is a suspect: it is left alone for two cycles, then for an hour, then for good.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from virtflow.producer.agent.cache import Held, Part
from virtflow.producer.agent.ipc import AGENT, Answered, Ask, Command, Happened, Listed, Up
from virtflow.producer.agent.poll_cycle import (
    AGE_CYCLES,
    AGENT_CONNECTED,
    CRASHED,
    LIST_SECONDS,
    MINUTE,
    NEVER,
    STARTED,
    STOPPED,
    STOPPING,
    STRIKE_SECONDS,
    STRIKES,
    Allow,
    Down,
    Limits,
    Observation,
    Ticked,
    Turn,
    Vm,
)
from virtflow.producer.hung_calls.budget import CallBudget, Kind, Lease
from virtflow.producer.records.guest_devices import CONNECTED, DISCONNECTED, Look
from virtflow.schemas.catalogue.types import ABSENT_LONG
from virtflow.schemas.guest import GuestReason

PAUSING: Final = frozenset({GuestReason.TIMEOUT, GuestReason.MALFORMED, GuestReason.BUSY, GuestReason.FAILED})
"""Failures after which a VM's next turn waits longer and longer."""
PASSING: Final = frozenset({GuestReason.TIMEOUT, GuestReason.BUSY})
"""Refusals of the moment: the VM's lock was taken."""


class Schedule:
    """The state of one host's agents; ``observe`` is all that changes it."""

    def __init__(self, limits: Limits, allow: Allow, rng: random.Random, budget: CallBudget) -> None:
        """Nothing is known; ``rng`` spreads the turns, each call into a VM needs a lease of ``budget``."""
        self.limits = limits
        self.budget = budget
        self._spare = min(1, budget.limit - 1)
        self.held = Held(AGE_CYCLES * limits.cycle)
        self.vms: dict[str, Vm] = {}
        self.calls: Counter[str] = Counter()
        self.cut = 0
        self.periods: list[str] = []
        """UUIDs of VMs whose period was set; whoever reports them takes them out."""
        self._allow = allow
        self._rng = rng
        self._commands: frozenset[Command] = frozenset()
        self._turns: dict[str, Turn] = {}
        self._made: deque[float] = deque()
        self._left: list[tuple[float, Lease]] = []
        """Calls that a process which is gone has left behind, and until when each counts."""
        self._number = 0
        self._list_number = 0
        self._list_due = NEVER
        self._list_made = -NEVER

    # -- what is known

    @property
    def out(self) -> int:
        """Calls into VMs that are under way, lost ones included."""
        return sum(turn.number != 0 for turn in self._turns.values())

    @property
    def lost(self) -> int:
        """Calls that did not come back in time, and those that a process which is gone has left behind."""
        return sum(turn.lost for turn in self._turns.values()) + len(self._left)

    def asked(self) -> list[Vm]:
        """The VMs whose agents may be asked."""
        return [vm for vm in self.vms.values() if self._may(vm)] if self.limits.agent else []

    def standing(self) -> dict[str, int]:
        """How many of the VMs that may be asked are up, or why they are not."""
        return dict(Counter(vm.reason or "up" for vm in self.asked()))

    @property
    def settled(self) -> bool:
        """Whether every VM that may be asked has had its turn, and none is under way."""
        return (
            bool(self._commands)
            and self._list_due != -NEVER
            and not self._list_number
            and not self._turns
            and not any(vm.running and vm.began == -NEVER and self._may(vm) for vm in self.vms.values())
        )

    # -- what follows

    def observe(self, observation: Observation, now: float) -> list[Ask]:
        """Learn what was seen at ``now`` (monotonic seconds); the calls to make."""
        match observation:
            case Up(commands):
                self._commands, self._list_due = frozenset(commands), now
            case Down(struck):
                self._down(now, struck=struck)
            case Answered():
                self._answered(observation, now)
            case Happened():
                self._happened(observation, now)
            case Ticked():
                self._ticked(now)
        return list(self._asks(now)) if self._commands else []

    def _asks(self, now: float) -> Iterator[Ask]:
        if now >= max(self._list_due, self._list_made + LIST_SECONDS) and not self._list_number and self._budget(now):
            self._list_number, self._list_due, self._list_made = self._next_number(now), now + self.limits.cycle, now
            yield Ask(self._list_number, Command.LIST)
        for turn in list(self._turns.values()):
            if not turn.number:
                yield from self._go_on(turn, now)
        while (vm := self._next(now)) is not None:
            vm.began = now
            turn = self._turns[vm.uuid] = Turn(vm, [Command.LOOK])
            yield from self._go_on(turn, now)

    def _go_on(self, turn: Turn, now: float) -> Iterator[Ask]:
        """The turn's next call; none while the minute's share is spent, or as many calls are under way as may hang."""
        if not turn.todo:
            self._end(turn, now)
        elif not self._room:
            turn.reason = turn.reason or GuestReason.CAPPED
            self._end(turn, now)
        elif self.budget.hangs_in(turn.vm.uuid, Kind.AGENT):
            turn.reason = turn.reason or GuestReason.BUSY
            self._end(turn, now)
        elif self._budget(now) and (lease := self.budget.acquire(Kind.AGENT, turn.vm.uuid, spare=self._spare)) is not None:
            turn.lease = lease
            turn.command, turn.number, turn.asked = turn.todo.pop(0), self._next_number(now), now
            yield Ask(turn.number, turn.command, turn.vm.uuid)

    @property
    def _room(self) -> bool:
        """Whether a call may be made, once those that return have returned: calls that hang leave room for it."""
        return self.budget.limit - self.budget.hung > self._spare

    def _budget(self, now: float) -> bool:
        while self._made and self._made[0] <= now - MINUTE:
            self._made.popleft()
        return len(self._made) < self.limits.per_minute

    def _next_number(self, now: float) -> int:
        self._made.append(now)
        self._number += 1
        return self._number

    def _next(self, now: float) -> Vm | None:
        """Whose turn it is: among those that are due whoever waits longest, those that fail only while a place is left to the others."""
        if len(self._turns) >= self.limits.in_flight or not self._room or not self._budget(now):
            return None
        due = [vm for vm in self.vms.values() if vm.due <= now and vm.running and vm.uuid not in self._turns and self._may_look(vm)]
        if not due:
            return None
        sound = [vm for vm in due if not vm.failures]
        if sound:
            return min(sound, key=lambda vm: vm.due)
        failing = sum(turn.vm.failures > 0 for turn in self._turns.values())
        return None if failing and failing >= self.limits.in_flight - 1 else min(due, key=lambda vm: vm.due)

    def _may(self, vm: Vm) -> bool:
        """Whether the VM may be asked, as far as is known."""
        return self._allow(vm.uuid, vm.name, None if vm.look is None else vm.look.metadata)

    def _may_look(self, vm: Vm) -> bool:
        """Whether the VM may be looked at: its metadata may say otherwise than it did."""
        return self._allow(vm.uuid, vm.name, None)

    # -- a turn

    def _answered(self, seen: Answered, now: float) -> None:
        if seen.number == self._list_number:
            self._list_number = 0
            self._listed(seen.vms or [], now)
            return
        turn = next((turn for turn in self._turns.values() if turn.number == seen.number), None)
        if turn is None:
            return
        self.calls[seen.reason or "answered"] += 1
        turn.number = 0
        if turn.lease is not None:
            turn.lease.release()
            turn.lease = None
        if turn.lost:  # what it says is of another turn than anybody waits for
            del self._turns[turn.vm.uuid]
            self._postpone(turn.vm, now)
        elif turn.vm.uuid not in self.vms:
            del self._turns[turn.vm.uuid]
        elif seen.reason:
            self._refused(turn, seen.reason)
        else:
            self._told(turn, seen, now)

    def _refused(self, turn: Turn, reason: GuestReason) -> None:
        command, vm = turn.command, turn.vm
        if command is Command.PERIOD:
            # A VM whose lock was taken for a moment is tried again a cycle later, as was noted before the call.
            vm.period_due = vm.period_due if reason in PASSING else NEVER
        elif command is Command.LOOK:
            turn.reason = reason
        elif command not in AGENT:
            self._sources(turn)
        elif reason is GuestReason.BLOCKED:
            vm.blocked.add(command)
            self._sources(turn)
        else:
            turn.reason = turn.reason or reason
            if reason in STOPPING:
                # An agent that does not answer may be in a VM that does not: its QEMU is asked for nothing either.
                turn.todo = [other for other in turn.todo if other not in AGENT and other not in (Command.MEMORY, Command.PERIOD)]
            self._sources(turn)

    def _told(self, turn: Turn, seen: Answered, now: float) -> None:
        command, vm = turn.command, turn.vm
        if seen.look is not None:
            vm.look = seen.look
            self._looked(turn, seen.look, now)
        elif command is Command.PERIOD:
            self.periods.append(vm.uuid)
        elif command is Command.MEMORY:
            vm.balloon_driver = seen.balloon_driver
        elif seen.sample is not None:
            turn.answered += command in AGENT
            turn.addresses = turn.addresses or bool(seen.sample.address_source)
            self.cut += max(0, seen.sample.cut)
            self.held.keep(vm.uuid, command, Part(seen.sample, seen.started, now))
            self._sources(turn)

    def _looked(self, turn: Turn, look: Look, now: float) -> None:
        vm = turn.vm
        if not self._may(vm):
            self.held.drop(vm.uuid)
            turn.todo = []
            return
        if self.limits.agent:
            if look.channel == CONNECTED:
                turn.todo = [command for command in AGENT if command in self._commands and command not in vm.blocked]
                turn.todo += [Command.MEMORY] if self.limits.memory and look.balloon else []
            else:
                turn.reason = GuestReason.DISCONNECTED if look.channel else GuestReason.NO_CHANNEL
            self._sources(turn)
        if self.limits.period and look.balloon and not look.period_seconds and vm.period_due <= now and not self._setting:
            vm.period_due = now + self.limits.cycle
            turn.todo.append(Command.PERIOD)

    @property
    def _setting(self) -> bool:
        """Whether a period is being set: that call waits for the VM's QEMU, so there is one at a time."""
        return any(Command.PERIOD in (*turn.todo, turn.command) for turn in self._turns.values())

    def _sources(self, turn: Turn) -> None:
        """Once the agent told no addresses, libvirt's own sources are asked, one after the other until one knows some."""
        if turn.addresses or Command.INTERFACES in turn.todo:
            return
        if turn.command is Command.LEASE:
            turn.todo.insert(0, Command.ARP)
        elif turn.command is not Command.ARP and Command.LEASE not in turn.todo:
            turn.todo.append(Command.LEASE)

    def _end(self, turn: Turn, now: float) -> None:
        vm = turn.vm
        if self._turns.pop(vm.uuid, None) is None or vm.uuid not in self.vms:
            return
        if not self._may(vm):
            vm.due = now + AGE_CYCLES * self.limits.cycle * self._rng.uniform(0.8, 1.0)
            return
        if not turn.reason and not turn.answered and self.limits.agent:
            turn.reason = GuestReason.BLOCKED
        up = turn.answered > 0 and turn.reason not in STOPPING
        self._note(vm, turn.reason, now, up=up)
        if turn.reason in PAUSING and not up:
            self._postpone(vm, now)
        else:
            vm.failures, vm.due = 0, vm.began + self.limits.cycle * self._rng.uniform(0.85, 1.0)

    def _note(self, vm: Vm, reason: str, now: float, *, up: bool = False) -> None:
        vm.reason = reason
        if self.limits.agent:
            known = up or reason not in {GuestReason.CAPPED, GuestReason.WAITING}
            self.held.note(vm.uuid, now, up=int(up) if known else ABSENT_LONG, reason=reason)

    def _postpone(self, vm: Vm, now: float) -> None:
        pause = min(2.0, 0.5 * 2 ** min(vm.failures, 10)) * self.limits.cycle
        vm.failures += 1
        vm.due = max(now + pause * self._rng.uniform(0.8, 0.95), vm.began + self.limits.cycle / 4)

    # -- what else happens

    def _listed(self, found: list[Listed], now: float) -> None:
        told = {vm.uuid: vm for vm in found}
        for uuid in self.vms.keys() - told.keys():
            del self.vms[uuid]
            self.held.drop(uuid)
        for uuid, listed in told.items():
            vm = self.vms.get(uuid)
            if vm is None:
                vm = self.vms[uuid] = Vm(
                    uuid, listed.name, listed.running, now + self._rng.uniform(0.0, self.limits.spread * self.limits.cycle)
                )
            elif listed.running and not vm.running:
                vm.due = min(vm.due, now + self._rng.uniform(0.0, self.limits.spread * self.limits.cycle)) if not vm.strikes else vm.due
            vm.name, vm.running = listed.name, listed.running
            self._overdue(vm, now)

    def _overdue(self, vm: Vm, now: float) -> None:
        """Says of a VM that is not asked why not."""
        if vm.uuid in self._turns or not self._may(vm):
            return
        if not vm.running:
            self.held.renew(vm.uuid)
            self._note(vm, GuestReason.NOT_RUNNING, now)
        elif vm.strikes and now < vm.due:
            self._note(vm, GuestReason.SUSPECT, now)
        elif vm.began == -NEVER or now - vm.due > self.limits.cycle:
            self._note(vm, GuestReason.CAPPED if not self._room else GuestReason.WAITING, now)

    def _happened(self, seen: Happened, now: float) -> None:
        vm = self.vms.get(seen.uuid)
        if seen.what == "lifecycle":
            self._list_due = min(self._list_due, now)
            if vm is not None and seen.event in {STARTED, STOPPED, CRASHED}:
                self.held.renew(vm.uuid)
                vm.blocked.clear()
                vm.period_due = -NEVER
        elif vm is None:
            self._list_due = min(self._list_due, now)
        elif seen.event == AGENT_CONNECTED:
            vm.blocked.clear()  # it may be a newer agent, or one that has been allowed more
            soon = max(now + self._rng.uniform(0.0, self.limits.cycle / 10), vm.began + self.limits.cycle / 2)
            vm.due = vm.due if vm.strikes else min(vm.due, soon)
        elif vm.look is not None and vm.look.channel == CONNECTED:
            vm.look = Look(DISCONNECTED, vm.look.balloon, vm.look.period_seconds, vm.look.metadata)
            self._note(vm, GuestReason.DISCONNECTED, now)

    def _ticked(self, now: float) -> None:
        for left in [left for left in self._left if left[0] <= now]:
            self._left.remove(left)
            left[1].release()
        for turn in self._turns.values():
            if turn.number and not turn.lost and now - turn.asked > self.limits.deadline(turn.command):
                turn.lost = True
                if turn.lease is not None:
                    turn.lease.abandon()
                self.calls["lost"] += 1
                if turn.vm.uuid in self.vms:
                    self._note(turn.vm, GuestReason.TIMEOUT, now)

    def _down(self, now: float, *, struck: bool) -> None:
        """Every call under way goes on in libvirtd without us."""
        self._commands, self._list_number = frozenset(), 0
        turns, self._turns = self._turns, {}
        for turn in turns.values():
            vm = turn.vm
            if not turn.number:
                vm.due = now + self._rng.uniform(0.0, self.limits.cycle / 2)
                continue
            if turn.lease is not None:
                turn.lease.abandon()
                self._left.append((now + self.limits.left(turn.command), turn.lease))
            if struck and turn.command in AGENT:
                vm.strikes += 1
                vm.due = now + (2 * self.limits.cycle, STRIKE_SECONDS, NEVER)[min(vm.strikes, STRIKES) - 1]
                if vm.uuid in self.vms:
                    self._note(vm, GuestReason.SUSPECT, now)
            else:
                self._postpone(vm, now)
