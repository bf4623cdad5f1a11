"""What the suite needs of a broker: a real one, or the in-memory one; and how its tests read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError, KafkaException, Message

SECONDS: Final = 60.0
"""Within which whatever is awaited has happened, on a busy machine."""
END: Final = KafkaError._PARTITION_EOF


class Bus(Protocol):
    """One broker. Clients have this project's settings; ``settings`` are changes to them."""

    def topic(self, partitions: int = 1, **config: str) -> str:
        """Make a topic, and return its name; ``config`` has ``_`` in the place of ``.``."""

    def delete(self, topic: str) -> None:
        """Delete a topic."""

    def remake(self, topic: str) -> None:
        """Make a topic of one partition that was deleted a moment ago."""

    def grow(self, topic: str, partitions: int) -> None:
        """Add partitions."""

    def truncate(self, topic: str, offset: int) -> None:
        """Delete the first partition's records below an offset, -1 for all, as retention does."""

    def compact(self, topic: str) -> None:
        """Return when the first partition, whose policy is compaction, has been compacted but for its newest segment."""

    def transaction(self, topic: str, values: Sequence[bytes], *, commit: bool) -> None:
        """Write the values to the first partition in a transaction."""

    def consumer(self, **settings: object) -> Any:  # noqa: ANN401, the client's class or the double's
        """A consumer; ``settings`` have ``_`` in the place of ``.``."""

    def producer(self, **settings: object) -> Any:  # noqa: ANN401, as above
        """A producer."""

    def doomed_producer(self, topic: str) -> Any:  # noqa: ANN401, as above
        """A producer whose next message, to that topic, is a fatal error."""

    def admin(self) -> Any:  # noqa: ANN401, as above
        """An administration client."""

    def lose(self, consumer: Any, group: str) -> None:  # noqa: ANN401, as above
        """Return when the group has given the consumer up, because it did not read for too long."""

    def stop(self) -> None:
        """The broker goes away, with what is stored kept."""

    def start(self) -> None:
        """The broker is back."""

    def save(self) -> None:
        """Keep a copy of what is stored now; the broker is stopped for it."""

    def restore(self) -> None:
        """The broker comes back with what the copy holds, and without what was written since."""


def code(error: KafkaException) -> int:
    """The error's number."""
    found: int = error.args[0].code()
    return found


def read(consumer: Any, enough: Callable[[list[Message]], object]) -> list[Message]:  # noqa: ANN401, see above
    """What a consumer returns, records and notices, until it is enough."""
    found: list[Message] = []
    deadline = time.monotonic() + SECONDS
    while not enough(found):
        assert time.monotonic() < deadline, [(m.partition(), m.offset(), str(m.error())) for m in found]
        found += consumer.consume(100, 0.1)
    return found


def to_the_end(consumer: Any, partitions: int = 1) -> list[Message]:  # noqa: ANN401, see above
    """The records up to the ends of so many partitions."""
    return records(read(consumer, lambda found: len(ends(found)) >= partitions))


def records(messages: list[Message]) -> list[Message]:
    """Those that are records."""
    return [message for message in messages if message.error() is None]


def values(messages: list[Message]) -> list[bytes | None]:
    """The records' values."""
    return [message.value() for message in records(messages)]


def offsets(messages: list[Message]) -> list[int | None]:
    """The records' offsets."""
    return [message.offset() for message in records(messages)]


def ends(messages: list[Message]) -> dict[int, int]:
    """The offset at which each partition was reported to end."""
    return {m.partition() or 0: m.offset() or 0 for m in messages if (error := m.error()) is not None and error.code() == END}


def wait(true: Callable[[], bool], what: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Reports:
    """The delivery reports of a producer, in the order in which they came."""

    def __init__(self) -> None:
        """None yet."""
        self.codes: list[int] = []
        self.errors: list[KafkaError | None] = []
        self.messages: list[Message] = []

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        """One more."""
        self.codes.append(0 if error is None else error.code())
        self.errors.append(error)
        self.messages.append(message)

    def of(self, producer: Any, count: int = 1) -> list[int]:  # noqa: ANN401, see above
        """Poll until so many are in; their numbers, 0 for success."""
        deadline = time.monotonic() + SECONDS
        while len(self.codes) < count:
            assert time.monotonic() < deadline, self.codes
            producer.poll(0.05)
        return self.codes


def write(bus: Bus, topic: str, *written: bytes | None, key: bytes = b"k", partition: int = 0, timestamps: Sequence[int] = ()) -> None:
    """Write values under one key into one partition, with their times (ms) where given."""
    producer, reports = bus.producer(), Reports()
    for place, value in enumerate(written):
        more = {"timestamp": timestamps[place]} if timestamps else {}
        producer.produce(topic, value, key, partition=partition, on_delivery=reports, **more)
    assert reports.of(producer, len(written)) == [0] * len(written)
