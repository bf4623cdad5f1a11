"""The broker: its topics and groups, what a test does to it, and the clients that it makes."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException

from tests.support.memory_kafka.admin import MemoryAdmin
from tests.support.memory_kafka.consumer import MemoryConsumer
from tests.support.memory_kafka.groups import Group
from tests.support.memory_kafka.log import Headers, Log
from tests.support.memory_kafka.producer import MemoryProducer
from virtflow.schemas.topics import Topic

DEFAULTS: Final = {"cleanup.policy": "delete", "max.message.bytes": "1048588"}
"""Of the topics' settings that virtflow looks at."""


class MemoryTopic:
    """A topic: its id, which no other one has, its settings and its partitions."""

    def __init__(self, partitions: int, config: Mapping[str, str]) -> None:
        """Empty."""
        self.id = uuid.uuid4()
        self.config = {**DEFAULTS, **config}
        self.logs = [Log() for _ in range(partitions)]


class Cluster:
    """One broker. Thread-safe: clients in several threads share its lock, and wait on it for whatever changes."""

    def __init__(self) -> None:
        """Runs, without a topic."""
        self.changed = threading.Condition()
        self.topics: dict[str, MemoryTopic] = {}
        self.groups: dict[str, Group] = {}
        self.running = True
        self.producers: list[MemoryProducer] = []
        self.consumers: list[MemoryConsumer] = []
        self._refusals: dict[str, deque[KafkaError]] = {}
        self._unmade: deque[KafkaError] = deque()

    @classmethod
    def with_topics(cls, *topics: Topic) -> Self:
        """Runs, with these topics in two partitions each."""
        cluster = cls()
        for topic in topics:
            cluster.create(topic.name, 2, topic.config())
        return cluster

    # -- the clients, in the place of confluent_kafka's classes

    def producer(self, config: Mapping[str, Any]) -> MemoryProducer:
        """A producer with librdkafka's settings."""
        self._may_make()
        made = MemoryProducer(self, config)
        with self.changed:
            self.producers.append(made)
        return made

    def consumer(self, config: Mapping[str, Any]) -> MemoryConsumer:
        """A consumer with librdkafka's settings."""
        self._may_make()
        made = MemoryConsumer(self, config)
        with self.changed:
            self.consumers.append(made)
        return made

    def admin(self, config: Mapping[str, Any]) -> MemoryAdmin:
        """An administration client."""
        del config
        self._may_make()
        return MemoryAdmin(self)

    # -- what an operator and time do

    def create(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Make a topic."""
        with self.changed:
            self.topics[name] = MemoryTopic(partitions, config or {})
            self._moved()

    def delete(self, name: str) -> None:
        """Delete a topic."""
        with self.changed:
            del self.topics[name]
            self._moved()

    def grow(self, name: str, partitions: int) -> None:
        """Add partitions."""
        with self.changed:
            logs = self.topics[name].logs
            logs += [Log() for _ in range(partitions - len(logs))]
            self._moved()

    def truncate(self, name: str, partition: int, offset: int) -> None:
        """Delete a partition's records below an offset, -1 for all."""
        with self.changed:
            self.topics[name].logs[partition].truncate(offset)
            self._moved()

    def compact(self, name: str) -> None:
        """Compact every partition."""
        with self.changed:
            for log in self.topics[name].logs:
                log.compact()
            self._moved()

    def write(  # noqa: PLR0913, PLR0917, a record's parts
        self,
        name: str,
        key: bytes | None,
        value: bytes | None,
        partition: int = 0,
        timestamp: float | None = None,
        headers: Headers | None = None,
    ) -> int:
        """Store a record without a client; ``timestamp`` is Unix seconds. Its offset."""
        with self.changed:
            when = time.time() if timestamp is None else timestamp
            offset = self.topics[name].logs[partition].append(key, value, int(when * 1000), headers)
            self.changed.notify_all()
            return offset

    def transaction(self, name: str, partition: int, values: Sequence[tuple[bytes, bytes]], *, commit: bool) -> None:
        """Store keys and values in a transaction, and its mark; consumers see no mark, and nothing of one that was aborted."""
        with self.changed:
            log, now = self.topics[name].logs[partition], int(time.time() * 1000)
            for key, value in values:
                log.append(key, value, now, None, hidden=not commit)
            log.append(None, None, now, None, hidden=True)
            self.changed.notify_all()

    # -- what goes wrong

    def stop(self) -> None:
        """The broker goes away; what is stored is kept."""
        with self.changed:
            self.running = False
            self._disconnect()
            self.changed.notify_all()

    def start(self) -> None:
        """The broker is back, leads its partitions in new epochs, and takes what the clients have waiting."""
        with self.changed:
            self.running = True
            for topic in self.topics.values():
                for log in topic.logs:
                    log.epoch += 1
            for producer in self.producers:
                producer.send()
            self._moved()

    def restore(self, name: str, partition: int, end: int) -> None:
        """The broker comes back from a copy in which a partition ended there; leaders' epochs are counted on from the copy's."""
        with self.changed:
            self.topics[name].logs[partition].lose(end)
            self._disconnect()
            self._moved()

    def elect(self, name: str, partition: int, end: int) -> None:
        """A replica that had a partition only up to there becomes its leader; nobody is disconnected."""
        with self.changed:
            log = self.topics[name].logs[partition]
            log.lose(end)
            log.epoch += 1
            self._moved()

    def refuse(self, name: str, *codes: int) -> None:
        """The next messages to a topic fail, one with each of these errors."""
        with self.changed:
            self._refusals.setdefault(name, deque()).extend(KafkaError(code) for code in codes)

    def refuse_clients(self, *codes: int) -> None:
        """The next clients can't be made, one for each of these errors: a file with certificates is missing, say."""
        self._unmade.extend(KafkaError(code) for code in codes)

    def end_producers(self, code: int) -> None:
        """A fatal error ends the producers there are: what they hold fails, and they take nothing more."""
        with self.changed:
            for producer in self.producers:
                producer.end(KafkaError(code, fatal=True))
            self.changed.notify_all()

    def tell(self, code: int, *, retriable: bool = False) -> None:
        """Every consumer is told of an error, in the place of a message."""
        with self.changed:
            for consumer in self.consumers:
                consumer.tell(KafkaError(code, retriable=retriable))
            self.changed.notify_all()

    def lose(self, consumer: MemoryConsumer) -> None:
        """A group gives a member up that did not read for too long."""
        with self.changed:
            consumer.lose()
            self.changed.notify_all()

    # -- for the clients, under the lock

    def log(self, topic: str, partition: int) -> Log | None:
        """A partition, None where there is none."""
        found = self.topics.get(topic)
        return found.logs[partition] if found is not None and 0 <= partition < len(found.logs) else None

    def refusal(self, topic: str) -> KafkaError | None:
        """The error that the next message to a topic is to fail with."""
        waiting = self._refusals.get(topic)
        return waiting.popleft() if waiting else None

    def group(self, name: str) -> Group:
        """A consumer group; it begins when it is first asked for."""
        found = self.groups.get(name)
        if found is None:
            found = self.groups[name] = Group(self.topics)
        return found

    def wait(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until something is so, for so long at most."""
        self.changed.wait_for(ready, max(0.0, seconds))

    def answer(self) -> None:
        """Raise what a client raises when the broker does not answer."""
        if not self.running:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "Local: Broker transport failure"))

    def _disconnect(self) -> None:
        for consumer in self.consumers:
            consumer.disconnect()
        for producer in self.producers:
            producer.disconnect()

    def _may_make(self) -> None:
        if self._unmade:
            raise KafkaException(self._unmade.popleft())

    def _moved(self) -> None:
        """Topics or groups are others than before."""
        for group in self.groups.values():
            group.balance()
        self.changed.notify_all()
