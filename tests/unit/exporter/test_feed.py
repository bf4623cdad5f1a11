"""The exporter's feed from topics that come, go, grow and lose records, and a broker that goes away: on the in-memory one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from tests.support.memory_kafka import Cluster
from tests.support.vm_samples import inventory, sample, status, uuid
from virtflow.exporter import consumer
from virtflow.exporter.assignment import Clients
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.consumer import Feed
from virtflow.exporter.service import Exporter
from virtflow.runtime.kafka.clients import client_settings, consumer_settings
from virtflow.runtime.settings import Exporter as Section
from virtflow.runtime.settings import Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.schema import Schema
from virtflow.schemas.avro.shipped import current_schemas
from virtflow.schemas.errors import RegistryUnavailableError
from virtflow.schemas.records import NodeStatus, Record, VmMetrics, VmMigration
from virtflow.schemas.topics import INVENTORY, METRICS, MIGRATIONS, NODES, Topic

SECONDS = 60.0
TOPICS = (METRICS, INVENTORY, MIGRATIONS, NODES)
CODEC = Codec()


class Fed:
    """An exporter's fleet, fed from the in-memory broker; its monotonic clock is the test's."""

    def __init__(self, cluster: Cluster, fetch: Callable[[int], Schema | None] | None = None, **section: object) -> None:
        """``section`` are settings of the exporter."""
        self.now = 1_000.0
        settings = Settings(exporter=Section(**section))  # type: ignore[arg-type]
        self.exporter = Exporter(settings)
        self.fleet, self.metrics = self.exporter.fleet, self.exporter.metrics
        clients = Clients(consumer_settings(settings, "g"), client_settings(settings), cluster.consumer, cluster.admin)
        clocks = Clocks(lambda: self.now, time.time)
        self.feed = Feed(settings, self.fleet, Codec(fetch=fetch), self.metrics, clocks, clients=clients)

    async def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something is true, with the feed going on."""
        deadline = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < deadline, f"{what}: {self.feed.missing()}"
            await asyncio.sleep(0.005)

    async def ready(self) -> None:
        await self.until(lambda: not self.feed.missing(), "ready")

    def look(self) -> None:
        """Time for the next look at topics, partitions and lag."""
        self.now += 10.0

    def vms(self) -> set[str]:
        return {vm.exported.uuid for vm in self.fleet.vms() if vm.exported is not None}

    def counted(self, name: str, topic: str) -> float:
        return self.metrics.value(f"virtflow_exporter_{name}", topic)


