"""The monitor tier: what only a VM's QEMU can tell, asked on connections of its own, because the answer may never come.

It submits the calls that the breaker decides on, reports to the breaker what came of them, and keeps the answers until a round collects
them. A hung call keeps its worker, which is replaced by a new one. Rounds never wait for this tier beyond their deadline; an answer that
comes later is handed out once, with the begin of its call. Pure: calls go into the connections' outbox, and return as messages.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import Final

from virtflow.producer.hung_calls.breaker import Breaker
from virtflow.producer.hung_calls.breaker_types import (
    NEVER,
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
    HungCallReturned,
    HungElsewhere,
    Limits,
    Located,
    Observation,
    Reconnected,
    Recovered,
    RoundBegan,
    State,
    Ticked,
)
from virtflow.producer.hung_calls.budget import CallBudget, Kind
from virtflow.producer.hung_calls.reconnecting import Call, ReconnectingConnection, WorkerHandle
from virtflow.producer.hypervisor.call_safety import StatsGroups, stats_groups
from virtflow.producer.hypervisor.queries import ask_everyone, ask_monitors, check_health
from virtflow.producer.records.merge import STATE, answered, monitor_groups, newest
from virtflow.producer.records.node_health import HungCalls
from virtflow.producer.types import Answer, Batch, HealthCheck, HypervisorEvent, Listed, Verdict, Vm
from virtflow.runtime.log import ABOUT
from virtflow.runtime.settings import Producer
from virtflow.schemas.states import SHUT_OFF

ASK: Final = "monitor"
CHECK: Final = "health"
STALL_RATIO: Final = 0.2
STALL_SECONDS: Final = (0.25, 2.5)
"""The stall timeout in intervals, and its bounds: how long a call may stay in one VM."""

LIST_SHARE: Final = 0.9
"""Part of the stall timeout after which the VMs are listed without waiting for the call for all groups any longer."""

WARN_ABOVE: Final = 5
NAMED: Final = 5
"""VMs that a log line names at most."""

ProcessStates = Callable[[list[str]], dict[str, str]]
"""The states of the VMs' QEMU processes; called in a worker's thread."""

_LOGGER: Final = logging.getLogger(__name__)


def limits(settings: Producer) -> Limits:
    """The limits that follow from the settings."""
    least, most = STALL_SECONDS
    interval = settings.interval_seconds
    stall_timeout = min(most, max(least, interval * STALL_RATIO))
    return Limits(stall_timeout, 2 * interval, max(2 * interval, settings.probe_maximum_seconds))


class MonitorTier:
    """Asks the VMs' monitors as the breaker decides, and keeps the answers until they are collected."""

    def __init__(
        self, connection: ReconnectingConnection, safe: ReconnectingConnection, breaker: Breaker, processes: ProcessStates
    ) -> None:
        """``connection`` is the tier's own; health checks, which never wait, go by ``safe``."""
        self.connection = connection
        self.breaker = breaker
        self.groups: StatsGroups = stats_groups(0)
        self.seconds: float | None = None
        """How long the newest call that ended in this round took."""
        self.whole: Listed | None = None
        """All VMs with all groups, once this round's one call has brought them."""
        self._safe = safe
        self._processes = processes
        self._listed: Listed | None = None
        self._whole_call: Call | None = None
        self._whole_vms: dict[str, Vm] = {}
        self._whole_until = -NEVER
        self._begun = False
        self._numbers: dict[Call, int] = {}
        self._answers: dict[str, Answer] = {}
        self._ready = False
        self._budget_version = breaker.budget.version

    # -- the round

    def begin(self, now: float, until: float) -> None:
        """A round begins. While all is well it is one call for all groups of all VMs; else ``listed`` says with which VMs."""
        self.whole, self._whole_call, self._begun, self.seconds = None, None, False, None
        closed = self.breaker.state is State.CLOSED and self.breaker.settled
        if closed and self.connection.worker is not None and self._listed is not None:
            self._begin(now, until)

    def listed(self, found: Listed, now: float, until: float) -> None:
        """The round's VMs are known: begin to ask, unless that has been done."""
        self._listed = found
        if not self._begun:
            self._begin(now, until)

    def _begin(self, now: float, until: float) -> None:
        self._begun = True
        self._observe(RoundBegan(tuple(self._listed.vms if self._listed else ()), until), now)
        for uuid in filter(self.is_off, self.breaker.avoided()):
            self._observe(EventSeen(uuid), now)  # it was stuck, and has no QEMU any more: nothing hangs in it

    @property
    def whole_until(self) -> float:
        """Until when the round's VMs may be expected of a call for all groups that is under way; in the past when there is none."""
        return self._whole_until if self._whole_call is not None else -NEVER

    def tick(self, now: float) -> None:
        """Do what time, a new connection or a change of the budget allows."""
        ready = self.connection.worker is not None
        if ready is not self._ready:
            self._ready = ready
            self._observe(ConnectionChanged(ready), now)
        if self.breaker.budget.version != self._budget_version:
            self._observe(BudgetChanged(), now)
        if now >= self.breaker.due:
            self._observe(Ticked(), now)

    @property
    def due(self) -> float:
        """The next deadline."""
        return self.breaker.due

    @property
    def settled(self) -> bool:
        """Whether nothing more will come in this round."""
        return self._begun and self.breaker.settled

    def end(self) -> None:
        """The round goes out: what a call for all groups says from now on is late."""
        self._whole_call = None

    def collect(self) -> dict[str, Answer]:
        """The answers since the last time, each handed out once."""
        answers, self._answers = self._answers, {}
        return answers

    # -- what is exported

    def verdicts(self) -> dict[str, Verdict]:
        """What is exported of each VM's monitor."""
        return self.breaker.verdicts()

    def warn_agents(self) -> None:
        """Tells the budget which VMs' guest agents are not to be asked."""
        self.breaker.budget.avoid(self.breaker.avoided())

    def hung_calls(self, verdicts: Mapping[str, Verdict]) -> HungCalls:
        """What the node's health says of hung calls."""
        breaker = self.breaker
        return HungCalls(
            breaker.budget.hung,
            breaker.budget.limit,
            sum(verdict.responsive is False for verdict in verdicts.values()),
            sum(not verdict.probed for verdict in verdicts.values()),
            dict(breaker.probes),
            dict(breaker.calls),
        )

    # -- what arrives

    def take(self, call: Call, now: float) -> None:
        """A call of this tier has returned, in whatever round."""
        number = self._numbers.pop(call, None)
        if number is None:
            return
        current = call is self._whole_call
        if current:
            self._whole_call = None
        if call.error is not None:
            if not call.alive:
                self.connection.drop(call.worker, now, str(call.error))
            self._observe(Failed(number, not call.alive), now)
            return
        self.seconds = call.seconds
        full, partial = self._keep(Batch(call.result or {}, call.began, call.started), current=current)
        if current:
            self.whole = self._listed = Listed(self._whole_vms)
        self._observe(Answered(number, full, partial), now)

    def progressed(self, call: Call, batch: Batch, now: float) -> None:
        """A call of this tier has got so far, in whatever round."""
        if (number := self._numbers.get(call)) is None:
            return
        current = call is self._whole_call
        full, partial = self._keep(batch, current=current)
        self._observe(BatchAnswered(number, full, partial), now)
        if current:
            self._whole_until = now + LIST_SHARE * self.breaker.limits.stall_timeout

    def _keep(self, batch: Batch, *, current: bool) -> tuple[frozenset[str], frozenset[str]]:
        """Keep the answers of a batch: whose QEMU answered, and whose did not."""
        found = self._of_all(batch.found, current=current) if isinstance(batch.found, Listed) else batch.found
        answers = {uuid: Answer(data, batch.began, batch.started) for uuid, data in found.items()}
        self._answers = newest(self._answers, answers) if self._answers else answers
        full = frozenset([uuid for uuid, data in found.items() if answered(data) or self._was_off(uuid, data)])
        return full, frozenset(found.keys() - full)

    def _was_off(self, uuid: str, data: Mapping[str, object]) -> bool:
        """Whether the VM had no QEMU when this was said of it."""
        state = data.get(STATE)
        return self.is_off(uuid) if state is None else state == SHUT_OFF

    def _of_all(self, listed: Listed, *, current: bool) -> dict[str, dict[str, object]]:
        """The answers of a call for all groups; that of the ``current`` round lists its VMs as well."""
        if current:
            self._whole_vms |= listed.vms
            return {uuid: vm.data for uuid, vm in listed.vms.items()}
        return {uuid: monitor_groups(vm.data, interfaces=not self.groups.interfaces_safe) for uuid, vm in listed.vms.items()}

    def checked(self, call: Call, now: float) -> None:
        """A health check has returned."""
        if call.error is None and isinstance(call.result, HealthCheck):
            self._observe(call.result, now)

    def event(self, event: HypervisorEvent, now: float) -> None:
        """Libvirt announced something about a VM."""
        self._observe(EventSeen(event.uuid), now)

    def hung_elsewhere(self, kind: Kind, uuid: str, now: float) -> None:
        """A call of another kind hangs in a VM."""
        self._warn(kind, uuid)
        self._observe(HungElsewhere(uuid), now)

    def reconnected(self, now: float) -> None:
        """The safe connection was lost or is a new one: health checks under way will not return."""
        self._observe(Reconnected(), now)

    def is_off(self, uuid: str) -> bool:
        """Whether the VM has no QEMU, as far as the newest list says."""
        vm = self._listed.vms.get(uuid) if self._listed else None
        return vm is None or vm.data.get(STATE) == SHUT_OFF

    # -- what is decided

    def _observe(self, observation: Observation, now: float) -> None:
        actions = self.breaker.observe(observation, now)
        self._budget_version = self.breaker.budget.version
        for action in actions:
            self._do(action, now)
        if recovered := [action for action in actions if isinstance(action, Recovered)]:
            self._say_recovered(recovered, now)

    def _do(self, action: Action, now: float) -> None:
        match action:
            case Ask():
                if self.connection.worker is not None:
                    self._submit(action, self.connection.worker, now)
            case CheckHealth(uuids):
                self._check_health(uuids, now)
            case Abandon(number, uuid):
                self._abandon(number, uuid, now)
            case Located(uuid, since):
                self._say_located(uuid, now - since)
            case HungCallReturned(uuid, since):
                self._say_returned(uuid, now - since)
            case Recovered():
                pass

    def _submit(self, ask: Ask, worker: WorkerHandle, now: float) -> None:
        asks = ask_everyone if ask.everyone else ask_monitors
        call = worker.submit(ASK, asks(ask.uuids, self.groups, ask.most), now)
        self._numbers[call] = ask.call
        if ask.everyone:
            self._whole_vms = {}
            self._whole_call, self._whole_until = call, now + LIST_SHARE * self.breaker.limits.stall_timeout

    def _check_health(self, uuids: tuple[str, ...], now: float) -> None:
        worker, found = self._safe.worker, self._listed
        if worker is None or found is None:
            return  # the connection is lost; `reconnected` follows
        worker.submit(CHECK, check_health(uuids or tuple(found.vms), self._processes), now)

    def _abandon(self, number: int, uuid: str, now: float) -> None:
        for call, known in self._numbers.items():
            if known == number:
                self.connection.leave(call.worker, now)
        self._warn(Kind.MONITOR, uuid)

    # -- what is logged

    def name(self, uuid: str) -> str:
        """The VM in words, for the log."""
        vm = self._listed.vms.get(uuid) if self._listed else None
        return f"{vm.name if vm else 'unknown'} ({uuid})" if uuid else "a VM that nothing names yet"

    def _warn(self, kind: Kind, uuid: str) -> None:
        budget, told = self.breaker.budget, "a %s call hangs in %s: %d hung calls of at most %d on this host"
        _LOGGER.warning(told, kind, self.name(uuid), budget.hung, budget.limit, extra={ABOUT: uuid})

    def _say_located(self, uuid: str, seconds: float) -> None:
        budget, name = self.breaker.budget, self.name(uuid)
        told = "the VM that holds the call that has hung for %.0f s is %s: %d hung calls of at most %d on this host"
        _LOGGER.warning(told, seconds, name, budget.hung, budget.limit, extra={ABOUT: uuid})

    def _say_returned(self, uuid: str, seconds: float) -> None:
        told = "a monitor call that hung in %s has returned after %.0f s; %d hung calls are left"
        _LOGGER.info(told, self.name(uuid) if uuid else "a VM that nothing has named", seconds, self.breaker.budget.hung)

    def _say_recovered(self, recovered: list[Recovered], now: float) -> None:
        named = ", ".join(f"{self.name(vm.uuid)} after {now - vm.since:.0f} s" for vm in recovered[:NAMED])
        more = f" and {len(recovered) - NAMED} more" if len(recovered) > NAMED else ""
        _LOGGER.info("answers again: %s%s; %d hung calls are left", named, more, self.breaker.budget.hung)


def warn_of_limit(limit: int) -> None:
    """Warn where the settings allow more hung calls than libvirtd can bear."""
    if limit > WARN_ABOVE:
        _LOGGER.warning(
            "producer.hung_calls_max is %d: from 20 hung calls on libvirtd answers nobody; above %d other clients suffer", limit, WARN_ABOVE
        )


def breaker_of(settings: Producer, budget: CallBudget, rng: random.Random) -> Breaker:
    """The breaker that follows from the settings."""
    return Breaker(limits(settings), budget, rng)
