"""The consumer group: partitions come and go, messages are taken, commits are made by size or time.

One thread does all of it, so that a partition can't be lost between a decision and its deed. While the storage fails nothing
more is read: the partitions are paused, what waits goes on waiting, and the group is still answered.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

from virtflow.history.storage.delta import FencedError, StorageError, Store
from virtflow.history.storage.table_schemas import SAMPLES, TABLE_OF, WRITTEN, Table
from virtflow.history.writer.dedup import Sequences, filters
from virtflow.history.writer.offsets import Names, start_at
from virtflow.history.writer.sample_batch import RawSamples
from virtflow.history.writer.table_writer import TableWriter
from virtflow.history.writer.validation import Intake
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History
from virtflow.schemas.errors import InputError, RegistryUnavailableError
from virtflow.schemas.topics import METRICS

_LOG: Final = logging.getLogger("virtflow.history.writer.consumer")

BATCH: Final = 1_000
READ_SECONDS: Final = 0.25
RETRY_SECONDS: Final = (0.5, 30.0)
"""Pauses after a storage failure: the first, and the longest."""
SLOW_SECONDS: Final = 5.0
"""A commit that takes longer is told: the storage hangs, or is slow."""
WAITING_BYTES: Final = 128 << 20
"""A commit is made when messages of so many bytes wait, however few they are."""


@dataclass(slots=True)
class Partition:
    """A partition that is ours: its table, its name in the table's log, and the offset that comes next."""

    table: Table
    name: str
    expected: int


