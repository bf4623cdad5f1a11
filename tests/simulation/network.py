"""The broker and the ways to it: the in-memory Kafka, whose clients are on hosts that are cut off, slow, killed and frozen.

A message takes time to the broker, and its report back; either may be lost. What the broker has stored and could not say is reported once the client
is connected again, as of an idempotent producer, unless its time was over before. A member of a group whose heartbeats do not
come is given up, and hears of that late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final

from confluent_kafka import KafkaError
from confluent_kafka.cimpl import Message

from tests.simulation.machine import Machine, here
from tests.support.memory_kafka import Cluster
from tests.support.memory_kafka.admin import MemoryAdmin
from tests.support.memory_kafka.cluster import MemoryTopic
from tests.support.memory_kafka.consumer import MemoryConsumer
from tests.support.memory_kafka.groups import Key
from tests.support.memory_kafka.log import Headers, Log, Stored
from tests.support.memory_kafka.producer import MemoryProducer, partition_of
from tests.support.virtual_time.kernel import Kernel, Process
from tests.support.virtual_time.standins import Condition

SESSION_SECONDS: Final = 10.0
"""After so long without a heartbeat a group gives a member up."""
NOTICE_SECONDS: Final = 3.0
"""A heartbeat's interval: so late a member may hear of that."""
PARTIAL: Final = 0.2
"""Share of the reads and requests that take fewer messages than they could."""


def _ignore(*what: object) -> None:
    del what


@dataclass(slots=True)
class Recorded(Log):
    """A partition that remembers all that was ever stored, and what became of it."""

    ever: list[Stored] = field(default_factory=list)
    deleted: set[int] = field(default_factory=set)
    """Places in ``ever`` of records that retention has deleted."""
    lost: set[int] = field(default_factory=set)
    """Places in ``ever`` of records that the broker has lost with its end."""
    note: Callable[..., None] = _ignore
    """Told of each record."""
    _places: dict[int, int] = field(default_factory=dict)
    _begins: list[tuple[list[Stored], int]] = field(default_factory=list)
    """Where the processors began to read: what was there by then, and how many records there had ever been."""

    def append(self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers | None, *, hidden: bool = False) -> int:
        """As a partition's."""
        offset = Log.append(self, key, value, timestamp_ms, headers, hidden=hidden)
        self._places[offset] = len(self.ever)
        self.ever.append(self.records[-1])
        self.note(offset, key, value, timestamp_ms)
        return offset

    def truncate(self, offset: int) -> None:
        """As a partition's."""
        before = {record.offset for record in self.records}
        Log.truncate(self, offset)
        self.deleted |= {self._places[gone] for gone in before - {record.offset for record in self.records}}

    def lose(self, offset: int) -> None:
        """As a partition's."""
        self.lost |= {self._places[record.offset] for record in self.records if record.offset >= offset}
        Log.lose(self, offset)

    def kept(self) -> list[Stored]:
        """What was stored and is neither deleted nor lost; compaction does not count."""
        gone = self.deleted | self.lost
        return [stored for place, stored in enumerate(self.ever) if place not in gone]

    def begin(self, offset: int) -> None:
        """One of the processors takes the partition over, and reads from this offset."""
        self._begins.append(([stored for stored in self.records if stored.offset >= offset], len(self.ever)))

    def readings(self) -> Iterator[list[Stored]]:
        """What each of the processors may have read and committed, from its beginning to that of the next."""
        ends = [*(ever for _, ever in self._begins[1:]), len(self.ever)]
        for (there, ever), end in zip(self._begins, ends, strict=True):
            yield [*there, *self.ever[ever:end]]


