"""Rolls up what has come since the last time: the hours that new files touch, what follows from them, and the days of those hours.

``hourly`` remembers in its log up to which version of ``samples`` it is rolled up. Every step replaces whole hours in one commit, and
the mark moves in the last one, so that a run that was cut off anywhere is done again from its beginning with the same result. Samples
that come hours late are files like any other: their hour is rolled up again, and so is each VM's next one as long as ``counters`` has
other rows of it than before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.maintenance.authority import MICROSECONDS, OWNERSHIP, Judgement, holds_for, judge, micros, without
from virtflow.history.maintenance.counters import counters_after, processes_of
from virtflow.history.maintenance.counters_table import CountersTable
from virtflow.history.maintenance.kept import Kept, Tell, at_version, between, buckets, day_of, is_compact, overlaps
from virtflow.history.maintenance.rollup import DAY_SECONDS, HOUR_SECONDS, columns_of_hours, days_of, hours_from, sequence_of_columns
from virtflow.history.maintenance.rows import Numbers, Rows
from virtflow.history.storage.delta import File, Store
from virtflow.history.storage.errors import StorageError
from virtflow.history.storage.table_schemas import COUNTERS, DAILY, HOURLY, KINDS, SAMPLES, TIME
from virtflow.runtime.settings import History

ROLLED: Final = "virtflow/rolled-up"
"""Name of the mark in the log of ``hourly``: the version of ``samples`` it is rolled up to, and one."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be rolled up: hours since 1970, and the version of ``samples`` that is then done."""

    hours: tuple[int, ...]
    version: int


@dataclass(frozen=True, slots=True)
class _Rolled:
    """What is made of an hour: rows of ``hourly``, rows of ``counters``, and the VMs that were reported in it."""

    hours: list[pa.Table]
    counters: list[pa.Table]
    uuids: set[str]


