"""From messages to the fleet. Where many come, samples wait for each other and are read together, into columns.

Messages wait for at most ``WAIT_SECONDS``, until there are ``MOST``, or until anybody reads the fleet: a sample that a newer one of its
VM replaces meanwhile is read no further than for its order. Where few come, or many for a moment only, where a stream of events is open, and
during the catch-up, none waits: numpy is not loaded then. What can't be read in columns is read one by one and handed over in the order of arrival.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confluent_kafka import Message
from msgspec import Struct

from virtflow.exporter.clocks import Clocks
from virtflow.exporter.fleet import Fleet
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import UndecodableError
from virtflow.schemas.order import Freshness
from virtflow.schemas.records import NodeStatus, VmInventory, VmMetrics, VmMigration
from virtflow.schemas.topics import INVENTORY, METRICS, MIGRATIONS, NODES, Cleanup, Topic

if TYPE_CHECKING:
    from virtflow.exporter.columns.batch import Batch
    from virtflow.schemas.avro.cursors import Step

LOGGER: Final = logging.getLogger("virtflow.exporter.consumer")

SLICE: Final = 50
"""Records taken before others get their turn: about five milliseconds' work."""
WAIT_SECONDS: Final = 1.0
MOST: Final = 4_000
LEAST: Final = 400
"""Samples from which on reading them together is cheaper than one by one; so many a second make them wait for each other."""
FEW: Final = 200
"""Samples a second below which they do not wait any more."""
MEASURED_SECONDS: Final = 1.0
"""For how long messages are counted at a time to say whether many come."""
LASTING_SECONDS: Final = 20.0
"""Over how long, by a mean that forgets, so many must have come before columns are made at all: numpy is 15 MB, for good. A small fleet's
samples come at once after an outage of the broker."""
ROW_SHARE: Final = 0.5
ROW_BATCHES: Final = 60
"""Where more than that share of a batch could not be kept in columns, so many messages as there are in that many batches don't wait."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Who reads, which names the metrics; in which consumer group; the seconds of samples that are read back; and the part of the fleet.

    ``together``: samples may wait for each other, since only the newest of each VM counts.
    """

    service: str
    group: str
    back_seconds: float
    shard: str = ""
    together: bool = False

    def metric(self, what: str) -> str:
        """The name of one of the service's own metrics."""
        return f"virtflow_{self.service}_{what}"


class _Waiting(Struct, gc=False):
    """A message that has not been taken yet, its topic, when it arrived on the fleet's clock, and how old it was."""

    message: Message
    topic: Topic
    arrived: float
    age: float


class _Read(Struct, gc=False):
    """A message that was read by itself: its record, or None for a tombstone."""

    waiting: _Waiting
    record: VmMetrics | VmInventory | VmMigration | NodeStatus | None

    @property
    def uuid(self) -> str:
        """The VM that it is about; "" where it is about none."""
        if self.record is None:
            return _key(self.waiting.message)
        return "" if isinstance(self.record, NodeStatus) else self.record.uuid


