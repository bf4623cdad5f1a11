"""Samples in order, cut into groups, and what follows from one to the next: growth and the time that each stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.maintenance.authority import MICROSECONDS, NEVER, codes_of, micros

JITTER: Final = 1.5
"""A sample stands until the next one while that comes within so many of its intervals."""

Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Values:
    """A column's numbers and where it has any."""

    numbers: Numbers
    there: Numbers

    @classmethod
    def of(cls, column: pa.ChunkedArray, order: Numbers) -> Values:
        """The column's values in ``order``."""
        there = np.asarray(column.is_valid().to_numpy())[order]
        filled = pc.fill_null(column, pa.scalar(0, column.type)) if column.null_count else column
        return cls(filled.to_numpy()[order], there)


class Groups:
    """Rows in their order, cut into groups: each VM or device in each period."""

    def __init__(self, starts: Numbers, count: int) -> None:
        """``starts`` are the first rows of the groups."""
        self.starts = starts
        self.ends = np.append(starts[1:], count) - 1

    @property
    def of_rows(self) -> Numbers:
        """The group of each row."""
        return np.repeat(np.arange(len(self.starts)), self.ends - self.starts + 1)

    def sum(self, numbers: Numbers) -> Numbers:
        """The sum over each group."""
        return np.asarray(np.add.reduceat(numbers, self.starts))

    def least(self, values: Values) -> Numbers:
        """The smallest value of each group; its largest possible where it has none."""
        return np.asarray(np.minimum.reduceat(np.where(values.there, values.numbers, _limit(values.numbers, 1)), self.starts))

    def most(self, values: Values) -> Numbers:
        """The largest value of each group; its smallest possible where it has none."""
        return np.asarray(np.maximum.reduceat(np.where(values.there, values.numbers, _limit(values.numbers, -1)), self.starts))

    def last(self, values: Values) -> tuple[Numbers, Numbers]:
        """The row of the last value of each group, and where there is one."""
        rows = np.maximum.accumulate(np.where(values.there, np.arange(len(values.there)), -1))[self.ends]
        found = rows >= self.starts
        return np.where(found, rows, self.ends), found

    def different(self, codes: Numbers) -> Numbers:
        """How many different codes each group has."""
        pairs = np.unique(self.of_rows * (int(codes.max(initial=0)) + 1) + codes)
        return np.bincount(pairs // (int(codes.max(initial=0)) + 1), minlength=len(self.starts))


class Rows:
    """Rows of one kind in the order of VM, device, time and node; rows of ``counters`` in front of them are where the counters stood."""

    def __init__(self, samples: pa.Table, before: pa.Table | None = None, starts: pa.Table | None = None) -> None:
        """``samples`` as in the table; ``before`` as ``counters`` has them; ``starts`` are new processes, of ``before`` too."""
        samples = numbers_only(samples)
        self.table = samples if before is None else pa.concat_tables([_as_samples(before), samples], promote_options="default")
        own = np.ones(self.table.num_rows, bool)
        own[: self.table.num_rows - samples.num_rows] = False
        series, (node, _) = series_of(self.table), codes_of(self.table.column("node"))
        time = micros(self.table.column("time"))
        order = np.lexsort((node, time, series))
        order = order[distinct(self.table, order, series[order], time[order])]
        self.order, self.series, self.node, self.time, self.own = order, series[order], node[order], time[order], own[order]
        self.interval = pc.fill_null(self.table.column("interval_seconds"), 0.0).to_numpy()[order]
        same = self.series[1:] == self.series[:-1]
        self.several = bool(np.any(same & (self.node[1:] != self.node[:-1])))
        """Whether any VM or device has rows of several nodes."""
        self.by_node = np.lexsort((self.time, self.node, self.series)) if self.several else np.arange(len(order))
        """The rows in the order of VM, device, node and time."""
        self.start, self.past_known = self._starts(starts)

    def values(self, name: str) -> Values:
        """A column in this order."""
        return Values.of(self.table.column(name), self.order)

    def times(self, name: str) -> Numbers:
        """When each row's value of a counter was read, in microseconds."""
        stamp = f"{name}_time"
        if stamp not in self.table.schema.names or self.table.column(stamp).null_count == self.table.num_rows:
            return self.time
        known = micros(self.table.column(stamp))[self.order]
        return np.where(known == NEVER, self.time, known)

    def groups(self, period_seconds: float) -> tuple[Groups, Numbers]:
        """The groups by series and period, and which of them are not of what stood before."""
        period = np.where(self.own, self.time // int(period_seconds * MICROSECONDS), -1)
        cut = np.ones(len(period), bool)
        cut[1:] = (self.series[1:] != self.series[:-1]) | (period[1:] != period[:-1])
        starts = np.flatnonzero(cut)
        return Groups(starts, len(period)), period[starts] >= 0

    def _starts(self, starts: pa.Table | None) -> tuple[Numbers, Numbers]:
        """When the process that each row's counters belong to began, ``NEVER`` where it is the first one known; and whether these began at 0 then."""
        found, past_known = np.full(len(self.order), NEVER), np.ones(len(self.order), bool)
        if starts is None or not starts.num_rows:
            return found, past_known
        both = pa.concat_tables([self.table.select(["uuid", "node"]).take(pa.array(self.order)), starts.select(["uuid", "node"])])
        (vm, _), (node, names) = codes_of(both.column("uuid")), codes_of(both.column("node"))
        keys = vm * len(names) + node
        rows = np.flatnonzero(np.isin(keys[: len(found)], keys[len(found) :]))
        key = np.append(keys[len(found) :], keys[rows])
        time = np.append(starts.column("time").to_numpy(), self.time[rows])
        count = starts.num_rows
        is_row = np.append(np.zeros(count, bool), np.ones(len(rows), bool))
        order = np.lexsort((is_row, time, key))
        at = np.maximum.accumulate(np.where(is_row[order], -1, np.arange(len(order))))
        began = order[np.maximum(at, 0)]
        known = (at >= 0) & (key[began] == key[order]) & is_row[order]
        found[rows[order[known] - count]] = time[began[known]]
        past_known[rows[order[known] - count]] = starts.column("known").to_numpy()[began[known]]
        return found, past_known


class Growth(NamedTuple):
    """By how much a counter grew up to each row, and since when (microseconds; the row's own time where it did not)."""

    grown: Numbers
    since: Numbers


def growth(rows: Rows, values: Values, times: Numbers, *, of_guest: bool) -> Growth:
    """By how much a counter grew up to each row: since the row before it on the same node, unless a new process began in between.

    A counter that fell began again: all it shows is growth. So is the first value of a new process, where the counter was known before
    anywhere; the guest's own counter moved there with the VM and grew since it was last read, on whichever node. The first value of a
    process with an unknown past is none.
    """
    grown, since = np.zeros_like(values.numbers), times.copy()
    places = rows.by_node[values.there[rows.by_node]]
    if not len(places):
        return Growth(grown, since)
    numbers, time, start = values.numbers[places], times[places], rows.start[places]
    same = (rows.series[places[1:]] == rows.series[places[:-1]]) & (rows.node[places[1:]] == rows.node[places[:-1]])
    goes_on = np.append(False, same & (time[:-1] >= start[1:]))
    grown[places[1:]] = np.where(goes_on[1:], _risen(numbers[1:], numbers[:-1]), 0)
    since[places[1:]] = np.where(goes_on[1:], time[:-1], time[1:])
    fresh = places[~goes_on & (start != NEVER) & rows.past_known[places] & rows.own[places]]
    if len(fresh):
        _begin(Growth(grown, since), rows, (values, times), fresh, of_guest=of_guest)
    return Growth(grown, since)


def _begin(found: Growth, rows: Rows, measured: tuple[Values, Numbers], fresh: Numbers, *, of_guest: bool) -> None:
    """Puts in the growth of the first values of new processes; ``measured`` are the values and their times."""
    values, times = measured
    places = np.flatnonzero(values.there & np.isin(rows.series, rows.series[fresh]))
    places = places[np.lexsort((rows.node[places], times[places], rows.series[places]))]
    is_fresh = np.isin(places[1:], fresh) & (rows.series[places[1:]] == rows.series[places[:-1]])
    first, last = places[1:][is_fresh], places[:-1][is_fresh]
    numbers = values.numbers
    found.grown[first] = _risen(numbers[first], numbers[last]) if of_guest else numbers[first]
    found.since[first] = times[last]


def _risen(now: Numbers, before: Numbers) -> Numbers:
    return np.where(now >= before, now - before, now)


def stands_for(rows: Rows, groups: Groups, period_seconds: float) -> Numbers:
    """For how many seconds each row stands: until the next of its group where that comes in time, else for its interval.

    No more than the period in all.
    """
    seconds = rows.interval.copy()
    until = (rows.time[1:] - rows.time[:-1]) / MICROSECONDS
    follows = np.ones(len(rows.time), bool)
    follows[groups.starts] = False
    in_time = follows[1:] & (until <= JITTER * rows.interval[:-1])
    seconds[:-1][in_time] = until[in_time]
    whole = groups.sum(seconds)
    over = whole > period_seconds
    if over.any():
        seconds *= np.where(over, period_seconds / np.where(over, whole, 1.0), 1.0)[groups.of_rows]
    return np.asarray(seconds)


def series_of(table: pa.Table) -> Numbers:
    """A number for each VM and device; equal for equal ones."""
    device, _ = codes_of(table.column("device"))
    return np.asarray(codes_of(table.column("uuid"))[0] * (int(device.max(initial=0)) + 1) + device)


def order_of(series: Numbers, time: Numbers) -> Numbers:
    """The order of series and time, whole numbers both; equal rows stay as they are."""
    if not len(time):
        return np.zeros(0, np.int64)
    first, span = int(time.min()), int(time.max()) - int(time.min()) + 1
    if (int(series.max()) + 1) * span > np.iinfo(np.int64).max:
        return np.lexsort((time, series))
    # Of one key the runs that are sorted already are found and merged, a third of the time of two sorts.
    return np.argsort(series * span + (time - first), kind="stable")


def distinct(table: pa.Table, order: Numbers, series: Numbers, time: Numbers) -> Numbers:
    """Which rows in ``order`` are not the one before once more: the same moment, node, producer run and sequence."""
    again = np.zeros(len(order), bool)
    again[1:] = (series[1:] == series[:-1]) & (time[1:] == time[:-1])
    if again.any() and "sequence" in table.schema.names:
        for name in ("node", "boot_id", "sequence"):
            column = table.column(name)
            values = Values.of(column, order).numbers if name == "sequence" else codes_of(column)[0][order]
            again[1:] &= values[1:] == values[:-1]
        return ~again
    return np.ones(len(order), bool)


def numbers_only(table: pa.Table) -> pa.Table:
    """The table with its decimals as doubles: exact to the microsecond up to nine milliard seconds."""
    fields = [field.with_type(pa.float64()) if pa.types.is_decimal(field.type) else field for field in table.schema]
    return table.cast(pa.schema(fields))


def _as_samples(before: pa.Table) -> pa.Table:
    """Rows of ``counters`` as the samples that were the last to count, or at least to come."""
    last = before.column("last_time")
    moment = pc.coalesce(last, before.column("claim_time")) if "claim_time" in before.schema.names else last
    return before.set_column(before.schema.get_field_index("time"), "time", moment)


def _limit(numbers: Numbers, sign: int) -> Any:  # noqa: ANN401, a number of the column's own type
    """What is larger (sign 1) or smaller (sign -1) than any value."""
    if numbers.dtype.kind == "f":
        return sign * np.inf
    limits = np.iinfo(numbers.dtype)
    return limits.max if sign > 0 else limits.min