class Consume:
    """Moves messages into tables until told to stop. All of it belongs to one thread."""

    def __init__(self, consumer: Consumer, store: Store, intake: Intake, names: Names, settings: History) -> None:
        """Opens the tables; raises ``StorageError`` where the storage does not answer."""
        self._consumer = consumer
        self._intake = intake
        self._names = names
        self._settings = settings
        known = filters()
        self._writers = {table.name: TableWriter(store.make(table), known[table.name]) for table in WRITTEN if table is not SAMPLES}
        raw = RawSamples(intake, Sequences())
        self._writers[SAMPLES.name] = TableWriter(store.make(SAMPLES), raw, raw.rows)
        self._ours: dict[tuple[str, int], Partition] = {}
        self._waiting_bytes = 0
        self._oldest = float("inf")
        self._arrived: dict[str, float] = {}
        self._retry_at, self._pause = 0.0, 0.0
        self._failing = ""
        self._committing = float("inf")
        self._held: list[Message] = []

    def count_into(self, metrics: OwnMetrics) -> None:
        """Says where to count; before anything is taken."""
        self._rows = metrics.counter("virtflow_history_rows_total")
        self._commits = metrics.counter("virtflow_history_commits_total")
        self._failures = metrics.counter("virtflow_history_commit_failures_total")
        self._fenced = metrics.counter("virtflow_history_fenced_partitions_total")
        self._missing = metrics.counter("virtflow_history_missing_records_total")
        self._waiting = metrics.gauge("virtflow_history_waiting_records")
        self._parts = metrics.gauge("virtflow_history_partitions")
        self._lag = metrics.gauge("virtflow_history_lag_seconds")

    @property
    def failing(self) -> str:
        """Why nothing can be stored at the moment, "" while it can."""
        if (seconds := time.monotonic() - self._committing) > SLOW_SECONDS:
            return f"a commit under way for {seconds:.0f} s: the storage is slow"
        return self._failing

    @property
    def leads(self) -> bool:
        """Whether this writer has the first partition of vm.metrics, and with it the upkeep of the tables."""
        return any(topic.endswith(METRICS.name) and partition == 0 for topic, partition in self._ours)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Until ``stopped``; then commits what waits and leaves the group."""
        self._consumer.subscribe(self._names.topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        try:
            while not stopped():
                self._turn()
            self._commit_all()
        finally:
            self._consumer.close()

    def _turn(self) -> None:
        taken: Counter[str] = Counter()
        for message in self._resolved(self._consumer.consume(BATCH, READ_SECONDS)):
            if error := message.error():
                if error.fatal():
                    raise InputError(f"the consumer group does not have us any more: {error.str()}")
                _LOG.warning("the broker says: %s", error.str())
            elif ours := self._ours.get((message.topic() or "", message.partition() or 0)):
                self._take(ours, message)
                taken[ours.table.name] += 1
            # Else it was on its way when its partition was taken away.
        for name, count in taken.items():
            self._intake.taken(TABLE_OF[name], count)
        now = time.monotonic()
        if taken:
            self._oldest = min(self._oldest, now)
        if self._due(now):
            self._commit_all()
        self._waiting.set(sum(writer.waiting for writer in self._writers.values()))

    def _resolved(self, messages: list[Message]) -> list[Message]:
        """The messages, once their schemas are known, or known to be unknown; while the registry does not answer they are held back."""
        held = self._held + messages
        if not held or (self._held and time.monotonic() < self._retry_at):
            self._held = held
            return []
        try:
            for message in held:
                self._intake.codec.resolve(message.value())
        except RegistryUnavailableError as error:
            self._held = held
            self._fail(str(error))
            return []
        if self._held:
            self._held = []
            self._mended()
        return held

    def _due(self, now: float) -> bool:
        if now < self._retry_at:
            return False
        waiting = sum(writer.waiting for writer in self._writers.values())
        full = waiting >= self._settings.commit_rows or self._waiting_bytes >= WAITING_BYTES
        return full or now - self._oldest >= self._settings.commit_seconds

    def _take(self, ours: Partition, message: Message) -> None:
        table, offset, value = ours.table, message.offset() or 0, message.value()
        if offset != ours.expected:
            self._skip(ours, offset)
        ours.expected = offset + 1
        arrived = message.timestamp()[1] / 1000
        self._arrived[table.name] = arrived
        self._waiting_bytes += len(value or b"")
        writer = self._writers[table.name]
        if table is SAMPLES:
            writer.take(ours.name, offset, (value, arrived))
            return
        record = self._intake.record(table, value, arrived)
        if not writer.take(ours.name, offset, record) and record is not None:
            self._intake.skipped(table, "repeated", 1)

    def _skip(self, ours: Partition, offset: int) -> None:
        """The broker goes on at another offset: a compacted topic has gaps, any other has lost what was there."""
        kept = ours.table.topic is not None and ours.table.topic.retention_ms is not None
        if kept and offset > ours.expected >= 0:
            self._miss(ours.table, ours.name, offset - ours.expected)

    def _commit_all(self) -> None:
        """Commits every table that has something; what can't be stored now waits, and nothing more is read until it can."""
        for writer in self._writers.values():
            if not writer.behind:
                continue
            try:
                self._committing = time.monotonic()
                self._commit(writer)
            except FencedError as error:
                self._start_over(writer, str(error))
            except (StorageError, RegistryUnavailableError) as error:
                self._fail(str(error))
                return
            finally:
                self._committing = float("inf")
        self._oldest, self._waiting_bytes = float("inf"), 0
        if self._failing and not self._held:
            self._mended()

    def _mended(self) -> None:
        """Reading goes on."""
        _LOG.warning("storing again")
        self._failing, self._pause, self._retry_at = "", 0.0, 0.0
        self._consumer.resume(self._consumer.assignment())

    def _commit(self, writer: TableWriter) -> None:
        rows = writer.commit()
        name = writer.table.name
        self._rows.labels(table=name).inc(rows)
        self._commits.labels(table=name).inc()
        self._lag.labels(table=name).set(max(0.0, time.time() - self._arrived.get(name, time.time())))

    def _fail(self, why: str) -> None:
        self._failures.inc()
        self._pause = min(max(RETRY_SECONDS[0], 2 * self._pause), RETRY_SECONDS[1])
        self._retry_at = time.monotonic() + self._pause
        if not self._failing:
            self._consumer.pause(self._consumer.assignment())
        self._failing = why
        _LOG.warning("nothing is stored, and nothing more read, until this is over: %s", why)

    def _start_over(self, writer: TableWriter, why: str) -> None:
        """Somebody else moved partitions of ours: what waits of them is theirs, and we go on where the table says."""
        moved = set(writer.moved())
        mine = [TopicPartition(topic, part) for (topic, part), ours in self._ours.items() if ours.name in moved]
        _LOG.warning("%d partitions start over: %s", len(mine), why)
        self._fenced.inc(len(mine))
        for place in self._places(writer.table, mine):
            self._consumer.seek(place)

    def _places(self, table: Table, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Where to read partitions of one table from."""
        writer = self._writers[table.name]
        offsets = writer.begin([self._names.part(p.topic, p.partition) for p in partitions], self._settings.repeat_seconds)
        places = []
        for partition, offset in zip(partitions, offsets.values(), strict=True):
            place, gone = start_at(self._consumer, partition, offset)
            name = self._names.part(place.topic, place.partition)
            self._ours[place.topic, place.partition] = Partition(table, name, place.offset)
            if gone:
                self._miss(table, name, gone)
            places.append(place)
        return places

    def _miss(self, table: Table, partition: str, count: int) -> None:
        """Counts messages that the broker no longer has."""
        self._missing.labels(table=table.name).inc(count)
        _LOG.warning("%s: %d messages are gone from the broker before they were stored", partition, count)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._names.learn()
        for table in WRITTEN:
            mine = [partition for partition in partitions if self._names.table(partition.topic) is table]
            if mine:
                consumer.incremental_assign(self._places(table, mine))
        if self._failing:
            consumer.pause(consumer.assignment())
        self._parts.set(len(self._ours))
        _LOG.info("%d partitions more, %d in all", len(partitions), len(self._ours))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Commits once more, so that the next owner has less to read again; whatever fails here is read again by it."""
        if not self._failing:
            self._commit_all()
        self._lost(consumer, partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            name = self._names.part(partition.topic, partition.partition)
            self._writers[self._names.table(partition.topic).name].forget(name)
            self._ours.pop((partition.topic, partition.partition), None)
        gone = {(partition.topic, partition.partition) for partition in partitions}
        self._held = [message for message in self._held if (message.topic(), message.partition()) not in gone]
        consumer.incremental_unassign(partitions)
        self._parts.set(len(self._ours))
        _LOG.info("%d partitions less, %d in all", len(partitions), len(self._ours))