class Network(Cluster):
    """The broker, with clients on hosts."""

    def __init__(self, kernel: Kernel, seed: int) -> None:
        """Runs, without a topic."""
        super().__init__()
        self.changed: Any = Condition(kernel)
        self.kernel: Final = kernel
        self.chance: Final = Random(f"network {seed}")  # noqa: S311, reproducible on purpose
        self.refusing: dict[str, tuple[float, int]] = {}
        """Topics that take nothing for a while: until when, and with which error."""
        self.duplicating = False
        """Whether the broker stores what it is sent twice."""

    # -- the clients

    def producer(self, config: Mapping[str, Any]) -> SimulatedProducer:
        """On the host whose process asks."""
        self._may_make()
        made = SimulatedProducer(self, config)
        self.producers.append(made)
        return made

    def consumer(self, config: Mapping[str, Any]) -> SimulatedConsumer:
        """On the host whose process asks."""
        self._may_make()
        made = SimulatedConsumer(self, config)
        self.consumers.append(made)
        return made

    def admin(self, config: Mapping[str, Any]) -> SimulatedAdmin:
        """On the host whose process asks."""
        del config
        self._may_make()
        return SimulatedAdmin(self)

    def create(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Make a topic, which remembers all that was ever in it."""
        with self.changed:
            self.topics[name] = made = MemoryTopic(partitions, config or {})
            made.logs = [Recorded(note=partial(self.kernel.note, name, number)) for number in range(partitions)]
            self._moved()

    def recorded(self, name: str) -> list[Recorded]:
        """A topic's partitions."""
        return [log for log in self.topics[name].logs if isinstance(log, Recorded)]

    def refusal(self, topic: str) -> KafkaError | None:
        """The error that a message to a topic is to fail with."""
        until, code = self.refusing.get(topic, (0.0, 0))
        return KafkaError(code) if self.kernel.now < until else super().refusal(topic)

    # -- what goes wrong

    def cut(self, host: Machine) -> None:
        """A host's network is gone."""
        host.connected = False
        for consumer in self._consumers_of(host):
            consumer.disconnect()
            self.kernel.after(SESSION_SECONDS, partial(self._expire_if, consumer, lambda: not host.connected))
        self.changed.notify_all()

    def mend(self, host: Machine) -> None:
        """A host's network is back."""
        host.connected = True
        self._send_all()

    def start(self) -> None:
        """The broker is back."""
        self.running = True
        self._send_all()
        self._moved()

    def freeze(self, process: Process, seconds: float) -> None:
        """A process does nothing for a while; its group gives it up where that takes too long."""
        self.kernel.freeze(process, self.kernel.now + seconds)
        if seconds > SESSION_SECONDS:
            for consumer in self.consumers:
                if isinstance(consumer, SimulatedConsumer) and consumer.process is process:
                    self.kernel.after(SESSION_SECONDS, partial(self._expire_if, consumer, lambda: process.frozen_until > self.kernel.now))

    def died(self, process: Process) -> None:
        """A process's clients are gone; its groups hear of that when no heartbeat comes."""
        for consumer in list(self.consumers):
            if isinstance(consumer, SimulatedConsumer) and consumer.process is process:
                self.consumers.remove(consumer)
                self.kernel.after(self.chance.uniform(0.5, 1.0) * SESSION_SECONDS, partial(self._expire_if, consumer, lambda: True))
        self.producers = [producer for producer in self.producers if getattr(producer, "process", None) is not process]

    def expire(self, process: Process) -> None:
        """The groups give a process's members up."""
        for consumer in list(self.consumers):
            if isinstance(consumer, SimulatedConsumer) and consumer.process is process:
                consumer.lose()
        self.changed.notify_all()

    def lose_end(self, topic: str, partition: int, end: int, *, elected: bool) -> None:
        """A partition's end is lost: by an election, or by a copy from which the broker was restored."""
        (self.elect if elected else self.restore)(topic, partition, end)
        for producer in self.producers:
            if isinstance(producer, SimulatedProducer):
                producer.forget(topic, partition, end)

    def _expire_if(self, consumer: SimulatedConsumer, still: Callable[[], bool]) -> None:
        if still():
            consumer.lose()
            self.changed.notify_all()

    def _consumers_of(self, host: Machine) -> list[SimulatedConsumer]:
        return [consumer for consumer in self.consumers if isinstance(consumer, SimulatedConsumer) and consumer.host is host]

    def _send_all(self) -> None:
        for producer in self.producers:
            producer.send()
        self.changed.notify_all()


class SimulatedConsumer(MemoryConsumer):
    """A consumer on a host; partitions come in any order."""

    def __init__(self, network: Network, config: Mapping[str, Any]) -> None:
        """Of the process that asks."""
        super().__init__(network, config)
        self.process: Final = network.kernel.process
        self.host: Final = here(network.kernel)
        self._network = network

    @property
    def connected(self) -> bool:
        """Whether the broker can be reached."""
        return self._network.running and self.host.connected

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """As a consumer's, after the way there and back."""
        kernel, chance = self._network.kernel, self._network.chance
        kernel.step()
        if self.host.delay_seconds > 0.01:
            kernel.sleep(chance.uniform(0, 2 * self.host.delay_seconds))
        most = chance.randint(1, num_messages) if chance.random() < PARTIAL else num_messages
        return super().consume(most, timeout)

    def commit(self, offsets: Any, *, asynchronous: bool = True) -> Any:  # noqa: ANN401, as a consumer's
        """As a consumer's; killed before or after."""
        kernel = self._network.kernel
        kernel.step()
        kernel.note("offsets", self._group_name, *((place.topic, place.partition, place.offset) for place in offsets))
        done = super().commit(offsets, asynchronous=asynchronous)
        kernel.step()
        return done

    def close(self) -> None:
        """As a consumer's; killed before: its group hears of that later."""
        self._network.kernel.step()
        super().close()

    def lose(self) -> None:
        """The group gives it up at once, and it hears of that at its next heartbeat."""
        if self._place is not None:
            self._network.group(self._group_name).leave(self._place)
        self._network.kernel.after(self._network.chance.uniform(0, NOTICE_SECONDS), self._told_of)

    def _told_of(self) -> None:
        if self._place is not None and self._place not in self._network.group(self._group_name).members:
            self._gone = True
            self._network.changed.notify_all()

    def _order(self) -> list[Key]:
        keys = sorted(self._reading)
        self._network.chance.shuffle(keys)
        return keys


class SimulatedAdmin(MemoryAdmin):
    """An administration client on a host."""

    def __init__(self, network: Network) -> None:
        """Of the process that asks."""
        super().__init__(network)
        self._host = here(network.kernel)
        self._network = network

    def _answer(self) -> None:
        self._network.answer()
        if not self._host.connected:
            raise_unreachable()


def raise_unreachable() -> None:
    """What a client raises that is cut off."""
    from confluent_kafka import KafkaException

    raise KafkaException(KafkaError(KafkaError._TRANSPORT, "Local: Broker transport failure"))


Outcome = tuple[KafkaError | None, int, int]
"""What the broker says of a message: an error, or the partition and the offset."""


class SimulatedProducer(MemoryProducer):
    """A producer on a host: one request at a time is on its way, with the messages that wait."""

    def __init__(self, network: Network, config: Mapping[str, Any]) -> None:
        """Of the process that asks."""
        super().__init__(network, config)
        self.process: Final = network.kernel.process
        self._host: Final = here(network.kernel)
        self._network = network
        self._flying = False
        self._taken: dict[int, tuple[Any, Outcome]] = {}
        """What the broker has of the messages that wait, by their identity, and would say if it could."""

    @property
    def connected(self) -> bool:
        """Whether the broker can be reached."""
        return self._network.running and self._host.connected

    def produce(self, *args: Any, **named: Any) -> None:  # noqa: ANN401, as a producer's
        """As a producer's; killed before or after."""
        self._network.kernel.step()
        super().produce(*args, **named)
        self._network.kernel.step()

    def poll(self, timeout: float = -1) -> int:
        """As a producer's."""
        self._network.kernel.alive()
        return super().poll(timeout)

    def send(self) -> None:
        """Begin a request with what waits."""
        self._expire()
        if self._waiting and not self._flying and self.connected and self.process.alive:
            self._flying = True
            self._network.kernel.after(self._way(), self._arrive)

    def forget(self, topic: str, partition: int, end: int) -> None:
        """The broker has lost what it had taken at that offset and above."""
        for place, (sending, (error, where, offset)) in list(self._taken.items()):
            if error is None and sending.topic == topic and where == partition and offset >= end:
                del self._taken[place]

    def _way(self) -> float:
        return self._network.chance.uniform(0.2, 2.0) * self._host.delay_seconds

    def _arrive(self) -> None:
        """The request is there, unless its way was cut meanwhile, or its process killed before all of it was sent."""
        chance = self._network.chance
        self._flying = False
        if not self.connected or (not self.process.alive and chance.random() < 0.5):
            return
        batch = list(self._waiting)
        if len(batch) > 1 and chance.random() < PARTIAL:
            batch = batch[: chance.randint(1, len(batch))]
        for sending in batch:
            if id(sending) not in self._taken:
                self._taken[id(sending)] = sending, self._stored(sending)
        self._network.changed.notify_all()
        self._flying = True
        self._network.kernel.after(self._way(), partial(self._answered, batch))

    def _stored(self, sending: Any) -> Outcome:  # noqa: ANN401, the base's own class
        refusal = self._network.refusal(sending.topic) or self._unfit(sending)
        if refusal is not None:
            return refusal, -1, -1001
        logs = self._network.topics[sending.topic].logs
        partition = sending.partition if sending.partition >= 0 else partition_of(sending.key, len(logs))
        offset = logs[partition].append(sending.key, sending.value, sending.timestamp_ms, sending.headers)
        if self._network.duplicating and self._network.chance.random() < 0.5:
            logs[partition].append(sending.key, sending.value, sending.timestamp_ms, sending.headers)
        return None, partition, offset

    def _answered(self, batch: list[Any]) -> None:
        """The broker's answer is there; where it is lost, the request is made again, and the broker knows it."""
        self._flying = False
        if not self.process.alive or not self.connected:
            return
        still = {id(sending) for sending in self._waiting}
        answered = {id(sending) for sending in batch if id(sending) in self._taken}
        self._waiting = deque(sending for sending in self._waiting if id(sending) not in answered)
        for sending in batch:
            if id(sending) in still and (known := self._taken.pop(id(sending), None)) is not None:
                self._reported(sending, *known[1])
        self._network.changed.notify_all()
        self.send()
