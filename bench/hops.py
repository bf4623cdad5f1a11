"""CPU of each hop of the data, per VM-sample, in one process and on one snapshot; and what the usual ways cost beside it."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import avro.io
import avro.schema
import msgspec
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from bench.part import Asked, origin
from tests.support.broker import Broker
from tests.support.exporter_intake import Sent, Served, sent
from tests.support.kvm_host import answer
from tools.documents import table
from virtflow.exporter.exposition import exposition
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.render.node import NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.scrape_cache import GZIP_LEVEL, GZIP_WINDOW
from virtflow.processors.dead_letters.dead_letter import Result
from virtflow.processors.delivery import Delivery
from virtflow.processors.metrics import Tally
from virtflow.processors.normalise import normalise_snapshot
from virtflow.producer.records.vm_snapshot import Reading, vm_snapshot
from virtflow.producer.records.vm_snapshot import Tally as CleanTally
from virtflow.producer.simulator.fleet import vms_at
from virtflow.producer.simulator.service import Fleet as SimulatedFleet
from virtflow.producer.simulator.service import SimulatedNode
from virtflow.runtime.configuration import load
from virtflow.runtime.kafka.clients import acknowledged_producer_settings
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.schemas.avro.codec import SINGLE_OBJECT_SIZE, Codec, shipped_schemas
from virtflow.schemas.catalogue.metrics import METRICS as CATALOGUE
from virtflow.schemas.catalogue.types import Metric as Row
from virtflow.schemas.records import NodeSnapshot, VmMetrics
from virtflow.schemas.topics import METRICS

VMS: Final = 50
ROUNDS: Final = 8
REPEATS: Final = 7
KVM_TURNS: Final = 200
MANY_NODES: Final = 20
MANY_REPEATS: Final = 3
SAMPLES_PER_SCRAPE: Final = (1, 10)
BEGAN: Final = 1_795_476_243.0
DELIVERED: Final = 20_000
CENTRE: Final = ("decode snapshot", "normalise", "encode metrics", "deliver", "exporter: decode", "exporter: ingest and render")
CENTRE_BUDGET_US: Final = 200.0

_NAMES: Final = frozenset(row.name for row in CATALOGUE)


@dataclass(frozen=True, slots=True)
class Hop:
    """One hop's CPU in microseconds per VM-sample; ``note`` says what was measured."""

    name: str
    microseconds: float
    note: str


@dataclass(frozen=True, slots=True)
class Rival:
    """Another way of doing a hop, in the same run: its CPU in microseconds per VM-sample, ours, and what it is."""

    name: str
    microseconds: float
    ours: float
    note: str


def cpu_us(work: Callable[[], object], samples: int, repeats: int = REPEATS) -> float:
    """CPU of all threads of this process per sample: the median of several runs of ``work``, which handles ``samples``."""
    runs = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        runs.append((time.process_time() - began) / samples * 1e6)
    return median(runs)


class Data:
    """What the hops work on: some rounds of one node's VMs, one second apart, as each hop sees them."""

    def __init__(self) -> None:
        """Makes them; the codec is the shipped one with single-object framing."""
        self.codec = Codec()
        fleet = SimulatedFleet(nodes=1, vms=VMS, interval_seconds=1.0, inventory_seconds=300.0, seed=1)
        node = SimulatedNode(fleet, "node-1", "boot")
        self.fleet = fleet
        self.snapshots = [node.round_at(number, BEGAN + number) for number in range(ROUNDS)]
        self.encoded = [self.codec.encode(snapshot) for snapshot in self.snapshots]
        self.metrics = [sample for snapshot in self.snapshots for sample in normalise_snapshot(snapshot).metrics]
        self.encoded_metrics = [self.codec.encode(sample) for sample in self.metrics]
        self.samples = len(self.metrics)


