"""The state of one host's monitors, and what each observation changes: observations in, actions out.

See ``captive`` for the theory and the tables. No libvirt, clock or thread in here either.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import assert_never

from virtflow.producer.hung_calls.breaker_types import (
    ASKS_PER_ROUND,
    GUARDED_PORTIONS,
    NEVER,
    NOT_PROBED,
    PLANS,
    PORTIONS,
    RESPONSIVE,
    STOPPED,
    STUCK,
    TABLE,
    UNDECIDED,
    Abandon,
    Action,
    Answered,
    Ask,
    CallOut,
    Choice,
    Failed,
    Host,
    Limits,
    Look,
    Looked,
    Moved,
    Observation,
    Openings,
    Reaction,
    Reconnected,
    RoundBegan,
    Standing,
    Started,
    Ticked,
    Verdict,
    VmMonitor,
)
from virtflow.producer.hung_calls.budget import Slots


class Captives:
    """The state of one host; ``observe`` is all that changes it."""

    def __init__(self, limits: Limits, rng: random.Random) -> None:
        """Nothing is known; ``rng`` spreads the probes."""
        self.limits = limits
        self.slots = Slots(limits.cap)
        self.calls: Counter[str] = Counter()
        self.probes: Counter[str] = Counter()
        self._rng = rng
        self._vms: dict[str, VmMonitor] = {}
        self._trouble = False
        self._asking: CallOut | None = None
        self._looking = False
        self._started = False
        self._number = self._round = self._asks = 0
        self._until = -NEVER
        self._done: set[str] = set()
        self._again: set[str] = set()
        self._portion = 0
        self._usual = 0.0

    # -- what is known

    @property
    def host(self) -> Host:
        """What the host allows now."""
        if not self._started:
            return Host.STARTING
        free = self.limits.cap - self.slots.lost
        if free <= 0:
            return Host.SILENT
        if self.slots.lost and free == 1:
            return Host.GUARDED
        return Host.SEARCHING if self.slots.lost or self._portion or self._trouble else Host.CALM

    @property
    def settled(self) -> bool:
        """Whether nothing more is to be expected in this round."""
        return self._asking is None and not self._looking

    @property
    def due(self) -> float:
        """When time alone makes a difference: a call has been out for too long."""
        call = self._asking
        if call is None or self._looking:
            return NEVER
        return call.began + self.limits.patience if call.look_at == NEVER else call.look_at

    def verdicts(self) -> dict[str, Verdict]:
        """What is shown of each VM now."""
        host, trusted = self.host, Standing.TRUSTED
        if host is Host.CALM:
            return {uuid: RESPONSIVE if vm.standing is trusted else UNDECIDED for uuid, vm in self._vms.items()}
        return {uuid: self._verdict(vm, host) for uuid, vm in self._vms.items()}

    def _verdict(self, vm: VmMonitor, host: Host) -> Verdict:
        if vm.standing is Standing.SKIPPED:
            return STUCK
        if host is Host.SILENT or (host is Host.GUARDED and self.slots.captured and not vm.vouched):
            return NOT_PROBED
        return RESPONSIVE if vm.standing is Standing.TRUSTED else UNDECIDED

    # -- polls of a VM's job, which are calls of another kind into the same monitors

    def may_poll(self, uuid: str, *, vouched: bool) -> bool:
        """Whether one more call may go into this VM now, ``vouched`` only if it is known to answer. The slot is kept until it is over."""
        vm = self._vms.get(uuid)
        if vm is None or not self._started or not self.slots.may_poll(self._asking):
            return False
        if vm.standing is Standing.TRUSTED or (vm.standing is Standing.UNKNOWN and not vouched):
            self.slots.polled = uuid
        return self.slots.polled == uuid

    def poll_returned(self, uuid: str) -> None:
        """The poll has come back."""
        if self.slots.polled == uuid:
            self.slots.polled = ""

    def poll_lost(self, uuid: str, now: float) -> None:
        """The poll does not come back: it counts like a call of an earlier run, until a look finds the VM free."""
        self.poll_returned(uuid)
        self.slots.foreign.add(uuid)
        if vm := self._vms.get(uuid):
            vm.held = True
            self._skip(vm, now)

    def may_open(self) -> bool:
        """Whether one more connection to libvirt may be opened: that can hang as well."""
        return self.slots.may_open(self._asking)

    # -- what follows

    def observe(self, observation: Observation, now: float) -> list[Action]:
        """Learn what was seen at ``now`` (monotonic seconds); what is to be done about it."""
        actions = self._learn(observation, now)
        self._trouble = self._trouble and any(vm.standing is Standing.SKIPPED or vm.probing for vm in self._vms.values())
        match TABLE[self.host].get(type(observation), Reaction.NOTHING):
            case Reaction.LOOK:
                actions += self._look()
            case Reaction.CHECK:
                actions += self._look() if now >= self.due else []
            case Reaction.PLAN:
                actions += self._plan(now)
            case Reaction.NOTHING:
                pass
        return actions

    def _look(self, uuids: tuple[str, ...] = ()) -> list[Action]:
        if self._looking:
            return []
        self._looking = True
        return [Look(uuids)]

    def _plan(self, now: float) -> list[Action]:
        if self._asking is not None or self._looking or self.slots.free < 1 or now >= self._until or self._asks >= ASKS_PER_ROUND:
            return []
        host = self.host
        for choice in PLANS[host]:
            if chosen := self._chosen(choice, now):
                self._number += 1
                self._asks += 1
                everyone = choice is Choice.EVERYONE
                self._asking = CallOut(self._number, chosen, self._round)
                return [Ask(self._number, chosen, everyone)]
        return []

    def _chosen(self, choice: Choice, now: float) -> tuple[str, ...]:
        if choice is Choice.EVERYONE:
            return () if self._done else tuple(self._vms)
        left = [(uuid, vm) for uuid, vm in self._vms.items() if uuid not in self._done]
        asked = [(uuid, vm) for uuid, vm in left if vm.standing is not Standing.SKIPPED and not self._alone(vm)]
        match choice:
            case Choice.UNSKIPPED:
                vouched = tuple(uuid for uuid, vm in asked if vm.vouched)
                others = tuple(uuid for uuid, vm in asked if not vm.vouched)
                return (vouched or others[: self._portion]) if self._portion else vouched + others
            case Choice.TRUSTED:
                return tuple(uuid for uuid, vm in asked if vm.vouched)
            case Choice.PORTION:
                return tuple(uuid for uuid, _ in asked[: self._risked()])
            case Choice.PROBE:
                return self._probe(left, now)
            case _:
                assert_never(choice)

    def _risked(self) -> int:
        """On how many VMs of which nothing is known the last call that may be lost is spent."""
        if not self.slots.captured:
            return -(-len(self._vms) // GUARDED_PORTIONS)
        return 0 if any(vm.vouched for vm in self._vms.values()) else 1

    def _alone(self, vm: VmMonitor) -> bool:
        """Whether it is tried by a call of its own: it was skipped, and only libvirt says that it moved."""
        return vm.probing and not vm.process

    def _probe(self, left: Iterable[tuple[str, VmMonitor]], now: float) -> tuple[str, ...]:
        waiting = [(vm.due, uuid) for uuid, vm in left if (vm.standing is Standing.SKIPPED or self._alone(vm)) and vm.due <= now]
        for _, uuid in sorted(waiting):
            vm = self._vms[uuid]
            if not vm.stopped:
                return (uuid,)
            self.probes["still_stopped"] += 1
            self._postpone(vm, now)
        return ()

    # -- what is learned

    def _learn(self, observation: Observation, now: float) -> list[Action]:
        match observation:
            case RoundBegan():
                self._begin(observation)
            case Answered():
                return self._answered(observation, now)
            case Failed():
                self._failed(observation)
            case Looked():
                return self._looked(observation, now)
            case _:
                self._noted(observation, now)
        return []

    def _noted(self, observation: Started | Ticked | Moved | Reconnected | Openings, now: float) -> None:
        match observation:
            case Started(call):
                if self._asking is not None and self._asking.number == call:
                    self._asking.began = now
            case Moved(uuid):
                if uuid in self._vms:
                    self._vms[uuid].due = min(self._vms[uuid].due, now)
            case Reconnected():
                self._started = self._looking = False
                if self._asking is not None and not self._asking.under_way:
                    self._asking = None
            case Openings():
                self.slots.openings = observation

    def _begin(self, began: RoundBegan) -> None:
        known = self._vms
        if tuple(known) != began.uuids:
            self._vms = {uuid: known.get(uuid) or VmMonitor() for uuid in began.uuids}
        self.slots.foreign.intersection_update(began.uuids)
        self._round += 1
        self._asks = 0
        self._until = began.until
        self._done.clear()
        self._again.clear()
        if self._portion and all(vm.standing is not Standing.UNKNOWN for vm in self._vms.values()):
            self._portion = 0

    def _answered(self, seen: Answered, now: float) -> list[Action]:
        call = self._returned(seen.call)
        if call is None:
            return []
        self.calls["answered"] += 1
        if call.round == self._round:
            again = seen.partial - self._again  # a job of somebody else's may just have held their lock: once more in this round
            self._again |= again
            self._done.update(set(call.uuids) - again)
        if call.number not in self.slots.captured and call.began < now:
            self._usual = max((now - call.began) / max(1, len(call.uuids)), self._usual * 0.9)
        for uuid in seen.full & self._vms.keys():
            vm = self._vms[uuid]
            if vm.standing is Standing.SKIPPED and uuid != call.culprit and vm.since >= call.began:
                continue  # it answered before it got stuck
            if vm.standing is not Standing.TRUSTED:
                self._trust(vm)
        unsure = tuple(uuid for uuid in call.uuids if uuid in seen.partial and uuid in self._vms) if seen.partial else ()
        for uuid in unsure:
            vm = self._vms[uuid]
            if vm.probing or vm.standing is Standing.SKIPPED:
                self.probes["no_answer"] += 1
                self._skip(vm, now)
            elif self._names(uuid):
                self._skip(vm, now)
        return self._look(unsure) if unsure else []

    def _names(self, uuid: str) -> bool:
        """Whether a VM whose job lock is taken gives away who holds a captured call that nobody has named yet."""
        for call in self.slots.captured.values():
            if not call.culprit and uuid in call.uuids:
                call.culprit = uuid
                return True
        return False

    def _trust(self, vm: VmMonitor) -> None:
        if vm.standing is Standing.SKIPPED or vm.probing:
            self.probes["answered"] += 1
        vm.standing, vm.held, vm.probing, vm.pause, vm.due = Standing.TRUSTED, False, False, 0.0, NEVER

    def _failed(self, seen: Failed) -> None:
        call = self._returned(seen.call)
        if call is None:
            return
        self.calls["failed"] += 1
        if seen.lost:
            self._until = -NEVER  # the next round begins with a new connection
        elif len(call.uuids) == 1:
            self._done.update(call.uuids)
        else:  # one VM makes libvirt fail: the others are asked without it
            self._portion = -(-len(call.uuids) // PORTIONS)
            for uuid in call.uuids:
                if (vm := self._vms.get(uuid)) and vm.standing is not Standing.SKIPPED:
                    vm.standing = Standing.UNKNOWN

    def _returned(self, number: int) -> CallOut | None:
        if self._asking is not None and self._asking.number == number:
            call, self._asking = self._asking, None
            return call
        return self.slots.captured.pop(number, None)

    def _looked(self, seen: Looked, now: float) -> list[Action]:
        first, self._started, self._looking = not self._started, True, False
        for uuid, seconds in seen.occupied.items():
            if vm := self._vms.get(uuid):
                self._judge(vm, seconds, seen.processes.get(uuid, ""), now)
        if first:
            ours = {call.culprit for call in self.slots.captured.values()}
            self.slots.foreign = {uuid for uuid, seconds in seen.occupied.items() if seconds and uuid in self._vms} - ours
        else:
            self.slots.foreign = {uuid for uuid in self.slots.foreign if seen.occupied.get(uuid, 1.0)}
        return self._overdue(seen, now)

    def _judge(self, vm: VmMonitor, seconds: float, process: str, now: float) -> None:
        """Skip a suspect; take one back that has moved."""
        named_before = vm.held or vm.stopped
        vm.held, vm.process = seconds >= self._patience(process), process
        if vm.held or vm.stopped:
            if vm.standing is not Standing.SKIPPED:
                self._skip(vm, now)
        elif vm.standing is Standing.SKIPPED and named_before:
            vm.standing, vm.probing, vm.due, self._trouble = Standing.UNKNOWN, True, now, True

    def _skip(self, vm: VmMonitor, now: float) -> None:
        vm.standing, vm.probing, vm.since, self._trouble = Standing.SKIPPED, False, now, True
        self._postpone(vm, now)

    def _postpone(self, vm: VmMonitor, now: float) -> None:
        vm.pause = min(self.limits.longest_pause, max(self.limits.first_pause, vm.pause * 2))
        vm.due = now + vm.pause * self._rng.uniform(0.75, 1.25)

    def _overdue(self, seen: Looked, now: float) -> list[Action]:
        """Whether the call under way is captured, and by whom, after a look at its VMs."""
        call = self._asking
        if call is None or now - call.began < self.limits.patience:
            return []
        # Occupied for longer than the call is out: somebody else's call is in there, and ours has passed the VM by.
        age = now - call.began
        inside = {u: seconds for u in call.uuids if 0 < (seconds := seen.occupied.get(u, 0.0)) <= age + self.limits.patience / 2}
        named = [u for u, seconds in inside.items() if seconds >= self._patience(seen.processes.get(u, ""))]
        named = named or [u for u in call.uuids if seen.processes.get(u, "") in STOPPED]
        if named:
            call.culprit = named[0]
            return self._capture(call, now)
        left = (self._patience(seen.processes.get(u, "")) - seconds for u, seconds in inside.items())
        call.look_at = now + max(self.limits.patience / 10, min(left, default=self.limits.patience))
        call.idle_looks = 0 if inside else call.idle_looks + 1
        if call.idle_looks > 1 and age >= max(4 * self.limits.patience, 3 * self._usual * len(call.uuids)):
            return self._capture(call, now)
        return []

    def _patience(self, process: str) -> float:
        """How long a call may stay in a VM: twice as long where its process is seen to be fine, which a busy host's is."""
        return self.limits.patience * (2 if process and process not in STOPPED else 1)

    def _capture(self, call: CallOut, now: float) -> list[Action]:
        """The call is lost. Whoever came before its culprit has answered it; of whoever came after nothing is known."""
        self.calls["captured"] += 1
        self._asking = None
        self.slots.captured[call.number] = call
        if not call.culprit and len(call.uuids) == 1:
            call.culprit = call.uuids[0]
        if not call.culprit:
            self._portion = -(-len(call.uuids) // PORTIONS)
        before = call.uuids.index(call.culprit) if call.culprit else 0
        for place, uuid in enumerate(call.uuids):
            vm = self._vms.get(uuid)
            if vm is None or vm.standing is Standing.SKIPPED:
                continue
            if uuid == call.culprit:
                if vm.probing:
                    self.probes["captured"] += 1
                self._skip(vm, now)
            elif place < before:
                vm.standing, vm.probing = Standing.TRUSTED, False
            else:
                vm.standing = Standing.UNKNOWN
        return [Abandon(call.number)]
