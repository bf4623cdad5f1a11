"""The producer: rounds on a fixed grid, made into records and handed to a sink.

``run(settings, stop)`` is ``virtflow producer``: libvirt in, Kafka out. What it is made of serves the other commands as well:

    source = Sampler(settings)                        # or Recording(path)
    rounds(settings, source, stop, sink)              # virtflow node: `sink.offer` gets each NodeSnapshot, whole
    snapshot = one_snapshot(settings, source)         # virtflow snapshot: a single one, connecting included

A sink never waits: it is called on the sampling thread. ``sink.outgoing()`` tells what it had to drop, for the node's health.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from virtflow.producer.records.node_health import Counts, Outgoing, added, node_health
from virtflow.producer.records.vm_snapshot import Tally, device_names, printable, vm_snapshot
from virtflow.producer.sampler import Round, Sampler, Source
from virtflow.runtime.lifecycle import Stop, notify
from virtflow.runtime.settings import Settings
from virtflow.schemas.records import NodeSnapshot

if TYPE_CHECKING:
    from virtflow.producer.agent.supervisor import GuestAgents

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


@dataclass(slots=True)
class Maker:
    """Makes the records of one run of the producer: its boot id is random, its rounds are numbered from 0."""

    settings: Settings
    boot_id: str = field(default_factory=lambda: os.urandom(8).hex())
    sequence: int = 0
    counts: Counts = field(default_factory=Counts)
    tally: Tally = field(default_factory=Tally)
    guests: GuestAgents | None = None

    def node_snapshot(self, found: Round, source: Source, outgoing: Outgoing) -> NodeSnapshot:
        """The record of a round; the source learns the VMs' devices."""
        told = self.guests.samples() if self.guests is not None else {}
        vms = [vm_snapshot(one, self.tally, found.inventories.get(one.uuid), told.get(one.uuid)) for one in found.readings]
        for vm in vms:
            if vm.monitor_collected == vm.monitor_collected:  # not NaN: only a full answer tells all devices
                source.devices(vm.uuid, device_names(vm))
        counts = self.counts
        counts.rounds += 1
        counts.rounds_late += found.late
        counts.reconnects = found.reconnects
        counts.unknown_fields = self.tally.unknown_fields
        counts.drops = added(found.drops, self.tally.drops)
        counts.sampling_seconds = dict(found.seconds)
        counts.lost = found.lost
        counts.jobs, counts.job_polls = found.jobs, found.job_polls
        if self.guests is not None:
            self.guests.host_lost(found.lost.hung_calls - found.lost.elsewhere)
            counts.guest = self.guests.health()
        snapshot = NodeSnapshot(
            node=node_name(self.settings, found.node),
            boot_id=self.boot_id,
            sequence=self.sequence,
            collected=found.collected,
            interval=self.settings.producer.interval_seconds,
            health=node_health(found.up, vms, counts, found.versions, outgoing),
            vms=vms,
        )
        self.sequence += 1
        return snapshot


def node_name(settings: Settings, recorded: str = "") -> str:
    """The node's name in all records: the setting, else what a recording says, else the host's name."""
    return printable(settings.producer.node or recorded or socket.gethostname())


def rounds(settings: Settings, source: Source, stop: Stop, sink: Sink, guests: GuestAgents | None = None) -> None:
    """Rounds on the grid until ``stop``: a round that takes too long makes the next ones fall out, counted, never stacked."""
    stop.subscribe(source.wake)
    maker = Maker(settings, guests=guests)
    interval = settings.producer.interval_seconds
    due = time.monotonic()
    while not stop.is_set():
        found = source.round()
        if stop.is_set():
            return
        sink.offer(maker.node_snapshot(found, source, sink.outgoing()))
        notify("WATCHDOG=1")
        missed = skipped(time.monotonic() - due, interval)
        maker.counts.rounds_skipped += missed
        due += interval * (missed + 1)
        while not stop.is_set() and (now := time.monotonic()) < due:
            source.wait(min(due, now + WATCHDOG_SECONDS))
            notify("WATCHDOG=1")


def guest_agents(settings: Settings) -> GuestAgents | None:
    """What asks the guests' agents, begun; None, and nothing of it exists, unless the settings want it."""
    from virtflow.producer.agent.selection import wanted

    if not wanted(settings.guest):
        return None
    from virtflow.producer.agent.supervisor import GuestAgents

    guests = GuestAgents(settings)
    guests.start()
    return guests


def skipped(took: float, interval: float) -> int:
    """How many points of the grid fall out after a round that took so long: one that has passed by half an interval at most is made up for."""
    return max(0, math.ceil(took / interval - GRACE) - 1)


def one_snapshot(settings: Settings, source: Source, seconds: float) -> NodeSnapshot:
    """A single round with libvirt's answer; after ``seconds`` without one, the last round as it is (its health has ``up`` 0)."""
    maker = Maker(settings)
    until = time.monotonic() + seconds
    while True:
        found = source.round()
        if found.up or time.monotonic() >= until:
            return maker.node_snapshot(found, source, Outgoing())


def run(settings: Settings, stop: Stop) -> None:
    """``virtflow producer``: samples until ``stop`` and publishes to Kafka. Returns drained, well within the stop's limit."""
    from virtflow.producer.publishing.events import EventPublisher, WithEvents
    from virtflow.producer.publishing.snapshots import Publisher
    from virtflow.runtime.registry import SchemaIds

    ids = SchemaIds(settings)
    ids.start()
    publisher = Publisher(settings, framed=ids.framed)
    events = EventPublisher(settings, node_name(settings), framed=ids.framed)
    guests = guest_agents(settings)
    source = Sampler(settings, events=events.offer, elsewhere=guests)
    # What is loaded by now stays until the end: no collection needs to look at it again.
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
