"""Sampling as a reducer: observations in, actions out. No libvirt, thread, queue or clock; ``sampler.py`` is the edge around it.

    sampling = Sampling(settings, budget, rng, Setup(...))
    actions = sampling.begin(collected, now)           # a round begins
    actions = sampling.observe(message, now)           # a call has returned, a connection is open, an event, a tick
    sampling.due                                       # the next deadline: observe a Tick then at the latest
    sampling.complete(now)                             # the round may go out
    found = sampling.finish(now)                       # the Round

Two tiers. The *safe* groups never wait, so every VM is in every round. The *monitor* groups may hang indefinitely, so they are asked on
a connection of their own, and a round takes what has arrived by its deadline. While all is well one call brings all groups of all VMs;
when it is late the safe ones are listed by a call of their own. For a VM without a monitor answer, calls that never wait fill in CPU
time, memory and vCPUs. A VM's XML, and the job of a VM that migrates, are read on connections of their own as well.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.producer.hung_calls.executor import ASK, CHECK, MonitorTier, ProcessStates, breaker_of
from virtflow.producer.hung_calls.job_discovery import JobDiscovery
from virtflow.producer.hung_calls.job_poller import POLL, Jobs
from virtflow.producer.hung_calls.reconnecting import Call, Outbox, ReconnectingConnection, WorkerHandle
from virtflow.producer.hung_calls.version_finder import VersionFinder
from virtflow.producer.hung_calls.xml_reader import XML, XmlReader
from virtflow.producer.hypervisor.call_safety import StatsGroups, fill_may_wait, judged_version, stats_groups
from virtflow.producer.hypervisor.messages import (
    Action,
    Announce,
    Interrupted,
    Lost,
    Message,
    Opened,
    OpenFailed,
    Progress,
    Returned,
    Tick,
    VersionsFound,
)
from virtflow.producer.hypervisor.queries import fill, list_vms
from virtflow.producer.records.inventory_cache import Inventories, per_round
from virtflow.producer.records.merge import Exported, newest, reading
from virtflow.producer.records.vm_snapshot import Reading, device_names
from virtflow.producer.source import Round
from virtflow.producer.types import UNDECIDED, Answer, HypervisorEvent, Listed, Verdict
from virtflow.runtime.settings import Settings
from virtflow.schemas import states
from virtflow.schemas.jobs import Kind
from virtflow.schemas.records import VmInventory, VmSnapshot

MONITOR_SHARE: Final = 0.75
"""Part of the round's time after which VMs without a monitor answer are filled in."""
JOB_STALL: Final = 2
"""The stall timeout of a poll, and of an XML, in that of a monitor call: QEMU is slow at the end of a migration."""
XML_SHARE: Final = 0.25
"""Part of the round's time that reading XML may take."""
SAFE, MONITOR, LIST, FILL = "safe", "monitor", "list", "fill"

CHANGES_XML: Final = frozenset({"lifecycle", "device_removed", "device_added", "metadata_change", "tray_change", "block_job_2"})
"""Events after which the VM's XML may say something else."""

MIGRATING: Final = (
    (states.PAUSED, states.PAUSED_MIGRATION),
    (states.PAUSED, states.PAUSED_STARTING_UP),
    (states.RUNNING, states.RUNNING_MIGRATED),
    (states.SHUT_OFF, states.SHUT_OFF_MIGRATED),
)
"""States, each with its reason, that only a migration leads to."""


def migrating(data: Mapping[str, object]) -> tuple[int, int] | None:
    """State and reason of a VM that migrates or has migrated, from its bulk statistics; None for any other."""
    found = data.get("state.state"), data.get("state.reason")
    return next((known for known in MIGRATING if known == found), None)


@dataclass(slots=True)
class _Progress:
    """How far a round has come."""

    begin: float
    collected: float
    deadline: float
    monitor_until: float
    calls: dict[str, Call | None] = field(default_factory=dict)
    listed: Listed | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    fills: dict[str, Answer] = field(default_factory=dict)

    def ended(self, purpose: str) -> bool:
        """Whether that step of this round is over: its call was made and has ended, or there was nothing to ask."""
        if purpose not in self.calls:
            return False
        call = self.calls[purpose]
        return call is None or call.ended