def fed(test: Callable[[Fed], Awaitable[None]], cluster: Cluster, **more: Any) -> None:  # noqa: ANN401, settings
    """Run a test beside the feed, which ends with it."""

    async def run() -> None:
        fed = Fed(cluster, **more)
        task = asyncio.create_task(fed.feed.run())
        try:
            await test(fed)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert cluster.consumers == []

    asyncio.run(run())


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests wait for the feed: what it does again after a pause comes soon."""
    monkeypatch.setattr(consumer, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(consumer, "READ_SECONDS", 0.02)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster.with_topics(*TOPICS)


def put(cluster: Cluster, topic: Topic, *records: Record, partition: int = 0, timestamp: float | None = None) -> None:
    for record in records:
        key = record.node if isinstance(record, NodeStatus) else str(getattr(record, "uuid", ""))
        cluster.write(topic.name, key.encode(), CODEC.encode(record), partition, timestamp)


def now_sample(number: int, sequence: int = 1) -> VmMetrics:
    return sample(number, sequence, collected=time.time(), monitor_collected=time.time(), interval=600.0)


def test_it_reads_back_and_then_what_arrives(cluster: Cluster) -> None:
    put(cluster, METRICS, now_sample(1), partition=1)
    put(cluster, INVENTORY, inventory(1))
    put(cluster, NODES, status())

    async def test(fed: Fed) -> None:
        assert "no answer from the brokers" in fed.feed.missing()
        await fed.ready()
        assert (fed.vms(), [node.status.node for node in fed.fleet.nodes()]) == ({uuid(1)}, ["node-1"])
        put(cluster, METRICS, now_sample(2))
        await fed.until(lambda: fed.vms() == {uuid(1), uuid(2)}, "the new VM")
        put(cluster, METRICS, now_sample(2))
        await fed.until(lambda: fed.counted("records_total", "vm.metrics") == 3.0, "the repeated sample")
        assert fed.metrics.value("virtflow_exporter_stale_records_total") == 1.0

    fed(test, cluster)


def test_samples_are_read_back_for_so_long_and_the_rest_from_the_beginning(cluster: Cluster) -> None:
    put(cluster, METRICS, now_sample(1), timestamp=time.time() - 600)
    put(cluster, METRICS, now_sample(2))
    put(cluster, METRICS, now_sample(3), timestamp=time.time() - 600, partition=1)
    put(cluster, INVENTORY, inventory(1), timestamp=time.time() - 86_400)

    async def test(fed: Fed) -> None:
        await fed.ready()
        assert (fed.counted("records_total", "vm.metrics"), fed.counted("records_total", "vm.inventory")) == (1.0, 1.0)

    fed(test, cluster, read_back_seconds=30)


def test_samples_wait_until_everything_else_has_been_read(cluster: Cluster) -> None:
    """Whose they are is known by then: none is taken before the last migration."""
    for number in range(700):
        put(cluster, MIGRATIONS, VmMigration(uuid=uuid(number), source="a", destination="b", revision=1, result="completed"))
    put(cluster, METRICS, now_sample(1))

    async def test(fed: Fed) -> None:
        seen: list[tuple[float, float]] = []

        def both() -> bool:
            seen.append((fed.counted("records_total", "vm.metrics"), fed.counted("records_total", "vm.migrations")))
            return seen[-1][0] > 0

        await fed.until(both, "the sample")
        assert {migrations for samples, migrations in seen if samples} == {700.0}
        await fed.ready()

    fed(test, cluster)


def test_missing_topics_are_named_and_waited_for(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster.delete(NODES.name)
    put(cluster, METRICS, now_sample(1))

    async def test(fed: Fed) -> None:
        await fed.until(lambda: "topics missing: vm.nodes" in fed.feed.missing(), "the missing topic is named")
        await fed.until(lambda: fed.vms() == {uuid(1)}, "what is there is shown")
        assert "topics missing: vm.nodes" in fed.feed.missing()
        cluster.create(NODES.name, 2, NODES.config())
        fed.look()
        await fed.ready()

    fed(test, cluster)
    assert "topics missing: vm.nodes" in caplog.text


def test_a_broker_that_is_away_is_named_and_waited_for(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster.stop()
    put(cluster, METRICS, now_sample(1))

    async def test(fed: Fed) -> None:
        await fed.until(lambda: "do not answer" in caplog.text, "the log names the broker")
        assert "no answer from the brokers" in fed.feed.missing()
        cluster.start()
        await fed.ready()
        cluster.stop()
        cluster.tell(KafkaError._ALL_BROKERS_DOWN)
        fed.look()
        await fed.until(lambda: caplog.text.count("do not answer") > 1, "the second time")
        assert fed.feed.missing() == ""
        cluster.start()
        put(cluster, METRICS, now_sample(2))
        await fed.until(lambda: fed.vms() == {uuid(1), uuid(2)}, "the new VM")

    fed(test, cluster)


def test_records_that_are_none_are_counted_and_skipped(cluster: Cluster) -> None:
    """A sample without a value is no deletion: its topic is not compacted."""

    async def test(fed: Fed) -> None:
        await fed.ready()
        for topic in TOPICS:
            cluster.write(topic.name, b"k", b"no record")
        cluster.write(METRICS.name, b"k", None)
        put(cluster, METRICS, now_sample(1))
        await fed.until(lambda: fed.vms() == {uuid(1)}, "the VM")
        await fed.until(lambda: fed.counted("undecodable_total", "vm.nodes") == 1.0, "the last topic")
        assert [fed.counted("undecodable_total", topic.name) for topic in TOPICS] == [2.0, 1.0, 1.0, 1.0]

    fed(test, cluster)


def test_tombstones_take_things_away(cluster: Cluster) -> None:
    put(cluster, NODES, status("node-1"), status("node-2"))
    put(cluster, INVENTORY, inventory(1))
    put(cluster, MIGRATIONS, VmMigration(uuid=uuid(1), source="a", revision=1, result="completed"))

    async def test(fed: Fed) -> None:
        await fed.ready()
        for topic, key in ((NODES, b"node-1"), (INVENTORY, uuid(1).encode()), (MIGRATIONS, uuid(1).encode())):
            cluster.write(topic.name, key, None)
        await fed.until(lambda: [node.status.node for node in fed.fleet.nodes()] == ["node-2"], "the node's end")
        await fed.until(lambda: fed.counted("records_total", "vm.migrations") == 2.0, "the migration's end")
        assert [vm.inventory for vm in fed.fleet.vms() if vm.inventory is not None] == []

    fed(test, cluster)


def test_partitions_that_are_added_are_read_from_their_beginning(cluster: Cluster) -> None:
    async def test(fed: Fed) -> None:
        await fed.ready()
        cluster.grow(METRICS.name, 3)
        put(cluster, METRICS, now_sample(7), partition=2, timestamp=time.time() - 86_400)
        fed.look()
        await fed.until(lambda: fed.counted("records_total", "vm.metrics") == 1.0, "the sample in the new partition")

    fed(test, cluster)


def test_a_topic_that_is_deleted_is_read_again_when_it_is_back(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    put(cluster, METRICS, now_sample(1))

    async def test(fed: Fed) -> None:
        await fed.ready()
        cluster.delete(METRICS.name)
        fed.look()
        await fed.until(lambda: "vm.metrics [1] is gone" in caplog.text, "the loss is named")
        cluster.create(METRICS.name, 2, METRICS.config())
        put(cluster, METRICS, now_sample(2))
        fed.look()
        await fed.until(lambda: fed.counted("records_total", "vm.metrics") == 2.0, "the new topic's sample")

    fed(test, cluster)


def test_a_topic_made_again_between_two_looks_is_read_from_its_beginning(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """As many records as before, numbered from the first again: only the topic's id says that they are others."""
    put(cluster, MIGRATIONS, *(VmMigration(uuid=uuid(1), source="a", revision=number, result="completed") for number in (1, 2)))

    async def test(fed: Fed) -> None:
        await fed.ready()
        cluster.delete(MIGRATIONS.name)
        cluster.create(MIGRATIONS.name, 2, MIGRATIONS.config())
        put(cluster, MIGRATIONS, *(VmMigration(uuid=uuid(1), source="a", revision=number, result="failed") for number in (1, 2)))
        fed.look()
        await fed.until(lambda: fed.counted("records_total", "vm.migrations") == 4.0, "the new ones")
        assert fed.metrics.value("virtflow_exporter_stale_records_total") == 0.0

    fed(test, cluster)
    assert "vm.migrations was deleted and created again" in caplog.text
    assert "is gone" not in caplog.text


