"""Rolls up what has come since the last time: the hours that new files touch, and the days of those hours.

``hourly`` remembers in its log up to which version of ``samples`` it is rolled up. Every step replaces whole hours in one commit, and
the mark moves in the last one, so that a run that was cut off anywhere is done again from its beginning with the same result. Samples
that come hours late are files like any other: their hour is rolled up again, and so is the next one with rows, which begins where
the late ones end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.maintenance.rollup import HOUR_SECONDS, SPEAKS_BY, arriving, days_of, hours_of, newest, sequence_of_columns, without
from virtflow.history.storage.delta import FencedError, File, Opened, StorageError, Store
from virtflow.history.storage.table_schemas import DAILY, HOURLY, KINDS, SAMPLES, TIME
from virtflow.history.writer.arrow import DAY_SECONDS

ROLLED: Final = "virtflow/rolled"
"""Name of the mark in the log of ``hourly``: the version of ``samples`` it is rolled up to, and one."""
UPKEEP: Final = "virtflow/upkeep"
"""Every commit of upkeep carries it, so that two runs at once can't both change a table."""
BUCKET_ROWS: Final = 1_000_000
"""Rows held in memory at once while rolling up or compacting, about."""
LOOK_BACK_SECONDS: Final = 7 * DAY_SECONDS
"""How far before an hour its counters' last values are looked for."""

Tell = Callable[[str, int, int], None]
"""Told of progress: what, how much is done, of how much."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be rolled up: hours since 1970, and the version of ``samples`` that is then done."""

    hours: tuple[int, ...]
    version: int


