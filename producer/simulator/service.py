"""``virtflow simulate``: many hypervisors that do not exist send real snapshots, the same way a producer's go.

What the VMs do is a pure function of the seed and the time (``simulate_fleet``); from libvirt's statistics on it is the
producer's own code: clean, snapshot, split, encode, publish. Each node has its own moment within the interval, so that the load
is even.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from virtflow.producer.publishing.split import messages
from virtflow.producer.records.node_health import Counters, Outgoing, Versions, node_health
from virtflow.producer.records.vm_event import vm_event
from virtflow.producer.records.vm_snapshot import Reading, Tally, vm_snapshot
from virtflow.producer.simulator.agent import guest_at
from virtflow.producer.simulator.fleet import SimulatedVm, lasting, vms_at
from virtflow.producer.simulator.migrations import Traveller, happenings, travellers, travellers_at
from virtflow.producer.simulator.stuck import as_hung, hangs
from virtflow.runtime.kafka.clients import ClientSettings, snapshot_producer_settings, topic_name
from virtflow.runtime.kafka.librdkafka import KafkaError, KafkaException, Producer, ended, take_reports
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.process.usage import own_cpu_seconds, own_resident_bytes
from virtflow.runtime.registry.schema_ids import SchemaIds
from virtflow.runtime.settings import Settings
from virtflow.runtime.version import version
from virtflow.schemas.avro.encoder import Encoder
from virtflow.schemas.records import NodeSnapshot, VmInventory
from virtflow.schemas.topics import EVENTS, SNAPSHOTS

_LOG: Final = logging.getLogger("virtflow.simulate")


class Fleet(Struct, frozen=True):
    """What is simulated: nodes, VM slots on each, the interval in seconds, how often an inventory is sent again, the seed, VMs that move.

    ``guests``: their guests' agents are asked. ``stuck`` VMs of each node hang now and then.
    """

    nodes: int
    vms: int
    interval_seconds: float
    inventory_seconds: float
    seed: int
    migrations: int = 0
    guests: bool = False
    stuck: int = 0

    def travellers(self) -> tuple[Traveller, ...]:
        """The VMs that move from node to node."""
        return travellers(self.seed, tuple(self.node(index) for index in range(self.nodes)), self.migrations)

    def node(self, index: int) -> str:
        """The name of a node."""
        return f"sim-{self.seed}-{index:0{len(str(self.nodes))}d}"

    def due(self, began: float) -> Iterator[tuple[int, int, float]]:
        """Every round of every node from ``began`` on, in time's order and without end: node, sequence, when it is due."""
        sequence = 0
        while True:
            for index in range(self.nodes):
                yield index, sequence, began + (sequence + index / self.nodes) * self.interval_seconds
            sequence += 1


class SimulatedNode:
    """One hypervisor: turns its VMs at a time into the round a producer would send."""

    def __init__(self, fleet: Fleet, name: str, boot_id: str) -> None:
        """``boot_id`` is this run's, as a producer's is."""
        self._fleet = fleet
        self._name = name
        self._boot_id = boot_id
        self._tally = Tally()
        self._inventory_sent: dict[str, float] = {}
        self._travellers = fleet.travellers()
        self._stuck = frozenset(itertools.islice(lasting(fleet.seed, name, fleet.vms), fleet.stuck))

    def round_at(self, sequence: int, seconds: float) -> NodeSnapshot:
        """The round of ``sequence``, collected at ``seconds`` (Unix time)."""
        vms = vms_at(self._fleet.seed, self._name, self._fleet.vms, seconds)
        vms += travellers_at(self._fleet.seed, self._travellers, self._name, seconds)
        snapshots = [vm_snapshot(self._reading(vm, seconds), self._tally, self._inventory(vm, seconds)) for vm in vms]
        if self._fleet.guests:
            snapshots = [replace(one, guest=[guest_at(vm, seconds)]) for one, vm in zip(snapshots, vms, strict=True)]
        self._inventory_sent = {vm.uuid: self._inventory_sent[vm.uuid] for vm in vms}
        counters = Counters(
            rounds=sequence + 1,
            unknown_fields=self._tally.unknown_fields,
            sampling_seconds={"safe": 0.002 * len(vms), "monitor": 0.01 * len(vms)},
            cpu_seconds=own_cpu_seconds(),
            resident_bytes=own_resident_bytes(),
        )
        return NodeSnapshot(
            node=self._name,
            boot_id=self._boot_id,
            sequence=sequence,
            collected=seconds,
            interval=self._fleet.interval_seconds,
            health=node_health(True, snapshots, counters, Versions(version(), "simulated", "simulated"), Outgoing()),  # noqa: FBT003, up
            vms=snapshots,
        )

    def _reading(self, vm: SimulatedVm, seconds: float) -> Reading:
        if vm.uuid in self._stuck and hangs(seconds):
            return Reading(vm.uuid, vm.name, as_hung(vm.stats))
        return Reading(vm.uuid, vm.name, vm.stats, seconds)

    def _inventory(self, vm: SimulatedVm, seconds: float) -> VmInventory | None:
        """The VM's inventory when it is new or due again."""
        if seconds - self._inventory_sent.get(vm.uuid, -math.inf) < self._fleet.inventory_seconds:
            return None
        self._inventory_sent[vm.uuid] = seconds
        return vm.inventory


