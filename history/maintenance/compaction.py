"""Upkeep of the tables: many small files become few sorted ones, old days go, files that nothing names any more are deleted.

Every step is one commit and can be cut off anywhere: what was written before the commit is not there, and is vacuumed one day; what was
taken out stays on disk for readers that began before, until it is vacuumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.maintenance.kept import Kept, Tell, at_version, is_compact, uuid_ranges
from virtflow.history.maintenance.rollup import HOUR_SECONDS
from virtflow.history.maintenance.rollup_job import ROLLED
from virtflow.history.maintenance.rows import distinct, order_of, series_of
from virtflow.history.storage.delta import File, Opened, Store
from virtflow.history.storage.errors import StorageError
from virtflow.history.storage.parquet import BY_KIND
from virtflow.history.storage.portions import Portion, Portions, in_order, with_uuid
from virtflow.history.storage.table_schemas import (
    COUNTERS,
    DAILY,
    EVENT_ROWS,
    HOURLY,
    INVENTORY_ROWS,
    KIND_OF,
    KINDS,
    SAMPLES,
    TABLES,
    Table,
    kind_columns,
)
from virtflow.history.writer.rows.arrow import DAY_SECONDS
from virtflow.runtime.settings import History

VACUUMED: Final = "virtflow/vacuumed"
VACUUM_HOURS: Final = 6
"""How often vacuuming is worth listing the storage."""
SETTLE_SECONDS: Final = 3_600
"""A day is compacted as a whole so long after its end: most of what is late has come by then."""
HOUR_FILES: Final = 12
"""Files of an hour of today that are worth merging before the day is over."""
LATE_SHARE: Final = 0.02
LATE_FILES: Final = 64
"""A compacted day is compacted again when so many of its rows, or so many files, have come since."""
FILE_ROWS: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do to one table: ``compact`` files of a day, ``expire`` a day, ``forget`` what no longer holds of it, or ``vacuum``."""

    action: str
    table: Table
    day: str = ""
    files: tuple[File, ...] = ()

    def __str__(self) -> str:
        """For people."""
        if self.action == "vacuum":
            return f"{self.table.name}: delete files that no version within the limit names"
        rows, size = sum(file.rows for file in self.files), sum(file.size_bytes for file in self.files)
        return f"{self.table.name}: {self.action} {self.day}: {len(self.files)} files, {rows} rows, {size} bytes"