class Rolling:
    """One run of rolling up."""

    def __init__(self, store: Store, settings: History, tell: Tell) -> None:
        """Opens the tables; hours of days older than ``raw_days`` are left as they are, their samples may be gone."""
        # The samples come last: who takes rows out of them, and then fences the tables that are made of them, fences this run as well.
        self._counters = CountersTable(store)
        self._hourly_kept = Kept(store.make(HOURLY))
        self._daily_kept = Kept(store.make(DAILY))
        self._samples = store.open(SAMPLES)
        self._files = self._samples.files()
        self._hourly = self._hourly_kept.opened
        self._store = store
        self._tell = tell
        self._mark = self._hourly.number(ROLLED)
        self._oldest_hour = int(time.time() // DAY_SECONDS - settings.raw_days) * 24
        self._forget_seconds = settings.hourly_days * DAY_SECONDS

    def due(self) -> Due:
        """What has to be done; what follows from it shows only then."""
        version = self._samples.version
        hours: dict[int, float] = {}
        for file in self._new_files():
            for hour in range(int(file.first // HOUR_SECONDS), int(file.last // HOUR_SECONDS) + 1):
                hours[hour] = min(hours.get(hour, file.first), file.first)
        unsettled = {hour - 1 for hour, first in hours.items() if hour - 1 not in hours and self._settles(hour, first)}
        return Due(tuple(sorted(hour for hour in {*hours, *unsettled} if hour >= self._oldest_hour)), version)

    def run(self, due: Due) -> None:
        """Does it: hour by hour, then the days."""
        interrupted = (self._counters.rolling or 0) > (self._mark or 0)
        left, done = set(due.hours), set[int]()
        while left:
            hour = min(left)
            self._tell("hours", len(done), len(done) + len(left))
            self._counters.close_days({day_of(at) for at in done}, day_of(hour))
            left |= self._roll(hour, left, due.version + 1, interrupted=interrupted)
            left.discard(hour)
            done.add(hour)
        touched = {day_of(hour) for hour in done}
        self._counters.close_days(touched, max(touched, default=""))
        days = sorted({hour // 24 for hour in done})
        for number, day in enumerate(days):
            self._tell("days", number, len(days))
            self._roll_day(day)
        self._tell("days", len(days), len(days))
        if self._hourly.number(ROLLED) != due.version + 1:
            self._hourly_kept.commit([], [], {ROLLED: due.version + 1})

    def _roll(self, hour: int, left: set[int], mark: int, *, interrupted: bool) -> set[int]:
        """Rolls an hour up; gives the hours that follow from it.

        Where an earlier run was cut off it can't be told any more what changed: then all VMs' next hours follow.
        """
        later = [at for at in self._counters.hours() if at > hour and at not in left]
        made = self._rolled(hour)
        changed = self._counters.replace(hour, made.counters, mark, compare=bool(later))
        self._hourly_kept.replace(hour, hour, made.hours)
        if not later:
            return set()
        follow = self._counters.followers(hour, changed | made.uuids if interrupted else changed)
        return {at for at in follow if at >= self._oldest_hour}

    def _rolled(self, hour: int) -> _Rolled:
        """An hour's rows, a portion of the VMs after the other."""
        made, within = _Rolled([], [], set()), range(hour, hour + 1)
        files = [file for file in self._files if overlaps(file, hour, hour)]
        for bucket in buckets(sum(file.rows for file in files)):
            vms = self._read(within, (pc.field("kind") == "vm") & bucket, sequence_of_columns("vm"))
            if not vms.num_rows:
                continue
            made.uuids.update(vms.column("uuid").unique().to_pylist())
            before = _by_kind(self._counters.before(hour, vms.column("uuid").unique()))
            judged = self._judged(hour, vms, before["vm"])
            processes = processes_of(before["vm"], judged.starts)
            muted = vms.take(pa.array(judged.muted))
            for kind in KINDS.values():
                of_vms = kind == "vm"
                wanted = (pc.field("kind") == kind) & bucket
                samples = vms if of_vms else without(self._read(within, wanted, sequence_of_columns(kind)), muted)
                self._add(made, kind, (hour, samples, before[kind], processes), judged.muted if of_vms else judged.muted[:0])
        return made

    def _add(self, made: _Rolled, kind: str, found: tuple[int, pa.Table, pa.Table | None, pa.Table], muted: Numbers) -> None:
        """Rolls up the samples of one kind; those at the places ``muted`` do not count. What stood before goes on, sampled or not."""
        hour, samples, before, processes = found
        if not samples.num_rows and before is None:
            return
        rows = Rows(samples, before, processes)
        mutes = np.zeros(rows.table.num_rows, bool)
        mutes[rows.table.num_rows - samples.num_rows + muted] = True
        oldest = hour * HOUR_SECONDS - self._forget_seconds
        made.counters.append(counters_after(kind, rows, mutes[rows.order], oldest))
        if len(muted) and samples.num_rows:
            samples = samples.filter(pa.array(~np.isin(np.arange(samples.num_rows), muted)))
            rows = Rows(samples, before, processes)
        if samples.num_rows:
            made.hours.append(hours_from(kind, rows))

    def _judged(self, hour: int, samples: pa.Table, before: pa.Table | None) -> Judgement:
        """Which samples count; where that depends on it, by what came after the hour too."""
        before = COUNTERS.schema.empty_table() if before is None else before
        judged = judge(samples, before)
        if not judged.unsettled:
            return judged
        wanted = (pc.field("kind") == "vm") & pc.field("uuid").isin(list(judged.unsettled))
        return judge(samples, before, self._read(range(hour + 1, hour + 2), wanted, OWNERSHIP))

    def _settles(self, hour: int, first: float) -> bool:
        """Whether samples from ``first`` on, in ``hour``, may show that a process that is new in the hour before is none."""
        files = self._counters.hours().get(hour - 1, [])
        if not files:
            return False
        new = (pc.field("kind") == "vm") & (pc.field("since") >= pa.scalar((hour - 1) * HOUR_SECONDS * MICROSECONDS).cast(TIME))
        rows = self._counters.opened.only(files).to_table(columns=["since", "uuid"], filter=new)
        if not rows.num_rows:
            return False
        of_vms = self._counters.opened.only(files).to_table(
            columns=["interval_seconds"], filter=(pc.field("kind") == "vm") & pc.field("uuid").isin(rows.column("uuid").unique())
        )
        longest = holds_for(of_vms.column("interval_seconds").drop_null().to_numpy()).max(initial=0)
        return bool(micros(rows.column("since")).max() + 2 * longest > first * MICROSECONDS)

    def _new_files(self) -> list[File]:
        """Files with new rows since the mark; all of them where the log no longer reaches back to it."""
        files = [file for file in self._files if not is_compact(file)]
        if self._mark is None:
            return self._files
        try:
            before = {file.path for file in at_version(self._store, self._samples, self._mark - 1)}
        except StorageError:
            return files
        return [file for file in files if file.path not in before]

    def _read(self, hours: range, wanted: Any, columns: Sequence[str]) -> pa.Table:  # noqa: ANN401, an Arrow expression
        """Samples of hours."""
        files = [file for file in self._files if overlaps(file, hours.start, hours.stop - 1)]
        within = between("time", hours.start * HOUR_SECONDS, hours.stop * HOUR_SECONDS)
        return self._samples.only(files).to_table(columns=list(columns), filter=within & wanted)

    def _roll_day(self, day: int) -> None:
        within = between("time", day * DAY_SECONDS, (day + 1) * DAY_SECONDS)
        files = [file for file in self._hourly.files() if overlaps(file, day * 24, day * 24 + 23)]
        parts = []
        for kind in KINDS.values():
            for bucket in buckets(sum(file.rows for file in files)):
                hours = self._hourly.only(files).to_table(list(columns_of_hours(kind)), filter=within & (pc.field("kind") == kind) & bucket)
                parts.append(days_of(kind, hours))
        self._daily_kept.replace(day * 24, day * 24 + 23, [part for part in parts if part.num_rows])


def _by_kind(rows: pa.Table | None) -> dict[str, pa.Table | None]:
    """Rows of ``counters`` by their kind, None where there are none."""
    if rows is None:
        return dict.fromkeys(KINDS.values())
    parts = {kind: rows.filter(pc.equal(rows.column("kind"), kind)) for kind in KINDS.values()}
    return {kind: part if part.num_rows else None for kind, part in parts.items()}