class _Out:
    """The way to the broker; what it can't take is counted and dropped, as a producer drops what is too old."""

    def __init__(self, settings: Settings, make: Callable[[ClientSettings], Any] = Producer) -> None:
        self._config = snapshot_producer_settings(settings)
        self._make = make
        self._producer = make(self._config)
        self._ended = False
        self._topic = topic_name(settings, SNAPSHOTS)
        self._events = topic_name(settings, EVENTS)
        self.sent = 0
        self.dropped = 0

    def send(self, node: str, message: bytes) -> None:
        self._send(self._topic, node, message)

    def send_event(self, uuid: str, message: bytes) -> None:
        self._send(self._events, uuid, message)

    def _send(self, topic: str, key: str, message: bytes) -> None:
        try:
            self._producer.produce(topic, message, key, on_delivery=self._report)
            self.sent += 1
        except BufferError:
            self.dropped += 1
        except KafkaException as error:
            self._not_delivered(topic, error.args[0])

    def serve(self, seconds: float) -> None:
        """Reads delivery reports for so long; a client that an error has ended is replaced."""
        if not take_reports(self._producer, seconds):
            self._ended = True
        if self._ended and not len(self._producer):
            self._producer = self._make(self._config)
            self._ended = False

    def close(self) -> None:
        """Gives what is queued a few seconds."""
        with suppress(KafkaException):
            self._producer.flush(FLUSH_SECONDS)

    def _report(self, error: Any, message: Any) -> None:  # noqa: ANN401, the extension has no types
        if error is not None:
            self._not_delivered(message.topic(), error)

    def _not_delivered(self, topic: str, error: Any) -> None:  # noqa: ANN401, as above
        self.dropped += 1
        self._ended = self._ended or ended(error)
        fix = "run `virtflow topics create`" if error.code() in _MISSING else "`virtflow check --for producer` says more"
        _LOG.warning("a message for topic %s was not delivered: %s; %s", topic, error.str(), fix)


FLUSH_SECONDS: Final = 5.0
_MISSING: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001, the client's own name
TELL_SECONDS: Final = 30.0
WAIT_SECONDS: Final = 0.2


def run(settings: Settings, stop: Stop) -> None:
    """Simulates until ``stop`` is set; rounds that are late are skipped, never stacked."""
    wanted = settings.simulate
    producer = settings.producer
    fleet = Fleet(
        wanted.nodes,
        wanted.vms,
        producer.interval_seconds,
        producer.inventory_seconds,
        wanted.seed,
        wanted.migrations,
        wanted.guests,
        wanted.stuck,
    )
    ids = SchemaIds(settings)
    ids.start()
    out = _Out(settings)
    _LOG.info("%d nodes with %d VMs each, every %g s, seed %d", fleet.nodes, fleet.vms, fleet.interval_seconds, fleet.seed)
    try:
        while ids.missing and not stop.wait(WAIT_SECONDS):
            _LOG.warning("waiting: %s", ids.missing)
        _simulate(fleet, Encoder(ids.ids), out, stop)
    finally:
        out.close()
        ids.stop()
        _LOG.info("%d messages sent, %d dropped", out.sent, out.dropped)


class _Events:
    """What happens to the VMs that move, sent as it happens; numbered for each node, as a producer numbers them."""

    def __init__(self, fleet: Fleet, boot_id: str, began: float) -> None:
        self._seed = fleet.seed
        self._travellers = fleet.travellers()
        self._boot_id = boot_id
        self._told = began
        self._sequences: Counter[str] = Counter()

    def send(self, now: float, codec: Encoder, out: _Out) -> None:
        """Sends what happened since the last time."""
        for node, happened in happenings(self._seed, self._travellers, self._told, now):
            out.send_event(happened.uuid, codec.encode(vm_event(happened, node, self._boot_id, self._sequences[node])))
            self._sequences[node] += 1
        self._told = now


def _simulate(fleet: Fleet, codec: Encoder, out: _Out, stop: Stop) -> None:
    boot_id = os.urandom(8).hex()
    nodes = [SimulatedNode(fleet, fleet.node(index), boot_id) for index in range(fleet.nodes)]
    began = time.time()
    told, skipped = began, 0
    events = _Events(fleet, boot_id, began)
    for index, sequence, due in fleet.due(began):
        while (ahead := due - time.time()) > 0 and not stop.is_set():
            out.serve(min(ahead, 0.1))
            events.send(time.time(), codec, out)
        if stop.is_set():
            return
        if ahead < -fleet.interval_seconds:
            skipped += 1
        else:
            for message in messages(nodes[index].round_at(sequence, due), codec.encode):
                out.send(fleet.node(index), message)
        if due - told >= TELL_SECONDS:
            told = due
            _LOG.info("%d messages sent, %d dropped, %d rounds skipped", out.sent, out.dropped, skipped)
