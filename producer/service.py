"""The producer: rounds on a fixed grid, made into records and handed to a sink.

``run(settings, stop)`` is ``virtflow producer``: libvirt in, Kafka out. What it is made of serves the other commands as well:

    source = Sampler(settings)                        # or Recording(path)
    rounds(settings, source, stop, sink)              # virtflow node: `sink.offer` gets each NodeSnapshot, whole
    snapshot = one_snapshot(settings, source)         # virtflow snapshot: a single one, connecting included

A sink never waits: it is called on the sampling thread. ``sink.outgoing()`` reports what it had to drop, for the node's health.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.producer.records.node_health import Counters, GuestHealth, Outgoing, added, node_health
from virtflow.producer.records.vm_snapshot import Tally, vm_snapshot
from virtflow.producer.sampler import Sampler
from virtflow.producer.source import Round, Source
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.lifecycle import Stop, notify
from virtflow.runtime.process.usage import own_cpu_seconds, own_resident_bytes
from virtflow.runtime.settings import Settings
from virtflow.schemas.catalogue.types import ABSENT_LONG
from virtflow.schemas.records import NAN, GuestSample, NodeSnapshot
from virtflow.schemas.text import printable

if TYPE_CHECKING:
    from virtflow.producer.agent.supervisor import GuestAgents
    from virtflow.producer.daemons.sampler import DaemonsSampler

CLOSE_SECONDS: Final = 3.0
GRACE: Final = 0.5
"""Part of the interval by which a round may begin late without being left out."""
WATCHDOG_SECONDS: Final = 10.0
"""How often systemd hears of us at least, however long the interval is."""
DRAIN_SECONDS: Final = 5.0

_LOGGER: Final = logging.getLogger(__name__)


class Sink(Protocol):
    """Where a node's snapshots go."""

    def offer(self, snapshot: NodeSnapshot) -> None:
        """Take a round's snapshot; never waits."""

    def outgoing(self) -> Outgoing:
        """What waits, and what had to be dropped since the start."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What a snapshot carries beside its round: what publishers and guest agents report, grid points without a round, what the process takes."""

    outgoing: Outgoing = field(default_factory=Outgoing)
    rounds_skipped: int = 0
    guests: Mapping[str, GuestSample] = field(default_factory=dict)
    guest_health: GuestHealth = field(default_factory=GuestHealth)
    cpu_seconds: float = NAN
    resident_bytes: int = ABSENT_LONG


@dataclass(slots=True)
class SnapshotBuilder:
    """Makes the records of one run of the producer, from rounds alone: its boot id is random, its rounds are numbered from 0."""

    settings: Settings
    host: str = field(default_factory=lambda: node_name(Settings()))
    """As it was at the start: a host that is renamed has its new name from the producer's next run on, in rounds and events alike."""
    boot_id: str = field(default_factory=lambda: os.urandom(8).hex())
    sequence: int = 0
    rounds_late: int = 0
    tally: Tally = field(default_factory=Tally)

    def node_snapshot(self, found: Round, beside: Beside) -> NodeSnapshot:
        """The record of a round."""
        guests, inventories, kvm = beside.guests, found.inventories, self.settings.producer.kvm_statistics
        vms = [vm_snapshot(one, self.tally, inventories.get(one.uuid), guests.get(one.uuid), kvm=kvm) for one in found.readings]
        self.rounds_late += found.late
        self.sequence += 1
        return NodeSnapshot(
            node=node_name(self.settings, found.node or self.host),
            boot_id=self.boot_id,
            sequence=self.sequence - 1,
            collected=found.collected,
            interval=self.settings.producer.interval_seconds,
            health=node_health(found.up, vms, self._counters(found, beside), found.versions, beside.outgoing),
            vms=vms,
        )

    def _counters(self, found: Round, beside: Beside) -> Counters:
        return Counters(
            rounds=self.sequence,
            rounds_late=self.rounds_late,
            rounds_skipped=beside.rounds_skipped,
            reconnects=found.reconnects,
            unknown_fields=self.tally.unknown_fields,
            drops=added(found.drops, self.tally.drops),
            sampling_seconds=found.seconds,
            hung_calls=found.hung_calls,
            jobs=found.jobs,
            job_polls=found.job_polls,
            daemons=found.daemons,
            guest=beside.guest_health,
            cpu_seconds=beside.cpu_seconds,
            resident_bytes=beside.resident_bytes,
        )


def node_name(settings: Settings, recorded: str = "") -> str:
    """The node's name in all records: the setting, else what a recording says, else the host's name."""
    return printable(settings.producer.node or recorded or socket.gethostname())