def test_what_retention_deleted_unread_is_counted_and_the_marks_of_transactions_are_not(cluster: Cluster) -> None:
    put(cluster, METRICS, now_sample(1))

    async def test(fed: Fed) -> None:
        await fed.ready()
        key = uuid(2).encode()
        cluster.transaction(METRICS.name, 0, [(key, CODEC.encode(now_sample(2)))], commit=False)
        cluster.transaction(METRICS.name, 0, [(key, CODEC.encode(now_sample(2)))], commit=True)
        read = fed.feed._places[METRICS.name, 0]
        await fed.until(lambda: read.next == 5 and not fed.feed._gaps, "the committed one, and the mark behind it")
        assert fed.vms() == {uuid(1), uuid(2)}
        assert fed.counted("skipped_records_total", "vm.metrics") == 0.0
        with cluster.changed:  # nothing is read between the two
            for number in range(3, 8):
                put(cluster, METRICS, now_sample(number))
            cluster.truncate(METRICS.name, 0, cluster.topics[METRICS.name].logs[0].high - 1)
        await fed.until(lambda: uuid(7) in fed.vms(), "the last one")
        await fed.until(lambda: fed.counted("skipped_records_total", "vm.metrics") == 4.0, "what is gone is counted")

    fed(test, cluster)