class Intake:
    """Hands the records in messages to the fleet and counts them. Belongs to the event loop."""

    def __init__(  # noqa: PLR0913, PLR0917, all of them are needed for a record
        self, fleet: Fleet, codec: Codec, metrics: OwnMetrics, names: Mapping[str, Topic], clocks: Clocks, reading: Reading
    ) -> None:
        """``names`` maps the topics' names on the broker to their rows."""
        self._fleet = fleet
        self._codec = codec
        self._names = names
        self._clocks = clocks
        self._together = reading.together
        self._forget = {INVENTORY: fleet.forget_inventory, MIGRATIONS: fleet.migrations.forget, NODES: fleet.forget_node}
        records, undecodable, lag = (
            metrics.counter(reading.metric("records_total")),
            metrics.counter(reading.metric("undecodable_total")),
            metrics.gauge(reading.metric("lag_seconds")),
        )
        self._stale = metrics.counter(reading.metric("stale_records_total"))
        # Looking a label up costs more than counting, so it is done once.
        self._records = {topic.name: records.labels(topic=topic.name) for topic in names.values()}
        self._undecodable = {topic.name: undecodable.labels(topic=topic.name) for topic in names.values()}
        self._lag = {topic.name: lag.labels(topic=topic.name) for topic in names.values()}
        self._waiting: list[_Waiting] = []
        self._work: Iterator[None] = iter(())
        self._steps: dict[bytes, tuple[Step, ...] | None] = {}
        self._counted_since, self._counted = float("-inf"), 0
        self._many = self._lasting = False
        self._mean = 0.0
        """Samples a second, of late."""
        self.caught_up = False
        """Whether no partition is behind."""
        self._by_rows = 0
        """So many messages are still to be read one by one, since columns were of no use."""
        fleet.settle = self.settle

    def take(self, message: Message, *, behind: bool) -> None:
        """Takes a message, which waits until ``settle``. ``behind``: it is from the catch-up, so its arrival is the broker's timestamp."""
        topic = self._names[message.topic() or ""]
        age = max(0.0, self._clocks.wall() - message.timestamp()[1] / 1000)
        arrived = self._clocks.now() - (age if behind else 0.0)
        self._counted += topic is METRICS
        self._waiting.append(_Waiting(message, topic, arrived, age))

    def due(self) -> bool:
        """Whether what waits is to be handed over now; to be asked at least every ``WAIT_SECONDS``."""
        self._measure()
        waiting = self._waiting
        if not self._in_turns() or self._fleet.changes.listeners:
            return True
        return len(waiting) >= MOST or bool(waiting and self._clocks.now() - waiting[0].arrived >= WAIT_SECONDS)

    def settle(self) -> None:
        """Hands over all that waits."""
        for _ in self.settling():
            pass

    def settling(self) -> Iterator[None]:
        """``settle`` in steps; whoever settles meanwhile finishes what was begun."""
        while True:
            for _ in self._work:
                yield
            if not self._waiting:
                return
            waiting, self._waiting = self._waiting, []
            self._work = self._taking(waiting)

    def unresolved(self, message: Message) -> bool:
        """Whether a message's schema is still to be fetched from the registry."""
        return message.error() is None and self._codec.unresolved(message.value())

    def resolve(self, message: Message) -> None:
        """Fetches it; blocks, and raises ``RegistryUnavailableError`` where the registry does not answer."""
        self._codec.resolve(message.value())

    def made_anew(self, topic: Topic) -> None:
        """A topic was created again: what it said of migrations, which do not expire, is no longer known; other records have an order of their own."""
        self.settle()
        if topic is MIGRATIONS:
            self._fleet.migrations.forget_all()

    def _in_turns(self) -> bool:
        """Whether samples wait for each other and are read together."""
        return self._together and self._lasting and self._many and self.caught_up and self._by_rows <= 0

    def _measure(self) -> None:
        """Says whether many messages come, and whether they ever did for longer."""
        now = self._clocks.now()
        elapsed = now - self._counted_since
        if elapsed >= MEASURED_SECONDS:
            rate = self._counted / elapsed
            self._many = rate >= (FEW if self._many else LEAST)
            self._mean += (rate - self._mean) * min(1.0, elapsed / LASTING_SECONDS)
            self._lasting = self._lasting or self._mean >= LEAST
            self._counted_since, self._counted = now, 0

    def _taking(self, waiting: list[_Waiting]) -> Iterator[None]:
        self._count(waiting)
        # A VM that is in columns would leave them for a sample by itself, so a small batch is read in columns as well.
        if self._in_turns() and (len(waiting) >= LEAST or (self._fleet.table is not None and self._fleet.table.places)):
            yield from self._in_columns(waiting)
            return
        self._by_rows = max(0, self._by_rows - len(waiting))
        for number, one in enumerate(waiting, 1):
            self._hand_over(self._read(one))
            if number % SLICE == 0:
                yield

    def _count(self, waiting: Iterable[_Waiting]) -> None:
        ages: dict[str, float] = {}
        counts: Counter[str] = Counter()
        for one in waiting:
            ages[one.topic.name] = one.age
            counts[one.topic.name] += 1
        for name, count in counts.items():
            self._records[name].inc(count)
            self._lag[name].set(ages[name])

    def _in_columns(self, waiting: list[_Waiting]) -> Iterator[None]:
        """Samples that differ from the fleet's table in numbers alone into it, all others one by one."""
        samples = [one for one in waiting if one.topic is METRICS and one.message.value() is not None]
        batch = self._batch([one.message.value() or b"" for one in samples])
        yield
        rest = {id(samples[number]) for number in batch.unknown()}
        others = [one for one in waiting if id(one) in rest or one.topic is not METRICS or one.message.value() is None]
        read: dict[int, _Read | None] = {}
        yield from self._reading(others, read)
        batch.leave(place for each in read.values() if each is not None and (place := self._fleet.place(each.uuid)) >= 0)
        yield from self._reading([samples[number] for number in batch.others()], read)
        batch.take([one.arrived for one in samples])
        touched: Counter[str] = Counter()
        for number, one in enumerate([one for one in waiting if id(one) in read], 1):
            each = read[id(one)]
            if self._hand_over(each) and each is not None:
                touched[each.uuid] += 1
            if number % SLICE == 0:
                yield
        useless = sum(count for uuid, count in touched.items() if not self._fleet.put_in_columns(uuid))
        if useless > ROW_SHARE * len(samples):
            self._by_rows = ROW_BATCHES * len(samples)

    def _batch(self, values: list[bytes]) -> Batch:
        from virtflow.exporter.columns.batch import Batch
        from virtflow.exporter.columns.layout import Layout
        from virtflow.exporter.columns.table import Table

        if self._fleet.table is None:
            self._fleet.table = Table(Layout(self._fleet.vm_text))
        return Batch(self._fleet.table, self._codec, self._steps, values)

    def _reading(self, waiting: Iterable[_Waiting], read: dict[int, _Read | None]) -> Iterator[None]:
        for number, one in enumerate(waiting, 1):
            read[id(one)] = self._read(one)
            if number % SLICE == 0:
                yield

    def _read(self, one: _Waiting) -> _Read | None:
        """The record of a message; None where there is none, which is counted."""
        value = one.message.value()
        if value is None and one.topic.cleanup is Cleanup.COMPACT:
            return _Read(one, None)
        try:
            return _Read(one, self._codec.decode(value, _RECORDS[one.topic.name]))
        except UndecodableError as error:
            self._undecodable[one.topic.name].inc()
            LOGGER.warning("%s [%s] offset %s is skipped: %s", one.topic.name, one.message.partition(), one.message.offset(), error)
            return None

    def _hand_over(self, read: _Read | None) -> bool:
        """Hands a record to the fleet; whether it is about a VM."""
        if read is None:
            return False
        record, fleet, arrived = read.record, self._fleet, read.waiting.arrived
        match record:
            case None:
                self._forget[read.waiting.topic](_key(read.waiting.message))
                return read.waiting.topic is not NODES
            case VmMetrics():
                fresh = fleet.take_metrics(record, arrived)
            case VmInventory():
                fresh = fleet.take_inventory(record, arrived)
            case VmMigration():
                fresh = fleet.take_migration(record, arrived)
            case _:
                fresh = fleet.take_node(record, arrived)
        if fresh is not Freshness.NEW:
            self._stale.inc()
        return not isinstance(record, NodeStatus)


_RECORDS: Final[Mapping[str, type[VmMetrics | VmInventory | VmMigration | NodeStatus]]] = {
    METRICS.name: VmMetrics,
    INVENTORY.name: VmInventory,
    MIGRATIONS.name: VmMigration,
    NODES.name: NodeStatus,
}


def _key(message: Message) -> str:
    return (message.key() or b"").decode(errors="replace")
