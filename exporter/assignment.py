"""The partitions that one exporter reads: which there are, where each begins, and how far each has been read.

No consumer group: an exporter reads every partition from a little before now and commits nothing. All calls block and belong to one
thread; their results belong to the caller. Source of the client's behaviour: librdkafka's INTRODUCTION.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from virtflow.exporter.shard import EVERYTHING, Shard
from virtflow.runtime.kafka.clients import ClientSettings
from virtflow.runtime.kafka.librdkafka import describe_topics

Key = tuple[str, int]
"""A topic's name on the broker, and a partition."""

ANSWER_SECONDS: Final = 5.0
"""How long the broker may take to answer a question; it is asked again later."""


_NO_TOPIC: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001, the client's own name


@dataclass(slots=True)
class Place:
    """Position in a partition: the next offset, the end when the partition was found, and whether that end has not been reached yet."""

    next: int
    goal: int
    behind: bool

    def ended(self, offset: int) -> None:
        """Moves to the partition's end, which may lie behind offsets without a record, such as the control records of transactions."""
        self.next = max(self.next, offset)
        self.behind = False

    def passed(self, offset: int) -> int:
        """Moves behind a message; returns how many offsets before it were skipped, negative after a jump back."""
        skipped = offset - self.next
        self.next = offset + 1
        if self.next >= self.goal:
            self.behind = False
        return skipped


@dataclass(frozen=True, slots=True)
class Found:
    """Result of a check of the broker: new partitions with their start positions, vanished partitions, and missing topics.

    ``counts`` is the number of partitions of each topic, including those of other shards.
    ``anew`` are topics that were deleted and created again since the last check: what was read belongs to the deleted ones.
    """

    places: Mapping[Key, Place]
    gone: frozenset[Key]
    missing: tuple[str, ...]
    counts: Mapping[str, int]
    anew: tuple[str, ...] = ()


class Clients(NamedTuple):
    """Settings of the two clients: the one that reads, and the one that asks which topics there are; and what builds each of them."""

    reads: ClientSettings
    asks: ClientSettings
    consumer: Callable[[ClientSettings], Any] = Consumer
    admin: Callable[[ClientSettings], Any] = AdminClient


class Partitions:
    """The consumer and its assignment. ``topics`` maps each topic's name to the seconds that are read back, None for all.

    A topic is identified by its id: a topic that was deleted and created again between two checks has another id and is read
    from its beginning, although its offsets may look unchanged.
    """

    def __init__(self, clients: Clients, topics: Mapping[str, float | None], wall: Callable[[], float], shard: Shard = EVERYTHING) -> None:
        """``wall`` gives Unix seconds, ``shard`` says which partitions are read. Raises ``KafkaException`` for a bad configuration."""
        self._clients = clients
        self._consumer, self._admin = _made(clients)
        self._topics = topics
        self._wall = wall
        self._shard = shard
        self._assigned: set[Key] = set()
        self._ids: dict[str, str] = {}

    def look(self, held: Container[str] = ()) -> Found:
        """Assigns new partitions and unassigns vanished ones; topics in ``held`` are left for later.

        Raises ``KafkaException`` where the broker does not answer.
        """
        now, ids, missing = self._existing(held)
        counts = Counter(topic for topic, _ in now)
        now = {key for key in now if self._shard.takes(key[1])}
        anew = tuple(topic for topic, number in ids.items() if self._ids.get(topic, number) != number)
        gone = frozenset(key for key in self._assigned if key not in now or key[0] in anew)
        if gone:
            self._consumer.incremental_unassign([TopicPartition(*key) for key in gone])
            self._assigned -= gone
        fresh = sorted(now - self._assigned)
        for topic in sorted({topic for topic, _ in fresh}):
            self._consumer.list_topics(topic, ANSWER_SECONDS)  # the reading client knows nothing of what the asking one was told
        places = {key: self._start(key) for key in fresh}
        if places:
            self._consumer.incremental_assign([TopicPartition(*key, place.next) for key, place in places.items()])
            self._assigned |= set(places)
        self._ids |= ids
        return Found(places, gone, tuple(missing), counts, anew)

    def read(self, most: int, seconds: float) -> list[Message]:
        """Up to ``most`` messages and notices that arrive within ``seconds``."""
        return list(self._consumer.consume(most, seconds)) if self._assigned else []

    def reconnect(self, reads: ClientSettings, asks: ClientSettings, places: Mapping[Key, int]) -> None:
        """Goes on with clients of other settings, at the given offsets of all assigned partitions.

        Raises ``KafkaException`` for a bad configuration: nothing has changed then.
        """
        clients = self._clients._replace(reads=reads, asks=asks)
        consumer, admin = _made(clients)
        self._consumer.close()
        self._clients, self._consumer, self._admin = clients, consumer, admin
        if self._assigned:
            consumer.incremental_assign([TopicPartition(*key, places[key]) for key in sorted(self._assigned)])

    def ends(self) -> dict[Key, int]:
        """The partitions' ends as the client knows them from its last fetch; partitions without a fetch are missing."""
        ends = {}
        for key in self._assigned:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*key), cached=True)
            if high >= 0:
                ends[key] = high
        return ends

    def lows(self, keys: Iterable[Key]) -> dict[Key, int]:
        """The first offsets that partitions still hold; raises ``KafkaException`` where the broker does not answer."""
        return {key: self._consumer.get_watermark_offsets(TopicPartition(*key), ANSWER_SECONDS, cached=False)[0] for key in keys}

    def close(self) -> None:
        """Lets go of the broker."""
        self._consumer.close()

    def _existing(self, held: Container[str]) -> tuple[set[Key], dict[str, str], list[str]]:
        """The partitions there are, their topics' ids, and the topics that are missing."""
        found: set[Key] = set()
        ids: dict[str, str] = {}
        missing = []
        for topic, future in describe_topics(self._admin, self._topics, ANSWER_SECONDS).items():
            try:
                described = future.result(2 * ANSWER_SECONDS)
            except KafkaException as error:
                if error.args[0].code() not in _NO_TOPIC:
                    raise
                missing.append(topic)
                continue
            except TimeoutError as error:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error  # noqa: SLF001, the client's own name
            if topic not in held:
                found |= {(topic, partition.id) for partition in described.partitions}
                ids[topic] = str(described.topic_id)
        return found, ids, missing

    def _start(self, key: Key) -> Place:
        """The start position: as far back as configured for the partitions of a new topic, the beginning for partitions added later."""
        partition = TopicPartition(*key)
        low, high = self._consumer.get_watermark_offsets(partition, ANSWER_SECONDS, cached=False)
        start, back = low, self._topics[key[0]]
        if back is not None and key[0] not in self._ids:
            partition.offset = int((self._wall() - back) * 1000)
            [answer] = self._consumer.offsets_for_times([partition], ANSWER_SECONDS)
            if answer.error is not None:
                raise KafkaException(answer.error)
            start = answer.offset if answer.offset >= 0 else high
        return Place(start, high, behind=start < high)


def _made(clients: Clients) -> tuple[Any, Any]:
    """The client that reads, and the one that asks."""
    consumer = clients.consumer({**clients.reads, "enable.partition.eof": True, "auto.offset.reset": "earliest"})
    return consumer, clients.admin(clients.asks)