def test_gaps_of_compaction_are_no_loss(cluster: Cluster) -> None:
    async def test(fed: Fed) -> None:
        await fed.ready()
        with cluster.changed:
            for _ in range(5):
                put(cluster, NODES, status())
            cluster.compact(NODES.name)
        await fed.until(lambda: fed.counted("records_total", "vm.nodes") == 1.0, "the newest")
        assert fed.counted("skipped_records_total", "vm.nodes") == 0.0

    fed(test, cluster)


def test_the_lag_is_what_is_still_to_be_read(cluster: Cluster) -> None:
    """In messages: zero when all is read, although the last offset is the mark of a transaction."""
    cluster.transaction(METRICS.name, 0, [(b"k", CODEC.encode(now_sample(1)))], commit=True)

    async def test(fed: Fed) -> None:
        fed.metrics.gauge("virtflow_exporter_lag_messages").labels(topic="vm.metrics").set(-1)
        await fed.ready()
        fed.look()
        await fed.until(lambda: fed.counted("lag_messages", "vm.metrics") == 0.0, "no lag")

    fed(test, cluster)


@pytest.mark.parametrize(("number", "found"), [(1, {uuid(0), uuid(2)}), (2, {uuid(1), uuid(3)})])
def test_a_shard_reads_its_partitions(cluster: Cluster, number: int, found: set[str]) -> None:
    for topic in (METRICS, INVENTORY, MIGRATIONS):
        cluster.grow(topic.name, 4)
    for partition in range(4):
        put(cluster, METRICS, now_sample(partition), partition=partition)

    async def test(fed: Fed) -> None:
        await fed.ready()
        assert fed.vms() == found

    fed(test, cluster, shard=f"{number}/2")


def test_a_shard_of_topics_that_can_not_be_dealt_is_not_ready(cluster: Cluster) -> None:
    cluster.grow(METRICS.name, 4)

    async def test(fed: Fed) -> None:
        await fed.until(lambda: "differ in their partitions" in fed.feed.missing(), "the problem is named")

    fed(test, cluster, shard="1/2")


def test_a_registry_that_does_not_answer_is_waited_for(cluster: Cluster) -> None:
    """What comes after the message with the unknown id waits as well."""
    schemas = {str(schema["name"]).rpartition(".")[2]: schema for schema in current_schemas()}
    answers: list[Schema | None] = []

    def fetch(schema_id: int) -> Schema | None:
        del schema_id
        if not answers:
            raise RegistryUnavailableError("the registry does not answer")
        return answers[0]

    framed = Codec({"VmMetrics": 7}).encode(now_sample(1))
    cluster.write(METRICS.name, uuid(1).encode(), framed)
    put(cluster, METRICS, now_sample(2))

    async def test(fed: Fed) -> None:
        await fed.until(lambda: "the registry does not answer" in fed.feed.missing(), "the registry is named")
        assert fed.vms() == set()
        answers.append(schemas["VmMetrics"])
        await fed.ready()
        assert fed.vms() == {uuid(1), uuid(2)}

    fed(test, cluster, fetch=fetch)
