"""Fault 13: a second host claims to run a VM that runs elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import sample, uuid
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.topics import METRICS

HANDOVER_INTERVALS = 2.0

INTERVAL = 2.0
CPU = "vm_cpu_seconds_total"
VM = uuid(1)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


def claim(node: str, sequence: int, cpu_seconds: float) -> VmMetrics:
    now = time.time()
    return sample(
        1, sequence, node=node, boot_id=node, interval=INTERVAL, collected=now, monitor_collected=now, cpu_seconds_total=cpu_seconds
    )


def test_a_lasting_conflict_is_shown_and_decided_alike(broker: Broker, tmp_path: Path) -> None:
    """At every scrape one sample per series; two exporters agree; the conflict is over when the forger is silent."""
    writer = TopicWriter(broker.address)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    first, second = (ExporterProcess(folder, broker.address, writer.prefix) for folder in folders)
    with first, second:
        exporters = (first, second)
        for exporter in exporters:
            exporter.wait_until_ready()
        began, sequence = time.monotonic(), 0
        while not all(exporter.value("vm_conflict", uuid=VM) for exporter in exporters):
            assert time.monotonic() - began < (HANDOVER_INTERVALS + 3) * INTERVAL, "the conflict does not show"
            sequence += 1
            writer.write(METRICS, claim("honest", sequence, 1_000.0 + sequence), claim("forged", sequence, 5.0))
            for exporter in exporters:
                exporter.wait_until(partial(taken, exporter, 2 * sequence), 2 * INTERVAL, "both claims taken")
            assert len({exporter.value(CPU, uuid=VM) for exporter in exporters}) == 1
        assert time.monotonic() - began > HANDOVER_INTERVALS * INTERVAL
        figure(13, "intervals until a conflict that lasts is shown", (time.monotonic() - began) / INTERVAL, "I")

        silent = time.monotonic()
        while any(exporter.value("vm_conflict", uuid=VM) for exporter in exporters):
            assert time.monotonic() - silent < 4 * INTERVAL, "the conflict does not end"
            sequence += 1
            writer.write(METRICS, claim("honest", sequence, 1_000.0 + sequence))
        figure(13, "intervals until it is over, once the forger is silent", (time.monotonic() - silent) / INTERVAL, "I")
        assert all((exporter.value(CPU, uuid=VM) or 0.0) > 1_000.0 for exporter in exporters)


def taken(exporter: ExporterProcess, records: int) -> bool:
    """Whether an exporter has taken so many samples."""
    return exporter.value("virtflow_exporter_records_total", topic="vm.metrics") == records
