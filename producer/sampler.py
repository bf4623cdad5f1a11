"""Sampling: one round after another of what libvirt says of all VMs, whatever hangs.

Two tiers. The *safe* groups never wait, so every VM is in every round. The *monitor* groups can hang for ever, so they are asked on
a connection of their own, and a round takes what has arrived by its deadline. While all is well one call brings all groups of all VMs;
when it is late the safe ones are listed apart. For a VM that got no monitor answer, calls that never wait fill in CPU time, memory
and vCPUs.

    source = Sampler(settings)            # connects in the background
    found = source.round()                # a Round: at the latest interval x deadline_ratio later, also when libvirt is away
    source.close(seconds=2.0)

``virtflow.producer.service`` runs rounds on the grid and makes records of them; ``virtflow.producer.replay.Recording`` is the
other ``Source``: a file instead of libvirt.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from virtflow.producer.hung_calls.breaker_types import UNDECIDED, Openings, Verdict
from virtflow.producer.hung_calls.budget import Losing
from virtflow.producer.hung_calls.executor import LOOK, Monitor
from virtflow.producer.hung_calls.job_discovery import JobDiscovery
from virtflow.producer.hung_calls.job_poller import POLL, Jobs
from virtflow.producer.hypervisor.connection import Connection, Lane, Link, start_event_loop
from virtflow.producer.hypervisor.mailbox import Call, Happened, Inbox, Message, Opened, OpenFailed, Woken
from virtflow.producer.hypervisor.qemu_events import QemuStatus
from virtflow.producer.hypervisor.queries import Listed, fill, list_vms, read_descriptions, versions_at
from virtflow.producer.hypervisor.subscriptions import CHANGES_DESCRIPTION, in_transit, register
from virtflow.producer.records.inventory_cache import Inventories, per_round
from virtflow.producer.records.merge import Answer, Shown, newest, reading
from virtflow.producer.records.node_health import Lost, Versions
from virtflow.producer.records.vm_snapshot import Reading
from virtflow.runtime.settings import Settings
from virtflow.runtime.version import version
from virtflow.schemas.jobs import Kind
from virtflow.schemas.records import VmInventory

MONITOR_SHARE: Final = 0.75
"""Part of the round's time after which VMs without a monitor answer are filled in."""
JOB_PATIENCE: Final = 2
"""How long a poll of a job may take, in the time a call may stay in one VM: QEMU is slow at the end of a migration."""
LIST, DESCRIBE, FILL = "list", "describe", "fill"
DESCRIBE_SHARE: Final = 0.25
"""Part of the round's time that reading XML may take."""

_LOGGER: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """What libvirt said in one round.

    ``collected`` is its begin in Unix seconds. ``up`` says whether libvirt answered; ``late`` whether VMs lack their monitor groups
    because those had not answered in time. ``seconds`` is how long each tier took; ``drops`` what could not be had, since the start.
    ``node`` is where a recording was made, "" for libvirt here and now.
    """

    collected: float
    up: bool
    late: bool = False
    readings: tuple[Reading, ...] = ()
    inventories: Mapping[str, VmInventory] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Versions = field(default_factory=lambda: Versions(version()))
    reconnects: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    jobs: int = 0
    job_polls: Mapping[str, int] = field(default_factory=dict)
    node: str = ""
    lost: Lost = field(default_factory=Lost)


