"""The suite's bus on a real broker."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tests.support.broker import Broker
from tests.support.kafka_contract.bus import SECONDS, ends, read, wait, write
from virtflow.runtime.kafka.clients import acknowledged_producer_settings, client_settings, consumer_settings
from virtflow.runtime.settings import Kafka, Settings

QUICK = {"fetch.wait.max.ms": 50, "session.timeout.ms": 6_000, "heartbeat.interval.ms": 200}
"""A test waits for each of them."""


def dotted(settings: dict[str, object]) -> dict[str, Any]:
    """Librdkafka's names of settings; its calls have names of the Python client's own."""
    return {name if name == "error_cb" else name.replace("_", "."): value for name, value in settings.items()}


class BrokerBus:
    """A broker that several tests share; each has topics of its own."""

    def __init__(self, broker: Broker) -> None:
        """The broker runs."""
        self._broker = broker
        self._storage, self._copy = broker.folder / "storage", broker.folder / "copy"
        self._settings = Settings(kafka=Kafka(bootstrap_servers=broker.address))
        self._admin = self.admin()
        self._kept: list[Any] = []

    def topic(self, partitions: int = 1, **config: str) -> str:
        """Under a name of its own."""
        name = f"t{uuid.uuid4().hex[:8]}"
        self._make(name, partitions, dotted(dict(config)))
        return name

    def delete(self, topic: str) -> None:
        """Returns when nobody finds it any more."""
        self._done(self._admin.delete_topics([topic]))
        wait(lambda: topic not in self._admin.list_topics(timeout=SECONDS).topics, f"{topic} is deleted")

    def remake(self, topic: str) -> None:
        """As soon as the broker lets us."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self._make(topic, 1, {})
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                    raise
            else:
                return

    def grow(self, topic: str, partitions: int) -> None:
        """Adds partitions."""
        self._done(self._admin.create_partitions([NewPartitions(topic, partitions)]))

    def truncate(self, topic: str, offset: int) -> None:
        """Deletes records."""
        self._done(self._admin.delete_records([TopicPartition(topic, 0, offset)]))

    def compact(self, topic: str) -> None:
        """Begins new segments until the cleaner has come by: it looks every few seconds, and leaves the newest alone."""
        deadline = time.monotonic() + SECONDS
        while True:
            write(self, topic, b"", key=b"roll")
            consumer = self.consumer()
            consumer.assign([TopicPartition(topic, 0, 0)])
            first = next(message.offset() for message in read(consumer, ends))
            consumer.close()
            if first:
                return
            assert time.monotonic() < deadline, "the broker does not compact"

    def transaction(self, topic: str, values: Sequence[bytes], *, commit: bool) -> None:
        """By a producer of its own."""
        producer = Producer({"bootstrap.servers": self._broker.address, "transactional.id": uuid.uuid4().hex})
        producer.init_transactions(SECONDS)
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, b"k", partition=0)
        producer.flush(SECONDS)  # an aborted one too is in the topic
        if commit:
            producer.commit_transaction(SECONDS)
        else:
            producer.abort_transaction(SECONDS)

    def consumer(self, **settings: object) -> Consumer:
        """A client."""
        config = {**consumer_settings(self._settings, "reader"), "enable.partition.eof": True, **QUICK}
        return Consumer({**config, **dotted(settings)})

    def producer(self, **settings: object) -> Producer:
        """A client that gives up on a missing topic soon."""
        config = {**acknowledged_producer_settings(self._settings), "topic.metadata.propagation.max.ms": 500, "linger.ms": 0}
        return Producer({**config, **dotted(settings)})

    def doomed_producer(self, topic: str) -> Producer:
        """A transactional producer that another one of its name has taken the place of."""
        config = {"bootstrap.servers": self._broker.address, "transactional.id": uuid.uuid4().hex}
        doomed, other = Producer(config), Producer(config)
        doomed.init_transactions(SECONDS)
        doomed.begin_transaction()
        doomed.produce(topic, b"first", b"k")
        doomed.flush(SECONDS)
        other.init_transactions(SECONDS)
        self._kept.append(other)
        return doomed

    def admin(self) -> AdminClient:
        """A client."""
        return AdminClient(client_settings(self._settings))

    def lose(self, consumer: Consumer, group: str) -> None:
        """The client leaves the group by itself when it is not asked for messages for its ``max.poll.interval.ms``."""
        del consumer

        def gone() -> bool:
            [future] = self._admin.describe_consumer_groups([group], request_timeout=SECONDS).values()
            return not future.result(SECONDS).members

        wait(gone, "the group has lost its member")

    def stop(self) -> None:
        """As an operator does."""
        self._broker.stop()

    def start(self) -> None:
        """On the same data."""
        self._broker.start()

    def save(self) -> None:
        """A copy of the folder of its storage."""
        self._broker.stop()
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._storage, self._copy)
        self._broker.start()

    def restore(self) -> None:
        """The copy in the place of the storage."""
        self._broker.stop()
        shutil.rmtree(self._storage)
        shutil.copytree(self._copy, self._storage)
        self._broker.start()

    def ensure_running(self) -> None:
        """Starts it where a test that failed has left it stopped."""
        if not self._broker.running:
            self._broker.start()

    def _make(self, name: str, partitions: int, config: dict[str, str]) -> None:
        self._done(self._admin.create_topics([NewTopic(name, partitions, 1, config=config)]))
        wait(lambda: name in self._admin.list_topics(timeout=SECONDS).topics, f"{name} is made")

    @staticmethod
    def _done(futures: dict[Any, Any]) -> None:
        for future in futures.values():
            future.result(SECONDS)
