"""Exactly once: rows and the offsets they came from in one commit.

Each partition of a topic has a name in the table's log, ``TOPIC/TOPIC-ID/PARTITION``, and under it the offset to go on from. A
commit holds the rows of some records and, under their partitions' names, the offsets after them: both are there or neither. Who
takes a partition over reads its offset from the table, never from the consumer group. Under ``NAME/commit`` each commit leaves a
random number of its own. A commit is void when that number is another one than was found or left there last: somebody else has
moved the partition, so a second writer, or one that was thought dead, stores nothing twice. By the same number a commit that seemed to
fail, and was made after all, is recognised; offsets can't tell, since other records may have led to the same ones. ``NAME/last`` and
``NAME/digest`` hold the last message that was read, by which a broker that lost its end is found out (``lineage``).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final

import pyarrow as pa

from virtflow.history.storage.delta import Opened
from virtflow.history.storage.errors import FencedError
from virtflow.history.storage.table_schemas import Table
from virtflow.history.writer.dedup import Filter
from virtflow.history.writer.rows.record_rows import ROWS
from virtflow.runtime.kafka.lineage import Mark

Rows = Callable[[Sequence[Any]], pa.Table]
ID_BITS: Final = 62
"""Of a commit's number: the log keeps signed ones of 64 bits."""
MARKS_KEY: Final = "virtflow.marks"
"""Where a commit notes its partitions' marks, as JSON: by the partition's name its offset and digest."""
RECENT_COMMITS: Final = 200
"""Of a table: what a broker has lost is looked for in these first, before the whole log is read."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A commit that was tried: its number, the offsets in it, how many records of each partition, its rows, and how many records were repeats."""

    number: int
    offsets: Mapping[str, int]
    records: Mapping[str, int]
    rows: int
    repeated: int


