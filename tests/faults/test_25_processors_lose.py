"""Fault 25: the broker loses what the processors have processed, or deletes what they have not. Nothing that is there is skipped; what is gone is counted."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.support.broker import Broker
from tests.support.figures import figure
from tests.support.processors import CODEC, Bus, Processors, eventually, snapshot
from virtflow.schemas.records import NodeSnapshot, VmMetrics
from virtflow.schemas.topics import METRICS, SNAPSHOTS

SECONDS = 120.0
NODES = ("a", "b", "c", "d")


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with Broker(tmp_path / "broker") as broker:
        bus = Bus(broker, partitions=2)
        bus.create_topics()
        yield bus


def rounds(begin: int, end: int) -> list[NodeSnapshot]:
    return [snapshot(node, sequence, 2) for sequence in range(begin, end) for node in NODES]


def produce(bus: Bus, snapshots: Iterable[NodeSnapshot]) -> None:
    bus.produce((each.node, CODEC.encode(each)) for each in snapshots)


def processed(bus: Bus) -> set[tuple[str, int]]:
    """The rounds of which there are samples."""
    return {(sample.node, sample.sequence) for sample in bus.records(METRICS, VmMetrics)}


def named(snapshots: Iterable[NodeSnapshot]) -> set[tuple[str, int]]:
    return {(each.node, each.sequence) for each in snapshots}


@pytest.mark.parametrize("running", [True, False])
def test_what_comes_at_the_offsets_of_lost_messages_is_processed(bus: Bus, tmp_path: Path, *, running: bool) -> None:
    kept, lost, new = rounds(0, 5), rounds(5, 15), rounds(15, 40)
    broker = bus.broker
    with Processors(bus, tmp_path / "processors") as processors:
        produce(bus, kept)
        bus.wait_until_committed(SECONDS)
        broker.stop()
        shutil.copytree(broker.folder / "storage", broker.folder / "copy")
        broker.start()
        produce(bus, lost)
        bus.wait_until_committed(SECONDS)
        eventually("all samples", lambda: processed(bus) == named([*kept, *lost]), SECONDS)
        if not running:
            assert processors.terminate() == 0
        broker.stop()
        # The group's offsets are kept, as where only the topic's own partitions were lost.
        for partition in (broker.folder / "copy").rglob(f"{bus.prefix}{SNAPSHOTS.name}-*"):
            if partition.is_dir():
                here = broker.folder / "storage" / partition.relative_to(broker.folder / "copy")
                shutil.rmtree(here)
                shutil.copytree(partition, here)
        broker.start()
        produce(bus, new)
        if not running:
            processors.start()
        eventually("all samples", lambda: processed(bus) >= named(new), SECONDS)
        series = f'virtflow_processors_replaced_offsets_total{{topic="{bus.prefix}{SNAPSHOTS.name}"}}'
        eventually("the count", lambda: processors.value(series) >= len(lost), SECONDS)
        figure(25, "rounds at the offsets of lost ones, all processed", len(new))
        assert "the broker has lost its end" in processors.log.read_text()
        bus.wait_until_committed(SECONDS)
        assert processors.terminate() == 0


def test_what_was_deleted_ahead_of_them_is_counted(bus: Bus, tmp_path: Path) -> None:
    first, gone, last = rounds(0, 2), rounds(2, 7), rounds(7, 9)
    name = bus.prefix + SNAPSHOTS.name
    with Processors(bus, tmp_path / "processors") as processors:
        produce(bus, first)
        bus.wait_until_committed(SECONDS)
        assert processors.terminate() == 0
        produce(bus, gone)
        admin = AdminClient({"bootstrap.servers": bus.broker.address})
        for future in admin.delete_records([TopicPartition(name, number, -1) for number in range(bus.partitions)]).values():
            future.result()
        produce(bus, last)
        processors.start()
        eventually("all samples", lambda: processed(bus) == named([*first, *last]), SECONDS)
        assert processors.value(f'virtflow_processors_missing_records_total{{topic="{name}"}}') == len(gone)
        figure(25, "messages that were deleted ahead of the processors, counted exactly", len(gone))
        assert f"{name}[" in processors.log.read_text()
        assert "messages are gone from the broker before they were processed" in processors.log.read_text()
        assert processors.terminate() == 0
