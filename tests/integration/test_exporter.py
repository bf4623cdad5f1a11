"""The exporter on a real broker: what it shows, from when on, and what it does when topics and records are not as they should be."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.prometheus import check_metrics
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import inventory, sample, status, uuid
from virtflow.schemas.records import VmMetrics, VmMigration
from virtflow.schemas.topics import INVENTORY, METRICS, MIGRATIONS, NODES

INTERVAL = 1.0
SECONDS = 20.0


def now_sample(number: int, sequence: int, **fields: object) -> VmMetrics:
    """A sample collected just now, every second."""
    return sample(number, sequence, collected=time.time(), monitor_collected=time.time(), **({"interval": INTERVAL} | fields))


@pytest.fixture
def writer(broker: Broker) -> TopicWriter:
    return TopicWriter(broker.address)


@pytest.fixture
def exporter_of(broker: Broker, tmp_path: Path) -> Callable[..., ExporterProcess]:
    def make(writer: TopicWriter, **settings: object) -> ExporterProcess:
        return ExporterProcess(tmp_path, broker.address, writer.prefix, settings)

    return make


def test_shows_what_is_there_and_what_arrives(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """VMs, inventory and nodes; an end by SIGTERM is clean and quick."""
    writer.write(METRICS, now_sample(1, 1, interval=60.0))
    writer.write(INVENTORY, inventory(1))
    writer.write(NODES, status(interval=60.0))
    with exporter_of(writer) as exporter:
        exporter.wait_until_ready()
        assert exporter.value("vm_cpu_seconds_total", uuid=uuid(1)) == 13.5
        assert exporter.value("vm_info", uuid=uuid(1), project="shop") == 1.0
        assert exporter.value("virtflow_node_up", node="node-1") == 1.0
        writer.write(METRICS, now_sample(1, 2, interval=60.0), now_sample(2, 1, interval=60.0))
        exporter.wait_until(lambda: exporter.value("vm_cpu_seconds_total", uuid=uuid(2)) == 13.5, SECONDS, "the new VM")
        assert exporter.value("vm_cpu_seconds_total", uuid=uuid(1)) == 14.5
        assert exporter.value("virtflow_exporter_vms") == 2.0
        assert exporter.value("virtflow_exporter_records_total", topic="vm.metrics") == 3.0
        check_metrics(exporter.get())
        started = time.monotonic()
        assert exporter.stop() == 0
        assert time.monotonic() - started < 10.0


def test_a_vm_that_stops_vanishes(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """After three of its intervals, its node is down then."""
    with exporter_of(writer) as exporter:
        exporter.wait_until_ready()
        writer.write(METRICS, now_sample(1, 1))
        writer.write(NODES, status(interval=INTERVAL))
        exporter.wait_until(lambda: exporter.value("vm_state", uuid=uuid(1)) == 1.0, SECONDS, "the VM")
        shown = time.monotonic()
        exporter.wait_until(lambda: exporter.value("vm_state", uuid=uuid(1)) is None, 3 * INTERVAL + 1, "the VM's end")
        assert time.monotonic() - shown > INTERVAL
        exporter.wait_until(lambda: exporter.value("virtflow_node_up", node="node-1") == 0.0, 2.0, "the node's end")


def test_a_restart_shows_no_gap_and_no_ghosts(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """Read back, a VM is there as soon as it is ready; one that had vanished already stays away."""
    writer.write(METRICS, now_sample(1, 1, interval=60.0))
    writer.write(METRICS, now_sample(2, 1), timestamp_seconds=time.time() - 5)
    with exporter_of(writer) as exporter:
        for _ in range(2):
            exporter.wait_until_ready()
            assert exporter.value("vm_state", uuid=uuid(1)) == 1.0
            assert exporter.value("vm_state", uuid=uuid(2)) is None
            exporter.stop(signal.SIGKILL)
            exporter.start()


def test_only_so_much_is_read_back(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """By the broker's time; what is older is never fetched."""
    old = [now_sample(number, 1) for number in range(50)]
    writer.write(METRICS, *old, timestamp_seconds=time.time() - 600)
    writer.write(METRICS, now_sample(99, 1, interval=60.0))
    with exporter_of(writer, EXPORTER_READ_BACK_SECONDS=30) as exporter:
        exporter.wait_until_ready()
        assert exporter.value("vm_state", uuid=uuid(99)) == 1.0
        assert exporter.value("virtflow_exporter_records_total", topic="vm.metrics") == 1.0