def hops(data: Data, folder: Path) -> Iterator[Hop]:
    """Every hop from libvirt's answer to a scrape's bytes."""
    samples, codec = data.samples, data.codec
    readings = [Reading(vm.uuid, vm.name, vm.stats, BEGAN) for vm in vms_at(1, "node-1", VMS, BEGAN)] * ROUNDS
    values = sum(len(reading.data) for reading in readings) / len(readings)
    tally = CleanTally()
    yield Hop("clean", cpu_us(lambda: [vm_snapshot(r, tally) for r in readings], len(readings)), f"{values:.0f} values a VM")
    yield kvm_hop()
    size = sum(map(len, data.encoded)) / samples
    yield Hop("encode snapshot", cpu_us(lambda: [codec.encode(s) for s in data.snapshots], samples), f"{size:.0f} bytes a VM")
    yield Hop("decode snapshot", cpu_us(lambda: [codec.decode(d, NodeSnapshot) for d in data.encoded], samples), f"{VMS} VMs a message")
    yield Hop("normalise", cpu_us(lambda: [normalise_snapshot(s) for s in data.snapshots], samples), "libvirt's units to base units")
    size = sum(map(len, data.encoded_metrics)) / samples
    yield Hop("encode metrics", cpu_us(lambda: [codec.encode(m) for m in data.metrics], samples), f"{size:.0f} bytes a VM")
    yield Hop("deliver", deliver_us(data, folder), "to a real broker, until acknowledged")
    yield Hop("exporter: decode", cpu_us(lambda: [codec.decode(d, VmMetrics) for d in data.encoded_metrics], samples), "one VM a message")
    yield Hop("exporter: ingest and render", ingest_us(data), f"{lines_of(data) / VMS:.0f} series a VM, each sample scraped")
    yield Hop("exporter: scrape", scrape_us(data), "join by family and gzip, per VM and scrape")
    yield from exporter_hops()


def exporter_hops() -> Iterator[Hop]:
    """From messages to a scrape's bytes: samples one by one, and together in columns, with one and with ten samples of a VM for each scrape."""
    messages = messages_of_rounds(1 + max(SAMPLES_PER_SCRAPE))
    for often in SAMPLES_PER_SCRAPE:
        rows, columns = (exporter_us(messages, often, together=together) for together in (False, True))
        what = f"from messages to a scrape, {often} sample{'s' if often > 1 else ''} of a VM each"
        yield Hop(f"exporter: one by one, {often} a scrape", rows, what)
        yield Hop(f"exporter: in columns, {often} a scrape", columns, f"{what}: {rows / columns:.1f} times less")


def messages_of_rounds(rounds: int) -> list[list[Sent]]:
    """The messages of some rounds of many VMs."""
    fleet = SimulatedFleet(nodes=MANY_NODES, vms=VMS, interval_seconds=1.0, inventory_seconds=300.0, seed=1)
    nodes = [SimulatedNode(fleet, f"node-{number}", "boot") for number in range(MANY_NODES)]
    snapshots = [[node.round_at(number, BEGAN + number) for node in nodes] for number in range(rounds)]
    return [[sent(sample) for snapshot in each for sample in normalise_snapshot(snapshot).metrics] for each in snapshots]


def exporter_us(messages: list[list[Sent]], often: int, *, together: bool) -> float:
    """CPU of an exporter for each VM-sample, the first round, in which all VMs are new, apart; the client is not in it."""
    runs = []
    for _ in range(MANY_REPEATS):
        served = Served(together=together)
        served.take(*messages[0])
        served.intake.settle()
        zipped(served.fleet)
        began = time.process_time()
        for start in range(1, len(messages), often):
            for each in messages[start : start + often]:
                served.take(*each)
                served.intake.settle()
            zipped(served.fleet)
        runs.append((time.process_time() - began) / sum(map(len, messages[1:])) * 1e6)
    return median(runs)


