"""Fault 26: producers and processors of different releases.

Recorded messages of each released schema go through today's processes; what today's processes write is read with each released schema. A
field that a side does not know is absent, never 0.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import msgspec
import pytest
from confluent_kafka import Message

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.history import Writer, rows_of, writing
from tests.support.processors import CODEC, Bus, Processors, eventually
from tests.support.simulated_producer import SimulatedProducer
from virtflow.history.storage.table_schemas import SAMPLES, columns_of
from virtflow.schemas.avro.schema import schema_of
from virtflow.schemas.fields import VmFields
from virtflow.schemas.records import NodeSnapshot, NodeStatus, Record, VmEvent, VmInventory, VmMetrics, VmMigration
from virtflow.schemas.topics import DEAD_LETTERS, EVENTS, INVENTORY, METRICS, MIGRATIONS, NODES, SNAPSHOTS, Topic

ROW = 26
ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "contract" / "data"
RELEASED = ROOT / "schemas" / "released"
RELEASES = sorted(path.name for path in RELEASED.iterdir() if path.is_dir())
TOPIC_OF: dict[type[Record], Topic] = {
    NodeSnapshot: SNAPSHOTS,
    VmEvent: EVENTS,
    VmMetrics: METRICS,
    VmInventory: INVENTORY,
    NodeStatus: NODES,
    VmMigration: MIGRATIONS,
}
HEADER_BYTES = 10
SECONDS = 60.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def bus(broker: Broker) -> Bus:
    bus = Bus(broker, partitions=1)
    bus.create_topics()
    return bus


def recorded(version: str, record: type[Record]) -> bytes:
    return (RECORDED / version / f"{record.__name__}.bin").read_bytes()


def fields_of(schema: dict[str, Any]) -> set[str]:
    return {str(field["name"]) for field in schema["fields"]}


def unknown_to(version: str) -> set[str]:
    """The values of a VM that a release's samples do not have yet."""
    released = fields_of(json.loads((RELEASED / version / "VmMetrics.avsc").read_text()))
    return {field.name for field in msgspec.structs.fields(VmFields)} - released


def key_of(record: Any) -> str:  # noqa: ANN401, one of the records
    return str(record.node if isinstance(record, NodeStatus | NodeSnapshot) else record.uuid)


def is_absent(value: Any) -> bool:  # noqa: ANN401, a record's value
    return value in ("", -1) or (isinstance(value, float) and math.isnan(value)) or value in ([], {})


@pytest.mark.parametrize("version", RELEASES)
def test_what_a_release_wrote_is_read_by_todays_processes(bus: Bus, tmp_path: Path, version: str) -> None:
    sent: dict[type[Record], Any] = {record: CODEC.decode(recorded(version, record), record) for record in TOPIC_OF}
    history = tmp_path / "history"
    more = {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_HISTORY_GROUP": bus.prefix}
    writer = Writer(bus.broker.address, history, tmp_path, more)
    exporter = ExporterProcess(tmp_path, bus.broker.address, bus.prefix)
    with Processors(bus, tmp_path / "processors") as processors, writing(writer), exporter:
        for record, topic in TOPIC_OF.items():
            bus.produce([(key_of(sent[record]), recorded(version, record))], topic)
        bus.wait_until_committed()
        vms = len({vm.uuid for vm in sent[NodeSnapshot].vms})
        wanted = {(sent[VmMetrics].node, sent[VmMetrics].sequence), (sent[NodeSnapshot].node, sent[NodeSnapshot].sequence)}
        eventually("its samples", lambda: {(one.node, one.sequence) for one in bus.records(METRICS, VmMetrics)} == wanted, SECONDS)
        exporter.wait_until(lambda: exporter.value("virtflow_exporter_vms") == vms, SECONDS, "its VM")
        writer.until(lambda: writer.value('virtflow_history_records_total{table="samples"}') >= 2, SECONDS)
        eventually("its rows", lambda: len({row["node"] for row in samples(history)}) == len({node for node, _ in wanted}), SECONDS)
        for topic in (METRICS, INVENTORY, NODES, MIGRATIONS):
            assert not exporter.value("virtflow_exporter_undecodable_total", topic=topic.name)
        shown = {name for name, _ in exporter.series()}
        assert processors.terminate() == 0
        assert writer.stop() == 0
    assert not bus.read(DEAD_LETTERS)
    unknown = unknown_to(version)
    for sample in bus.records(METRICS, VmMetrics):
        assert all(is_absent(getattr(sample, name)) for name in unknown)
    columns = [column.name for column in columns_of("vm") if column.metric.field in unknown]
    assert len(columns) >= len(unknown) - 1
    assert {column.metric.name for column in columns_of("vm") if column.metric.field in unknown} & shown == set()
    assert [row[name] for row in samples(history) for name in columns if row[name] is not None] == []
    figure(ROW, f"values that release {version} does not know, all absent", len(unknown))


def samples(history: Path) -> list[dict[str, Any]]:
    """The rows of VMs in the table, once it is there."""
    if not (history / "samples" / "_delta_log").exists():
        return []
    return [row for row in rows_of(history, SAMPLES) if row["kind"] == "vm"]


def read_as(version: str, record: type[Record], message: Message) -> dict[str, Any]:
    """A message as Apache's reader reads it that knows the released schema."""
    reader = avro.schema.parse((RELEASED / version / f"{record.__name__}.avsc").read_text())
    writer = avro.schema.parse(json.dumps(schema_of(record)))
    body = io.BytesIO((message.value() or b"")[HEADER_BYTES:])
    found: Any = avro.io.DatumReader(writer, reader).read(avro.io.BinaryDecoder(body))
    return dict(found)


@pytest.mark.parametrize("version", RELEASES)
def test_what_todays_processes_write_is_read_with_each_released_schema(bus: Bus, tmp_path: Path, version: str) -> None:
    producer = SimulatedProducer(bus.environment(), tmp_path)
    with producer, Processors(bus, tmp_path / "processors") as processors:
        written: dict[type[Record], Topic] = {NodeSnapshot: SNAPSHOTS, VmEvent: EVENTS, VmMetrics: METRICS, NodeStatus: NODES}
        for topic in written.values():
            eventually("messages", lambda topic=topic: len(bus.read(topic)) >= 3, SECONDS)  # type: ignore[misc]
        assert producer.stop() == 0
        bus.wait_until_committed()
        assert processors.terminate() == 0
    read = 0
    for record, topic in written.items():
        names = fields_of(json.loads((RELEASED / version / f"{record.__name__}.avsc").read_text()))
        for message in bus.read(topic):
            found, now = read_as(version, record, message), msgspec.to_builtins(CODEC.decode(message.value(), record))
            assert set(found) == names
            assert {name: found[name] for name in ("node", "boot_id", "sequence")} == {
                name: now[name] for name in ("node", "boot_id", "sequence")
            }
            read += 1
    figure(ROW, f"messages of today read with release {version}", read)
