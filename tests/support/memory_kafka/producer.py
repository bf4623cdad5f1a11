"""``confluent_kafka.Producer`` as far as virtflow uses it. Messages go out at once, their reports wait for a poll."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import TIMESTAMP_CREATE_TIME, KafkaError, KafkaException
from confluent_kafka.cimpl import Message

if TYPE_CHECKING:
    from tests.support.memory_kafka.cluster import Cluster

Report = Callable[[KafkaError | None, Message], None]
OVERHEAD_BYTES: Final = 70
"""Of a batch of one record, about."""


@dataclass(frozen=True, slots=True)
class _Sending:
    """A message that waits for the broker; after ``until`` (monotonic seconds) it has failed."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes | None]] | None
    report: Report | None
    until: float


class MemoryProducer:
    """A producer. Its methods may be called from several threads."""

    def __init__(self, cluster: Cluster, config: Mapping[str, Any]) -> None:
        """Connects to nothing."""
        self._cluster = cluster
        self._queue_limit = int(config.get("queue.buffering.max.messages", 100_000))
        self._size_limit = int(config.get("message.max.bytes", 1_000_000))
        self._timeout = int(config.get("message.timeout.ms", 300_000)) / 1000
        self._waiting: deque[_Sending] = deque()
        self._reports: deque[tuple[Report | None, KafkaError | None, Message]] = deque()
        self._missing: set[str] = set()
        self._fatal: KafkaError | None = None
        self._raises: KafkaError | None = None
        self._error_call: Callable[[KafkaError], object] | None = config.get("error_cb")
        self._alarms = 0
        self.doomed: KafkaError | None = None
        """The fatal error that the next message brings, for tests."""

    def __len__(self) -> int:
        """Messages and reports that wait."""
        with self._cluster.changed:
            return len(self._waiting) + len(self._reports)

    def produce(  # noqa: PLR0913, PLR0917, the client's signature
        self,
        topic: str,
        value: bytes | str | None = None,
        key: bytes | str | None = None,
        partition: int = -1,
        on_delivery: Report | None = None,
        timestamp: int = 0,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
    ) -> None:
        """Take a message, and send it when there is a broker; raises ``KafkaException`` or ``BufferError`` where it is not taken."""
        key, value = _bytes(key), _bytes(value)
        with self._cluster.changed:
            if self._fatal is not None:
                raise _refused(KafkaError._FATAL)
            if len(value or b"") + len(key or b"") > self._size_limit:
                raise _refused(KafkaError.MSG_SIZE_TOO_LARGE)
            if topic in self._missing and self.connected:
                if topic not in self._cluster.topics:
                    raise _refused(KafkaError._UNKNOWN_TOPIC)
                self._missing.discard(topic)
            if len(self._waiting) + len(self._reports) >= self._queue_limit:
                raise BufferError("Local: Queue full")
            now = time.time()
            until = time.monotonic() + self._timeout if self._timeout else float("inf")
            kept = list(headers) if headers else None
            self._waiting.append(_Sending(topic, partition, key, value, timestamp or int(now * 1000), kept, on_delivery, until))
            if self.doomed is not None:
                self.end(self.doomed)
            self.send()
            self._cluster.changed.notify_all()

    def poll(self, timeout: float = -1) -> int:
        """Call back the reports that are in, waiting for the first one; how many. Raises the fatal error, once."""
        deadline = float("inf") if timeout < 0 else time.monotonic() + timeout
        self._tell_alarms()
        with self._cluster.changed:
            while not (self._reports or self._raises) and (now := time.monotonic()) < deadline:
                self._cluster.wait(self._due, min(1.0, deadline - now, self._next_timeout() - now))
                self._expire()
            if self._raises is not None:
                error, self._raises = self._raises, None
                raise KafkaException(error)
            self._expire()
            due = list(self._reports)
            self._reports.clear()
        for report, failure, message in due:
            if report is not None:
                report(failure, message)
        return len(due)

    def flush(self, timeout: float = -1) -> int:
        """Poll until nothing waits; how much does after ``timeout``."""
        deadline = float("inf") if timeout < 0 else time.monotonic() + timeout
        while len(self) and time.monotonic() < deadline:
            self.poll(min(0.01, max(0.0, deadline - time.monotonic())))
        return len(self)

    def purge(self) -> None:
        """Give up what waits; the reports say so."""
        with self._cluster.changed:
            self._fail_all(KafkaError._PURGE_QUEUE)

    # -- for the cluster, under its lock

    def disconnect(self) -> None:
        """No broker is connected: the application's call hears of it, in ``poll``."""
        self._alarms += 1

    @property
    def connected(self) -> bool:
        """Whether there is a broker."""
        return self._cluster.running

    def send(self) -> None:
        """Send what waits, where there is a broker."""
        self._expire()
        while self._waiting and self.connected:
            self._store(self._waiting.popleft())

    def end(self, error: KafkaError) -> None:
        """A fatal error."""
        if self._fatal is None:
            self._fatal = self._raises = error
            self._fail_all(error.code())

    def _tell_alarms(self) -> None:
        while self._alarms:
            self._alarms -= 1
            if self._error_call is not None:
                self._error_call(KafkaError(KafkaError._ALL_BROKERS_DOWN))

    def _due(self) -> bool:
        return bool(self._reports or self._raises)

    def _store(self, sending: _Sending) -> None:
        refusal = self._cluster.refusal(sending.topic) or self._unfit(sending)
        if refusal is not None:
            self._reported(sending, refusal)
            return
        logs = self._cluster.topics[sending.topic].logs
        partition = sending.partition if sending.partition >= 0 else partition_of(sending.key, len(logs))
        offset = logs[partition].append(sending.key, sending.value, sending.timestamp_ms, sending.headers)
        self._reported(sending, None, partition, offset)

    def _unfit(self, sending: _Sending) -> KafkaError | None:
        topic = self._cluster.topics.get(sending.topic)
        if topic is None:
            self._missing.add(sending.topic)
            return KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
        if sending.partition >= len(topic.logs):
            return KafkaError(KafkaError._UNKNOWN_PARTITION)
        if len(sending.value or b"") + OVERHEAD_BYTES > int(topic.config["max.message.bytes"]):
            return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
        if topic.config["cleanup.policy"] == "compact" and sending.key is None:
            return KafkaError(KafkaError.INVALID_RECORD)
        return None

    def _expire(self) -> None:
        now = time.monotonic()
        for sending in [sending for sending in self._waiting if sending.until <= now]:
            self._waiting.remove(sending)
            self._reported(sending, KafkaError(KafkaError._MSG_TIMED_OUT))

    def _next_timeout(self) -> float:
        return min((sending.until for sending in self._waiting), default=float("inf"))

    def _fail_all(self, code: int) -> None:
        while self._waiting:
            self._reported(self._waiting.popleft(), KafkaError(code))

    def _reported(self, sending: _Sending, error: KafkaError | None, partition: int = -1, offset: int = -1001) -> None:
        stamp = (TIMESTAMP_CREATE_TIME, sending.timestamp_ms)
        message = Message(
            topic=sending.topic, partition=partition, offset=offset, key=sending.key, value=sending.value, error=error, timestamp=stamp
        )
        self._reports.append((sending.report, error, message))


def partition_of(key: bytes | None, count: int) -> int:
    """The partition of a key, as Kafka's Java client chooses it; any one without a key."""
    return random.randrange(count) if key is None else (murmur2(key) & 0x7FFFFFFF) % count  # noqa: S311, no secret


def murmur2(data: bytes) -> int:
    """Kafka's hash of a key. Source: ``org.apache.kafka.common.utils.Utils.murmur2``."""
    factor, mask = 0x5BD1E995, 0xFFFFFFFF
    found = (0x9747B28C ^ len(data)) & mask
    for word in _words(data):
        mixed = (word * factor) & mask
        found = ((found * factor) & mask) ^ ((mixed ^ (mixed >> 24)) * factor & mask)
    if rest := data[len(data) & ~3 :]:
        found = ((found ^ int.from_bytes(rest, "little")) * factor) & mask
    found = ((found ^ (found >> 13)) * factor) & mask
    return found ^ (found >> 15)


def _words(data: bytes) -> Iterator[int]:
    return (int.from_bytes(data[place : place + 4], "little") for place in range(0, len(data) & ~3, 4))


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _refused(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))
