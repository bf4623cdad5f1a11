"""The suite's bus on the in-memory broker."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError

from tests.support.kafka_contract.bus import write
from tests.support.memory_kafka import Cluster
from tests.support.memory_kafka.consumer import MemoryConsumer
from tests.support.memory_kafka.producer import MemoryProducer
from virtflow.runtime.kafka.clients import acknowledged_producer_settings, consumer_settings
from virtflow.runtime.settings import Settings


class MemoryBus:
    """A cluster of each test's own."""

    def __init__(self) -> None:
        """Without a topic."""
        self.cluster = Cluster()
        self._saved: dict[str, list[int]] = {}
        self._numbers = itertools.count()

    def topic(self, partitions: int = 1, **config: str) -> str:
        """Under a name of its own."""
        name = f"t{next(self._numbers)}"
        self.cluster.create(name, partitions, _dotted(dict(config)))
        return name

    def delete(self, topic: str) -> None:
        """At once."""
        self.cluster.delete(topic)

    def remake(self, topic: str) -> None:
        """At once."""
        self.cluster.create(topic)

    def grow(self, topic: str, partitions: int) -> None:
        """At once."""
        self.cluster.grow(topic, partitions)

    def truncate(self, topic: str, offset: int) -> None:
        """At once."""
        self.cluster.truncate(topic, 0, offset)

    def compact(self, topic: str) -> None:
        """At once; the newest segment is the record that is written for it."""
        write(self, topic, b"", key=b"roll")
        self.cluster.compact(topic)

    def transaction(self, topic: str, values: Sequence[bytes], *, commit: bool) -> None:
        """With its mark."""
        self.cluster.transaction(topic, 0, [(b"k", value) for value in values], commit=commit)

    def consumer(self, **settings: object) -> MemoryConsumer:
        """A client."""
        return self.cluster.consumer({**consumer_settings(Settings(), "reader"), "enable.partition.eof": True, **_dotted(settings)})

    def producer(self, **settings: object) -> MemoryProducer:
        """A client."""
        return self.cluster.producer({**acknowledged_producer_settings(Settings()), **_dotted(settings)})

    def doomed_producer(self, topic: str) -> MemoryProducer:
        """Fenced by its next message."""
        del topic
        producer = self.producer()
        producer.doomed = KafkaError(KafkaError._FENCED, fatal=True)
        return producer

    def admin(self) -> Any:  # noqa: ANN401, as the real bus
        """A client."""
        return self.cluster.admin({})

    def lose(self, consumer: MemoryConsumer, group: str) -> None:
        """At once."""
        del group
        self.cluster.lose(consumer)

    def stop(self) -> None:
        """At once."""
        self.cluster.stop()

    def start(self) -> None:
        """At once."""
        self.cluster.start()

    def save(self) -> None:
        """The ends are enough."""
        self.cluster.stop()
        self.cluster.start()
        self._saved = {name: [log.high for log in topic.logs] for name, topic in self.cluster.topics.items()}

    def restore(self) -> None:
        """The leaders have the epochs that they had after the copy was made: they are counted again from there."""
        for name, highs in self._saved.items():
            for number, high in enumerate(highs):
                self.cluster.restore(name, number, high)


def _dotted(settings: dict[str, Any]) -> dict[str, Any]:
    return {name if name == "error_cb" else name.replace("_", "."): value for name, value in settings.items()}
