"""The history's writer on the in-memory broker: groups that share, topics that are cut, storage and registries that fail."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
from confluent_kafka import KafkaError

from tests.support.history import fleet_inventories, key_of, rows_of, stored_keys
from tests.support.lab_process import await_true
from tests.support.memory_kafka import Cluster
from tests.support.memory_writer import CODEC, NOW, PARTITIONS, SECONDS, put, samples, writing
from virtflow.history import service as service_module
from virtflow.history.service import Service
from virtflow.history.storage.table_schemas import EVENT_ROWS, INVENTORY_ROWS, MIGRATION_ROWS, SAMPLES
from virtflow.history.writer.offsets import Names
from virtflow.history.writer.source import Makers
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.settings import History, Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.schema import Schema
from virtflow.schemas.avro.shipped import current_schemas
from virtflow.schemas.errors import EnvironmentProblemError, InputError, RegistryUnavailableError
from virtflow.schemas.records import VmEvent, VmMigration
from virtflow.schemas.topics import EVENTS, INVENTORY, METRICS, MIGRATIONS, TOPICS


@pytest.fixture
def cluster() -> Cluster:
    return Cluster.with_topics(*TOPICS)


def event(sequence: int, uuid: str) -> VmEvent:
    return VmEvent(uuid=uuid, node="n", boot_id="b", sequence=sequence, time=NOW, kind="lifecycle", event=2)


def test_every_topic_has_its_table_and_repeats_are_stored_once(cluster: Cluster, tmp_path: Path) -> None:
    given, inventories = samples(range(3)), fleet_inventories(1, 4, start=NOW)
    vm = given[0].uuid
    begun = VmMigration(uuid=vm, id="m", source="a", destination="b", result="running", updated_timestamp_seconds=NOW)
    with writing(cluster, tmp_path) as writer:
        put(cluster, METRICS, *given, *given[:2], b"no record")
        put(cluster, EVENTS, event(1, vm), event(2, vm), event(1, vm))
        put(cluster, MIGRATIONS, begun, begun)
        put(cluster, INVENTORY, *inventories, *inventories)
        for table, name in ((EVENT_ROWS, "events"), (MIGRATION_ROWS, "migrations"), (INVENTORY_ROWS, "inventory"), (SAMPLES, "samples")):
            writer.until(lambda table=table: writer.rows(table.name) > 0, name)  # type: ignore[misc]  # bound now
    assert stored_keys(tmp_path) == Counter(map(key_of, given))
    assert [row["sequence"] for row in rows_of(tmp_path, EVENT_ROWS)] == [1, 2]
    assert len(rows_of(tmp_path, MIGRATION_ROWS)) == 1
    assert len(rows_of(tmp_path, INVENTORY_ROWS)) == len(inventories)
    assert writer.consume.left.endswith("rows committed")
    assert writer.counted("waiting_records") == 0.0


def test_a_second_run_goes_on_where_the_first_has_stopped(cluster: Cluster, tmp_path: Path) -> None:
    first, second = samples(range(2)), samples(range(2, 4))
    for given in (first, second):
        put(cluster, METRICS, *given)
        with writing(cluster, tmp_path) as writer:
            writer.until(lambda: writer.rows() > 0 and writer.counted("waiting_records") == 0, "they are stored")
        assert writer.counted("records_total", "samples") == len(given)
    assert stored_keys(tmp_path) == Counter(map(key_of, first + second))


def test_a_run_without_records_says_so(cluster: Cluster, tmp_path: Path) -> None:
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: writer.has(PARTITIONS), "the partitions")
    assert writer.consume.left == "nothing committed"


def test_a_run_of_repeats_alone_says_that_it_committed_offsets(cluster: Cluster, tmp_path: Path) -> None:
    given = samples(range(2))
    left = []
    for _ in range(2):
        put(cluster, METRICS, *given)
        with writing(cluster, tmp_path) as writer:
            writer.until(lambda: writer.counted("commits_total", "samples") > 0, "a commit")
        left.append(writer.consume.left)
    assert left[0].endswith(" rows committed")
    assert left[1] == "offsets committed, no new rows"
    assert stored_keys(tmp_path) == Counter(map(key_of, given))


def test_two_writers_share_the_partitions_and_one_leads(cluster: Cluster, tmp_path: Path) -> None:
    with writing(cluster, tmp_path) as first:
        first.until(lambda: first.has(PARTITIONS), "all partitions")
        with writing(cluster, tmp_path) as second:
            second.until(lambda: first.has(PARTITIONS // 2) and second.has(PARTITIONS // 2), "half of them each")
            assert [first.consume.leads, second.consume.leads].count(True) == 1
            put(cluster, METRICS, *samples(range(3)))
            second.until(lambda: stored_keys(tmp_path).total() == 12, "all are stored")
        first.until(lambda: first.has(PARTITIONS), "all partitions again")
        assert first.consume.leads
        put(cluster, METRICS, *samples(range(3, 5)))
    assert stored_keys(tmp_path).total() >= 12


def test_a_writer_that_read_too_late_takes_its_partitions_again(cluster: Cluster, tmp_path: Path) -> None:
    given = samples(range(4))
    with writing(cluster, tmp_path) as writer:
        put(cluster, METRICS, *given[:8])
        writer.until(lambda: writer.counted("records_total", "samples") == 8, "the first ones")
        cluster.lose(writer.consumer)
        put(cluster, METRICS, *given[8:])
        writer.until(lambda: stored_keys(tmp_path).total() == len(given), "all")
    assert stored_keys(tmp_path) == Counter(map(key_of, given))


def test_a_writer_whose_name_another_one_takes_ends(cluster: Cluster, tmp_path: Path) -> None:
    with writing(cluster, tmp_path, instance="name") as first:
        first.until(lambda: first.has(PARTITIONS), "all partitions")
        with writing(cluster, tmp_path, instance="name") as second:
            second.until(lambda: first.error is not None and second.has(PARTITIONS), "the second one has them")
    assert "the consumer group does not have us any more" in str(first.error)
    assert second.error is None


def test_what_retention_deleted_before_it_was_stored_is_counted(cluster: Cluster, tmp_path: Path) -> None:
    """While no writer ran, and between two reads; the marks of transactions are no loss."""
    vm = samples(range(1), vms=1)[0].uuid.encode()
    part = sum(vm) % 2

    def write(number: int) -> None:
        cluster.write(METRICS.name, vm, CODEC.encode(samples(range(number, number + 1), vms=1)[0]), part)

    write(0)
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: stored_keys(tmp_path).total() == 1, "the first one")
    write(1)
    write(2)
    cluster.truncate(METRICS.name, part, -1)
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: writer.counted("missing_records_total", "samples") == 2.0, "two are gone")
        for commit in (True, False):
            cluster.transaction(METRICS.name, part, [(vm, CODEC.encode(samples(range(3, 4), vms=1)[0]))], commit=commit)
        writer.until(lambda: stored_keys(tmp_path).total() == 2, "the committed one")
        with cluster.changed:  # nothing is read between the two
            write(4)
            write(5)
            cluster.truncate(METRICS.name, part, cluster.topics[METRICS.name].logs[part].high - 1)
        writer.until(lambda: stored_keys(tmp_path).total() == 3, "the last one")
        writer.until(lambda: writer.counted("missing_records_total", "samples") >= 3.0, "the one before it is gone")
        writer.until(lambda: writer.counted("lag_messages", "samples") == 0.0, "no lag")


def test_a_broker_that_has_lost_its_end_is_read_from_there(cluster: Cluster, tmp_path: Path) -> None:
    """Restored from a backup, say: under the same topic id, with fewer records than are stored."""
    put(cluster, METRICS, *samples(range(3)))
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: stored_keys(tmp_path).total() == 12, "all")
    for log in cluster.topics[METRICS.name].logs:
        log.records.clear()
        log.high = 0
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: writer.has(PARTITIONS), "the partitions")
        put(cluster, METRICS, *samples(range(5, 6)))
        writer.until(lambda: stored_keys(tmp_path).total() == 16, "the new ones")


def test_a_topic_made_again_is_read_from_its_beginning(cluster: Cluster, tmp_path: Path) -> None:
    put(cluster, METRICS, *samples(range(2)))
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: stored_keys(tmp_path).total() == 8, "all")
    cluster.delete(METRICS.name)
    cluster.create(METRICS.name, 2, METRICS.config())
    put(cluster, METRICS, *samples(range(2, 3)))
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: stored_keys(tmp_path).total() == 12, "the new ones as well")
        assert writer.counted("missing_records_total", "samples") == 0.0


def test_while_the_storage_fails_nothing_more_is_read(cluster: Cluster, tmp_path: Path) -> None:
    """The partitions are paused; what waits is stored when it is over, once."""
    given = samples(range(4))
    path = tmp_path / "history"
    with writing(cluster, path) as writer:
        writer.until(lambda: writer.has(PARTITIONS), "the partitions")
        away = tmp_path / "away"
        path.rename(away)
        path.write_text("no folder")
        put(cluster, METRICS, *given[:8])
        writer.until(lambda: bool(writer.consume.failing), "the failure is named")
        put(cluster, METRICS, *given[8:])
        writer.until(lambda: writer.counted("commit_failures_total") > 1, "it is tried again")
        assert writer.counted("records_total", "samples") <= 8
        path.unlink()
        away.rename(path)
        writer.until(lambda: stored_keys(path).total() == len(given), "all are stored")
        writer.until(lambda: not writer.consume.failing, "the failure is over")
    assert stored_keys(path) == Counter(map(key_of, given))


def test_what_could_not_be_stored_at_the_end_is_named(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "history"
    with writing(cluster, path) as writer:
        writer.until(lambda: writer.has(PARTITIONS), "the partitions")
        path.rename(tmp_path / "away")
        path.write_text("no folder")
        put(cluster, METRICS, *samples(range(1)))
        writer.until(lambda: bool(writer.consume.failing), "the failure is named")
    assert "4 records not committed, they are read again" in writer.consume.left


def test_two_writers_of_one_partition_store_nothing_twice(cluster: Cluster, tmp_path: Path) -> None:
    """Groups of their own, as two clusters that were set up alike would have: the second one to commit starts over."""
    given = samples(range(6))
    with writing(cluster, tmp_path, group="one") as first, writing(cluster, tmp_path, group="two") as second:
        first.until(lambda: first.has(PARTITIONS) and second.has(PARTITIONS), "both have all partitions")
        for start in range(0, len(given), 4):
            put(cluster, METRICS, *given[start : start + 4])
            first.until(lambda start=start: stored_keys(tmp_path).total() >= start + 4, "the next ones")  # type: ignore[misc]  # bound now
        first.until(lambda: first.counted("waiting_records") + second.counted("waiting_records") == 0, "nothing waits")
    assert stored_keys(tmp_path) == Counter(map(key_of, given))


def test_a_registry_that_does_not_answer_keeps_messages_waiting(cluster: Cluster, tmp_path: Path) -> None:
    schemas = {str(schema["name"]).rpartition(".")[2]: schema for schema in current_schemas()}
    answers: list[Schema] = []

    def fetch(schema_id: int) -> Schema | None:
        del schema_id
        if not answers:
            raise RegistryUnavailableError("the registry does not answer")
        return answers[0]

    given = samples(range(2))
    with writing(cluster, tmp_path, Codec(fetch=fetch)) as writer:
        for sample in given:
            cluster.write(METRICS.name, sample.uuid.encode(), Codec({"VmMetrics": 7}).encode(sample))
        writer.until(lambda: "the registry does not answer" in writer.consume.failing, "the registry is named")
        answers.append(schemas["VmMetrics"])
        writer.until(lambda: stored_keys(tmp_path).total() == len(given), "all are stored")
        assert writer.consume.failing == ""


def test_a_schema_with_fields_of_somebody_else_is_stored_alike(cluster: Cluster, tmp_path: Path) -> None:
    """A map, which the reader of many messages at once does not know: they are read one by one."""
    [schema] = [schema for schema in current_schemas() if str(schema["name"]).endswith("VmMetrics")]
    notes = {"name": "notes", "type": {"type": "map", "values": "string"}, "default": {}}
    foreign = {**schema, "fields": [*schema["fields"], notes]}
    given = samples(range(2))
    with writing(cluster, tmp_path, Codec(fetch=lambda _: foreign)) as writer:
        for sample in given:
            stream = io.BytesIO()
            fastavro.schemaless_writer(stream, foreign, {**msgspec.to_builtins(sample), "notes": {"a": "b"}})
            cluster.write(METRICS.name, sample.uuid.encode(), b"\0\0\0\0\7" + stream.getvalue())
        writer.until(lambda: stored_keys(tmp_path).total() == len(given), "all are stored")
    found = {(row["uuid"], row["sequence"]): row for row in rows_of(tmp_path, SAMPLES) if row["kind"] == "vm"}
    for sample in given:
        assert found[sample.uuid, sample.sequence]["vm_memory_rss_bytes"] == sample.memory_rss_bytes


def test_errors_in_the_place_of_messages_are_named(cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: writer.has(PARTITIONS), "the partitions")
        cluster.tell(KafkaError._ALL_BROKERS_DOWN)
        writer.until(lambda: "the broker says" in caplog.text, "the log names it")
    assert writer.error is None


def test_topics_that_are_missing_or_a_broker_that_is_away_are_named(cluster: Cluster) -> None:
    names = Names(Settings(), cluster.admin)
    cluster.delete(EVENTS.name)
    with pytest.raises(EnvironmentProblemError, match="topics create"):
        names.learn()
    cluster.stop()
    with pytest.raises(EnvironmentProblemError, match="start the broker"):
        names.learn()


class TestService:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        history = History(path=str(tmp_path / "history"), listen="127.0.0.1:0", commit_seconds=0.05, raw_days=3_650, maintain_seconds=0)
        return Settings(history=history)

    @contextmanager
    def running(self, settings: Settings, cluster: Cluster) -> Iterator[Service]:
        """In a thread; stopped however the test ends."""
        import asyncio

        stop, errors = Stop(), list[BaseException]()
        service = Service(settings, stop, Makers(cluster.consumer, cluster.admin))

        def run() -> None:
            try:
                asyncio.run(service.run())
            except BaseException as error:  # noqa: BLE001, told by the test's thread
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield service
        finally:
            stop.set()
            thread.join(SECONDS)
            assert not thread.is_alive()
        assert not errors

    def test_it_waits_for_the_broker_and_the_topics_and_writes(
        self, cluster: Cluster, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service_module, "RETRY_SECONDS", 0.05)
        cluster.delete(EVENTS.name)
        cluster.stop()
        with self.running(settings, cluster) as service:
            await_true(lambda: "does not answer" in service._not_ready(), SECONDS, "the broker is named")
            cluster.start()
            await_true(lambda: "vm.events" in service._not_ready(), SECONDS, "the topic is named")
            cluster.create(EVENTS.name, 2, EVENTS.config())
            await_true(lambda: service._not_ready() == "", SECONDS, "it is ready")
            put(cluster, METRICS, *samples(range(1)))
            await_true(lambda: stored_keys(settings.history.path).total() == 4, SECONDS, "all are stored")

    def test_it_stops_while_it_waits(self, cluster: Cluster, settings: Settings) -> None:
        cluster.stop()
        with self.running(settings, cluster) as service:
            await_true(lambda: "does not answer" in service._not_ready(), SECONDS, "the broker is named")

    def test_a_client_that_can_not_be_made_ends_it(self, cluster: Cluster, settings: Settings) -> None:
        def refuse(config: dict[str, Any]) -> Any:  # noqa: ANN401, a client
            cluster.refuse_clients(KafkaError._INVALID_ARG)
            return cluster.consumer(config)

        service = Service(settings, Stop(), Makers(refuse, cluster.admin))
        with pytest.raises(InputError, match="can't be made"):
            service._built(CODEC)
