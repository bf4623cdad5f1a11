"""Makes topics on a test's broker and writes records, bytes and tombstones to them as the processors would."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewPartitions, NewTopic

from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.records import NodeStatus, Record
from virtflow.schemas.topics import INVENTORY, METRICS, MIGRATIONS, NODES, Topic

EXPORTED = (METRICS, INVENTORY, MIGRATIONS, NODES)
SECONDS = 30.0


class TopicWriter:
    """The exporter's topics under a prefix of their own, so that tests share a broker."""

    def __init__(self, brokers: str, *, partitions: int = 2, topics: Iterable[Topic] = EXPORTED) -> None:
        """Makes the topics."""
        self.prefix = f"t{uuid.uuid4().hex[:8]}."
        self._partitions = partitions
        self._codec = Codec()
        self._admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
        # Idempotent, since a batch that a new topic's broker refuses would otherwise be sent again behind the next one.
        ordered = {"enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 5}
        self._producer = Producer({"bootstrap.servers": brokers, "log_level": 0, **ordered})
        self._failed: list[str] = []
        self.create(topics)

    def name(self, topic: Topic) -> str:
        """The topic's name on the broker."""
        return self.prefix + topic.name

    def create(self, topics: Iterable[Topic]) -> None:
        """Makes topics that are not there yet."""
        new = [NewTopic(self.name(topic), self._partitions, 1, config=topic.config()) for topic in topics]
        if new:
            self._done(self._admin.create_topics(new))

    def delete(self, topic: Topic) -> None:
        """Deletes a topic with all that is in it."""
        self._done(self._admin.delete_topics([self.name(topic)]))

    def recreate(self, topic: Topic) -> None:
        """Makes a topic whose namesake was deleted a moment ago, as soon as the broker lets us."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self.create((topic,))
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def grow(self, topic: Topic, partitions: int) -> None:
        """Adds partitions."""
        self._done(self._admin.create_partitions([NewPartitions(self.name(topic), partitions)]))

    def truncate(self, topic: Topic, partition: int, offset: int) -> None:
        """Deletes a partition's records before an offset."""
        self._done(self._admin.delete_records([TopicPartition(self.name(topic), partition, offset)]))

    def ends(self, topic: Topic) -> list[int]:
        """Each partition's end."""
        places = {TopicPartition(self.name(topic), number): OffsetSpec.latest() for number in range(self._partitions)}  # type: ignore[no-untyped-call]
        return [found.result(SECONDS).offset for found in self._admin.list_offsets(places).values()]

    def write(self, topic: Topic, *records: Record, timestamp_seconds: float | None = None) -> None:
        """Writes records under their own keys and waits until the broker has them."""
        for record in records:
            self.offer(topic, record, timestamp_seconds=timestamp_seconds)
        self.flush()

    def offer(self, topic: Topic, record: Record, *, timestamp_seconds: float | None = None) -> None:
        """Writes a record under its own key; it is there after ``flush``."""
        key = record.node if isinstance(record, NodeStatus) else str(getattr(record, "uuid", ""))
        self._send(topic, key.encode(), self._codec.encode(record), timestamp_seconds=timestamp_seconds)

    def write_bytes(self, topic: Topic, key: bytes, value: bytes | None, partition: int = -1) -> None:
        """Writes anything, a tombstone where it is None."""
        self._send(topic, key, value, partition=partition)
        self.flush()

    def _send(self, topic: Topic, key: bytes, value: bytes | None, *, partition: int = -1, timestamp_seconds: float | None = None) -> None:
        more: dict[str, Any] = {} if timestamp_seconds is None else {"timestamp": int(timestamp_seconds * 1000)}
        if partition >= 0:
            more["partition"] = partition
        self._producer.produce(self.name(topic), value, key, on_delivery=self._delivered, **more)
        self._producer.poll(0)

    def flush(self) -> None:
        """Waits until the broker has everything; fails when it refuses something."""
        assert not self._producer.flush(SECONDS), "the broker does not take the records"
        assert not self._failed, self._failed

    def _delivered(self, error: object, message: object) -> None:
        del message
        if error is not None:
            self._failed.append(str(error))

    def _done(self, futures: dict[Any, Any]) -> None:
        for future in futures.values():
            future.result(SECONDS)
