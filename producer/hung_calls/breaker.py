"""The breaker's state of one libvirt daemon, and what each observation changes: observations in, actions out.

See ``breaker_types`` for the theory and the tables. No libvirt, clock or thread in here; the budget of calls is shared and handed in.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from virtflow.producer.hung_calls.breaker_memory import CallOut, VmMonitor, chosen, followed, located, moved_on
from virtflow.producer.hung_calls.breaker_types import (
    ASKS_PER_ROUND,
    AT_A_TIME_SHARE,
    BATCHES,
    DEGRADED_BATCHES,
    LEAST_AT_A_TIME,
    MOST_AT_A_TIME,
    NEVER,
    PLANS,
    TABLE,
    Abandon,
    Action,
    Answered,
    Ask,
    BatchAnswered,
    BudgetChanged,
    CheckHealth,
    Choice,
    ConnectionChanged,
    EventSeen,
    Failed,
    Health,
    HungCallReturned,
    HungElsewhere,
    Limits,
    Observation,
    Reaction,
    Reconnected,
    Recovered,
    RoundBegan,
    State,
    Ticked,
)
from virtflow.producer.hung_calls.budget import CallBudget, Kind
from virtflow.producer.types import NOT_PROBED, RESPONSIVE, STUCK, UNDECIDED, HealthCheck, Verdict


class Breaker:
    """Which VMs of one daemon are asked; ``observe`` is all that changes it."""

    def __init__(self, limits: Limits, budget: CallBudget, rng: random.Random) -> None:
        """Nothing is known; ``rng`` spreads the probes."""
        self.limits = limits
        self.budget = budget
        self.calls: Counter[str] = Counter()
        self.probes: Counter[str] = Counter()
        self._rng = rng
        self._vms: dict[str, VmMonitor] = {}
        self._trouble = False
        self._asking: CallOut | None = None
        self._hung: dict[int, CallOut] = {}
        self._ready = self._waiting = False
        self._checking = False
        self._started = False
        self._number = self._round = self._asks = 0
        self._until = -NEVER
        self._done: set[str] = set()
        self._again: set[str] = set()
        self._batch = 0
        self._usual = 0.0

    # -- what is known

    @property
    def state(self) -> State:
        """The breaker's state."""
        if not self._started:
            return State.STARTING
        hung = self.budget.hung
        free = self.budget.limit - hung
        if free <= 0:
            return State.OPEN
        if hung and free == 1:
            return State.DEGRADED
        return State.PROBING if hung or self._batch or self._trouble else State.CLOSED

    @property
    def settled(self) -> bool:
        """Whether nothing more is to be expected in this round."""
        return self._asking is None and not self._checking and not (self._waiting and PLANS[self.state])

    @property
    def due(self) -> float:
        """The next deadline: a call has been out for too long."""
        call = self._asking
        if call is None or self._checking:
            return NEVER
        return call.began + self.limits.stall_timeout if call.check_at == NEVER else call.check_at

    def verdicts(self) -> dict[str, Verdict]:
        """What is exported of each VM now."""
        state, healthy = self.state, Health.HEALTHY
        if state is State.CLOSED:
            return {uuid: RESPONSIVE if vm.health is healthy else UNDECIDED for uuid, vm in self._vms.items()}
        return {uuid: self._verdict(vm, state) for uuid, vm in self._vms.items()}

    def _verdict(self, vm: VmMonitor, state: State) -> Verdict:
        if vm.health is Health.SKIPPED:
            return STUCK
        if state is State.OPEN or (state is State.DEGRADED and self._hung and not vm.known_healthy):
            return NOT_PROBED
        return RESPONSIVE if vm.health is Health.HEALTHY else UNDECIDED

    # -- for calls of another kind into the same VMs

    def may_ask(self, uuid: str, *, healthy: bool) -> bool:
        """Whether a call of another kind may go into this VM; with ``healthy`` only if it answered last time."""
        vm = self._vms.get(uuid)
        if vm is None or not self._started:
            return False
        return vm.health is Health.HEALTHY or (vm.health is Health.UNKNOWN and not healthy)

    def suspects(self, uuid: str) -> bool:
        """Whether the VM may be stuck; one of which nothing is known yet is none, once health has been checked."""
        vm = self._vms.get(uuid)
        return not self._started or (vm is not None and vm.suspect)

    def avoided(self) -> frozenset[str]:
        """The VMs that are skipped or suspected."""
        if self.state is State.CLOSED:
            return frozenset()
        return frozenset(uuid for uuid, vm in self._vms.items() if vm.health is Health.SKIPPED or vm.suspect)

    # -- what follows

    def observe(self, observation: Observation, now: float) -> list[Action]:
        """Learn what was seen at ``now`` (monotonic seconds); the actions that follow."""
        actions = self._learn(observation, now)
        self._trouble = self._trouble and any(vm.health is Health.SKIPPED or vm.probing for vm in self._vms.values())
        match TABLE[self.state].get(type(observation), Reaction.NOTHING):
            case Reaction.CHECK_HEALTH:
                actions += self._check_health()
            case Reaction.CHECK_IF_DUE:
                actions += self._check_health() if now >= self.due else []
            case Reaction.PLAN:
                actions += self._plan(now)
            case Reaction.NOTHING:
                pass
        return actions

    def _check_health(self, uuids: tuple[str, ...] = ()) -> list[Action]:
        if self._checking:
            return []
        self._checking = True
        return [CheckHealth(uuids)]

    def _plan(self, now: float) -> list[Action]:
        self._waiting = False
        if self._asking is not None or self._checking or now >= self._until or self._asks >= ASKS_PER_ROUND:
            return []
        plan = PLANS[self.state]
        if not self._ready or not self.budget.has_room():
            self._waiting = bool(plan)
            return []
        for choice in plan:
            if chosen := self._chosen(choice, now):
                return self._ask(chosen, now, everyone=choice is Choice.EVERYONE)
        return []

    def _ask(self, uuids: tuple[str, ...], now: float, *, everyone: bool) -> list[Action]:
        if (lease := self.budget.acquire(Kind.MONITOR)) is None:
            return []
        self._number += 1
        self._asks += 1
        most = self._at_a_time()
        self._asking = CallOut(self._number, uuids, self._round, lease, now, most)
        return [Ask(self._number, uuids, everyone, most)]

    def _at_a_time(self) -> int:
        """How many VMs are asked at a time."""
        if not self._usual:
            return MOST_AT_A_TIME
        return max(LEAST_AT_A_TIME, min(MOST_AT_A_TIME, int(AT_A_TIME_SHARE * self.limits.stall_timeout / self._usual)))

    def _chosen(self, choice: Choice, now: float) -> tuple[str, ...]:
        if choice is Choice.EVERYONE:
            return () if self._done else tuple(self._vms)
        left = [(uuid, vm) for uuid, vm in self._vms.items() if uuid not in self._done]
        return self._probe(left, now) if choice is Choice.PROBE else chosen(choice, left, self._batch, self._risked())

    def _risked(self) -> int:
        """On how many VMs of unknown health the last call that may hang is spent."""
        if not self._hung:
            return -(-len(self._vms) // DEGRADED_BATCHES)
        return 0 if any(vm.known_healthy for vm in self._vms.values()) else 1

    def _probe(self, left: Iterable[tuple[str, VmMonitor]], now: float) -> tuple[str, ...]:
        waiting = [(vm.due, uuid) for uuid, vm in left if (vm.health is Health.SKIPPED or vm.alone) and vm.due <= now]
        for _, uuid in sorted(waiting):
            vm = self._vms[uuid]
            if not vm.stopped:
                return (uuid,)
            self.probes["still_stopped"] += 1
            vm.postpone(self.limits, self._spread(), now)
        return ()

    # -- what is learned

    def _learn(self, observation: Observation, now: float) -> list[Action]:
        match observation:
            case RoundBegan():
                self._begin(observation)
            case Answered():
                return self._answered(observation, now)
            case BatchAnswered():
                return self._batch_answered(observation, now)
            case Failed():
                return self._failed(observation)
            case HealthCheck():
                return self._checked(observation, now)
            case _:
                self._noted(observation, now)
        return []

    def _noted(self, observation: Ticked | EventSeen | HungElsewhere | Reconnected | ConnectionChanged | BudgetChanged, now: float) -> None:
        match observation:
            case EventSeen(uuid):
                if vm := self._vms.get(uuid):
                    vm.due = min(vm.due, now)
            case HungElsewhere(uuid):
                if vm := self._vms.get(uuid):
                    vm.occupied = True
                    self._skip(vm, now)
            case Reconnected():
                self._started = self._checking = self._waiting = False
            case ConnectionChanged(ready):
                self._ready = ready

    def _begin(self, began: RoundBegan) -> None:
        known = self._vms
        if tuple(known) != began.uuids:
            self._vms = {uuid: known.get(uuid) or VmMonitor() for uuid in began.uuids}
        if foreign := self.budget.foreign_vms():
            self.budget.keep_foreign(foreign.intersection(began.uuids))
        self._round += 1
        self._asks = 0
        self._until, self._waiting = began.until, False
        self._done.clear()
        self._again.clear()
        if self._batch and all(vm.health is not Health.UNKNOWN for vm in self._vms.values()):
            self._batch = 0

    def _answered(self, seen: Answered, now: float) -> list[Action]:
        late = seen.call in self._hung
        call = self._returned(seen.call)
        if call is None:
            return []
        call.lease.release()
        self.calls["answered"] += 1
        return self._told(call, seen, set(call.uuids), now, late=late) + self._over(call, late=late)

    def _over(self, call: CallOut, *, late: bool) -> list[Action]:
        """A call has returned. Of a hung one the recovery of its VM tells, but for a VM that is not known or has gone."""
        return [HungCallReturned(call.culprit, call.since)] if late and call.culprit not in self._vms else []

    def _batch_answered(self, seen: BatchAnswered, now: float) -> list[Action]:
        """The call goes on: from now on it is out for the VMs that are left."""
        late = seen.call in self._hung
        call = self._hung[seen.call] if late else self._asking
        if call is None or call.number != seen.call:
            return []
        answered = seen.full | seen.partial
        actions = self._told(call, seen, answered, now, late=late)
        call.uuids = tuple(uuid for uuid in call.uuids if uuid not in answered)
        call.began, call.check_at, call.idle_checks = now, NEVER, 0
        return actions

    def _told(self, call: CallOut, seen: Answered | BatchAnswered, asked: AbstractSet[str], now: float, *, late: bool) -> list[Action]:
        """What ``asked`` have answered since ``call.began``."""
        if call.round == self._round:
            again = seen.partial - self._again  # a job of somebody else's may just have held their lock: once more in this round
            self._again |= again
            self._done.update(asked - again)
            self._vms |= {uuid: VmMonitor(Health.HEALTHY) for uuid in seen.full - self._vms.keys()}  # they are new since the round began
        if asked and not late and call.began < now:
            self._usual = max((now - call.began) / len(asked), self._usual * 0.9)
        return self._full(call, seen) + self._partial(call, seen, now)

    def _full(self, call: CallOut, seen: Answered | BatchAnswered) -> list[Action]:
        """The VMs that answered are healthy, but for those that got stuck after they did."""
        recovered: list[Action] = []
        for uuid in seen.full & self._vms.keys():
            vm = self._vms[uuid]
            if vm.health is Health.SKIPPED and uuid != call.culprit and vm.since >= call.began:
                continue
            if vm.health is not Health.HEALTHY:
                recovered += self._mark_healthy(uuid, vm)
        return recovered

    def _partial(self, call: CallOut, seen: Answered | BatchAnswered, now: float) -> list[Action]:
        """Another call is in the VMs that libvirt could not ask: a health check says whether it hangs."""
        unsure = tuple(uuid for uuid in call.uuids if uuid in seen.partial and uuid in self._vms) if seen.partial else ()
        found: list[Action] = []
        for uuid in unsure:
            vm = self._vms[uuid]
            if vm.probing or vm.health is Health.SKIPPED:
                self.probes["no_answer"] += 1
                self._skip(vm, now)
            elif named := located((other for other in self._hung.values() if other is not call and not other.culprit), uuid):
                found += named
                self._skip(vm, now)
        return found + self._check_health(unsure) if unsure else []

    def _mark_healthy(self, uuid: str, vm: VmMonitor) -> list[Action]:
        moved_on(self._hung.values(), uuid)
        if not vm.mark_healthy():
            return []
        self.probes["answered"] += 1
        return [Recovered(uuid, vm.skipped_since)]

    def _failed(self, seen: Failed) -> list[Action]:
        late = seen.call in self._hung
        call = self._returned(seen.call)
        if call is None:
            return []
        self.calls["failed"] += 1
        if not seen.lost:
            call.lease.release()
        if seen.lost:
            call.lease.leave_behind()
            self._until = -NEVER  # the next round begins with a new connection
        elif len(call.uuids) == 1:
            self._done.update(call.uuids)
        else:  # one VM makes libvirt fail: the others are asked without it
            self._batch = -(-len(call.uuids) // BATCHES)
            for uuid in call.uuids:
                if (vm := self._vms.get(uuid)) and vm.health is not Health.SKIPPED:
                    vm.health = Health.UNKNOWN
        return self._over(call, late=late and not seen.lost)

    def _returned(self, number: int) -> CallOut | None:
        if self._asking is not None and self._asking.number == number:
            call, self._asking = self._asking, None
            return call
        return self._hung.pop(number, None)

    def _checked(self, seen: HealthCheck, now: float) -> list[Action]:
        first, self._started, self._checking = not self._started, True, False
        found: list[Action] = []
        for uuid, seconds in seen.occupied.items():
            if vm := self._vms.get(uuid):
                self._judge(vm, seconds, seen.processes.get(uuid, ""), now)
                followed(self._hung.values(), uuid, vm, now)
                if vm.occupied and uuid not in self.budget.hung_vms():
                    found += located(self._hung.values(), uuid, now - seconds + self.limits.stall_timeout / 2, now - seconds)
        if first:
            self.budget.keep_foreign(
                {uuid for uuid, seconds in seen.occupied.items() if seconds and uuid in self._vms} - self.budget.hung_vms()
            )
        elif foreign := self.budget.foreign_vms():
            self.budget.keep_foreign({uuid for uuid in foreign if seen.occupied.get(uuid, 1.0)})
        return found + self._overdue(seen, now)

    def _judge(self, vm: VmMonitor, seconds: float, process: str, now: float) -> None:
        """Skip a suspect; ask one again that has recovered."""
        named_before = vm.occupied or vm.stopped
        vm.occupied, vm.process = seconds >= self.limits.stall_timeout_of(process), process
        if vm.occupied or vm.stopped:
            if vm.health is not Health.SKIPPED:
                self._skip(vm, now)
        elif vm.health is Health.SKIPPED and named_before:
            vm.health, vm.probing, vm.due, self._trouble = Health.UNKNOWN, True, now, True

    def _skip(self, vm: VmMonitor, now: float) -> None:
        vm.skip(self.limits, self._spread(), now)
        self._trouble = True

    def _spread(self) -> float:
        """Probes of several VMs are not due at once."""
        return self._rng.uniform(0.75, 1.25)

    def _overdue(self, seen: HealthCheck, now: float) -> list[Action]:
        """Whether the call under way hangs, and in which VM, after a health check of its VMs."""
        call = self._asking
        if call is None or now - call.began < self.limits.stall_timeout:
            return []
        return self._hang(call, now) if call.hangs(seen, self.limits, self._usual, now) else []

    def _hang(self, call: CallOut, now: float) -> list[Action]:
        """The call hangs. The VMs before its culprit have answered it; the health of those after it is unknown."""
        self.calls["hung"] += 1
        self._asking = None
        self._ready = False  # the call keeps its connection
        self._hung[call.number] = call
        call.since = call.entered = call.began
        call.left = now
        if not call.culprit and len(call.uuids) == 1:
            call.culprit = call.uuids[0]
        if not call.culprit:
            self._batch = -(-len(call.uuids) // BATCHES)
        call.lease.abandon(call.culprit)
        before = call.uuids.index(call.culprit) if call.culprit else 0
        for place, uuid in enumerate(call.uuids):
            vm = self._vms.get(uuid)
            if vm is None or vm.health is Health.SKIPPED:
                continue
            if uuid == call.culprit:
                if vm.probing:
                    self.probes["hung"] += 1
                self._skip(vm, now)
            elif place < before:
                vm.health, vm.probing = Health.HEALTHY, False
            else:
                vm.health = Health.UNKNOWN
        return [Abandon(call.number, call.culprit)]
