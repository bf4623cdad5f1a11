"""Fault 12: a VM is deleted and made again within one interval, with the same name and a new UUID."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import inventory, sample, uuid
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.topics import INVENTORY, METRICS

INTERVAL = 2.0
CPU = "vm_cpu_seconds_total"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


def web_server(number: int, sequence: int, cpu_seconds: float) -> VmMetrics:
    now = time.time()
    return sample(number, sequence, name="web", interval=INTERVAL, collected=now, monitor_collected=now, cpu_seconds_total=cpu_seconds)


def test_two_vms_of_one_name_are_two_identities(broker: Broker, tmp_path: Path) -> None:
    """The old series are gone after three intervals; no counter goes on from one VM to the other."""
    writer = TopicWriter(broker.address)
    old, new = uuid(1), uuid(2)
    with ExporterProcess(tmp_path, broker.address, writer.prefix) as exporter:
        exporter.wait_until_ready()
        writer.write(INVENTORY, inventory(1, name="web"))
        writer.write(METRICS, web_server(1, 1, 5_000.0))
        exporter.wait_until(lambda: exporter.value(CPU, uuid=old) == 5_000.0, 10.0, "the VM")

        deleted = time.monotonic()
        writer.write(INVENTORY, inventory(2, name="web"))
        writer.write(METRICS, web_server(2, 2, 0.5))
        exporter.wait_until(lambda: exporter.value(CPU, uuid=new) == 0.5, 3 * INTERVAL, "the new VM")
        sequence, values = 3, []
        while exporter.value(CPU, uuid=old) is not None:
            assert time.monotonic() - deleted < 3 * INTERVAL + 1.0, "the old VM is still there"
            assert exporter.value(CPU, uuid=old) in {5_000.0, None}
            writer.write(METRICS, web_server(2, sequence, 0.5 * sequence))
            values.append(exporter.value(CPU, uuid=new) or 0.0)
            sequence += 1
        figure(12, "intervals until the old series are gone", (time.monotonic() - deleted) / INTERVAL, "I")
        assert values == sorted(values)
        uuids = {dict(labels)["uuid"] for _, labels in exporter.series() if ("name", "web") in labels}
        assert uuids == {new}