class Compaction:
    """One run of upkeep over all tables."""

    def __init__(self, store: Store, settings: History, tell: Tell) -> None:
        """Opens the tables that there are."""
        self._store = store
        self._settings = settings
        self._tell = tell
        self._kept = {table.name: Kept(store.open(table)) for table in TABLES if store.exists(table)}
        self._now = time.time()

    def plan(self) -> list[Step]:
        """What there is to do now, in order."""
        steps: list[Step] = []
        for name, kept in self._kept.items():
            table = kept.opened.table
            expired = self._expired(name, kept.opened)
            gone = {step.day for step in expired}
            days = [(day, files) for day, files in _by_day(self._settled(kept.opened)) if day not in gone]
            steps += expired
            steps += [Step("compact", table, day, chosen) for day, files in days for chosen in self._worth(day, files)]
            if (kept.opened.number(VACUUMED) or 0) + VACUUM_HOURS <= self._now // HOUR_SECONDS:
                steps.append(Step("vacuum", table))
        return steps

    def run(self, steps: list[Step]) -> None:
        """Does it, step by step."""
        for done, step in enumerate(steps):
            self._tell("steps", done, len(steps))
            kept = self._kept[step.table.name]
            match step.action:
                case "expire":
                    kept.commit([], step.files)
                case "forget":
                    forget(kept, step, self._described())
                case "compact":
                    compact_day(kept, step)
                case "vacuum":
                    self._vacuum(kept)
        self._tell("steps", len(steps), len(steps))

    def _oldest(self, name: str) -> str:
        """The oldest day that a table keeps."""
        settings = self._settings
        days = {SAMPLES.name: settings.raw_days, HOURLY.name: settings.hourly_days, EVENT_ROWS.name: settings.events_days}
        days |= {COUNTERS.name: settings.raw_days + 1}
        return _day(self._now - days.get(name, settings.daily_days) * DAY_SECONDS)

    def _expired(self, name: str, opened: Opened) -> list[Step]:
        """What is too old of a table."""
        days = [(day, files) for day, files in _by_day(opened.files()) if day < self._oldest(name)]
        if name == COUNTERS.name:
            # The newest of them that has all VMs known by its end is what the days after go on from.
            whole = max((day for day, files in days if any(map(is_compact, files))), default="")
            days = [(day, files) for day, files in days if day < whole]
        if name != INVENTORY_ROWS.name:
            return [Step("expire", opened.table, day, files) for day, files in days]
        described = self._described() if days else {}
        return [Step("forget", opened.table, day, files) for day, files in days if dispensable(opened, files, described).num_rows]

    def _described(self) -> dict[str, Any]:
        """Of VMs that some day of ``daily`` is kept of: when the row of the inventory that holds at the oldest day was written."""
        if DAILY.name not in self._kept:
            return {}
        oldest = pa.scalar(self._oldest(INVENTORY_ROWS.name)).cast(pa.date32())
        vms = self._kept[DAILY.name].opened.dataset().to_table(columns=["uuid"], filter=pc.field("kind") == "vm").column("uuid").unique()
        told = self._kept[INVENTORY_ROWS.name].opened.dataset()
        rows = told.to_table(columns=["uuid", "time"], filter=(pc.field("day") < oldest) & pc.field("uuid").isin(vms))
        last = rows.group_by("uuid").aggregate([("time", "max")])
        return dict(zip(last.column("uuid").to_pylist(), last.column("time_max").to_pylist(), strict=True))

    def _settled(self, opened: Opened) -> list[File]:
        """Files that may be compacted: of samples those that are rolled up, since the others still have to be found by their names."""
        files = opened.files()
        if opened.table is COUNTERS:
            # Each hour is one file already, and is found by it.
            return []
        if opened.table is not SAMPLES:
            return files
        hourly = self._kept.get(HOURLY.name)
        mark = hourly.opened.number(ROLLED) if hourly else None
        if mark is None:
            return []
        try:
            rolled = {file.path for file in at_version(self._store, opened, mark - 1)}
        except StorageError:
            return []
        return [file for file in files if file.path in rolled]

    def _worth(self, day: str, files: tuple[File, ...]) -> Iterator[tuple[File, ...]]:
        """Which files of a day are worth merging with one another."""
        loose = [file for file in files if not is_compact(file)]
        if day < _day(self._now - SETTLE_SECONDS):
            late = sum(file.rows for file in loose)
            often = late > LATE_SHARE * sum(file.rows for file in files) or len(loose) > LATE_FILES
            if loose and often:
                yield files
            return
        by_hour: dict[int, list[File]] = {}
        for file in loose:
            by_hour.setdefault(int(file.first // HOUR_SECONDS), []).append(file)
        for hour, of_hour in sorted(by_hour.items()):
            if len(of_hour) >= HOUR_FILES and (hour + 1) * HOUR_SECONDS < self._now:
                yield tuple(of_hour)

    def _vacuum(self, kept: Kept) -> None:
        kept.opened.vacuum(self._settings.vacuum_hours)
        kept.commit([], [], {VACUUMED: int(self._now // HOUR_SECONDS)})


def compact_day(kept: Kept, step: Step) -> None:
    """Writes the files' rows anew, sorted, and puts them in the files' place.

    Each kind has files of its own, with its own columns: a reader of one VM's disks opens nothing else, and finds in the log which files
    can have them.
    """
    rows = sum(file.rows for file in step.files)
    ranges, added = uuid_ranges(rows), []
    per_file = max(1, len(ranges) * FILE_ROWS // max(1, rows))
    for names, read in _kinds(kept.opened, step):
        for start in range(0, len(ranges), per_file):
            parts = chain.from_iterable(read(*edges) for edges in ranges[start : start + per_file])
            if (first := next(parts, None)) is not None:
                added.append(kept.opened.write_file(step.day, chain([first], parts), compact=True, names=names))
    kept.commit(added, step.files, changes=False)


def _kinds(opened: Opened, step: Step) -> Iterator[tuple[list[str], Callable[[str, str], Iterator[pa.Table]]]]:
    """Of each kind of rows the columns, and what reads those of a range of UUIDs in order; where a table has no kinds, of all rows."""
    if not _by_kind(step.table):
        yield step.table.schema.names, lambda low, high: _tidy(opened.only(step.files).to_table(filter=with_uuid(low, high)), step.table)
        return
    portions = Portions(opened, step.files)
    for kind in KINDS.values():
        names = [name for name in kind_columns(step.table, kind) if name in portions.columns or name not in KIND_OF]
        yield names, partial(_distinct_rows, portions, kind, names)


def _distinct_rows(portions: Portions, kind: str, names: list[str], low: str, high: str) -> Iterator[pa.Table]:
    """Rows of a kind in the order of VM, device and time, repeats left out."""
    rows = portions.read(Portion(kind, low, high), names)
    series, moment = series_of(rows), rows.column("time").cast(pa.int64()).to_numpy()
    order = order_of(series, moment)
    yield from in_order(rows, order[distinct(rows, order, series[order], moment[order])])


def dispensable(opened: Opened, files: tuple[File, ...], described: dict[str, Any]) -> pa.Table:
    """The rows of the inventory in files that are too old, without those that still hold."""
    rows = opened.only(list(files)).to_table()
    return rows.filter(pa.array([described.get(uuid) != time for uuid, time in _keys(rows)], pa.bool_()))


def forget(kept: Kept, step: Step, described: dict[str, Any]) -> None:
    """Leaves of a day of the inventory that is too old only the rows that still hold."""
    rows = kept.opened.only(list(step.files)).to_table()
    held = rows.filter(pa.array([described.get(uuid) == time for uuid, time in _keys(rows)], pa.bool_()))
    added = [kept.opened.write_file(step.day, _tidy(held, step.table), compact=True)] if held.num_rows else []
    kept.commit(added, step.files)


def _keys(rows: pa.Table) -> Iterator[tuple[str, Any]]:
    return zip(rows.column("uuid").to_pylist(), rows.column("time").to_pylist(), strict=True)


def _tidy(rows: pa.Table, table: Table) -> Iterator[pa.Table]:
    """Rows in the table's order, where there are any."""
    if rows.num_rows:
        yield rows.sort_by([(name, "ascending") for name in table.order])


def _by_kind(table: Table) -> bool:
    return any(names.issubset(table.schema.names) for names in BY_KIND)


def _by_day(files: list[File]) -> list[tuple[str, tuple[File, ...]]]:
    days: dict[str, list[File]] = {}
    for file in files:
        days.setdefault(file.day, []).append(file)
    return [(day, tuple(days[day])) for day in sorted(days)]


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
