"""The consumer group: partitions come and go, messages are taken, commits are made by size or time.

One thread does all of it, so that a partition can't be lost between a decision and its deed. While the storage fails nothing
more is read: the partitions are paused, what waits goes on waiting, and the group is still answered.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from virtflow.history.storage.delta import Store
from virtflow.history.storage.errors import FencedError, NewerTableError, StorageError
from virtflow.history.storage.table_schemas import SAMPLES, TABLE_OF, WRITTEN, Table
from virtflow.history.writer.batch_limit import BatchLimit, own_memory
from virtflow.history.writer.dedup import Sequences, filters
from virtflow.history.writer.membership import Membership
from virtflow.history.writer.meters import Meters
from virtflow.history.writer.offsets import ANSWER_SECONDS
from virtflow.history.writer.pace import PACE, Failure, Pace
from virtflow.history.writer.placement import Key, Partition, Placement
from virtflow.history.writer.sample_batch import RawSamples
from virtflow.history.writer.source import Source
from virtflow.history.writer.table_writer import TableWriter
from virtflow.history.writer.validation import Intake
from virtflow.runtime.kafka.librdkafka import ended
from virtflow.runtime.kafka.lineage import mark_of
from virtflow.runtime.memory import Pressure
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History
from virtflow.schemas.errors import EnvironmentProblemError, InputError, RegistryUnavailableError

_LOG: Final = logging.getLogger("virtflow.history.writer.consumer")

SLOW_SECONDS: Final = 5.0
"""A commit that takes longer is told: the storage hangs, or is slow."""


class Consume:
    """Moves messages into tables until told to stop. All of it belongs to one thread."""

    def __init__(  # noqa: PLR0913, the last two are for tests
        self, source: Source, store: Store, intake: Intake, settings: History, *, pace: Pace = PACE, memory: Pressure | None = None
    ) -> None:
        """Opens the tables; raises ``StorageError`` where the storage does not answer. ``memory`` is this process' own where None."""
        self._consumer: Consumer = source.consumer
        self._alarm = source.alarm
        self._intake = intake
        self._names = source.names
        self._member = Membership(source.consumer, lambda: source.names.answered, pace)
        self._renewed = source.renewed
        self._settings = settings
        self._limit = BatchLimit(settings.batch_bytes, memory or own_memory())
        self._is_short = False
        known = filters()
        self._writers = {table.name: TableWriter(store.make(table), known[table.name]) for table in WRITTEN if table is not SAMPLES}
        raw = RawSamples(intake, Sequences())
        self._writers[SAMPLES.name] = TableWriter(store.make(SAMPLES), raw, raw.rows)
        self._places = Placement(source, self._writers)
        self._waiting_bytes = 0
        self._oldest = float("inf")
        self._arrived: dict[str, float] = {}
        self._pace = pace
        self._failure = Failure(pace)
        self._committing = float("inf")
        self._held: list[Message] = []
        self._stored = self._commits = 0
        self._measured = float("-inf")
        self._at_end = ""
        self._doubted: set[Key] = set()
        self._has_read = self._outdated = False
        self.leads = False
        """Whether this writer has the first partition of vm.metrics, and with it the upkeep of the tables; another thread asks."""

    def count_into(self, metrics: OwnMetrics) -> None:
        """Says where to count; before anything is taken."""
        self._meters = Meters.of(metrics)

    @property
    def failing(self) -> str:
        """Why nothing can be stored at the moment, "" while it can."""
        if (seconds := time.monotonic() - self._committing) > SLOW_SECONDS:
            return f"a commit under way for {seconds:.0f} s: the storage is slow"
        return self._failure.why or self._limit.problem

    @property
    def left(self) -> str:
        """What was stored by this run, and what waits at its end, for the log."""
        if self._at_end:
            return self._at_end
        waiting = sum(writer.waiting for writer in self._writers.values()) + len(self._held)
        offsets_alone = "offsets committed, no new rows" if self._commits else "nothing committed"
        stored = f"{self._stored} rows committed" if self._stored else offsets_alone
        return f"{stored}; {waiting} records not committed, they are read again: {self._failure.why}" if waiting else stored

    def run(self, stopped: Callable[[], bool]) -> bool:
        """Until ``stopped``; then commits what waits and leaves the group. Whether another client has to go on.

        That is so after the credentials were changed, where this one stays out of its group, and after a broker has lost its end: a client that
        was there before knows newer leaders than the broker, and is refused every message from then on.
        """
        self._consumer.subscribe(self._names.topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        try:
            while not (stopped() or self._outdated):
                self._turn()
                self._outdated = self._renewed() or self._outdated
            self._commit_all()
        finally:
            self._at_end = self.left  # closing gives the partitions up, and with them what waits
            self._member.leave()
            self._names.close()
        return self._outdated and not stopped()

    def _turn(self) -> None:
        taken: Counter[str] = Counter()
        messages = self._resolved(self._undoubted(self._consumer.consume(self._limit.messages(self._waiting_bytes), self._pace.read)))
        before = self._waiting_bytes
        for message in messages:
            if error := message.error():
                self._told(error, message)
            elif ours := self._places.of(message.topic(), message.partition()):
                self._take(ours, message)
                taken[ours.table.name] += 1
            # Else it was on its way when its partition was taken away, or its partition waits for its place.
        self._has_read = self._has_read or bool(taken)
        for name, count in taken.items():
            self._intake.taken(TABLE_OF[name], count)
        self._judge_gaps()
        self._place_again()
        now = time.monotonic()
        if taken:
            self._oldest = min(self._oldest, now)
            self._limit.note((self._waiting_bytes - before) / taken.total())
        if self._due(now):
            self._commit_all()
        self._pause_while_short()
        self._meters.waiting.set(sum(writer.waiting for writer in self._writers.values()))
        if now - self._measured >= self._pace.measure:
            self._measured = now
            self._measure()
            self._follow_topics()
            self._outdated = self._member.stranded(now) or self._outdated

    def _undoubted(self, messages: list[Message]) -> list[Message]:
        """The messages that may be taken: none of a partition whose end the broker may have lost, until that is found out.

        It may have done so where no broker was connected for a moment, where a message has a newer leader than those before it, and where the
        client has gone back by itself. What waits is stored first: it was read before, and is good whatever the broker has now.
        """
        for message in messages:
            ours = self._places.of(message.topic(), message.partition())
            if ours is not None and not message.error() and ours.doubts(message):
                self._doubted.add((message.topic() or "", message.partition() or 0))
        if self._alarm.raised:
            self._alarm.raised = False
            self._doubted |= self._places.ours.keys()
        if not self._doubted:
            return messages
        if not self._failure.pauses(time.monotonic()):
            self._commit_all()
        kept = [message for message in self._held + messages if (message.topic(), message.partition()) not in self._doubted]
        self._held = []
        if not self._failure:
            self._places.again(self._doubted & self._places.ours.keys())
            self._doubted = set()
        return kept

    def _measure(self) -> None:
        """Sets how many offsets are still to be read, as far as the client has heard of the partitions' ends."""
        behind = dict.fromkeys(self._writers, 0)
        for (topic, partition), ours in self._places.ours.items():
            _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            behind[ours.table.name] += max(0, end - max(0, ours.expected))
        for name, messages in behind.items():
            self._meters.behind.labels(table=name).set(messages)

    def _resolved(self, messages: list[Message]) -> list[Message]:
        """The messages, once their schemas are known, or known to be unknown; while the registry does not answer they are held back."""
        held = self._held + messages
        if not held or (self._held and self._failure.pauses(time.monotonic())):
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

    def _told(self, error: KafkaError, message: Message) -> None:
        """What the client says in place of a message; the end of a partition may lie behind offsets that hold no record."""
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001, the client's own name
            ours = self._places.of(message.topic(), message.partition())
            end = message.offset() or 0
            if ours is not None and 0 <= ours.expected < end:
                self._writers[ours.table.name].pass_to(ours.name, end)
                self._skip(ours, end)
                ours.expected = end
            return
        if ended(error):
            raise InputError(f"the consumer group does not have us any more: {error.str()}")
        _LOG.warning("the broker says: %s", error.str())

    def _due(self, now: float) -> bool:
        if self._failure.pauses(now):
            return False
        waiting = sum(writer.waiting for writer in self._writers.values())
        full = waiting >= self._settings.commit_rows or self._waiting_bytes >= self._limit.bytes()
        # While something fails, whether it still does is tried also where nothing waits: the partitions are paused until then.
        return full or bool(self._failure) or now - self._oldest >= self._settings.commit_seconds

    def _pause_while_short(self) -> None:
        """Reads nothing more while memory is short, after all that waits was stored. The group is still answered."""
        was_short = self._is_short
        if not self._limit.is_short() and not was_short:
            return
        if not was_short and not self._failure:
            self._commit_all()
        self._is_short = self._limit.is_short()
        if self._is_short and not was_short:
            self._meters.pauses.inc()
            self._consumer.pause(self._consumer.assignment())
            _LOG.warning("nothing more is read until this is over: %s", self._limit.problem)
        elif was_short and not self._is_short:
            self._pause_or_resume(self._consumer.assignment())

    def _take(self, ours: Partition, message: Message) -> None:
        table, offset, value = ours.table, message.offset() or 0, message.value()
        if offset != ours.expected:
            self._skip(ours, offset)
        ours.expected, ours.last = offset + 1, message
        ours.epoch = max(ours.epoch, message.leader_epoch() or 0)
        arrived = message.timestamp()[1] / 1000
        self._arrived[table.name] = arrived
        self._waiting_bytes += len(value or b"")
        writer = self._writers[table.name]
        if table is SAMPLES:
            writer.take(ours.name, offset, (value, arrived))
            return
        writer.take(ours.name, offset, self._intake.record(table, value, arrived))

    def _skip(self, ours: Partition, offset: int) -> None:
        """Notes that the broker goes on at another offset, where that may be a loss: a compacted topic has gaps by nature."""
        kept = ours.table.topic is not None and ours.table.topic.retention_ms is not None
        if kept and offset > ours.expected >= 0:
            ours.gaps.append((ours.expected, offset))

    def _judge_gaps(self) -> None:
        """Counts what the broker deleted before it was taken. A gap alone is none: transactions and mirrored topics leave some.

        What is deleted lies below the partition's first offset, which is asked for after the messages behind the gap have come.
        """
        for (topic, partition), ours in self._places.ours.items():
            if not ours.gaps:
                continue
            try:
                low, _ = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_SECONDS)
            except KafkaException as error:
                _LOG.warning("%s: whether messages are gone is asked again: %s", ours.name, error)
                return
            lost = sum(max(0, min(low, end) - start) for start, end in ours.gaps)
            ours.gaps.clear()
            if lost:
                self._miss(ours.table, ours.name, lost)

    def _commit_all(self) -> None:
        """Commits every table that has something; what can't be stored now waits, and nothing more is read until it can."""
        for writer in self._writers.values():
            if not writer.behind:
                continue
            try:
                self._committing = time.monotonic()
                self._commit(writer)
            except (StorageError, RegistryUnavailableError) as error:
                self._fail(str(error))
                return
            finally:
                self._committing = float("inf")
        self._oldest, self._waiting_bytes = float("inf"), 0
        if self._failure and not self._held and not self._places.unplaced:
            self._mended()

    def _mended(self) -> None:
        """Reading goes on."""
        _LOG.warning("storing again")
        self._failure.over()
        self._pause_or_resume(self._consumer.assignment())

    def _commit(self, writer: TableWriter) -> None:
        name, rows, repeated, commits = writer.table.name, writer.rows, writer.repeated, writer.commits
        for ours in self._places.ours.values():
            if ours.table is writer.table and ours.last is not None:
                writer.mark(ours.name, mark_of(ours.last))
        try:
            writer.commit()
        except FencedError as error:
            self._start_over(writer, str(error))
            return
        finally:
            self._stored += writer.rows - rows
            self._commits += writer.commits - commits
            self._meters.rows.labels(table=name).inc(writer.rows - rows)
            self._intake.skipped(writer.table, "repeated", writer.repeated - repeated)
        self._meters.commits.labels(table=name).inc()
        self._meters.lag.labels(table=name).set(max(0.0, time.time() - self._arrived.get(name, time.time())))

    def _fail(self, why: str) -> None:
        self._meters.failures.inc()
        if not self._failure:
            self._consumer.pause(self._consumer.assignment())
        self._failure.note(why, time.monotonic())
        _LOG.warning("nothing is stored, and nothing more read, until this is over: %s", why)

    def _start_over(self, writer: TableWriter, why: str) -> None:
        """Somebody else moved partitions of ours: what waits of them is theirs, and we go on where the table says."""
        mine = self._places.named(writer.moved())
        _LOG.warning("%d partitions start over: %s", len(mine), why)
        self._meters.fenced.inc(len(mine))
        self._places.again(mine)

    def _follow_topics(self) -> None:
        """Lets go of the partitions of a topic that was deleted and made again: they are read from where the table has the new one.

        What was read of them may be of either topic. It is stored before, so that nothing of the old one is lost; what was of the new one
        comes again, and is a repeat.
        """
        self._names.follow()
        renamed = self._places.renamed()
        if not renamed or self._failure:
            return
        self._commit_all()
        if not self._failure:
            _LOG.warning("%d partitions start over: their topics were deleted and made again", len(renamed))
            self._places.again(renamed)

    def _place_again(self) -> None:
        """Finds the places of partitions that have none yet; with the storage or the broker away that is tried again later."""
        if not self._places.unplaced or self._failure.pauses(time.monotonic()):
            return
        keys = list(self._places.unplaced)
        if (places := self._placed(keys)) is None:
            return
        self._held = [message for message in self._held if (message.topic(), message.partition()) not in keys]
        self._consumer.incremental_unassign([TopicPartition(*key) for key in keys])
        self._consumer.incremental_assign(places)
        self._pause_or_resume(places)
        if self._failure:
            self._commit_all()  # what failed to be placed may be all that failed
        self._counted()

    def _placed(self, keys: list[Key]) -> list[TopicPartition] | None:
        """Where to read partitions from; None where that can't be found out now."""
        try:
            found = self._places.place(keys)
        except NewerTableError:
            raise
        except (StorageError, EnvironmentProblemError, KafkaException) as error:
            self._places.unplaced.update(keys)
            self._fail(str(error))
            return None
        for placed in found:
            ours = placed.ours
            if placed.gone:
                self._miss(ours.table, ours.name, placed.gone)
            if placed.replaced:
                self._meters.replaced.labels(table=ours.table.name).inc(placed.replaced)
                text = "%s: the broker has lost its end: up to %d offsets that were stored hold other messages now, read again from %d"
                _LOG.warning(text, ours.name, placed.replaced, ours.expected)
                self._outdated = self._has_read
        return [placed.place for placed in found]

    def _miss(self, table: Table, partition: str, count: int) -> None:
        """Counts messages that the broker no longer has."""
        self._meters.missing.labels(table=table.name).inc(count)
        _LOG.warning("%s: %d messages are gone from the broker before they were stored", partition, count)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = [(partition.topic, partition.partition) for partition in partitions]
        if keys:
            # Without a place they are ours all the same: what comes of them meanwhile is ignored, and comes again.
            places = self._placed(keys) or partitions
            consumer.incremental_assign(places)
            self._pause_or_resume(places)
        self._counted()
        _LOG.info("%d partitions more, %d in all", len(partitions), len(self._places.ours))

    def _pause_or_resume(self, places: list[TopicPartition]) -> None:
        """As it is to be now, also for partitions that were assigned again: the client leaves those paused that were so when they were revoked."""
        (self._consumer.pause if self._failure or self._is_short else self._consumer.resume)(places)

    def _counted(self) -> None:
        """Says what is ours now."""
        self._meters.parts.set(len(self._places.ours))
        self.leads = self._places.leads

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Commits once more, so that the next owner has less to read again; whatever fails here is read again by it."""
        if not self._failure:
            self._commit_all()
        self._lost(consumer, partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = [(partition.topic, partition.partition) for partition in partitions]
        self._places.drop(gone)
        self._held = [message for message in self._held if (message.topic(), message.partition()) not in gone]
        consumer.incremental_unassign(partitions)
        self._counted()
        _LOG.info("%d partitions less, %d in all", len(partitions), len(self._places.ours))