def kvm_hop() -> Hop:
    """Cleaning a VM of a KVM host, in turns with the same VM without the fields that only KVM brings: how many times that it costs."""
    answers = [answer(kvm=False, later=False), answer(later=False)]
    sides = [[Reading(f"vm {number}", "vm", json.loads(json.dumps(one)), BEGAN) for number in range(VMS)] for one in answers]
    spent: list[list[float]] = [[], []]
    tally = CleanTally()
    for _ in range(KVM_TURNS):
        for side, runs in zip(sides, spent, strict=True):
            runs.append(cpu_us(lambda side=side: [vm_snapshot(r, tally) for r in side], len(side), 1))  # type: ignore[misc]
    plain, whole = map(median, spent)
    return Hop(
        "clean, a KVM host's VM", whole, f"{len(answers[1])} values of 8 vCPUs; {whole / plain:.2f} times {len(answers[0])} without KVM's"
    )


def deliver_us(data: Data, folder: Path) -> float:
    """CPU of producing a VM's message and reading its delivery report, librdkafka's threads included."""
    values = [Result(METRICS, m.uuid.encode(), d) for m, d in zip(data.metrics, data.encoded_metrics, strict=True)]
    batches = [values[:VMS]] * (DELIVERED // VMS)
    with Broker(folder / "broker") as broker:
        settings = load(None, {"VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": broker.address})
        from virtflow.runtime.kafka.topic_admin import TopicAdmin

        admin = TopicAdmin(settings)
        admin.create(admin.states(), dry_run=False)
        delivery = Delivery(acknowledged_producer_settings(settings), lambda topic: topic.name, Tally(OwnMetrics("processors")))
        delivery.start()

        async def deliver() -> None:
            for start in range(0, len(batches), 20):
                await asyncio.gather(*(delivery.deliver(batch) for batch in batches[start : start + 20]))

        cost = cpu_us(lambda: asyncio.run(deliver()), DELIVERED, 3)
        delivery.close()
    return cost


def new_fleet() -> Fleet:
    """An exporter's fleet that shows everything."""
    return Fleet(VmText(_NAMES), NodeText(_NAMES), 86_400.0)


def ingest_us(data: Data) -> float:
    """CPU of taking samples whose values change, the lines of each rendered; the first round, which renders all lines, apart."""

    def once() -> float:
        fleet = new_fleet()
        for sample in data.metrics[:VMS]:
            fleet.take_metrics(sample, 0.0)
        fleet.render()
        began = time.process_time()
        for start in range(VMS, data.samples, VMS):
            for sample in data.metrics[start : start + VMS]:
                fleet.take_metrics(sample, 0.0)
            fleet.render()
        return (time.process_time() - began) / (data.samples - VMS) * 1e6

    return median(once() for _ in range(REPEATS))


def filled(data: Data) -> Fleet:
    """A fleet that shows the data's VMs."""
    fleet = new_fleet()
    for sample in data.metrics:
        fleet.take_metrics(sample, 0.0)
    return fleet


def lines_of(data: Data) -> int:
    """How many series the data's VMs have."""
    return "".join(exposition(filled(data), _NAMES, BEGAN, {})).count("\nvm_")


def scrape_us(data: Data) -> float:
    """CPU of a scrape per VM: joining the rendered lines and gzipping them."""
    fleet = filled(data)
    return cpu_us(lambda: zipped(fleet), VMS)


def zipped(fleet: Fleet) -> None:
    """A scrape without the client."""
    from isal import isal_zlib

    packer = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW)
    for chunk in exposition(fleet, _NAMES, BEGAN, {}):
        packer.compress(chunk.encode())
    packer.flush()


def rivals(data: Data, ours: dict[str, float]) -> Iterator[Rival]:
    """The usual ways, on the same data in the same run."""
    render = ours["exporter: ingest and render"] + ours["exporter: scrape"]
    yield Rival("prometheus_client.generate_latest", stock_render_us(data), render, "renders every series at every scrape, without gzip")
    yield Rival("Apache avro", avro_decode_us(data), ours["decode snapshot"], "DatumReader on the same snapshots, to dictionaries")
    alone = one_vm_messages(data)
    single = cpu_us(lambda: [data.codec.decode(d, NodeSnapshot) for d in alone], len(alone))
    yield Rival(
        "one snapshot message per VM: decode", single, ours["decode snapshot"], f"{sum(map(len, alone)) / len(alone):.0f} bytes a VM"
    )
    both = ours["encode snapshot"] + ours["decode snapshot"]
    texts = [json.dumps(msgspec.to_builtins(snapshot)) for snapshot in data.snapshots]
    note = f"the standard library's json, records to records; {sum(map(len, texts)) / data.samples:.0f} bytes a VM, and no schema"
    yield Rival("JSON, both ways", json_us(data), both, note)


