"""Delivery to a broker that refuses, goes away and ends clients, and what is read back from it: on the in-memory one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.support.lab_process import await_true
from tests.support.memory_kafka import Cluster
from virtflow.processors import delivery, instance_id
from virtflow.processors.dead_letters.dead_letter import Result
from virtflow.processors.delivery import Delivery, DeliveryFailedError
from virtflow.processors.metrics import Tally
from virtflow.processors.migrations.restore import read_migrations
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Processors, Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import DEAD_LETTERS, METRICS, MIGRATIONS

SECONDS = 60.0
CODEC = Codec()
UUIDS = [f"00000000-0000-4000-8000-{number:012x}" for number in range(4)]


@dataclass
class Deliverer:
    """A delivery and what it counted."""

    delivery: Delivery
    metrics: OwnMetrics

    def deliver(self, results: list[Result]) -> None:
        asyncio.run(asyncio.wait_for(self.delivery.deliver(results), SECONDS))

    def counted(self, name: str) -> float:
        return self.metrics.value(f"virtflow_processors_{name}_total")


@contextmanager
def delivering(cluster: Cluster, **config: object) -> Iterator[Deliverer]:
    metrics = OwnMetrics("processors")
    made = Delivery(dict(config), lambda topic: topic.name, Tally(metrics), cluster.producer)
    made.start()
    try:
        yield Deliverer(made, metrics)
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is produced again soon."""
    monkeypatch.setattr(delivery, "RETRY_SECONDS", (0.02, 0.2))


@pytest.fixture
def cluster() -> Cluster:
    return Cluster.with_topics(METRICS, DEAD_LETTERS, MIGRATIONS)


