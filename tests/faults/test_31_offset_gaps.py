"""Offset gaps that are no loss: a transactional producer commits and aborts, and its marks take offsets. Nothing is counted as lost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec.structs import replace

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.history import Writer, fleet_samples, key_of, stored_keys, wait_for_samples, writing
from tests.support.processors import CODEC, Bus, eventually
from virtflow.processors.migrations.restore import read_migrations
from virtflow.schemas.records import Record, VmMetrics, VmMigration
from virtflow.schemas.topics import METRICS, MIGRATIONS, Topic

TRANSACTIONS = 12
SECONDS = 60.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def bus(broker: Broker) -> Bus:
    bus = Bus(broker)
    bus.create_topics()
    return bus


class Transactional:
    """A producer that commits and aborts."""

    def __init__(self, bus: Bus) -> None:
        """Ready for its first transaction."""
        config = {"bootstrap.servers": bus.broker.address, "transactional.id": uuid4().hex, "partitioner": "murmur2_random"}
        self._producer = Producer(config)
        self._producer.init_transactions(30.0)
        self._prefix = bus.prefix

    def send(self, topic: Topic, records: Iterable[Record], *, commit: bool) -> None:
        self._producer.begin_transaction()
        for record in records:
            self._producer.produce(self._prefix + topic.name, CODEC.encode(record), getattr(record, "uuid").encode())  # noqa: B009
        self._producer.flush(30.0)  # an aborted one too is in the topic
        if commit:
            self._producer.commit_transaction(30.0)
        else:
            self._producer.abort_transaction(30.0)


def now_samples(rounds: range) -> list[VmMetrics]:
    return list(fleet_samples(1, 10, rounds, start=time.time() - 120))


def test_transactions_are_no_loss_to_the_history_and_its_lag_reaches_zero(bus: Bus, tmp_path: Path) -> None:
    env = {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_HISTORY_GROUP": bus.prefix}
    writer = Writer(bus.broker.address, tmp_path / "history", tmp_path, env)
    kept: list[VmMetrics] = []
    producer = Transactional(bus)
    with writing(writer):
        for number in range(TRANSACTIONS):
            samples = now_samples(range(number * 2, number * 2 + 2))
            commit = number % 3 != 2
            producer.send(METRICS, samples, commit=commit)
            kept += samples if commit else []
        wait_for_samples(tmp_path / "history", len(kept), SECONDS, writer)
        eventually("a lag of 0", lambda: writer.value('virtflow_history_lag_messages{table="samples"}') == 0, SECONDS)
        assert writer.value('virtflow_history_missing_records_total{table="samples"}') == 0
        assert writer.ready() == "ready"
        assert writer.stop() == 0
        # The offsets behind the last marks are stored as well: a topic whose records have all expired has lost nothing.
        assert_all_expired(bus)
        writer.start()
        eventually("readiness", lambda: writer.ready() == "ready", SECONDS)
        more = now_samples(range(100, 102))
        producer.send(METRICS, more, commit=True)
        wait_for_samples(tmp_path / "history", len(kept) + len(more), SECONDS, writer)
        assert writer.value('virtflow_history_missing_records_total{table="samples"}') == 0
    assert dict(stored_keys(tmp_path / "history")) == {key_of(sample): 1 for sample in [*kept, *more]}
    figure(31, "transactions, a third of them aborted, none counted as lost", TRANSACTIONS)
    figure(31, "rows of the committed ones, each stored once", len([*kept, *more]))
    assert "gone" not in writer.log.read_text()


def assert_all_expired(bus: Bus) -> None:
    """Deletes all records of vm.metrics, as retention does."""
    admin = AdminClient({"bootstrap.servers": bus.broker.address})
    places = [TopicPartition(bus.prefix + METRICS.name, number, -1) for number in range(bus.partitions)]
    for future in admin.delete_records(places).values():
        future.result()


def test_a_deletion_that_is_a_loss_is_counted(bus: Bus, tmp_path: Path) -> None:
    """Deleted before it was taken, and only that: between two transactions of a writer that was away."""
    env = {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_HISTORY_GROUP": bus.prefix}
    writer = Writer(bus.broker.address, tmp_path / "history", tmp_path, env)
    producer = Transactional(bus)
    first, lost, last = (now_samples(range(number, number + 1)) for number in (0, 1, 2))
    with writing(writer):
        producer.send(METRICS, first, commit=True)
        wait_for_samples(tmp_path / "history", len(first), SECONDS, writer)
        eventually("a lag of 0", lambda: writer.value('virtflow_history_lag_messages{table="samples"}') == 0, SECONDS)
        assert writer.stop() == 0
        producer.send(METRICS, lost, commit=True)
        assert_all_expired(bus)
        producer.send(METRICS, last, commit=True)
        writer.start()
        wait_for_samples(tmp_path / "history", len(first) + len(last), SECONDS, writer)
        counted = writer.value('virtflow_history_missing_records_total{table="samples"}')
    # Each partition's mark of the lost transaction is counted with its records: nobody can tell them apart once they are gone.
    assert len(lost) <= counted <= len(lost) + bus.partitions


def test_transactions_are_no_loss_to_the_exporter_and_its_lag_reaches_zero(bus: Bus, tmp_path: Path) -> None:
    producer = Transactional(bus)
    producer.send(METRICS, now_samples(range(1)), commit=True)
    with ExporterProcess(tmp_path, bus.broker.address, bus.prefix, {"EXPORTER_READ_BACK_SECONDS": 3600}) as exporter:
        exporter.wait_until_ready()
        for number in range(1, TRANSACTIONS):
            producer.send(METRICS, now_samples(range(number, number + 1)), commit=number % 2 == 0)
        exporter.wait_until(lambda: exporter.value("virtflow_exporter_lag_messages", topic="vm.metrics") == 0, SECONDS, "a lag of 0")
        taken = sum(1 for number in range(TRANSACTIONS) if number % 2 == 0) * 10
        exporter.wait_until(
            lambda: exporter.value("virtflow_exporter_records_total", topic="vm.metrics") == taken, SECONDS, "all that was committed"
        )
        assert not exporter.value("virtflow_exporter_skipped_records_total", topic="vm.metrics")
        assert not exporter.lines("warning")
        assert exporter.status("/readyz") == 200


def test_processors_read_migrations_back_that_were_written_in_transactions(bus: Bus) -> None:
    producer = Transactional(bus)
    begun = VmMigration(uuid="00000000-0000-4000-8000-000000000001", id="m", source="a", destination="b", result="running")
    producer.send(MIGRATIONS, [begun], commit=True)
    producer.send(MIGRATIONS, [replace(begun, result="failed")], commit=False)
    found = read_migrations(bus.settings, CODEC)
    assert {uuid: migration.result for uuid, (migration, _) in found.items()} == {begun.uuid: "running"}
