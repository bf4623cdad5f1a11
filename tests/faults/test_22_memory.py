"""Fault 22: a control group has a fifth more memory than a service normally takes, and ten times the load comes. The service takes less at a time.

The kernel kills nothing, nothing is lost and nothing is stored twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.criteria import Criteria
from tests.support.figures import figure
from tests.support.history import Writer, fleet_samples, key_of, produce, stored_keys, writing
from tests.support.long import length
from tests.support.memory_limit import MemoryLimit, Peak
from tests.support.processors import CODEC, Bus, Processors, snapshot
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.topics import METRICS

ROW = 22
NORMAL_SHARE = 1.2
BURST = 10
VMS, NODES = 500, 20
NORMAL_ROUNDS = length(6, 60)
BURSTS = length(3, 60)
"""Each has as many messages as ten normal rounds."""
SECONDS = length(180.0, 1800.0)
MIB = 1 << 20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        done = virtflow("topics", "create", "--bootstrap-servers", running.address, "--partitions", "3")
        assert done.returncode == 0, done.stderr
        yield running


@pytest.fixture
def group() -> Iterator[MemoryLimit]:
    with MemoryLimit() as group:
        yield group


def batches(samples: list[VmMetrics], size: int) -> list[list[VmMetrics]]:
    """So many at a time."""
    return [samples[begin : begin + size] for begin in range(0, len(samples), size)]


def stored(writer: Writer) -> float:
    """Samples that it has taken and that no longer wait for a commit."""
    return writer.value('virtflow_history_records_total{table="samples"}') - writer.value("virtflow_history_waiting_records")


def test_the_history_writer_takes_less_at_a_time(broker: Broker, group: MemoryLimit, tmp_path: Path, criteria: Criteria) -> None:
    writer = Writer(broker.address, tmp_path / "history", tmp_path, inside=group.inside)
    samples = list(fleet_samples(2, VMS // 2, range(NORMAL_ROUNDS + BURST * BURSTS)))
    normal, burst = samples[: NORMAL_ROUNDS * VMS], samples[NORMAL_ROUNDS * VMS :]
    with writing(writer):
        writer.until(lambda: writer.ready() == "ready")
        with Peak(group) as peak:
            sent = 0
            for part in batches(normal, VMS):
                sent += produce(broker.address, "vm.metrics", part)
                writer.until(lambda sent=sent: stored(writer) >= sent)  # type: ignore[misc]
        criteria.baseline()
        limit = int(peak.bytes * NORMAL_SHARE)
        group.set(limit)
        with Peak(group) as highest:
            for part in batches(burst, BURST * VMS):
                produce(broker.address, "vm.metrics", part)
            writer.until(lambda: stored(writer) >= len(samples), SECONDS)
        found = stored_keys(tmp_path / "history")
        assert group.kills() == 0
        figure(ROW, "history writer: normally used, and its limit", f"{peak.bytes / MIB:.0f} and {limit / MIB:.0f}", "MiB")
        figure(ROW, "history writer: most used during the burst", round(highest.bytes / MIB), "MiB")
        figure(ROW, "history writer: pauses because memory was short", writer.value("virtflow_history_memory_pauses_total"))
        figure(ROW, "history writer: samples of the burst, each stored once", len(burst))
        group.set(None)
        criteria.settled(row=ROW)
        assert writer.stop() == 0
    assert found == Counter(map(key_of, samples))


def rounds(numbers: range) -> list[tuple[str, bytes]]:
    """Rounds of all nodes, in order."""
    nodes = [f"node-{number}" for number in range(NODES)]
    return [(node, CODEC.encode(snapshot(node, sequence, VMS // NODES))) for sequence in numbers for node in nodes]


def test_the_processors_take_less_at_a_time(broker: Broker, group: MemoryLimit, tmp_path: Path, criteria: Criteria) -> None:
    bus = Bus(broker)
    bus.create_topics()
    all_rounds = NORMAL_ROUNDS + BURST * BURSTS
    with Processors(bus, tmp_path, inside=group.inside) as processors:
        with Peak(group) as peak:
            for number in range(NORMAL_ROUNDS):
                bus.produce(rounds(range(number, number + 1)))
                bus.wait_until_committed(SECONDS)
        criteria.baseline()
        limit = int(peak.bytes * NORMAL_SHARE)
        group.set(limit)
        with Peak(group) as highest:
            bus.produce(rounds(range(NORMAL_ROUNDS, all_rounds)))
            bus.wait_until_committed(SECONDS)
        assert group.kills() == 0
        figure(ROW, "processors: normally used, and their limit", f"{peak.bytes / MIB:.0f} and {limit / MIB:.0f}", "MiB")
        figure(ROW, "processors: most used during the burst", round(highest.bytes / MIB), "MiB")
        group.set(None)
        criteria.settled(row=ROW)
        assert processors.terminate() == 0
    samples = [(sample.uuid, sample.sequence) for sample in bus.records(METRICS, VmMetrics)]
    assert len(samples) == len(set(samples)) == all_rounds * VMS
    figure(ROW, "processors: samples, each produced once", len(samples))