def stored(cluster: Cluster, name: str) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values in the topic, by partition and offset."""
    return [(record.key, record.value) for log in cluster.topics[name].logs for record in log.records]


def results(count: int) -> list[Result]:
    return [Result(METRICS, b"%d" % number, b"x") for number in range(count)]


class TestDelivery:
    def test_done_means_that_the_broker_has_it(self, cluster: Cluster) -> None:
        with delivering(cluster) as deliverer:
            deliverer.deliver([*results(20), Result(DEAD_LETTERS, b"k", b"v", (("reason", b"empty"),))])
            assert sorted(stored(cluster, METRICS.name)) == sorted((b"%d" % number, b"x") for number in range(20))
            [dead] = [record for log in cluster.topics[DEAD_LETTERS.name].logs for record in log.records]
            assert (dead.key, dead.value, dead.headers) == (b"k", b"v", [("reason", b"empty")])

    def test_nothing_to_deliver_is_delivered(self, cluster: Cluster) -> None:
        with delivering(cluster) as deliverer:
            deliverer.deliver([])
        assert stored(cluster, METRICS.name) == []

    def test_what_no_broker_will_take_is_left_out_and_counted(self, cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
        """One that the client refuses at once, one that the broker refuses; nobody else pays for them."""
        cluster.refuse(METRICS.name, KafkaError.INVALID_RECORD)
        with delivering(cluster) as deliverer:
            deliverer.deliver([*results(2), Result(METRICS, b"large", b"x" * 3_000_000)])
            assert deliverer.counted("refused_messages") == 2
            assert deliverer.counted("delivery_retries") == 0
        assert stored(cluster, METRICS.name) == [(b"1", b"x")]
        assert "the broker will never take a message, left out: vm.metrics key 'large'" in caplog.text

    def test_only_what_failed_is_produced_again(self, cluster: Cluster) -> None:
        cluster.refuse(METRICS.name, KafkaError.NOT_ENOUGH_REPLICAS)
        with delivering(cluster) as deliverer:
            deliverer.deliver(results(3))
            assert deliverer.counted("delivery_retries") == 1
        assert sorted(stored(cluster, METRICS.name)) == [(b"0", b"x"), (b"1", b"x"), (b"2", b"x")]

    def test_the_newest_of_a_key_is_the_last_in_a_compacted_topic(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """Although the one before it is produced again after it: it is held back, or produced once more."""
        monkeypatch.setattr(delivery, "RETRY_SECONDS", (0.2, 0.2))
        cluster.refuse(MIGRATIONS.name, KafkaError.TOPIC_AUTHORIZATION_FAILED)

        async def deliver(made: Delivery) -> None:
            first = asyncio.create_task(made.deliver([Result(MIGRATIONS, b"k", b"1"), Result(MIGRATIONS, b"other", b"1")]))
            second = asyncio.create_task(made.deliver([Result(MIGRATIONS, b"k", b"2"), Result(METRICS, b"k", b"2")]))
            while not metrics.value("virtflow_processors_delivery_retries_total"):  # noqa: ASYNC110, nothing tells of it
                await asyncio.sleep(0.001)
            third = asyncio.create_task(made.deliver([Result(MIGRATIONS, b"k", b"3"), Result(METRICS, b"k", b"3")]))
            while (b"k", b"3") not in stored(cluster, METRICS.name):  # noqa: ASYNC110, as above
                await asyncio.sleep(0.001)
            assert (b"k", b"3") not in stored(cluster, MIGRATIONS.name)
            await asyncio.gather(first, second, third)

        with delivering(cluster) as deliverer:
            metrics = deliverer.metrics
            asyncio.run(asyncio.wait_for(deliver(deliverer.delivery), SECONDS))
            assert deliverer.delivery._turns == {}
        of_key = [value for key, value in stored(cluster, MIGRATIONS.name) if key == b"k"]
        assert of_key == [b"2", b"1", b"2", b"3"]
        assert {value for _, value in stored(cluster, METRICS.name)} == {b"2", b"3"}

    def test_a_topic_that_is_missing_is_waited_for(self, cluster: Cluster) -> None:
        cluster.delete(METRICS.name)
        with delivering(cluster) as deliverer:
            thread = threading.Thread(target=deliverer.deliver, args=(results(1),))
            thread.start()
            await_true(lambda: deliverer.counted("delivery_retries") > 0, SECONDS, "a retry")
            cluster.create(METRICS.name)
            thread.join(SECONDS)
            assert not thread.is_alive()
        assert stored(cluster, METRICS.name) == [(b"0", b"x")]

    def test_a_full_queue_is_waited_for(self, cluster: Cluster) -> None:
        with delivering(cluster, **{"queue.buffering.max.messages": 2}) as deliverer:
            deliverer.deliver(results(20))
        assert len(stored(cluster, METRICS.name)) == 20

    def test_what_waits_for_a_broker_that_is_away_arrives_when_it_is_back(self, cluster: Cluster) -> None:
        cluster.stop()
        with delivering(cluster, **{"message.timeout.ms": 0}) as deliverer:
            thread = threading.Thread(target=deliverer.deliver, args=(results(5),))
            thread.start()
            await_true(lambda: len(cluster.producers[0]) == 5, SECONDS, "all wait")
            cluster.start()
            thread.join(SECONDS)
            assert not thread.is_alive()
        assert len(stored(cluster, METRICS.name)) == 5

    def test_a_fatal_error_ends_the_delivery(self, cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
        """While messages are under way: their reports name other errors, and trying again finds that the client takes nothing more."""
        cluster.stop()
        with delivering(cluster, **{"message.timeout.ms": 0}) as deliverer:
            failures: list[Exception] = []

            def deliver() -> None:
                try:
                    deliverer.deliver(results(2))
                except DeliveryFailedError as error:
                    failures.append(error)

            thread = threading.Thread(target=deliver)
            thread.start()
            await_true(lambda: len(cluster.producers[0]) == 2, SECONDS, "both wait")
            cluster.end_producers(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
            thread.join(SECONDS)
            assert len(failures) == 1
            with pytest.raises(DeliveryFailedError):
                deliverer.deliver(results(1))
        assert "the Kafka client cannot go on" in caplog.text
        assert stored(cluster, METRICS.name) == []


def migration(number: int, result: str = "running") -> VmMigration:
    return VmMigration(uuid=UUIDS[number], id=f"m{number}", source="a", destination="b", result=result)


def put(cluster: Cluster, *records: VmMigration) -> None:
    for record in records:
        cluster.write(MIGRATIONS.name, record.uuid.encode(), CODEC.encode(record), partition=int(record.id[1:]) % 2)


def restored(cluster: Cluster, make: Any = None) -> dict[str, tuple[str, int]]:  # noqa: ANN401, a factory
    found = read_migrations(Settings(), CODEC, make or cluster.consumer)
    return {uuid: (record.result, partition) for uuid, (record, partition) in found.items()}


class TestRestoringMigrations:
    def test_the_newest_of_each_vm_comes_back_with_its_partition(self, cluster: Cluster) -> None:
        put(cluster, migration(0), migration(1), migration(0, "completed"))
        cluster.compact(MIGRATIONS.name)
        assert restored(cluster) == {UUIDS[0]: ("completed", 0), UUIDS[1]: ("running", 1)}

    def test_an_empty_topic_has_none(self, cluster: Cluster) -> None:
        assert restored(cluster) == {}

    def test_a_tombstone_takes_one_away_and_what_is_no_record_is_skipped(self, cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
        put(cluster, migration(0), migration(1))
        cluster.write(MIGRATIONS.name, UUIDS[0].encode(), None)
        cluster.write(MIGRATIONS.name, UUIDS[2].encode(), b"no record")
        assert restored(cluster) == {UUIDS[1]: ("running", 1)}
        assert "can't be restored and is skipped" in caplog.text

    def test_the_end_may_be_the_mark_of_a_transaction(self, cluster: Cluster) -> None:
        committed, aborted = migration(0), migration(0, "failed")
        for record, commit in ((committed, True), (aborted, False)):
            cluster.transaction(MIGRATIONS.name, 0, [(record.uuid.encode(), CODEC.encode(record))], commit=commit)
        assert restored(cluster) == {UUIDS[0]: ("running", 0)}

    def test_what_retention_took_away_is_not_waited_for(self, cluster: Cluster) -> None:
        put(cluster, migration(0), migration(2))
        cluster.truncate(MIGRATIONS.name, 0, 1)
        cluster.truncate(MIGRATIONS.name, 1, -1)
        assert restored(cluster) == {UUIDS[2]: ("running", 0)}

    def test_a_broker_that_is_away_is_named(self, cluster: Cluster) -> None:
        cluster.stop()
        with pytest.raises(EnvironmentProblemError, match="can't be read back"):
            restored(cluster)
        assert cluster.consumers == []

    def test_an_error_in_the_place_of_a_message_ends_the_reading(self, cluster: Cluster) -> None:
        put(cluster, migration(0))

        def make(config: dict[str, Any]) -> Any:  # noqa: ANN401, the double's class
            made = cluster.consumer(config)
            made.tell(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
            return made

        with pytest.raises(EnvironmentProblemError, match="can't be read back"):
            restored(cluster, make)


class TestMembers:
    SETTINGS = Settings(processors=Processors(instance="one", group="g"))

    def test_the_static_members_of_the_group_are_found_by_name(self, cluster: Cluster) -> None:
        for name in ("one", ""):
            more = {"group.instance.id": name} if name else {}
            consumer = cluster.consumer({"group.id": "g", **more})
            consumer.subscribe([METRICS.name], lambda *_: None, lambda *_: None, lambda *_: None)
            consumer.consume(1, 0.0)
        members = instance_id.static_members(self.SETTINGS, cluster.admin)
        assert list(members) == ["one"]
        again = cluster.consumer({"group.id": "g", "group.instance.id": "one"})
        again.subscribe([METRICS.name], lambda *_: None, lambda *_: None, lambda *_: None)
        again.consume(1, 0.0)
        assert instance_id.static_members(self.SETTINGS, cluster.admin)["one"] != members["one"]

    def test_a_broker_that_is_away_raises(self, cluster: Cluster) -> None:
        cluster.stop()
        with pytest.raises(KafkaException):
            instance_id.static_members(self.SETTINGS, cluster.admin)
