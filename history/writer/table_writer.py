"""Exactly once: rows and the offsets they came from in one commit.

Each partition of a topic has a name in the table's log, ``TOPIC/TOPIC-ID/PARTITION``, and under it the offset to go on from. A
commit holds the rows of some records and, under their partitions' names, the offsets after them: both are there or neither. Who
takes a partition over reads its offset from the table, never from the consumer group. A commit is void when another one has
moved one of its partitions meanwhile, so a second writer, or one that was thought dead, stores nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa

from virtflow.history.storage.delta import FencedError, Opened
from virtflow.history.storage.table_schemas import Table
from virtflow.history.writer.dedup import Filter
from virtflow.history.writer.record_rows import ROWS

Rows = Callable[[Sequence[Any]], pa.Table]


class TableWriter:
    """The records of one topic on their way into one table. Holds no thread, no clock and no client."""

    def __init__(self, opened: Opened, known: Filter, rows: Rows | None = None) -> None:
        """``known`` says which records are new, ``rows`` makes rows of them; by default what the table's own records become."""
        self._opened = opened
        self._known = known
        self._rows = rows or ROWS[opened.table.name]
        self._at: dict[str, int | None] = {}
        self._next: dict[str, int] = {}
        self._records: dict[str, list[Any]] = {}
        self.waiting = 0
        """Records that wait for a commit."""

    @property
    def table(self) -> Table:
        """The table that is written."""
        return self._opened.table

    @property
    def behind(self) -> bool:
        """Whether there is anything to commit: rows, or offsets alone."""
        return bool(self._next)

    def begin(self, parts: Sequence[str], repeat_seconds: float) -> dict[str, int | None]:
        """Takes partitions over; gives the offset each goes on from, None where nothing of it is stored."""
        self._opened.refresh()
        for part in parts:
            self.forget(part)
            self._at[part] = self._opened.number(part)
        self._known.load(self._opened, repeat_seconds)
        return {part: self._at[part] for part in parts}

    def take(self, part: str, offset: int, record: Any) -> bool:  # noqa: ANN401, each table has its own record
        """Takes one message's record (or what ``rows`` takes for one), None where it holds none of use; whether it will be stored."""
        self._next[part] = offset + 1
        if record is None or not self._known.fresh(part, record):
            return False
        self._records.setdefault(part, []).append(record)
        self.waiting += 1
        return True

    def pass_to(self, part: str, offset: int) -> None:
        """Goes on from an offset before which nothing more comes: what lies between holds no record."""
        self._next[part] = offset

    def forget(self, part: str) -> None:
        """Lets go of a partition: what waits of it is somebody else's."""
        self.waiting -= len(self._records.pop(part, ()))
        self._next.pop(part, None)
        self._at.pop(part, None)
        self._known.forget(part)

    def moved(self) -> list[str]:
        """The partitions that somebody else has moved on since they were taken over."""
        self._opened.refresh()
        now = {part: self._opened.number(part) for part in self._next}
        if now and now == self._next:
            # The commit that seemed to fail has been made after all, or another writer has made the same; the rows tell what is known now.
            self._rows(self._all())
            self._settle()
            return []
        return [part for part in self._next if now[part] != self._at.get(part)]

    def commit(self) -> int:
        """Stores what waits; the number of rows.

        Raises ``FencedError`` where a partition is somebody else's: ask ``moved`` which. Raises ``StorageError`` where the storage
        failed: what waits goes on waiting.
        """
        if self.moved():
            raise FencedError(f"{self.table.name}: a partition has another writer")
        if not self._next:
            return 0
        records = self._all()
        rows = self._rows(records)
        added = self._opened.write(rows) if records else []
        try:
            self._opened.commit(added, self._next)
        except FencedError:
            self._opened.discard(added)
            raise
        self._settle()
        return int(rows.num_rows)

    def _all(self) -> list[Any]:
        return [record for part in self._records.values() for record in part]

    def _settle(self) -> None:
        for part, offset in self._next.items():
            self._at[part] = offset
            self._known.stored(part)
        self._next.clear()
        self._records.clear()
        self.waiting = 0


REASONS: Final = ("repeated", "future", "too_late", "timeless", "tombstone")
"""Why a record that could be decoded is left out: stored before, ahead of its arrival, older than what is kept, without a time, a deletion."""