class TableWriter:
    """The records of one topic on their way into one table. Holds no thread, no clock and no client."""

    def __init__(self, opened: Opened, known: Filter, rows: Rows | None = None) -> None:
        """``known`` says which records are new, ``rows`` makes rows of them; by default what the table's own records become."""
        self._opened = opened
        self._known = known
        self._rows = rows or ROWS[opened.table.name]
        self._numbers: dict[str, int | None] = {}
        """The number of each partition's newest commit that we know of."""
        self._confirmed = -1
        """The table's version at which these numbers are known to be right; looking them up costs as much as a commit."""
        self._next: dict[str, int] = {}
        self._records: dict[str, list[Any]] = {}
        self._marks: dict[str, Mark] = {}
        """Of each partition that has anything to commit the last message that was read."""
        self._attempt: Attempt | None = None
        self.waiting = 0
        """Records that wait for a commit."""
        self.commits = 0
        """Commits made so far, also of offsets alone."""
        self.rows = 0
        """Rows stored so far."""
        self.repeated = 0
        """Records so far that were left out of commits because they were stored before."""

    @property
    def table(self) -> Table:
        """The table that is written."""
        return self._opened.table

    @property
    def behind(self) -> bool:
        """Whether there is anything to commit: rows, or offsets alone."""
        return bool(self._next)

    def begin(self, parts: Sequence[str]) -> dict[str, int | None]:
        """Takes partitions over; gives the offset each goes on from, None where nothing of it is stored."""
        self._opened.refresh()
        self._settle_if_made()
        self._attempt = None
        self._known.begin(self._opened)
        for part in parts:
            self.forget(part)
            self._numbers[part] = self._opened.number(_commit_of(part))
        return {part: self._opened.number(part) for part in parts}

    def take(self, part: str, offset: int, record: Any) -> None:  # noqa: ANN401, each table has its own record
        """Takes one message's record (or what ``rows`` takes for one), None where it holds none of use."""
        self._next[part] = offset + 1
        if record is not None:
            self._records.setdefault(part, []).append(record)
            self.waiting += 1

    def mark(self, part: str, mark: Mark) -> None:
        """Says which message of a partition was read last, where that is not committed yet."""
        if part in self._next:
            self._marks[part] = mark

    def last(self, part: str) -> Mark | None:
        """The last message of a partition that was read before the newest commit; None where that is not known."""
        offset, digest = (self._opened.number(name) for name in _mark_names(part))
        return None if offset is None or digest is None else Mark(offset, digest)

    def marks(self, part: str) -> Iterator[list[Mark]]:
        """The marks that commits left of a partition, from the newest on: first those of recent ones, then all that the log still has."""
        for commits in (RECENT_COMMITS, None):
            noted = [json.loads(note).get(part) for note in self._opened.notes(MARKS_KEY, commits)]
            yield [Mark(*mark) for mark in noted if mark]

    def pass_to(self, part: str, offset: int) -> None:
        """Goes on from an offset before which nothing more comes: what lies between holds no record."""
        self._next[part] = offset

    def forget(self, part: str) -> None:
        """Lets go of a partition: what waits of it is somebody else's."""
        self.waiting -= len(self._records.pop(part, ()))
        self._next.pop(part, None)
        self._marks.pop(part, None)
        self._numbers.pop(part, None)

    def moved(self) -> list[str]:
        """The partitions that somebody else has moved on since they were taken over."""
        self._opened.refresh()
        self._settle_if_made()
        version = self._opened.version
        if version == self._confirmed:
            return []
        moved = {part for part, number in self._numbers.items() if self._opened.number(_commit_of(part)) != number}
        if not moved:
            self._confirmed = version
        return [part for part in self._next if part in moved]

    def commit(self) -> None:
        """Stores what waits.

        Raises ``FencedError`` where a partition is somebody else's: ask ``moved`` which. Raises ``StorageError`` where the storage
        failed: what waits goes on waiting.
        """
        if self.moved():
            raise FencedError(f"{self.table.name}: a partition has another writer")
        if not self._next:
            return
        records = [record for part in self._records.values() for record in part]
        new = list(compress(records, self._known.new(records)))
        rows = self._rows(new)
        added = self._opened.write(rows) if new else []
        self._attempt = self._attempted(int(rows.num_rows), len(records) - len(new))
        version = self._opened.version
        try:
            self._opened.commit(added, self._named(self._attempt), notes={MARKS_KEY: self._noted()})
        except FencedError:
            self._opened.refresh()
            if self._settle_if_made():
                return  # the storage took the commit, its answer was lost, and the next try found our own
            self._attempt = None
            self._opened.discard(added)
            raise
        self._settle_if_made(sure=True)
        if self._confirmed == version == self._opened.version - 1:
            self._confirmed += 1  # nobody else has committed meanwhile

    def _named(self, attempt: Attempt) -> dict[str, int]:
        """The numbers that a commit leaves under names."""
        numbers = {**attempt.offsets, **{_commit_of(part): attempt.number for part in attempt.offsets}}
        for part, mark in self._marks.items():
            numbers |= zip(_mark_names(part), (mark.offset, mark.digest), strict=True)
        return numbers

    def _noted(self) -> str:
        return json.dumps({part: [mark.offset, mark.digest] for part, mark in self._marks.items()})

    def _attempted(self, rows: int, repeated: int) -> Attempt:
        counts = {part: len(records) for part, records in self._records.items()}
        return Attempt(secrets.randbits(ID_BITS), dict(self._next), counts, rows, repeated)

    def _settle_if_made(self, *, sure: bool = False) -> bool:
        """Whether the last attempt is in the table; then what was in it waits no more."""
        attempt = self._attempt
        if attempt is None or not (sure or self._opened.number(_commit_of(next(iter(attempt.offsets)))) == attempt.number):
            return False
        self._attempt = None
        self._known.stored()
        self.commits += 1
        self.rows += attempt.rows
        self.repeated += attempt.repeated
        for part in attempt.offsets.keys() & self._numbers.keys():
            self._numbers[part] = attempt.number
            if self._next.get(part) == attempt.offsets[part]:
                del self._next[part]
                self._marks.pop(part, None)
            del self._records.get(part, [])[: attempt.records.get(part, 0)]
            self.waiting -= attempt.records.get(part, 0)
        return True


def _commit_of(part: str) -> str:
    """The name under which a partition's newest commit has its number."""
    return f"{part}/commit"


def _mark_names(part: str) -> tuple[str, str]:
    """The names under which a partition has the offset and the digest of the last message that was read."""
    return f"{part}/last", f"{part}/digest"


REASONS: Final = ("repeated", "future", "too_late", "timeless", "tombstone")
"""Why a record that could be decoded is left out: stored before, ahead of its arrival, older than what is kept, without a time, a deletion."""