class Source(Protocol):
    """Where rounds come from: libvirt, or a recording of it."""

    def round(self) -> Round:
        """The next round; returns by its deadline whatever happens."""

    def wait(self, until: float) -> None:
        """Let the monotonic clock come to ``until`` and take what arrives meanwhile; may return earlier."""

    def devices(self, uuid: str, names: tuple[str, ...]) -> None:
        """Learn which devices a VM of the round has."""

    def wake(self) -> None:
        """Have ``round`` or ``wait`` return at once, from whatever thread: it is time to stop."""

    def close(self, seconds: float) -> bool:
        """Let go of everything within ``seconds``; False when a thread is still in a call that does not return."""


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
    xml: dict[str, str] = field(default_factory=dict)
    asked_xml: tuple[str, ...] = ()

    def ended(self, purpose: str) -> bool:
        """Whether that step of this round is over: its call was made and has ended, or there was nothing to ask."""
        if purpose not in self.calls:
            return False
        call = self.calls[purpose]
        return call is None or call.ended

    @property
    def complete(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.listed is not None and self.ended(DESCRIBE) and self.ended(FILL)


class Sampler:
    """Rounds from libvirt. All decisions are made in the thread that calls ``round`` and ``wait``."""

    def __init__(
        self,
        settings: Settings,
        rng: random.Random | None = None,
        events: Callable[[Happened], None] | None = None,
        elsewhere: Losing | None = None,
    ) -> None:
        """Begin to connect, never waiting. ``events`` gets what happens to VMs and their jobs, ``elsewhere`` loses calls under the same cap."""
        start_event_loop()
        self._interval = settings.producer.interval_seconds
        self._window = self._interval * settings.producer.deadline_ratio
        self._every = settings.producer.inventory_seconds
        self._inbox = Inbox()
        self._woken = False
        self._versions = Versions(version())
        listens = events is not None and settings.libvirt.migration_status
        self._status = QemuStatus(settings.libvirt.uri, self._inbox) if listens else None
        rng = rng or random.Random()  # noqa: S311, jitter
        self._safe = Link("safe", settings.libvirt, self._inbox, self._interval, self._prepare, rng, self._may_see)
        link = Link("monitor", settings.libvirt, self._inbox, self._interval, None, rng, self._may_open)
        self._monitor = Monitor(link, self._safe, settings.producer, rng)
        link = Link(POLL, settings.libvirt, self._inbox, self._interval, None, rng, self._may_open)
        patience = JOB_PATIENCE * self._monitor.captives.limits.patience
        self._events = events
        self._elsewhere = elsewhere
        self._jobs = Jobs(link, self._monitor, self._tell, settings.producer.job_seconds, patience)
        self._discovery = JobDiscovery(settings.producer.job_discovery_seconds, self._interval)
        self._connected_anew = False
        self._libvirt = settings.libvirt
        self._learning = 0.0
        """Since when versions are asked for on a connection of its own; 0: they are not."""
        self._unlearned = False
        self._taking = {self._safe.name: self._take, self._monitor.link.name: self._monitor.take, POLL: self._jobs.take}
        self._inventories = Inventories(self._every, rng)
        self._shown = Shown()
        self._progress = self._new_progress()
        self._tend()

    def _prepare(self, connection: Connection) -> None:
        """Once per connection, in its thread: the callbacks."""
        register(connection, self._inbox)
        if self._status is not None:
            self._status.listen()

    def _learn_versions(self) -> None:
        """In a thread of its own, one at a time: the versions on the node."""
        self._versions = Versions(version(), *versions_at(self._libvirt.uri))
        self._learning = 0.0

    # -- the round

    def round(self) -> Round:
        """The next round; see ``Source``."""
        progress = self._progress = self._new_progress()
        if self._elsewhere is not None:
            self._monitor.captives.slots.elsewhere = self._elsewhere.lost
        self._check_connections(progress.begin)
        self._tend()
        self._monitor.begin(progress.begin, progress.monitor_until)
        self._advance(progress)
        while not (progress.complete or self._woken) and (now := time.monotonic()) < progress.deadline:
            message = self._inbox.take(self._next_step(progress, now))
            if message is not None:
                self._handle(message)
            self._tend()
            self._advance(progress)
        self._monitor.end()
        return self._finished(progress)

    def wait(self, until: float) -> None:
        """Take what arrives until then; see ``Source``."""
        while not self._woken and (now := time.monotonic()) < until:
            message = self._inbox.take(min(until, max(now, self._due())))
            if message is not None:
                self._handle(message)
            self._tend()
            self._monitor.advance(time.monotonic())

    def _new_progress(self) -> _Progress:
        now = time.monotonic()
        return _Progress(now, time.time(), now + self._window, now + self._window * MONITOR_SHARE)

    def _next_step(self, progress: _Progress, now: float) -> float:
        steps = [progress.deadline, self._due()]
        if progress.listed is None:
            steps += [self._monitor.whole_until] if self._monitor.whole_until > now else []
        elif FILL not in progress.calls:
            steps.append(progress.monitor_until)
        return max(now, min(steps))

    def _advance(self, progress: _Progress) -> None:
        """Begin whatever can begin now."""
        now = time.monotonic()
        self._monitor.advance(now)
        if progress.listed is None and self._monitor.whole is not None:
            self._list(progress, self._monitor.whole, progress.collected)
        lane, listed = self._safe.lane, progress.listed
        if lane is None:
            return
        if listed is None:
            if LIST not in progress.calls and lane.idle and now >= self._monitor.whole_until:
                progress.calls[LIST] = lane.submit(LIST, list_vms)
            return
        if DESCRIBE not in progress.calls:
            self._describe(progress, listed, lane)
        waiting = not self._monitor.settled and now < progress.monitor_until
        if FILL not in progress.calls and not waiting:
            self._fill(progress, listed, lane)

    def _describe(self, progress: _Progress, listed: Listed, lane: Lane) -> None:
        due = self._inventories.due(listed.vms, progress.begin)[: per_round(len(listed.vms), self._interval, self._every)]
        progress.asked_xml = tuple(due)
        job = read_descriptions(due, progress.xml, progress.begin + self._window * DESCRIBE_SHARE)
        progress.calls[DESCRIBE] = lane.submit(DESCRIBE, job) if due else None

    def _fill(self, progress: _Progress, listed: Listed, lane: Lane) -> None:
        progress.answers = self._monitor.collect()
        missing = [uuid for uuid, vm in listed.vms.items() if self._shown.needs_fill(vm, progress.answers.get(uuid))]
        progress.calls[FILL] = lane.submit(FILL, fill(missing, progress.fills, progress.deadline)) if missing else None

    def _finished(self, progress: _Progress) -> Round:
        listed, verdicts = progress.listed, self._monitor.verdicts()
        return Round(
            progress.collected,
            up=listed is not None,
            late=listed is not None and not self._monitor.settled,
            readings=() if listed is None else self._readings(progress, listed, verdicts),
            inventories={} if listed is None else self._described(progress, listed),
            seconds={} if listed is None else self._took(progress),
            versions=self._versions,
            reconnects=max(0, self._safe.connects - 1) + max(0, self._monitor.link.connects - 1),
            drops=dict(self._inventories.drops),
            jobs=self._jobs.running,
            job_polls=dict(self._jobs.polls),
            lost=self._monitor.health(verdicts),
        )

    def _readings(self, progress: _Progress, listed: Listed, verdicts: Mapping[str, Verdict]) -> tuple[Reading, ...]:
        self._shown.keep(listed.vms)
        answers, fills = newest(progress.answers, self._monitor.collect()), dict(progress.fills)
        return tuple(
            reading(vm, answers.get(uuid), fills.get(uuid), verdicts.get(uuid, UNDECIDED), self._shown) for uuid, vm in listed.vms.items()
        )

    def _took(self, progress: _Progress) -> dict[str, float]:
        monitor, asked = self._monitor.seconds if self._monitor.settled else None, progress.calls.get(LIST)
        took = {"monitor": monitor, "safe": monitor if asked is None else asked.seconds}
        return {tier: seconds for tier, seconds in took.items() if seconds is not None}

    def _described(self, progress: _Progress, listed: Listed) -> dict[str, VmInventory]:
        found, xml, now = {}, dict(progress.xml), time.monotonic()
        for uuid in progress.asked_xml:
            text = xml.get(uuid)
            if text == "":
                self._inventories.unread(uuid, now)
            elif text is not None and (inventory := self._inventories.described(uuid, listed.vms[uuid].name, text, now)) is not None:
                found[uuid] = inventory
        return found

    def devices(self, uuid: str, names: tuple[str, ...]) -> None:
        """Learn which devices a VM of the round has; see ``Source``."""
        self._inventories.devices(uuid, names)

    # -- what arrives

    def _tend(self) -> None:
        now = time.monotonic()
        self._safe.tend(now)
        self._monitor.link.tend(now)
        self._jobs.tend(now)
        opens = self._unlearned or self._learning or self._safe.opening or self._monitor.link.opening or self._jobs.link.opening
        if not opens and self._monitor.captives.slots.openings == Openings():
            return  # as in nearly every round: nothing is being opened, and the captives know it
        if self._may_open() and self._unlearned and not self._learning:
            self._unlearned, self._learning = False, now
            threading.Thread(target=self._learn_versions, name="libvirt-versions", daemon=True).start()

    def _may_open(self) -> bool:
        """Whether the cap allows one more opening, which may hang; the captives learn how many are out."""
        now, links, learning = time.monotonic(), (self._safe, self._monitor.link, self._jobs.link), self._learning
        slow = learning > 0 and now - learning >= self._libvirt.connect_timeout_seconds
        hanging = [link.hanging(now) for link in links]
        out = [link.opening - hangs for link, hangs in zip(links, hanging, strict=True)]
        others = out[0] + out[2] + (learning > 0 and not slow)
        return self._monitor.openings(Openings(out[1], others, sum(hanging) + slow), now)

    def _may_see(self) -> bool:
        """One opening of the safe connection is made even at the cap: without it all VMs of the host would be gone."""
        return not self._safe.opening or self._may_open()

    def _check_connections(self, now: float) -> None:
        """A connection that nobody called by since it was lost is found out here; asking whether it stands asks nobody."""
        for link in (self._safe, self._monitor.link):
            if (lane := link.lane) is not None and not lane.alive:
                link.drop(lane, now, "closed by libvirt")
                if link is self._safe:
                    self._monitor.reconnected(now)

    def _due(self) -> float:
        return min(self._safe.due, self._monitor.link.due, self._monitor.due, self._jobs.due)

    def _link(self, lane: Lane) -> Link:
        return next(link for link in (self._safe, self._monitor.link, self._jobs.link) if link.name == lane.name)

    def _handle(self, message: Message) -> None:
        now = time.monotonic()
        if isinstance(message, Call):
            message.lane.returned()
        match message:
            case Opened(lane):
                if self._link(lane).opened(lane) and lane.name == self._safe.name:
                    self._inventories.all_changed()
                    self._monitor.reconnected(now)
                    self._connected_anew = True
                    self._unlearned = True
            case OpenFailed(lane, error):
                self._link(lane).failed(lane, error, now)
            case Happened():
                self._happened(message, now)
            case Woken():
                self._woken = True
            case Call():
                self._taking[message.lane.name](message, now)

    def _happened(self, event: Happened, now: float) -> None:
        self._monitor.moved(event.uuid, now)
        if self._events is not None:
            self._events(event)
            self._jobs.happened(event, now)
        if event.what in CHANGES_DESCRIPTION:
            self._inventories.changed(event.uuid)

    def _take(self, call: Call, now: float) -> None:
        """A call of the safe tier has ended; one of an earlier round has nothing to say any more."""
        if call.error is not None:
            self._safe.drop(call.lane, now, str(call.error))
            self._monitor.reconnected(now)
        elif call.purpose == LOOK:
            self._monitor.looked(call, now)
        elif self._progress.calls.get(LIST) is call and self._progress.listed is None:
            self._monitor.listed(call.result, now, self._progress.monitor_until)
            self._list(self._progress, call.result, call.started)

    def _list(self, progress: _Progress, found: Listed, at: float) -> None:
        """The round's VMs are known."""
        progress.listed = found
        if self._events is None:
            return
        if self._connected_anew:
            self._found(found, at)
        self._jobs.look(self._discovery.next_round(found.vms.values()))

    def _found(self, listed: Listed, at: float) -> None:
        """The first list of a connection: what happened before nobody heard, so VMs in transit and running jobs are looked for."""
        self._connected_anew = False
        for uuid, vm in listed.vms.items():
            if (found := in_transit(vm.data)) is not None:
                self._tell(Happened(uuid, vm.name, Kind.STATE.value, found, at))
        self._jobs.look(list(listed.vms))

    def _tell(self, happened: Happened) -> None:
        if self._events is not None:
            self._events(happened)

    # -- the end

    def wake(self) -> None:
        """Return from waiting; see ``Source``."""
        self._inbox.put(Woken())

    def close(self, seconds: float) -> bool:
        """Close the connections; see ``Source``."""
        until = time.monotonic() + seconds
        lanes = self._safe.close() + self._monitor.link.close() + self._jobs.link.close()
        ended = [lane.join(until - time.monotonic()) for lane in lanes]
        return all(ended)
