"""``confluent_kafka.Consumer`` as far as virtflow uses it. Callbacks run in ``consume`` and ``close``, as the real one's do."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_CREATE_TIME,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.cimpl import Message

from tests.support.memory_kafka.groups import Key, Place
from tests.support.memory_kafka.log import Log, Stored

if TYPE_CHECKING:
    from tests.support.memory_kafka.cluster import Cluster

Callback = Callable[["MemoryConsumer", list[TopicPartition]], Any]
MAX_POLL_EXCEEDED: Final = "Application maximum poll interval exceeded"


@dataclass(slots=True)
class _Reading:
    """A partition that is assigned: where it is read next, up to where its end was reported, and whether it waits."""

    next: int
    returned: int = OFFSET_INVALID
    ended: int = -1
    paused: bool = False


class MemoryConsumer:
    """A consumer; belongs to one thread."""

    def __init__(self, cluster: Cluster, config: Mapping[str, Any]) -> None:
        """Reads nothing yet."""
        self._cluster = cluster
        self._group_name = str(config["group.id"])
        self._instance = str(config.get("group.instance.id", ""))
        self._reset = str(config.get("auto.offset.reset", "latest"))
        self._reports_ends = bool(config.get("enable.partition.eof", False))
        self._reading: dict[Key, _Reading] = {}
        self._fetched: dict[Key, tuple[int, int]] = {}
        self._told: deque[Message] = deque()
        self._error_call: Callable[[KafkaError], object] | None = config.get("error_cb")
        self._alarms = 0
        self._callbacks: dict[str, Callback] = {}
        self._topics: frozenset[str] = frozenset()
        self._place: Place | None = None
        self._gone = False
        self._stranded = False
        self._replaced = False
        """Whether it has heard that another member of its name has taken its place."""
        self._closed = False

    # -- what is read

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions and no others."""
        with self._cluster.changed:
            self._reading.clear()
            self._add(partitions)

    def incremental_assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions as well."""
        with self._cluster.changed:
            self._add(partitions)

    def incremental_unassign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions no more."""
        with self._cluster.changed:
            for place in partitions:
                if self._reading.pop((place.topic, place.partition), None) is None:
                    raise _failed(KafkaError._INVALID_ARG)

    def assignment(self) -> list[TopicPartition]:
        """What is read."""
        return [TopicPartition(*key) for key in sorted(self._reading)]

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Return nothing more of these partitions."""
        for place in partitions:
            self._reading[place.topic, place.partition].paused = True

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Return them again."""
        for place in partitions:
            self._reading[place.topic, place.partition].paused = False

    def seek(self, place: TopicPartition) -> None:
        """Go on at another offset."""
        with self._cluster.changed:
            reading = self._reading.get((place.topic, place.partition))
            if reading is None:
                raise _failed(KafkaError._STATE)
            reading.next, reading.ended = self._start(place), -1

    def position(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        """The offsets after what was returned."""
        found = [(place, self._reading.get((place.topic, place.partition))) for place in partitions]
        return [TopicPartition(place.topic, place.partition, reading.returned if reading else OFFSET_INVALID) for place, reading in found]

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """Records and notices, as soon as there are any; nothing after ``timeout``. Makes the group's calls."""
        if self._closed:
            raise RuntimeError("Consumer closed")
        deadline = float("inf") if timeout < 0 else time.monotonic() + timeout
        while True:
            self._tell_alarms()
            self._rebalance()
            with self._cluster.changed:
                if found := self._fetch(num_messages):
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    return []
                if not self._due():
                    self._cluster.wait(self._due, min(left, 1.0))

    def close(self) -> None:
        """Give the partitions up, by the group's call, and leave; a static member keeps its place."""
        if self._closed:
            return
        if self._place is not None and self._place.has and not self._place.fenced:
            self._call("revoke", self._place.has)
        with self._cluster.changed:
            self._closed = True
            self._reading.clear()
            if self._place is not None:
                self._place.has.clear()
                if not self._instance:
                    self._cluster.group(self._group_name).leave(self._place)
            if self in self._cluster.consumers:
                self._cluster.consumers.remove(self)
            self._cluster.changed.notify_all()

    # -- questions

    def list_topics(self, topic: str, timeout: float = -1) -> Any:  # noqa: ANN401, the parts of ClusterMetadata that are used
        """What there is of a topic."""
        del timeout
        with self._cluster.changed:
            self._answer()
            found = self._cluster.topics.get(topic)
            error = None if found else KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
            numbers = range(len(found.logs)) if found else ()
            described = SimpleNamespace(topic=topic, error=error, partitions={number: SimpleNamespace(id=number) for number in numbers})
            return SimpleNamespace(topics={topic: described})

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float = -1, *, cached: bool = False) -> tuple[int, int]:
        """The first offset and the end."""
        del timeout
        key = partition.topic, partition.partition
        with self._cluster.changed:
            if cached:
                return self._fetched.get(key, (OFFSET_INVALID, OFFSET_INVALID))
            log = self._log(key)
            return log.low, log.high

    def offsets_for_times(self, partitions: Iterable[TopicPartition], timeout: float = -1) -> list[TopicPartition]:
        """The offsets of the first records that are not older; -1 where there is none."""
        del timeout
        with self._cluster.changed:
            found = []
            for place in partitions:
                offset = self._log((place.topic, place.partition)).at(place.offset)
                found.append(TopicPartition(place.topic, place.partition, OFFSET_END if offset is None else offset))
            return found

    # -- the group

    def subscribe(self, topics: Iterable[str], on_assign: Callback, on_revoke: Callback, on_lost: Callback) -> None:
        """Join the group; the calls are made in ``consume``."""
        self._callbacks = {"assign": on_assign, "revoke": on_revoke, "lost": on_lost}
        self._topics = frozenset(topics)

    def memberid(self) -> str:
        """The id that the group has given it; "" while it is no member."""
        return self._place.id if self._place is not None and not self._gone else ""

    def commit(self, offsets: Iterable[TopicPartition], *, asynchronous: bool = True) -> list[TopicPartition] | None:
        """Store the offsets to go on from, with their metadata; raises ``KafkaException`` where the group does not have us any more."""
        with self._cluster.changed:
            self._answer()
            group = self._cluster.group(self._group_name)
            if self._topics and (self._gone or self._place is None or self._place not in group.members):
                raise _failed(KafkaError.UNKNOWN_MEMBER_ID)
            stored = list(offsets)
            group.offsets.update({(each.topic, each.partition): (each.offset, each.metadata or "") for each in stored})
            return None if asynchronous else stored

    def committed(self, partitions: Iterable[TopicPartition], timeout: float = -1) -> list[TopicPartition]:
        """What the group has stored of partitions."""
        del timeout
        with self._cluster.changed:
            self._answer()
            offsets = self._cluster.group(self._group_name).offsets
            found = []
            for place in partitions:
                offset, metadata = offsets.get((place.topic, place.partition), (OFFSET_INVALID, ""))
                found.append(TopicPartition(place.topic, place.partition, offset, metadata=metadata))
            return found

    # -- for the cluster, under its lock

    @property
    def connected(self) -> bool:
        """Whether there is a broker."""
        return self._cluster.running

    def tell(self, error: KafkaError) -> None:
        """An error in the place of a message."""
        self._told.append(Message(error=error, value=str(error.str()).encode()))

    def disconnect(self) -> None:
        """No broker is connected: the application's call hears of it, in ``consume``."""
        self._alarms += 1

    def lose(self) -> None:
        """The group has given this member up: what it had is dealt to the others at once, whether or not it has heard of that."""
        self._gone = True
        if self._place is not None:
            self._cluster.group(self._group_name).leave(self._place)

    def strand(self) -> None:
        """Out of the group for good, although the broker is there: it hears that it has lost what it had, and does not join again."""
        self.lose()
        self._stranded = True

    # -- inside

    def _add(self, partitions: Iterable[TopicPartition]) -> None:
        for place in partitions:
            self._reading[place.topic, place.partition] = _Reading(self._start(place))

    def _start(self, place: TopicPartition) -> int:
        log = self._cluster.log(place.topic, place.partition)
        if log is None:
            return max(0, place.offset)
        if place.offset == OFFSET_INVALID:
            return log.low if self._reset == "earliest" else log.high
        return {OFFSET_BEGINNING: log.low, OFFSET_END: log.high}.get(place.offset, place.offset)

    def _answer(self) -> None:
        """Raises what the client raises where the broker does not answer."""
        if not self.connected:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "Local: Broker transport failure"))

    def _log(self, key: Key) -> Log:
        self._answer()
        log = self._cluster.log(*key)
        if log is None:
            raise _failed(KafkaError._UNKNOWN_PARTITION)
        return log

    def _order(self) -> list[Key]:
        """In which order partitions are read."""
        return sorted(self._reading)

    def _due(self) -> bool:
        return bool(self._told or self._alarms) or self._calls_due() or any(self._readable())

    def _readable(self) -> Iterator[Key]:
        """The partitions of which there is something to read: asked often, and therefore in one go."""
        if not self.connected:
            return
        topics = self._cluster.topics
        for key, reading in self._reading.items():
            topic = topics.get(key[0])
            if topic is None or reading.paused or key[1] >= len(topic.logs):
                continue
            log = topic.logs[key[1]]
            if reading.next != log.high or (self._reports_ends and reading.ended != log.high) or reading.next < log.low:
                yield key

    def _fetch(self, most: int) -> list[Message]:
        found: list[Message] = []
        while self._told and len(found) < most:
            found.append(self._told.popleft())
        readable = set(self._readable())
        for key in self._order():
            if key in readable:
                log, reading = self._log(key), self._reading[key]
                if not log.low <= reading.next <= log.high:
                    reading.next = log.low if self._reset == "earliest" else log.high
                found += self._records(key, reading, log, most - len(found))
        return found

    def _records(self, key: Key, reading: _Reading, log: Log, most: int) -> list[Message]:
        self._fetched[key] = (log.low, log.high)
        found: list[Message] = []
        while len(found) < most:
            stored = log.next(reading.next)
            if stored is None:
                reading.next = log.high
                if self._reports_ends and reading.ended != log.high:
                    reading.ended = reading.next
                    found.append(_notice(key, log.high))
                    reading.returned = log.high if reading.returned != OFFSET_INVALID else log.high or OFFSET_INVALID
                break
            found.append(_message(key, stored))
            reading.next = reading.returned = stored.offset + 1
        return found

    def _tell_alarms(self) -> None:
        while self._alarms:
            self._alarms -= 1
            if self._error_call is not None:
                self._error_call(KafkaError(KafkaError._ALL_BROKERS_DOWN))

    def _calls_due(self) -> bool:
        if not self._topics or not self.connected:
            return False
        group, place = self._cluster.group(self._group_name), self._place
        if place is None or self._gone:
            return self._gone or not self._stranded
        if place.fenced:
            return not self._replaced
        return place.heard < group.generation

    def _rebalance(self) -> None:
        """Make the calls that are due."""
        while True:
            with self._cluster.changed:
                if not self._calls_due():
                    return
                group = self._cluster.group(self._group_name)
                if self._place is None:
                    self._place = group.join(self._topics, self._instance)
                place = self._place
                if place.fenced:
                    self._replaced = True
                    place.has.clear()
                    self.tell(KafkaError(KafkaError._FATAL, "Fatal error: Broker: Static consumer fenced"))
                    return
                lost, self._gone = self._gone, False
                revoked = group.revoked_from(place)
                generation = group.generation
            if lost:
                self._call("lost", place.has)
                with self._cluster.changed:
                    place.has.clear()
                    group.leave(place)
                    self._place = None
                    self.tell(KafkaError(KafkaError._MAX_POLL_EXCEEDED, MAX_POLL_EXCEEDED))
                continue
            if revoked:
                self._call("revoke", revoked)
                with self._cluster.changed:
                    place.has -= revoked
                    group.balance()
                    self._cluster.changed.notify_all()
                continue
            with self._cluster.changed:
                given = group.given_to(place)
                place.heard = generation
                place.has |= given
            self._call("assign", given)

    def _call(self, what: str, keys: Iterable[Key]) -> None:
        """Make a call; what it does not do itself with the partitions is done for it, as the client does."""
        partitions = [TopicPartition(*key) for key in sorted(keys)]
        before = dict(self._reading)
        self._callbacks[what](self, partitions)
        with self._cluster.changed:
            if self._reading == before and partitions:
                if what == "assign":
                    self._add(partitions)
                else:
                    for key in keys:
                        self._reading.pop(key, None)


def _message(key: Key, stored: Stored) -> Message:
    headers: list[tuple[str, str | bytes | None]] | None = list(stored.headers) if stored.headers else None
    stamp = (TIMESTAMP_CREATE_TIME, stored.timestamp_ms)
    return Message(
        topic=key[0],
        partition=key[1],
        offset=stored.offset,
        key=stored.key,
        value=stored.value,
        headers=headers,
        timestamp=stamp,
        leader_epoch=stored.epoch,
    )


def _notice(key: Key, end: int) -> Message:
    text = f"reached end of partition at offset {end}"
    return Message(topic=key[0], partition=key[1], offset=end, value=text.encode(), error=KafkaError(KafkaError._PARTITION_EOF, text))


def _failed(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))
