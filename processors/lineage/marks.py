"""Whether the partitions still hold what was processed, and where to go on where they do not.

With each offset that is committed to the group, its metadata gets marks of messages that were acknowledged before it
(``runtime/kafka/lineage.py``): the last one, and older ones, fewer the older they are. Who takes a partition over compares them with the
broker's messages, goes back to the newest one that is still there, and counts what is gone. What is processed twice by that has the same
identity.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaException

from virtflow.processors.dead_letters.dead_letter import Message
from virtflow.processors.metrics import Tally
from virtflow.runtime.kafka.lineage import Found, Mark, Probe, common, digest_of

VERSION: Final = "virtflow-marks-1"
MARKS: Final = 64
"""In one commit's metadata at most: 2 KB of the 4 that a broker takes."""
UNCOMMITTED: Final = 4_096
"""Marks kept of messages that are acknowledged and not committed yet."""

_LOG: Final = logging.getLogger("virtflow.processors")

Key = tuple[str, int]
"""A topic's name on the broker and a partition's number."""


@dataclass(slots=True)
class Partition:
    """A partition that is ours: the marks of its last commit, those acknowledged since, the offset that comes next, and what did not come."""

    committed: list[Mark]
    acknowledged: deque[Mark] = field(default_factory=lambda: deque(maxlen=UNCOMMITTED))
    expected: int = -1
    gaps: list[tuple[int, int]] = field(default_factory=list)

    @property
    def last(self) -> Mark | None:
        """The newest mark."""
        return self.acknowledged[-1] if self.acknowledged else next(iter(self.committed), None)


class Lineage:
    """What is known of the partitions of this process. Thread-safe: messages are taken in one thread, and committed in another."""

    def __init__(self, probe: Callable[[], Probe], tally: Tally) -> None:
        """``probe`` makes a reader of single messages, which is closed after use."""
        self._probe = probe
        self._tally = tally
        self._lock = threading.Lock()
        self._partitions: dict[Key, Partition] = {}
        self._counted: set[tuple[str, int, int, int]] = set()
        """From where to where places were moved: what is committed may be looked at several times before more is."""

    def taken(self, message: Message) -> None:
        """A message has come; offsets that were left out before it are looked into by ``count_missing``."""
        with self._lock:
            ours = self._partitions.get((message.topic, message.partition))
            if ours is not None:
                if 0 <= ours.expected < message.offset:
                    ours.gaps.append((ours.expected, message.offset))
                ours.expected = message.offset + 1

    def acknowledged(self, message: Message) -> None:
        """A message and all before it need not come again."""
        mark = Mark(message.offset, digest_of(message.key, message.value, round(message.timestamp * 1000)))
        with self._lock:
            if (ours := self._partitions.get((message.topic, message.partition))) is not None:
                ours.acknowledged.append(mark)

    def committing(self, topic: str, partition: int, offset: int) -> str:
        """The metadata for an offset that is committed now."""
        with self._lock:
            ours = self._partitions.get((topic, partition))
            if ours is None:
                return ""
            before = None
            while ours.acknowledged and ours.acknowledged[0].offset < offset:
                before = ours.acknowledged.popleft()
            if before is not None:
                ours.committed = thinned([before, *ours.committed])
            return encoded(ours.committed)

    def begin(self, topic: str, partition: int, offset: int, metadata: str) -> int:
        """Takes a partition over, of which an offset was committed, -1 for none; the offset to go on from.

        Raises ``KafkaException`` where the broker does not answer.
        """
        marks = decoded(metadata)
        begin, lost = self._begin(topic, partition, offset, marks) if offset >= 0 else (offset, False)
        moved = (topic, partition, offset, begin)
        if (lost or begin != offset) and moved not in self._counted:
            self._counted.add(moved)
            if lost:
                self._replaced(topic, partition, offset, begin)
            else:
                self._missed(topic, partition, begin - offset)
        with self._lock:
            self._partitions[topic, partition] = Partition([mark for mark in marks if mark.offset < begin], expected=begin)
        return begin

    def _begin(self, topic: str, partition: int, offset: int, marks: Sequence[Mark]) -> tuple[int, bool]:
        """Where a partition goes on, and whether the broker has lost its end."""
        with closing(self._probe()) as probe:
            low, high = probe.bounds(topic, partition)
            if offset <= high and (not marks or probe.find(topic, partition, marks[0]) is not Found.OTHER):
                return max(low, offset), False
            same = common(marks, lambda mark: probe.find(topic, partition, mark))
            return max(low, same.offset + 1 if same else 0), True

    def keep(self, keys: Iterable[Key]) -> None:
        """These partitions are ours, and no others."""
        ours = set(keys)
        with self._lock:
            self._partitions = {key: known for key, known in self._partitions.items() if key in ours}

    def intact(self) -> bool:
        """Whether the broker still has the last message that was acknowledged of each partition; raises ``KafkaException`` where it does not answer."""
        with self._lock:
            last = [(key, ours.last) for key, ours in self._partitions.items()]
        with closing(self._probe()) as probe:
            return all(mark is None or probe.find(*key, mark) is not Found.OTHER for key, mark in last)

    def count_missing(self) -> None:
        """Counts what was deleted before it was taken. A gap alone is none: transactions leave some; what is deleted lies below the first offset."""
        with self._lock:
            open_gaps = {key: list(ours.gaps) for key, ours in self._partitions.items() if ours.gaps}
        if not open_gaps:
            return
        with closing(self._probe()) as probe:
            for (topic, partition), gaps in open_gaps.items():
                try:
                    low, _ = probe.bounds(topic, partition)
                except KafkaException as error:
                    _LOG.warning("%s[%d]: whether messages are gone is asked again: %s", topic, partition, error)
                    return
                with self._lock:
                    if (ours := self._partitions.get((topic, partition))) is not None:
                        del ours.gaps[: len(gaps)]
                if lost := sum(max(0, min(low, end) - start) for start, end in gaps):
                    self._missed(topic, partition, lost)

    def _missed(self, topic: str, partition: int, count: int) -> None:
        self._tally.missing.labels(topic=topic).inc(count)
        _LOG.warning("%s[%d]: %d messages are gone from the broker before they were processed", topic, partition, count)

    def _replaced(self, topic: str, partition: int, offset: int, begin: int) -> None:
        self._tally.replaced.labels(topic=topic).inc(max(1, offset - begin))
        text = "%s[%d]: the broker has lost its end: up to %d offsets that were processed hold other messages now, read again from %d"
        _LOG.warning(text, topic, partition, max(1, offset - begin), begin)


def thinned(marks: Sequence[Mark]) -> list[Mark]:
    """Marks, given from the newest on, without some: between neighbours of which one is at most twice as old as the other none is needed."""
    newest, kept = marks[0].offset, [marks[0]]
    for number, mark in enumerate(marks[1:], 1):
        after = marks[number + 1] if number + 1 < len(marks) else None
        if after is None or newest - after.offset > 2 * (newest - kept[-1].offset):
            kept.append(mark)
    return kept[:MARKS]


def encoded(marks: Sequence[Mark]) -> str:
    """Marks as a commit's metadata."""
    return " ".join([VERSION, *(f"{mark.offset:x}:{mark.digest:x}" for mark in marks)])


def decoded(metadata: str) -> list[Mark]:
    """A commit's marks; none where its metadata are somebody else's."""
    version, *words = metadata.split(" ")
    if version != VERSION:
        return []
    pairs = (word.split(":") for word in words)
    return [Mark(int(offset, 16), int(digest, 16)) for offset, digest in pairs]