def test_answers_while_it_reads_back(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """Health and scrapes wait for no catch-up, however long it is."""
    for sequence in range(10):
        writer.write(METRICS, *(now_sample(number, sequence, interval=600.0) for number in range(2_000)))
    with exporter_of(writer, EXPORTER_READ_BACK_SECONDS=600) as exporter:
        answers = 0
        while exporter.status("/readyz") != 200:
            assert exporter.status("/healthz") == 200
            assert exporter.status("/metrics?collect[]=core") == 200
            answers += 1
        assert answers > 3, "an answer waited for the catch-up"
        assert exporter.value("virtflow_exporter_vms") == 2_000


def test_waits_for_missing_topics(broker: Broker, exporter_of: Callable[..., ExporterProcess]) -> None:
    """Serves, is not ready, says so once; goes on by itself when they are made."""
    writer = TopicWriter(broker.address, topics=(METRICS,))
    with exporter_of(writer) as exporter:
        exporter.wait_until(lambda: any("topics missing" in line for line in exporter.lines("warning")), SECONDS, "the warning")
        assert exporter.status("/readyz") == 503
        assert exporter.status("/healthz") == 200
        writer.write(METRICS, now_sample(1, 1, interval=60.0))
        exporter.wait_until(lambda: exporter.value("vm_state", uuid=uuid(1)) == 1.0, SECONDS, "the topic that is there")
        writer.create((INVENTORY, MIGRATIONS, NODES))
        exporter.wait_until_ready()
        assert sum("topics missing" in line for line in exporter.lines("warning")) == 1


def test_records_that_are_none_are_passed_by(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """Counted by topic, said once a minute; the others' series are there."""
    with exporter_of(writer) as exporter:
        for topic in (METRICS, INVENTORY, NODES):
            for value in (b"", b"garbage", b"\xc3\x01" + b"x" * 8, b"\x00\x00\x00\x00\x01abc"):
                writer.write_bytes(topic, b"k", value)
        writer.write_bytes(METRICS, b"k", None)
        writer.write(METRICS, now_sample(1, 1, interval=60.0))
        exporter.wait_until(lambda: exporter.value("vm_state", uuid=uuid(1)) == 1.0, SECONDS, "the VM")
        exporter.wait_until_ready()
        counted = {
            topic: exporter.value("virtflow_exporter_undecodable_total", topic=topic)
            for topic in ("vm.metrics", "vm.inventory", "vm.nodes")
        }
        assert counted == {"vm.metrics": 5.0, "vm.inventory": 4.0, "vm.nodes": 4.0}
        assert sum("is skipped" in line for line in exporter.lines("warning")) == 1


def test_tombstones_take_things_away(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """A node and an inventory that their topics say are no more."""
    writer.write(METRICS, now_sample(1, 1, interval=60.0))
    writer.write(INVENTORY, inventory(1))
    writer.write(NODES, status(interval=60.0))
    with exporter_of(writer) as exporter:
        exporter.wait_until_ready()
        writer.write_bytes(INVENTORY, uuid(1).encode(), None)
        writer.write_bytes(NODES, b"node-1", None)
        exporter.wait_until(lambda: exporter.value("virtflow_node_up", node="node-1") is None, SECONDS, "the node's end")
        exporter.wait_until(lambda: exporter.value("vm_info", uuid=uuid(1)) is None, SECONDS, "the inventory's end")
        assert exporter.value("vm_state", uuid=uuid(1)) == 1.0


def test_new_partitions_are_found(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """And read from their beginning."""
    with exporter_of(writer) as exporter:
        exporter.wait_until_ready()
        writer.grow(METRICS, 8)
        numbers = range(40)
        writer.write(METRICS, *(now_sample(number, 1, interval=60.0) for number in numbers))
        exporter.wait_until(lambda: exporter.value("virtflow_exporter_vms") == len(numbers), SECONDS, "VMs on the new partitions")


def test_a_topic_made_anew_is_read_from_its_beginning(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """Deleted under the exporter and made again: it goes on by itself, and said so."""
    with exporter_of(writer) as exporter:
        writer.write(METRICS, *(now_sample(1, sequence, interval=60.0) for sequence in range(20)))
        exporter.wait_until(lambda: exporter.value("vm_cpu_seconds_total", uuid=uuid(1)) == 31.5, SECONDS, "the VM")
        writer.delete(METRICS)
        exporter.wait_until(lambda: any("is gone" in line for line in exporter.lines("warning")), 30.0, "the loss is noticed")
        writer.create((METRICS,))
        writer.write(METRICS, now_sample(2, 1, interval=60.0))
        exporter.wait_until(lambda: exporter.value("vm_state", uuid=uuid(2)) == 1.0, 30.0, "the new topic's VM")
        assert exporter.status("/healthz") == 200


def test_migrations_made_anew_are_believed(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """Numbered from the first again, on as many records as before: only the topic's id tells that they are others."""
    for revision in range(1, 9):
        writer.write(MIGRATIONS, VmMigration(uuid=uuid(1), source="node-1", revision=revision, result="completed"))
    writer.write(METRICS, now_sample(1, 1, interval=60.0))
    with exporter_of(writer, EXPORTER_KEEP_LAST="true") as exporter:
        exporter.wait_until_ready()
        assert exporter.value("vm_migration_info", uuid=uuid(1), result="completed") == 1.0
        writer.delete(MIGRATIONS)
        writer.recreate(MIGRATIONS)
        for revision in range(1, 9):
            writer.write(MIGRATIONS, VmMigration(uuid=uuid(1), source="node-1", revision=revision, result="failed"))
        exporter.wait_until(lambda: exporter.value("vm_migration_info", uuid=uuid(1), result="failed") == 1.0, SECONDS, "the new ones")
        assert any("vm.migrations was deleted and created again" in line for line in exporter.lines("warning"))


def test_migrations_are_known_before_the_first_sample(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """However many there are to read: no scrape of a restarted exporter shows a node that an unread migration would not name."""
    ended = time.time()
    hop = VmMigration(
        uuid=uuid(0),
        source="node-1",
        destination="node-2",
        revision=1,
        result="completed",
        paused_timestamp_seconds=ended,
        resumed_timestamp_seconds=ended,
    )
    for number in range(2_000):
        writer.offer(MIGRATIONS, replace(hop, uuid=uuid(number)))
        for node, collected, seconds in (("node-2", ended + 0.1, 5.0), ("node-1", ended - 0.1, 900.0)):
            fields = {"node": node, "collected": collected, "monitor_collected": collected, "interval": 600.0}
            writer.offer(METRICS, sample(number, 1, cpu_seconds_total=seconds, **fields))
    writer.flush()
    shown: set[float] = set()
    with exporter_of(writer) as exporter:
        ready = False
        while not ready:
            ready = exporter.status("/readyz") == 200
            shown |= {value for (name, _), value in exporter.series().items() if name == "vm_cpu_seconds_total"}
    assert shown == {5.0}


def taken_or_skipped(exporter: ExporterProcess) -> float:
    """How many of vm.metrics' records it has taken or knows to be lost."""
    names = ("virtflow_exporter_records_total", "virtflow_exporter_skipped_records_total")
    return sum(exporter.value(name, topic="vm.metrics") or 0.0 for name in names)


def test_records_deleted_before_they_are_taken_are_counted(writer: TopicWriter, exporter_of: Callable[..., ExporterProcess]) -> None:
    """A topic truncated ahead of a stopped exporter's place: it goes on at what is left, and counts what was lost."""
    with exporter_of(writer) as exporter:
        exporter.wait_until_ready()
        for partition in (0, 1):
            writer.write_bytes(METRICS, b"k", b"x", partition)
        exporter.wait_until(lambda: exporter.value("virtflow_exporter_records_total", topic="vm.metrics") == 2.0, SECONDS, "both records")
        os.kill(exporter.pid, signal.SIGSTOP)
        for partition in (0, 1):
            for _ in range(10):
                writer.write_bytes(METRICS, b"k", b"x", partition)
            writer.truncate(METRICS, partition, 8)
        os.kill(exporter.pid, signal.SIGCONT)
        exporter.wait_until(lambda: taken_or_skipped(exporter) == 22.0, SECONDS, "all accounted for")
        assert exporter.value("virtflow_exporter_skipped_records_total", topic="vm.metrics")
