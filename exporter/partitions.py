"""The topics' partitions as one reader of all of them sees them: which there are, from where each is read, and how far that has come.

No consumer group: an exporter reads every partition from a little before now and commits nothing. All calls block and belong to one
thread; what they return is taken over by whoever asked. Source of the client's behaviour: librdkafka's INTRODUCTION.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from virtflow.exporter.shard import EVERYTHING, Shard

Key = tuple[str, int]
"""A topic's name on the broker, and a partition."""

ANSWER_SECONDS: Final = 5.0
"""How long the broker may take to answer a question; it is asked again later."""


_NO_TOPIC: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001, the client's own name


@dataclass(slots=True)
class Place:
    """How far a partition has been read: the next offset, where it ended when it was found, and whether that is still to come."""

    next: int
    goal: int
    behind: bool

    def passed(self, offset: int) -> int:
        """Notes a message that was taken; how many before it were never seen, negative after a jump back."""
        skipped = offset - self.next
        self.next = offset + 1
        if self.next >= self.goal:
            self.behind = False
        return skipped


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the broker brought: new partitions with where they are read from, vanished ones, and topics that are missing.

    ``counts`` is how many partitions each topic has, those of other shards included.
    """

    places: Mapping[Key, Place]
    gone: frozenset[Key]
    missing: tuple[str, ...]
    counts: Mapping[str, int]


class Partitions:
    """The consumer and its assignment. ``topics`` maps each topic's name to the seconds that are read back, None for all."""

    def __init__(
        self, config: Mapping[str, object], topics: Mapping[str, float | None], wall: Callable[[], float], shard: Shard = EVERYTHING
    ) -> None:
        """``config`` is the client's; ``wall`` gives Unix seconds, ``shard`` says which partitions are read. Raises ``KafkaException`` for a bad configuration."""
        self._consumer = Consumer({**config, "enable.partition.eof": True, "auto.offset.reset": "earliest"})
        self._topics = topics
        self._wall = wall
        self._shard = shard
        self._assigned: set[Key] = set()
        self._seen: set[str] = set()

    def look(self) -> Found:
        """Takes up new partitions and lets go of vanished ones; raises ``KafkaException`` where the broker does not answer."""
        now, missing = self._existing()
        counts = Counter(topic for topic, _ in now)
        now = {key for key in now if self._shard.takes(key[1])}
        gone = frozenset(self._assigned - now)
        if gone:
            self._consumer.incremental_unassign([TopicPartition(*key) for key in gone])
            self._assigned -= gone
        places = {key: self._start(key) for key in sorted(now - self._assigned)}
        if places:
            self._consumer.incremental_assign([TopicPartition(*key, place.next) for key, place in places.items()])
            self._assigned |= set(places)
        self._seen |= {topic for topic, _ in now}
        return Found(places, gone, tuple(missing), counts)

    def read(self, most: int, seconds: float) -> list[Message]:
        """Up to ``most`` messages and notices, as soon as there are any, none after ``seconds``."""
        return list(self._consumer.consume(most, seconds)) if self._assigned else []

    def ends(self) -> dict[Key, int]:
        """The partitions' ends as the client last heard of them; those it has not heard of are missing."""
        ends = {}
        for key in self._assigned:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*key), cached=True)
            if high >= 0:
                ends[key] = high
        return ends

    def close(self) -> None:
        """Lets go of the broker."""
        self._consumer.close()

    def _existing(self) -> tuple[set[Key], list[str]]:
        found: set[Key] = set()
        missing = []
        for topic in self._topics:
            metadata = self._consumer.list_topics(topic, ANSWER_SECONDS).topics[topic]
            if metadata.error is None:
                found |= {(topic, partition) for partition in metadata.partitions}
            elif metadata.error.code() in _NO_TOPIC:
                missing.append(topic)
            else:
                raise KafkaException(metadata.error)
        return found, missing

    def _start(self, key: Key) -> Place:
        """Where to begin: a topic's first partitions as far back as asked, those that appear later at their beginning."""
        partition = TopicPartition(*key)
        low, high = self._consumer.get_watermark_offsets(partition, ANSWER_SECONDS, cached=False)
        start, back = low, self._topics[key[0]]
        if back is not None and key[0] not in self._seen:
            partition.offset = int((self._wall() - back) * 1000)
            [answer] = self._consumer.offsets_for_times([partition], ANSWER_SECONDS)
            if answer.error is not None:
                raise KafkaException(answer.error)
            start = answer.offset if answer.offset >= 0 else high
        return Place(start, high, behind=start < high)
