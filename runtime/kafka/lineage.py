"""Whether a partition still holds what was read of it: a broker that lost its end gives the same offsets to other messages.

That happens when a replica that was behind becomes leader, and when a broker is restored from a copy. The leader epochs of KIP-320 show the
first, but not the second: a restored cluster counts them from where the copy stood, so that they repeat. Therefore who stores the offset
to go on from stores with it the offset of the last message that was read and a digest of that message, its ``Mark``. As long as the
broker has that message, all before it is what it was, since a broker loses its end and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

ANSWER_SECONDS: Final = 3.0
"""How long the broker may take to answer; short, because stopping waits for the answer."""
POLL_SECONDS: Final = 0.5
_DIGEST_BITS: Final = 62


@dataclass(frozen=True, slots=True)
class Mark:
    """A message that was read: its offset, and a digest of its key, value and time."""

    offset: int
    digest: int


class Found(Enum):
    """What the broker has at a mark's offset."""

    SAME = "the message"
    OTHER = "another message, or nothing any more: its end was before"
    DELETED = "nothing: it was deleted with all before it"
    UNKNOWN = "nothing: compaction removed it, and nobody can tell"


def digest_of(key: bytes | str | None, value: bytes | str | None, timestamp_ms: int) -> int:
    """A digest of a message, in 62 bits; an absent key or value counts as an empty one."""
    digest = blake2b(digest_size=8)
    for part in (key, value):
        whole = part.encode() if isinstance(part, str) else part or b""
        digest.update(b"%d:" % len(whole))
        digest.update(whole)
    digest.update(b"%d" % timestamp_ms)
    return int.from_bytes(digest.digest()) >> (64 - _DIGEST_BITS)


def mark_of(message: Message) -> Mark:
    """A message's mark."""
    return Mark(message.offset() or 0, digest_of(message.key(), message.value(), message.timestamp()[1]))


class Alarm:
    """Hears from a client that no broker is connected. The one that answers next may have been restored from a copy."""

    def __init__(self) -> None:
        """Nothing was heard."""
        self.raised = False

    def __call__(self, error: KafkaError) -> None:
        """The client's ``error_cb``, in the thread that polls it."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001, the client's own name
            self.raised = True


class Probe:
    """Reads single messages, by a client of its own that belongs to no group. Close it after use."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """``make`` builds the client when it is first needed; it must report the ends of partitions."""
        self._make = make
        self._consumer: Any = None

    def close(self) -> None:
        """Disconnects."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _client(self) -> Any:  # noqa: ANN401, the client's class or a double's
        if self._consumer is None:
            self._consumer = self._make()
        return self._consumer

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """A partition's first offset and its end; raises ``KafkaException`` where the broker does not answer."""
        found: tuple[int, int] = self._client().get_watermark_offsets(
            TopicPartition(topic, partition), timeout=ANSWER_SECONDS, cached=False
        )
        return found

    def find(self, topic: str, partition: int, mark: Mark) -> Found:
        """What the broker has in the place of a message; raises ``KafkaException`` where it does not answer."""
        low, high = self.bounds(topic, partition)
        if mark.offset < low:
            return Found.DELETED
        if mark.offset >= high:
            return Found.OTHER
        message = self._first(TopicPartition(topic, partition, mark.offset))
        if message is None or message.offset() != mark.offset:
            return Found.UNKNOWN
        return Found.SAME if mark_of(message) == mark else Found.OTHER

    def _first(self, place: TopicPartition) -> Message | None:
        """The first message at or after a place, None where there is none up to the end."""
        consumer = self._client()
        consumer.assign([place])
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            found: list[Message] = consumer.consume(1, POLL_SECONDS)
            for message in found:
                error = message.error()
                if error is None:
                    return message
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001, the client's own name
                    return None
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{place.topic}[{place.partition}] is not read in {ANSWER_SECONDS:.0f} s"))  # noqa: SLF001


def common(marks: Sequence[Mark], find: Callable[[Mark], Found]) -> Mark | None:
    """The newest of marks, given from the newest on, whose message the broker still has; None where it has none of them.

    Asks for few of them: what comes before a message that is still there is there as well.
    """
    lost, step = -1, 1
    while lost + step < len(marks) and find(marks[lost + step]) is not Found.SAME:
        lost, step = lost + step, step * 2
    same = min(lost + step, len(marks))
    if same == len(marks) and lost < len(marks) - 1 and find(marks[-1]) is Found.SAME:
        same = len(marks) - 1
    while same - lost > 1:
        middle = (lost + same) // 2
        if find(marks[middle]) is Found.SAME:
            same = middle
        else:
            lost = middle
    return marks[same] if same < len(marks) else None