class Rolling:
    """One run of rolling up."""

    def __init__(self, store: Store, raw_days: int, tell: Tell) -> None:
        """Opens the tables; hours of days older than ``raw_days`` are left as they are, their samples may be gone."""
        self._samples = store.open(SAMPLES)
        self._hourly_kept = Kept(store.make(HOURLY))
        self._daily_kept = Kept(store.make(DAILY))
        self._hourly = self._hourly_kept.opened
        self._store = store
        self._tell = tell
        self._oldest_hour = int(time.time() // DAY_SECONDS - raw_days) * 24

    def due(self) -> Due:
        """What has to be done."""
        version = self._samples.version
        hours: set[int] = set()
        for file in self._new_files():
            hours.update(range(int(file.first // HOUR_SECONDS), int(file.last // HOUR_SECONDS) + 1))
        touched = {hour for hour in hours if hour >= self._oldest_hour}
        return Due(tuple(sorted(touched | self._followers(touched))), version)

    def run(self, due: Due) -> None:
        """Does it: hour by hour, then the days."""
        for done, hour in enumerate(due.hours):
            self._tell("hours", done, len(due.hours))
            self._roll_hour(hour)
        days = sorted({hour // 24 for hour in due.hours})
        for done, day in enumerate(days):
            self._tell("days", done, len(days))
            self._roll_day(day)
        self._tell("days", len(days), len(days))
        if self._hourly.number(ROLLED) != due.version + 1:
            self._hourly_kept.commit([], [], {ROLLED: due.version + 1})

    def _new_files(self) -> list[File]:
        """Files with new rows since the mark; all of them where the log no longer reaches back to it."""
        files = [file for file in self._samples.files() if not is_compact(file)]
        mark = self._hourly.number(ROLLED)
        if mark is None:
            return self._samples.files()
        try:
            before = {file.path for file in at_version(self._store, self._samples, mark - 1)}
        except StorageError:
            return files
        return [file for file in files if file.path not in before]

    def _followers(self, touched: set[int]) -> set[int]:
        """Hours that are there already and begin where touched ones end: each VM's next rows after a touched hour."""
        latest = max((int(file.last // HOUR_SECONDS) for file in self._hourly.files()), default=-1)
        followers: set[int] = set()
        for hour in touched:
            if hour >= latest or hour + 1 in touched:
                continue
            within = between("time", (hour + 1) * HOUR_SECONDS, (hour + 1) * HOUR_SECONDS + LOOK_BACK_SECONDS)
            rows = self._hourly.dataset().to_table(columns=["uuid", "device", "time"], filter=within)
            first = rows.group_by(["uuid", "device"]).aggregate([("time", "min")]).column("time_min")
            followers.update(int(moment.timestamp()) // HOUR_SECONDS for moment in first.unique().to_pylist())
        return {hour for hour in followers if hour >= self._oldest_hour}

    def _roll_hour(self, hour: int) -> None:
        within = between("time", hour * HOUR_SECONDS, (hour + 1) * HOUR_SECONDS)
        files = [file for file in self._samples.files() if overlaps(file, hour, hour)]
        silent = arriving(self._read(within & (pc.field("kind") == "vm"), SPEAKS_BY))
        rows = [
            hours_of(kind, without(samples, silent), self._before(kind, hour, samples))
            for kind in KINDS.values()
            for samples in self._buckets(within, kind, sum(file.rows for file in files))
        ]
        self._hourly_kept.replace(hour, hour, [part for part in rows if part.num_rows])

    def _buckets(self, within: Any, kind: str, rows: int) -> Iterator[pa.Table]:  # noqa: ANN401, an Arrow expression
        """The samples of an hour and kind in portions that fit into memory."""
        for bucket in buckets(rows):
            samples = self._read(within & (pc.field("kind") == kind) & bucket, sequence_of_columns(kind))
            if samples.num_rows:
                yield samples

    def _read(self, wanted: Any, columns: Sequence[str]) -> pa.Table:  # noqa: ANN401, an Arrow expression
        return self._samples.dataset().to_table(columns=list(columns), filter=wanted)

    def _before(self, kind: str, hour: int, samples: pa.Table) -> pa.Table | None:
        """Where the counters of these samples stood before the hour."""
        end = hour * HOUR_SECONDS
        of_kind = pc.field("kind") == kind
        uuids = samples.column("uuid").unique()
        near = self._last_rows(of_kind & between("time", end - HOUR_SECONDS, end) & pc.field("uuid").isin(uuids), kind)
        missing = uuids.filter(pc.invert(pc.is_in(uuids, near.column("uuid").combine_chunks())))
        far = None
        if len(missing):
            far = self._last_rows(
                of_kind & between("time", end - LOOK_BACK_SECONDS, end - HOUR_SECONDS) & pc.field("uuid").isin(missing), kind
            )
        before = near if far is None else pa.concat_tables([near, far])
        return before if before.num_rows else None

    def _last_rows(self, wanted: Any, kind: str) -> pa.Table:  # noqa: ANN401, an Arrow expression
        names = ["time", "uuid", "device", "name", "node", "last_time"]
        names += [f"{name}_last" for name in sequence_of_columns(kind) if f"{name}_last" in HOURLY.schema.names]
        return newest(self._hourly.dataset().to_table(columns=names, filter=wanted))

    def _roll_day(self, day: int) -> None:
        within = between("time", day * DAY_SECONDS, (day + 1) * DAY_SECONDS)
        files = [file for file in self._hourly.files() if overlaps(file, day * 24, day * 24 + 23)]
        parts = []
        for kind in KINDS.values():
            for bucket in buckets(sum(file.rows for file in files)):
                hours = self._hourly.dataset().to_table(filter=within & (pc.field("kind") == kind) & bucket)
                parts.append(days_of(kind, hours))
        self._daily_kept.replace(day * 24, day * 24 + 23, [part for part in parts if part.num_rows])


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
        others = ~between("time", first_hour * HOUR_SECONDS, (last_hour + 1) * HOUR_SECONDS)
        whole = pa.concat_tables(
            [*([opened.only(old).to_table(filter=others)] if old else []), *parts] or [opened.table.schema.empty_table()]
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
    return "/compact-" in f"/{file.path}"


def overlaps(file: File, first_hour: int, last_hour: int) -> bool:
    """Whether a file may have rows of these hours."""
    return file.first < (last_hour + 1) * HOUR_SECONDS and file.last >= first_hour * HOUR_SECONDS


def between(name: str, start: float, end: float) -> Any:  # noqa: ANN401, an Arrow expression
    """Rows whose moment is in the half-open range of Unix seconds."""
    first, last = (pa.scalar(int(at) * 1_000_000).cast(TIME) for at in (start, end))
    return (pc.field(name) >= first) & (pc.field(name) < last)


def buckets(rows: int) -> list[Any]:
    """Conditions on ``uuid`` that cut so many rows into portions of about ``BUCKET_ROWS``: UUIDs are spread evenly."""
    count = min(256, max(1, -(-rows // BUCKET_ROWS)))
    edges = [f"{256 * n // count:02x}" for n in range(count)]
    uuid = pc.field("uuid")
    conditions = []
    for low, high in zip(edges, [*edges[1:], ""], strict=True):
        conditions.append((uuid >= low) & (uuid < high) if high else uuid >= low)
    return [uuid >= ""] if count == 1 else conditions


def day_of(hour: int) -> str:
    """The day of an hour since 1970, as the tables name it."""
    return time.strftime("%Y-%m-%d", time.gmtime(hour * HOUR_SECONDS))
