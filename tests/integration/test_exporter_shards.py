"""Shards of a fleet on a real broker under one real Prometheus: every series once, with the values of an exporter that shows all."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess, Series
from tests.support.prometheus import Prometheus
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import inventory, sample, status, uuid
from virtflow.runtime.own_metrics import rows_of
from virtflow.schemas.topics import INVENTORY, METRICS, NODES

VMS, HOSTS, SHARDS, PARTITIONS = 40, 10, 3, 5
LASTING = 600.0
SECONDS = 30.0
OWN = frozenset(row.name for row in rows_of("exporter"))
"""What a process says of itself stands in each of them."""
AGES = "_age_seconds"


def write_fleet(writer: TopicWriter) -> None:
    """Samples and inventories of all VMs, and the health of all nodes."""
    now = time.time()
    for number in range(VMS):
        node = f"node-{number % HOSTS}"
        writer.write(METRICS, sample(number, 1, node=node, collected=now, monitor_collected=now, interval=LASTING))
        writer.write(INVENTORY, inventory(number, 1, node=node))
    for number in range(HOSTS):
        writer.write(NODES, status(f"node-{number}", 1, interval=LASTING))


def lasting(series: Series) -> Series:
    """The fleet's series but for ages, which differ from scrape to scrape."""
    return {key: value for key, value in series.items() if key[0] not in OWN and not key[0].endswith(AGES)}


def test_one_prometheus_over_all_shards(broker: Broker, tmp_path: Path) -> None:
    """The shards' series are disjoint, together they are those of the whole fleet, and Prometheus has each VM once."""
    writer = TopicWriter(broker.address, partitions=PARTITIONS)
    write_fleet(writer)
    with ExitStack() as stack:
        exporters = []
        for shard in ("", *(f"{number}/{SHARDS}" for number in range(1, SHARDS + 1))):
            folder = tmp_path / f"exporter-{shard[:1]}"
            folder.mkdir()
            exporters.append(stack.enter_context(ExporterProcess(folder, broker.address, writer.prefix, {"EXPORTER_SHARD": shard})))
        for exporter in exporters:
            exporter.wait_until_ready(SECONDS)
        whole, *shards = [lasting(exporter.series()) for exporter in exporters]
        assert sum(map(len, shards)) == len(whole)
        assert {key: value for each in shards for key, value in each.items()} == whole
        assert all(any(name == "vm_state" for name, _ in each) for each in shards)
        targets = [f"127.0.0.1:{exporter.port}" for exporter in exporters[1:]]
        prometheus = stack.enter_context(Prometheus(tmp_path / "prometheus", {"virtflow": targets}, interval_seconds=0.5))
        prometheus.wait_for(f"count(vm_state) == {VMS}", SECONDS)
        assert {each.labels["uuid"]: each.value for each in prometheus.query("count by (uuid) (vm_state)")} == {
            uuid(number): 1.0 for number in range(VMS)
        }
        assert prometheus.value("count(vm_info)") == VMS
        assert prometheus.value("count(virtflow_node_up)") == HOSTS
        assert prometheus.value("count(vm_state * on (uuid) group_left (project) vm_info)") == VMS


def test_topics_that_differ_in_partitions_keep_a_shard_from_being_ready(broker: Broker, tmp_path: Path) -> None:
    """It says which they are."""
    writer = TopicWriter(broker.address, partitions=2)
    writer.grow(INVENTORY, 3)
    with ExporterProcess(tmp_path, broker.address, writer.prefix, {"EXPORTER_SHARD": "1/2"}) as exporter:
        exporter.wait_until(lambda: any("differ in their partitions" in line for line in exporter.lines("warning")), SECONDS, "the warning")
        assert exporter.status("/readyz") == 503