def stock_render_us(data: Data) -> float:
    """CPU of the stock client's rendering of as many series with the same names and labels, per VM and scrape."""

    class Stock(Collector):
        def collect(self) -> Iterator[Metric]:
            for row, samples in by_family(data):
                metric = Metric(row.name.removesuffix("_total"), row.help, row.type.value)
                metric.samples = samples
                yield metric

    registry = CollectorRegistry()
    registry.register(Stock())
    return cpu_us(lambda: generate_latest(registry), VMS, 3)


def by_family(data: Data) -> list[tuple[Row, list[Any]]]:
    """The data's series as the stock client's samples, by family."""
    from prometheus_client.parser import text_string_to_metric_families

    text = "".join(exposition(filled(data), _NAMES, BEGAN, {}))
    rows = {row.name: row for row in CATALOGUE}
    return [(rows[family.samples[0].name], family.samples) for family in text_string_to_metric_families(text) if family.samples]


def avro_decode_us(data: Data) -> float:
    """CPU of Apache's avro for the same snapshots."""
    schema = next(schema for path, schema in shipped_schemas() if path == "avsc/NodeSnapshot.avsc")
    reader = avro.io.DatumReader(avro.schema.parse(json.dumps(schema)))
    bodies = [encoded[SINGLE_OBJECT_SIZE:] for encoded in data.encoded]
    return cpu_us(lambda: [reader.read(avro.io.BinaryDecoder(io.BytesIO(body))) for body in bodies], data.samples, 3)


def one_vm_messages(data: Data) -> list[bytes]:
    """The same round as one message per VM, as pipelines without batches send it."""
    return [data.codec.encode(msgspec.structs.replace(snapshot, vms=[vm])) for snapshot in data.snapshots for vm in snapshot.vms]


def json_us(data: Data) -> float:
    """CPU of writing and reading the same snapshots as JSON."""

    def both_ways() -> None:
        for snapshot in data.snapshots:
            msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(snapshot))), NodeSnapshot)

    return cpu_us(both_ways, data.samples, 3)


def measure(folder: Path) -> dict[str, Any]:
    """All hops and rivals as plain data."""
    data = Data()
    found = list(hops(data, folder))
    ours = {hop.name: hop.microseconds for hop in found}
    return {
        "vms_per_snapshot": VMS,
        "hops": [{"name": h.name, "microseconds": round(h.microseconds, 2), "note": h.note} for h in found],
        "centre_microseconds": round(sum(ours[name] for name in CENTRE), 1),
        "centre_budget_microseconds": CENTRE_BUDGET_US,
        "rivals": [
            {"name": r.name, "microseconds": round(r.microseconds, 2), "ratio": round(r.microseconds / r.ours, 1), "note": r.note}
            for r in rivals(data, ours)
        ],
    }


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    return measure(asked.folder)


def section(hops: dict[str, Any]) -> list[str]:
    """The part of the page."""
    budget, total = hops["centre_budget_microseconds"], hops["centre_microseconds"]
    return [
        "## CPU per VM-sample of each hop",
        origin(hops, "scripts/bench hops"),
        "CPU time of all threads, median of several runs, on rounds of simulated VMs whose values change.",
        table(("hop", "µs", "what"), [(hop["name"], f"{hop['microseconds']:.1f}", hop["note"]) for hop in hops["hops"]]),
        f"**The centre's sum** (decode, normalise, encode, deliver, decode, ingest and render): **{total:.0f} µs** of its {budget:.0f} µs.",
        "### The usual ways, in the same run",
        table(
            ("instead", "µs", "times ours", "what"),
            [(rival["name"], f"{rival['microseconds']:.1f}", f"{rival['ratio']:.1f}", rival["note"]) for rival in hops["rivals"]],
        ),
    ]
