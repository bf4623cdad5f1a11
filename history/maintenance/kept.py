"""Tables under upkeep: what changes them, and how their files and hours are found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.maintenance.rollup import HOUR_SECONDS
from virtflow.history.storage.delta import File, Opened, Store
from virtflow.history.storage.errors import FencedError
from virtflow.history.storage.portions import with_uuid
from virtflow.history.storage.table_schemas import TIME

UPKEEP: Final = "virtflow/upkeep"
"""Every commit of upkeep carries it, so that two runs at once can't both change a table."""
BUCKET_ROWS: Final = 1_000_000
"""Rows held in memory at once while rolling up or compacting, about."""

Tell = Callable[[str, int, int], None]
"""Told of progress: what, how much is done, of how much."""


class Kept:
    """A table under upkeep: its changes follow one another, or the second of two runs at once gives up."""

    def __init__(self, opened: Opened) -> None:
        """Notes where the other runs' commits stand."""
        self.opened: Final = opened
        self._number = opened.number(UPKEEP) or 0

    def commit(self, added: Sequence[Any], removed: Sequence[File], numbers: dict[str, int] | None = None, *, changes: bool = True) -> None:
        """A commit of upkeep; raises ``FencedError`` where another run has changed the table since this one began."""
        self.opened.refresh()
        if (self.opened.number(UPKEEP) or 0) != self._number:
            raise FencedError(f"{self.opened.table.name}: another run of upkeep is at it")
        self.opened.commit(added, {UPKEEP: self._number + 1, **(numbers or {})}, removed, changes=changes)
        self._number += 1
        self.opened.refresh()

    def replace(self, first_hour: int, last_hour: int, parts: Sequence[pa.Table]) -> None:
        """Puts rows in the place of those of the hours ``first_hour`` to ``last_hour``, which all lie in one day."""
        opened = self.opened
        old = [file for file in opened.files() if overlaps(file, first_hour, last_hour)]
        shared = [file for file in old if not is_within(file, first_hour, last_hour)]
        others = ~between("time", first_hour * HOUR_SECONDS, (last_hour + 1) * HOUR_SECONDS)
        whole = pa.concat_tables(
            [*([opened.only(shared).to_table(filter=others)] if shared else []), *parts] or [opened.table.schema.empty_table()]
        )
        ordered = whole.sort_by([(name, "ascending") for name in opened.table.order])
        if ordered.num_rows or old:
            self.commit([opened.write_file(day_of(first_hour), [ordered])] if ordered.num_rows else [], old)


def at_version(store: Store, opened: Opened, version: int) -> list[File]:
    """The files of a table as it once was; raises ``StorageError`` where its log no longer reaches back."""
    if version < 0:
        return []
    return store.at(opened.table, version).files()


def is_compact(file: File) -> bool:
    """Whether a file is the work of compaction, with no row that was not there before."""
    return has_compact_name(file.path)


def has_compact_name(path: str) -> bool:
    """As ``is_compact``, by the path: no writer gives a file such a name."""
    return "/compact-" in f"/{path}"


def overlaps(file: File, first_hour: int, last_hour: int) -> bool:
    """Whether a file may have rows of these hours."""
    return file.first < (last_hour + 1) * HOUR_SECONDS and file.last >= first_hour * HOUR_SECONDS


def is_within(file: File, first_hour: int, last_hour: int) -> bool:
    """Whether all rows of a file are of these hours; of a file whose times are not known that is not known either."""
    return file.first >= first_hour * HOUR_SECONDS and file.last < (last_hour + 1) * HOUR_SECONDS


def between(name: str, start: float, end: float) -> Any:  # noqa: ANN401, an Arrow expression
    """Rows whose moment is in the half-open range of Unix seconds."""
    first, last = (pa.scalar(int(at) * 1_000_000).cast(TIME) for at in (start, end))
    return (pc.field(name) >= first) & (pc.field(name) < last)


def buckets(rows: int) -> list[Any]:
    """Conditions on ``uuid`` that cut so many rows into portions of about ``BUCKET_ROWS``."""
    return [with_uuid(low, high) for low, high in uuid_ranges(rows)]


def uuid_ranges(rows: int) -> list[tuple[str, str]]:
    """Ranges of ``uuid``, from and up to ("" for no end), that cut so many rows into portions of about ``BUCKET_ROWS``: UUIDs are spread evenly."""
    count = min(256, max(1, -(-rows // BUCKET_ROWS)))
    edges = [f"{256 * n // count:02x}" if n else "" for n in range(count)]
    return list(zip(edges, [*edges[1:], ""], strict=True))


def day_of(hour: int) -> str:
    """The day of an hour since 1970, as the tables name it."""
    return time.strftime("%Y-%m-%d", time.gmtime(hour * HOUR_SECONDS))