def rounds(settings: Settings, source: Source, stop: Stop, sink: Sink, guests: GuestAgents | None = None) -> None:
    """Rounds on the grid until ``stop``: a round that takes too long makes the next ones fall out, counted, never stacked."""
    stop.subscribe(source.interrupt)
    builder, missed = SnapshotBuilder(settings), 0
    interval = settings.producer.interval_seconds
    due = time.monotonic()
    healthy = False
    while not stop.is_set():
        found = source.round()
        if stop.is_set():
            return
        snapshot = builder.node_snapshot(found, beside(sink.outgoing(), guests, missed))
        source.learn(snapshot.vms)
        sink.offer(snapshot)
        if found.up and not healthy:
            healthy = True
            _LOGGER.info("samples %d VMs of %s every %g s", len(snapshot.vms), snapshot.node, interval)
        notify("WATCHDOG=1")
        late = skipped(time.monotonic() - due, interval)
        missed += late
        due += interval * (late + 1)
        while not stop.is_set() and (now := time.monotonic()) < due:
            source.wait(min(due, now + WATCHDOG_SECONDS))
            notify("WATCHDOG=1")


def beside(outgoing: Outgoing, guests: GuestAgents | None = None, missed: int = 0) -> Beside:
    """What a snapshot carries beside its round now, the numbers of this process included."""
    samples, health = ({}, GuestHealth()) if guests is None else (guests.samples(), guests.health())
    return Beside(outgoing, missed, samples, health, own_cpu_seconds(), own_resident_bytes())


def guest_agents(settings: Settings, budget: CallBudget) -> GuestAgents | None:
    """The guest agents' supervisor, started; None, and nothing of it exists, unless the settings want it."""
    from virtflow.producer.agent.selection import wanted

    if not wanted(settings.guest):
        return None
    from virtflow.producer.agent.supervisor import GuestAgents

    guests = GuestAgents(settings, budget)
    guests.start()
    return guests


def skipped(took: float, interval: float) -> int:
    """How many points of the grid fall out after a round that took so long: one that has passed by half an interval at most is made up for."""
    return max(0, math.ceil(took / interval - GRACE) - 1)


def one_snapshot(settings: Settings, source: Source, seconds: float) -> NodeSnapshot:
    """A single round with libvirt's answer; after ``seconds`` without one, the last round as it is (its health has ``up`` 0)."""
    builder = SnapshotBuilder(settings)
    until = time.monotonic() + seconds
    while True:
        found = source.round()
        if found.up or time.monotonic() >= until:
            return builder.node_snapshot(found, beside(Outgoing()))


def source_of(
    settings: Settings, events: Callable[[HypervisorEvent], None] | None = None, budget: CallBudget | None = None
) -> Sampler | DaemonsSampler:
    """Rounds from libvirt here and now: from the one daemon of the settings, or from all that are found. See ``Sampler``."""
    if not settings.libvirt.discover:
        return Sampler(settings, events, budget)
    from virtflow.producer.daemons.sampler import DaemonsSampler
    from virtflow.producer.daemons.scope import refuse_contradictions

    refuse_contradictions(settings)
    return DaemonsSampler(settings, events)


def run(settings: Settings, stop: Stop) -> None:
    """``virtflow producer``: samples until ``stop`` and publishes to Kafka. Returns drained, well within the stop's limit."""
    from virtflow.producer.publishing.events import EventPublisher, WithEvents
    from virtflow.producer.publishing.snapshots import Publisher
    from virtflow.runtime.registry.schema_ids import SchemaIds

    ids = SchemaIds(settings)
    ids.start()
    publisher = Publisher(settings, framed=ids.framed)
    events = EventPublisher(settings, node_name(settings), framed=ids.framed)
    budget = CallBudget(settings.producer.hung_calls_max)
    source = source_of(settings, events.offer, budget)
    guests = guest_agents(settings, budget)
    # What is loaded by now stays until the end: no garbage collection needs to look at it again.
    gc.collect()
    gc.freeze()
    notify("READY=1")
    try:
        rounds(settings, source, stop, WithEvents(publisher, events), guests)
    finally:
        notify("STOPPING=1")
        if guests is not None:
            guests.close()
        left = publisher.close(DRAIN_SECONDS / 2)
        journaled = events.close(DRAIN_SECONDS / 2)
        closed = source.close(CLOSE_SECONDS)
        ids.stop()
    if left:
        _LOGGER.warning("stopped with %d rounds that the broker did not take", left)
    if journaled:
        _LOGGER.warning("stopped with %d events that the broker did not take: the journal has them for the next start", journaled)
    if not closed:
        # A thread is in a call to libvirt that does not return; the interpreter's own end would wait for its connection.
        logging.shutdown()
        os._exit(0)