class Sampling:
    """All decisions about one daemon's sampling. Belongs to the thread that calls it."""

    def __init__(self, settings: Settings, budget: CallBudget, rng: random.Random, processes: ProcessStates, *, follows: bool) -> None:
        """Nothing is connected. ``processes`` is called by queries, ``follows`` says whether events are announced and jobs polled."""
        interval = settings.producer.interval_seconds
        self._interval = interval
        self._window = interval * settings.producer.deadline_ratio
        self._every = settings.producer.inventory_seconds
        self._uri = settings.libvirt.uri
        self._follows = follows
        self._outbox = Outbox()
        self._connections: dict[str, ReconnectingConnection] = {}

        def connection(name: str, *, essential: bool = False) -> ReconnectingConnection:
            made = ReconnectingConnection(name, settings.libvirt, self._outbox, budget, interval, rng, essential)
            self._connections[name] = made
            return made

        self._safe = connection(SAFE, essential=True)
        breaker = breaker_of(settings.producer, budget, rng)
        stall_timeout = JOB_STALL * breaker.limits.stall_timeout
        self._monitor = MonitorTier(connection(MONITOR), self._safe, breaker, processes)
        hung = self._monitor.hung_elsewhere
        self._jobs = Jobs(connection(POLL), breaker, budget, self._announce, hung, settings.producer.job_seconds, stall_timeout)
        self._discovery = JobDiscovery(settings.producer.job_discovery_seconds, interval)
        self._xml = XmlReader(connection(XML), breaker, self._monitor.is_off, hung, stall_timeout)
        self._inventories = Inventories(self._every, rng)
        self._exported = Exported()
        self._saved: Mapping[str, float] | None = None
        self._versions = VersionFinder(self._outbox, budget, settings.libvirt.connect_timeout_seconds)
        self._reconnected = False
        self._list_late = False
        self._version = 0
        self._groups: StatsGroups = stats_groups(0)
        self.interrupted = False
        self._progress = _Progress(0.0, 0.0, 0.0, 0.0)

    # -- the round

    def begin(self, collected: float, now: float, saved: Mapping[str, float] | None = None) -> list[Action]:
        """A round begins, at ``collected`` (Unix seconds) and ``now`` (monotonic); ``saved``: see ``JobDiscovery.next_round``."""
        self._saved = saved
        before = self._progress.calls.get(LIST)
        self._progress = _Progress(now, collected, now + self._window, now + self._window * MONITOR_SHARE)
        # Where every list takes longer than a round, no round would ever have one: one that is under way becomes this round's.
        if before is not None and not before.ended and before.worker is self._safe.worker:
            self._progress.calls[LIST] = before
        self._tick_connections(now)
        self._monitor.begin(now, self._progress.monitor_until)
        self._advance(now)
        return self._outbox.take()

    def observe(self, message: Message, now: float, *, waiting: bool = False) -> list[Action]:
        """Learn what has happened; the actions that follow. ``waiting``: the round has gone out, and the next one has not begun."""
        self._learn(message, now)
        self._tick_connections(now)
        if waiting:
            self._monitor.tick(now)
            self._xml.tick(now, settled=self._monitor.settled)
        else:
            self._advance(now)
        return self._outbox.take()

    def complete(self, now: float) -> bool:
        """Whether nothing is left that the round should wait for."""
        progress = self._progress
        return progress.listed is not None and progress.ended(FILL) and not self._xml.pending(now)

    @property
    def ready(self) -> bool:
        """Whether the connection that lists the VMs stands and no call is under way on it."""
        worker = self._safe.worker
        return worker is not None and worker.idle

    @property
    def deadline(self) -> float:
        """When the round has to go out (monotonic seconds)."""
        return self._progress.deadline

    @property
    def due(self) -> float:
        """The next deadline, in a round or between two."""
        connections = min(self._safe.due, self._monitor.connection.due)
        return min(connections, self._monitor.due, self._jobs.due, self._xml.due)

    def round_due(self, now: float) -> float:
        """The next deadline of the round that is under way."""
        progress = self._progress
        steps = [progress.deadline, self.due]
        if progress.listed is None:
            steps += [self._monitor.whole_until] if self._monitor.whole_until > now else []
        elif FILL not in progress.calls:
            steps.append(progress.monitor_until)
        return max(now, min(steps))

    def finish(self, now: float) -> Round:
        """The round goes out."""
        self._monitor.end()
        progress, listed, verdicts = self._progress, self._progress.listed, self._monitor.verdicts()
        described = {} if listed is None else self._described(listed, now)
        self._suspect_interfaces(progress)
        self._monitor.warn_agents()
        return Round(
            progress.collected,
            up=listed is not None,
            late=listed is not None and not self._monitor.settled,
            readings=() if listed is None else self._readings(progress, listed, verdicts),
            inventories=described,
            seconds={} if listed is None else self._took(progress),
            versions=self._versions.versions,
            reconnects=sum(max(0, one.connects - 1) for one in (self._safe, self._monitor.connection)),
            drops=dict(self._inventories.drops),
            jobs=self._jobs.running,
            job_polls=dict(self._jobs.polls),
            hung_calls=self._monitor.hung_calls(verdicts),
        )

    def learn(self, vms: Sequence[VmSnapshot]) -> None:
        """Learn which devices the VMs have; only a full answer names all of them."""
        for vm in vms:
            if vm.monitor_collected == vm.monitor_collected:
                self._inventories.devices(vm.uuid, device_names(vm))

    def close(self) -> list[Action]:
        """Let go of all connections."""
        for connection in self._connections.values():
            connection.close()
        return self._outbox.take()

    # -- the steps of a round

    def _advance(self, now: float) -> None:
        """Begin whatever can begin now."""
        progress = self._progress
        self._monitor.tick(now)
        if progress.listed is None and self._monitor.whole is not None:
            self._list(progress, self._monitor.whole, progress.collected, now)
        self._xml.tick(now, settled=self._monitor.settled)
        worker, listed = self._safe.worker, progress.listed
        if worker is None:
            return
        if listed is None:
            if LIST not in progress.calls and worker.idle and now >= self._monitor.whole_until:
                progress.calls[LIST] = worker.submit(LIST, list_vms(self._groups), now)
            return
        waiting = not self._monitor.settled and now < progress.monitor_until
        if FILL not in progress.calls and not waiting:
            self._fill(progress, listed, worker, now)

    def _list(self, progress: _Progress, found: Listed, at: float, now: float) -> None:
        """The round's VMs are known; ``at`` is since when, in Unix seconds."""
        progress.listed = found
        most = per_round(len(found.vms), self._interval, self._every)
        self._xml.want(self._inventories.due(found.vms, progress.begin), most, now, self._window * XML_SHARE)
        if not self._follows:
            return
        if self._reconnected:
            self._find_jobs(found, at)
        self._jobs.look(self._discovery.next_round(found.vms.values(), self._saved, progress.collected))

    def _find_jobs(self, listed: Listed, at: float) -> None:
        """The first list of a connection: events from before were not received, so that VMs that migrate and running jobs are looked for."""
        self._reconnected = False
        for uuid, vm in listed.vms.items():
            if (found := migrating(vm.data)) is not None:
                self._announce(HypervisorEvent(uuid, vm.name, Kind.STATE.value, found, at))
        self._jobs.look(list(listed.vms))

    def _fill(self, progress: _Progress, listed: Listed, worker: WorkerHandle, now: float) -> None:
        progress.answers = self._monitor.collect()
        missing = [uuid for uuid, vm in listed.vms.items() if self._exported.needs_fill(vm, progress.answers.get(uuid))]
        if fill_may_wait(self._version):
            missing = []
        progress.calls[FILL] = worker.submit(FILL, fill(missing, progress.deadline), now) if missing else None

    # -- what goes out

    def _readings(self, progress: _Progress, listed: Listed, verdicts: Mapping[str, Verdict]) -> tuple[Reading, ...]:
        self._exported.keep(listed.vms)
        answers, fills = newest(progress.answers, self._monitor.collect()), progress.fills
        return tuple(
            reading(vm, answers.get(uuid), fills.get(uuid), verdicts.get(uuid, UNDECIDED), self._exported)
            for uuid, vm in listed.vms.items()
        )

    def _took(self, progress: _Progress) -> dict[str, float]:
        monitor, asked = self._monitor.seconds if self._monitor.settled else None, progress.calls.get(LIST)
        took = {"monitor": monitor, "safe": monitor if asked is None else asked.seconds}
        return {tier: seconds for tier, seconds in took.items() if seconds is not None}

    def _described(self, listed: Listed, now: float) -> dict[str, VmInventory]:
        """The inventories of the VMs whose XML has been read since the last round, in whatever round that began."""
        found, read = {}, self._xml.collect()
        for uuid, text in read.items():
            if (vm := listed.vms.get(uuid)) is None:
                continue
            if text == "":
                self._inventories.unread(uuid, now)
            elif (inventory := self._inventories.described(uuid, vm.name, text, now)) is not None:
                found[uuid] = inventory
        if read:
            self._set_groups()
        return found

    # -- what arrives

    def _learn(self, message: Message, now: float) -> None:
        match message:
            case Returned():
                if (call := self._outbox.returned(message)) is not None:
                    takers = {SAFE: self._take_safe, MONITOR: self._monitor.take, POLL: self._jobs.take, XML: self._xml.take}
                    takers[call.worker.name](call, now)
            case Progress():
                self._progressed(message, now)
            case HypervisorEvent():
                self._event(message, now)
            case Opened() | OpenFailed() | Lost():
                self._connection_changed(message, now)
            case VersionsFound():
                self._versions.found(message)
            case Interrupted():
                self.interrupted = True
            case Tick():
                pass

    def _connection_changed(self, message: Opened | OpenFailed | Lost, now: float) -> None:
        for connection in self._connections.values():
            match message:
                case Opened(worker, libvirt_version):
                    if connection.opened(worker, libvirt_version) and connection is self._safe:
                        self._opened(libvirt_version, now)
                case OpenFailed(worker, error):
                    connection.failed(worker, error, now)
                case Lost(worker):
                    if connection.worker is not None and connection.worker.number == worker:
                        self._drop(connection, connection.worker, now, "closed by libvirt")

    def _opened(self, libvirt_version: int, now: float) -> None:
        """The safe connection is a new one."""
        self._version = self._xml.version = judged_version(self._uri, libvirt_version)
        self._set_groups()
        self._inventories.all_changed()
        self._monitor.reconnected(now)
        self._reconnected = self._versions.wanted = True

    def _drop(self, connection: ReconnectingConnection, worker: WorkerHandle, now: float, why: str) -> None:
        connection.drop(worker, now, why)
        if connection is self._safe:
            self._monitor.reconnected(now)

    def _suspect_interfaces(self, progress: _Progress) -> None:
        """After a list that was not there in its round, the interfaces are not asked for in one until it is known that none is vhost-user.

        Which NICs a VM has is known once its XML has been read, and that is wanted once the VM has been listed: with a slow Open vSwitch a VM
        that is new, or new to this process, would keep all others from being listed, without end.
        """
        before, asked = self._list_late, progress.calls.get(LIST)
        if progress.listed is not None:
            self._list_late = before and not self._inventories.all_read
        elif asked is not None and not asked.ended:
            self._list_late = True
        if self._list_late is not before:
            self._set_groups()

    def _set_groups(self) -> None:
        may_wait = self._inventories.vhost_user or self._list_late
        self._groups = self._monitor.groups = stats_groups(self._version, vhost_user=may_wait)

    def _take_safe(self, call: Call, now: float) -> None:
        """A call of the safe tier has returned; one of an earlier round has nothing to say any more, unless this one waits for its list."""
        progress = self._progress
        if call.error is not None:
            self._drop(self._safe, call.worker, now, str(call.error))
        elif call.purpose == CHECK:
            self._monitor.checked(call, now)
        elif progress.calls.get(LIST) is call and progress.listed is None:
            self._monitor.listed(call.result, now, progress.monitor_until)
            self._list(progress, call.result, call.started, now)

    def _progressed(self, message: Progress, now: float) -> None:
        call = self._outbox.call(message.call)
        if call is None:
            return
        if call.purpose == ASK:
            self._monitor.progressed(call, message.value, now)
        elif call.purpose == XML:
            self._xml.progress(call, message, now)
        elif self._progress.calls.get(FILL) is call:
            self._progress.fills[message.uuid] = message.value

    def _event(self, event: HypervisorEvent, now: float) -> None:
        self._monitor.event(event, now)
        if self._follows:
            self._announce(event)
            self._jobs.happened(event, now)
        if event.what in CHANGES_XML:
            self._inventories.changed(event.uuid)

    def _announce(self, event: HypervisorEvent) -> None:
        if self._follows:
            self._outbox.add(Announce(event))

    def _tick_connections(self, now: float) -> None:
        self._safe.tick(now)
        self._monitor.connection.tick(now)
        self._jobs.tick(now)
        self._versions.tick(now)
