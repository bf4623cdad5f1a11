"""Which partitions are ours, and where each goes on: what the tables say, and what the broker still has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition

from virtflow.history.storage.table_schemas import SAMPLES, Table
from virtflow.history.writer.source import Source
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.kafka.lineage import Found, Probe, common

Key = tuple[str, int]
"""A topic's name on the broker and a partition's number."""


@dataclass(slots=True)
class Partition:
    """A partition that is ours: its table, its name in the table's log, and the offset that comes next."""

    table: Table
    name: str
    expected: int
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """Offsets that did not come, from and up to, of which it is not known yet whether they held a record."""
    last: Message | None = None
    """The message that came last."""
    epoch: int = -1
    """The newest of the leaders that its messages were written by; -1 where that is not known."""

    def doubts(self, message: Message) -> bool:
        """Whether a message shows that the broker's partition may not be what it was."""
        newer = 0 <= self.epoch < (message.leader_epoch() or 0)
        return newer or (message.offset() or 0) < self.expected


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a partition is read from, and what became of records that the broker had.

    ``gone`` is how many it deleted before they were stored; ``replaced`` how many offsets, at most, it gives to other messages than those that were stored.
    """

    ours: Partition
    place: TopicPartition
    gone: int = 0
    replaced: int = 0


class Placement:
    """The partitions of one member of the group. Belongs to the consumer's thread."""

    def __init__(self, source: Source, writers: Mapping[str, TableWriter]) -> None:
        """``writers`` by their tables' names."""
        self._source = source
        self._names = source.names
        self._writers = writers
        self.ours: dict[Key, Partition] = {}
        self.unplaced: set[Key] = set()
        """Partitions that the group has given us, and of which it is not known yet where they go on: what comes of them is ignored."""

    @property
    def leads(self) -> bool:
        """Whether the first partition of vm.metrics is among them."""
        return any(ours.table is SAMPLES and partition == 0 for (_, partition), ours in self.ours.items())

    def of(self, topic: str | None, partition: int | None) -> Partition | None:
        """A message's partition, None where it is not ours, or was given away while the message was on its way."""
        return self.ours.get((topic or "", partition or 0))

    def named(self, names: Iterable[str]) -> list[Key]:
        """Partitions by their names in the tables' logs."""
        wanted = set(names)
        return [key for key, ours in self.ours.items() if ours.name in wanted]

    def renamed(self) -> list[Key]:
        """Those of ours whose topics were deleted and made again meanwhile."""
        return [key for key, ours in self.ours.items() if ours.name != self._names.part(*key)]

    def drop(self, keys: Iterable[Key]) -> None:
        """Lets go of partitions, and of what waits of them."""
        for key in keys:
            self.unplaced.discard(key)
            if (ours := self.ours.pop(key, None)) is not None:
                self._writers[ours.table.name].forget(ours.name)

    def again(self, keys: Iterable[Key]) -> None:
        """Lets go of what waits of partitions of ours, which are to be placed again."""
        keys = list(keys)
        self.drop(keys)
        self.unplaced.update(keys)

    def place(self, keys: Iterable[Key]) -> list[Placed]:
        """Finds where partitions go on, which are ours from now on.

        Raises ``StorageError`` where the storage does not answer, ``EnvironmentProblemError`` or ``KafkaException`` where the broker does
        not; then none of them is placed.
        """
        keys = sorted(keys)
        self._names.learn({topic for topic, _ in keys})
        by_table: dict[str, list[Key]] = {}
        for key in keys:
            by_table.setdefault(self._names.table(key[0]).name, []).append(key)
        with closing(self._source.probe()) as probe:
            found = [placed for table, mine in by_table.items() for placed in self._of_table(self._writers[table], mine, probe)]
        for placed in found:
            key = placed.place.topic, placed.place.partition
            self.ours[key] = placed.ours
            self.unplaced.discard(key)
        return found

    def _of_table(self, writer: TableWriter, keys: list[Key], probe: Probe) -> list[Placed]:
        names = [self._names.part(*key) for key in keys]
        offsets = writer.begin(names)
        return [self._start(writer, key, (name, offsets[name]), probe) for key, name in zip(keys, names, strict=True)]

    def _start(self, writer: TableWriter, key: Key, stored: tuple[str, int | None], probe: Probe) -> Placed:
        """Where one partition goes on, of which the table has an offset."""
        name, offset = stored
        if offset is None:
            return Placed(Partition(writer.table, name, OFFSET_BEGINNING), TopicPartition(*key, OFFSET_BEGINNING))
        low, high = probe.bounds(*key)  # a new client: the one that reads may not have heard of the broker's leaders again yet
        last = writer.last(name)
        if offset <= high and (last is None or probe.find(*key, last) is not Found.OTHER):
            begin, gone, replaced = max(offset, low), max(0, low - offset), 0
        else:
            begin = max(low, _parting(writer, key, name, probe))
            gone, replaced = 0, max(1, offset - begin)
        return Placed(Partition(writer.table, name, begin), TopicPartition(*key, begin), gone, replaced)


def _parting(writer: TableWriter, key: Key, name: str, probe: Probe) -> int:
    """An offset before which the broker has what was read of a partition, as near as the commits tell to where it has something else."""
    for marks in writer.marks(name):
        if (mark := common(marks, lambda mark: probe.find(*key, mark))) is not None:
            return mark.offset + 1
    return 0
