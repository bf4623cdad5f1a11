"""The table ``counters``: a file of each hour, and of each day one that has all VMs known by its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.maintenance.authority import NEVER, codes_of, micros
from virtflow.history.maintenance.kept import Kept, buckets, day_of, is_compact
from virtflow.history.maintenance.rollup import HOUR_SECONDS
from virtflow.history.storage.delta import File, Opened, Store
from virtflow.history.storage.table_schemas import COUNTERS

ROLLING: Final = "virtflow/rolling"
"""Name of the mark in the log of ``counters``: what ``ROLLED`` will be when the run that made the commit is through."""


class CountersTable:
    """Where the counters stood after each hour.

    Files of an hour have the VMs reported in it. Where a VM was not reported in the hour before, it is looked for in the hours of the same day,
    then in the newest whole day before: the cost is bounded, however long the VM was away.
    """

    def __init__(self, store: Store) -> None:
        """Makes the table where it is missing."""
        self._kept = Kept(store.make(COUNTERS))
        self._closed: set[str] = set()

    @property
    def opened(self) -> Opened:
        """The table as it is now."""
        return self._kept.opened

    @property
    def rolling(self) -> int | None:
        """What the last run that changed the table set out to do."""
        return self.opened.number(ROLLING)

    def hours(self) -> dict[int, list[File]]:
        """The files of each hour since 1970."""
        found: dict[int, list[File]] = {}
        for file in self.opened.files():
            if not is_compact(file):
                found.setdefault(int(file.first // HOUR_SECONDS) - 1, []).append(file)
        return found

    def before(self, hour: int, uuids: pa.Array) -> pa.Table | None:
        """The newest rows before an hour of these VMs, of all kinds; None where there are none."""
        hours = self.hours()
        found = self._rows(hours.get(hour - 1, []), uuids)
        missing = uuids.filter(pc.invert(pc.is_in(uuids, found.column("uuid").combine_chunks())))
        if len(missing):
            start = hour // 24 * 24
            of_day = [file for at in range(start, hour - 1) for file in hours.get(at, [])]
            far = self._newest_of(of_day + self._whole_day_before(day_of(hour)), pc.field("uuid").isin(missing))
            found = pa.concat_tables([found, *far])
        return found if found.num_rows else None

    def replace(self, hour: int, parts: Sequence[pa.Table], rolling: int, *, compare: bool) -> set[str]:
        """Puts an hour's rows in the place of the ones before; says of which VMs they are others than before, where asked to."""
        old = self.hours().get(hour, [])
        end = pa.scalar((hour + 1) * HOUR_SECONDS * 1_000_000).cast(COUNTERS.schema.field("time").type)
        rows = pa.concat_tables([part for part in parts if part.num_rows] or [COUNTERS.schema.empty_table()])
        day = pa.scalar(hour // 24, pa.int32()).cast(pa.date32())
        for name, value in (("day", day), ("time", end)):
            rows = rows.set_column(rows.schema.get_field_index(name), name, pa.repeat(value, rows.num_rows))
        rows = rows.sort_by([(name, "ascending") for name in COUNTERS.order])
        changed = _different(self.opened.only(old).to_table() if old else rows.slice(0, 0), rows) if compare else set()
        self._closed.discard(day_of(hour))
        added = [self.opened.write_file(day_of(hour), [rows])] if rows.num_rows else []
        self._kept.commit(added, old, {ROLLING: rolling})
        return changed

    def followers(self, hour: int, uuids: set[str]) -> set[int]:
        """The next hour of each of these VMs after ``hour``."""
        left, found = pa.array(sorted(uuids), pa.string()), set()
        for later, files in sorted(self.hours().items()):
            if later <= hour:
                continue
            if not len(left):
                break
            here = self.opened.only(files).to_table(columns=["uuid"], filter=pc.field("uuid").isin(left)).column("uuid").unique()
            if len(here):
                found.add(later)
                left = left.filter(pc.invert(pc.is_in(left, here)))
        return found

    def close_days(self, touched: set[str], until: str) -> None:
        """Makes the files of whole days before the day ``until``: of those that are touched or have none, and of those that follow from them."""
        stale = False
        for day in sorted({file.day for file in self.opened.files() if file.day < until}):
            old = [file for file in self.opened.files() if file.day == day and is_compact(file)]
            if (day in touched and day not in self._closed) or not old or stale:
                stale = self._close(day, old)
                self._closed.add(day)

    def _close(self, day: str, old: list[File]) -> bool:
        """Makes a day's file; says whether it is another one than before."""
        hours = [files for hour, files in sorted(self.hours().items()) if day_of(hour) == day]
        sources = [*self._whole_day_before(day), *(file for files in hours for file in files)]
        conditions = buckets(sum(file.rows for file in sources))
        parts = [part for condition in conditions for part in self._newest_of(sources, condition)]
        rows = sum(part.num_rows for part in parts)
        before = pa.concat_tables([self.opened.only(old).to_table()]) if old else None
        if before is not None and before.num_rows == rows and not _different(before, pa.concat_tables(parts)):
            return False
        if rows:
            ordered = pa.concat_tables(parts).sort_by([(name, "ascending") for name in COUNTERS.order])
            self._kept.commit([self.opened.write_file(day, [ordered], compact=True)], old)
        return True

    def _newest_of(self, sources: list[File], wanted: Any) -> Iterator[pa.Table]:  # noqa: ANN401, an Arrow expression
        """The newest rows of each of the VMs in files: which those are is known before any is read."""
        if not sources:
            return
        keys = newest(self.opened.only(sources).to_table(columns=["uuid", "time"], filter=wanted))
        for moment in keys.column("time").unique():
            uuids = keys.filter(pc.equal(keys.column("time"), moment)).column("uuid").unique()
            files = [file for file in sources if file.first <= moment.as_py().timestamp() <= file.last]
            yield self.opened.only(files).to_table(filter=pc.field("uuid").isin(uuids) & (pc.field("time") == moment))

    def _whole_day_before(self, day: str) -> list[File]:
        """The file of the newest whole day before a day."""
        files = [file for file in self.opened.files() if is_compact(file) and file.day < day]
        newest_day = max((file.day for file in files), default="")
        return [file for file in files if file.day == newest_day]

    def _rows(self, files: list[File], uuids: pa.Array) -> pa.Table:
        return self.opened.only(files).to_table(filter=pc.field("uuid").isin(uuids)) if files else COUNTERS.schema.empty_table()


def newest(rows: pa.Table) -> pa.Table:
    """Those rows of each VM that are of its last hour."""
    if not rows.num_rows:
        return rows
    vm, _ = codes_of(rows.column("uuid"))
    time = micros(rows.column("time"))
    last = np.full(int(vm.max()) + 1, NEVER)
    np.maximum.at(last, vm, time)
    return rows.filter(pa.array(time == last[vm]))


def _different(one: pa.Table, other: pa.Table) -> set[str]:
    """The VMs of which two tables have other rows."""
    names = [name for name in COUNTERS.schema.names if name not in {"day", "time"}]
    both = pa.concat_tables([one.select(names), other.select(names)])
    counted = both.group_by(names).aggregate([([], "count_all")])
    alone = counted.filter(pc.not_equal(counted.column("count_all"), 2))
    return set(alone.column("uuid").unique().to_pylist())
