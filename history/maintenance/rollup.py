"""From samples to hours, from hours to days: pure, a column at a time. What the numbers mean is on the page docs/history.md.

What a VM used is the sum of what its counters grew by, sample to sample, in the hour of the later sample. Averages and states
weigh by the time that each sample stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from virtflow.history.maintenance.authority import MICROSECONDS, holds_for
from virtflow.history.maintenance.rows import Groups, Numbers, Rows, Values, growth, stands_for
from virtflow.history.storage.table_schemas import HOURLY, TIME, Column, columns_of
from virtflow.schemas.catalogue.types import Rollup

HOUR_SECONDS: Final = 3_600
DAY_SECONDS: Final = 86_400


def hours_of(kind: str, samples: pa.Table, before: pa.Table | None = None, starts: pa.Table | None = None) -> pa.Table:
    """The hourly rows of samples of one kind that count; ``before`` and ``starts`` as ``Rows`` takes them."""
    if not samples.num_rows:
        return HOURLY.schema.empty_table()
    return hours_from(kind, Rows(samples, before, starts))


def hours_from(kind: str, rows: Rows) -> pa.Table:
    """The hourly rows of rows of one kind."""
    cut = _Cut(rows, HOUR_SECONDS)
    columns = _keys(rows, cut, HOUR_SECONDS) | {
        "kind": pa.repeat(pa.scalar(kind), int(cut.mine.sum())),
        "nodes": pa.array(_nodes(rows, cut.groups)[cut.mine]),
        "samples": pa.array((cut.groups.ends - cut.groups.starts + 1)[cut.mine]),
        "monitor_samples": pa.array(cut.sum(cut.monitored.astype(np.int64))),
        **_covered("", cut.sum(cut.seconds), HOUR_SECONDS),
        **_covered("monitor_", cut.sum(np.where(cut.monitored, cut.seconds, 0.0)), HOUR_SECONDS),
    }
    for column in columns_of(kind):
        columns |= _rolled(column, rows, cut)
    return _complete(columns)


class _Cut:
    """Rows cut into periods, with the seconds that each row stands for."""

    def __init__(self, rows: Rows, period_seconds: float) -> None:
        self.period_seconds = period_seconds
        self.groups, self.mine = rows.groups(period_seconds)
        self.seconds = stands_for(rows, self.groups, period_seconds)
        monitor = "monitor_time"
        there = rows.table.column(monitor).is_valid().to_numpy() if monitor in rows.table.schema.names else np.zeros(len(rows.own), bool)
        self.monitored = np.asarray(there)[rows.order]

    def sum(self, numbers: Numbers) -> Numbers:
        """The sums of the groups that are not of what stood before."""
        return self.groups.sum(numbers)[self.mine]


def _rolled(column: Column, rows: Rows, cut: _Cut) -> dict[str, pa.Array]:
    """One metric's columns of the rows of periods."""
    values, groups, mine = rows.values(column.name), cut.groups, cut.mine
    counted = cut.sum(values.there.astype(np.int64))
    empty = counted == 0
    name = column.name

    def filled(numbers: Numbers) -> pa.Array:
        return pa.array(numbers, mask=empty)

    last, _ = groups.last(values)
    kept = {f"{name}_last": filled(values.numbers[last][mine])}
    match column.rollup:
        case Rollup.INCREASE:
            return {f"{name}_{word}": filled(numbers) for word, numbers in _grown(column, rows, values, cut).items()} | kept
        case Rollup.STATES:
            held = np.where(values.there, cut.seconds, 0.0)
            minutes = {word: cut.sum(np.where(values.numbers == n, held, 0.0)) / 60 for n, word in enumerate(column.states)}
            return {f"{name}_{word}_minutes": filled(spent) for word, spent in minutes.items()} | kept
        case Rollup.LAST:
            return kept
    return {
        f"{name}_avg": filled(_average(values, cut.seconds, groups)[mine]),
        f"{name}_min": filled(groups.least(values)[mine]),
        f"{name}_max": filled(groups.most(values)[mine]),
        f"{name}_known_seconds": filled(cut.sum(np.where(values.there, cut.seconds, 0.0))),
    }


def _grown(column: Column, rows: Rows, values: Values, cut: _Cut) -> dict[str, Numbers]:
    """The growth of a counter in each period; where it is asked for also by the second.

    Growth across a gap is spread over the gap, and what fell before the period is no rate of it. It is never more than was possible: it is
    by the period's length, or by the time that it took where that is longer.
    """
    found = growth(rows, values, rows.times(column.name), of_guest=column.of_guest)
    # Sums of whole numbers go beyond 64 bits where a counter near its end begins again; as doubles they are exact up to 2^53.
    grown = found.grown.astype(np.float64)
    if not column.rated:
        return {"increase": cut.sum(grown)}
    span = int(cut.period_seconds * MICROSECONDS)
    took = rows.time - found.since
    since = np.where(took > holds_for(rows.interval), np.maximum(found.since, rows.time // span * span), found.since)
    within = grown * ((rows.time - since) / np.maximum(took, 1))
    reach = cut.groups.most(Values(rows.time, values.there)) - cut.groups.least(Values(since, values.there))
    seconds = np.where(cut.groups.sum(values.there.astype(np.int64)) > 0, reach, 0)[cut.mine] / MICROSECONDS
    return {"increase": cut.sum(grown), "rate": cut.sum(within) / np.maximum(seconds, cut.period_seconds)}


def _average(values: Values, weights: Numbers, groups: Groups) -> Numbers:
    """The mean of each group by weight; of its values as they are where none has any."""
    weighs = np.where(values.there, weights, 0.0)
    whole = groups.sum(weighs)
    if (whole == 0).any():
        weighs = np.where((whole == 0)[groups.of_rows] & values.there, 1.0, weighs)
        whole = groups.sum(weighs)
    return np.asarray(groups.sum(values.numbers * weighs) / np.where(whole == 0, 1.0, whole))


def days_of(kind: str, hours: pa.Table) -> pa.Table:
    """The daily rows of hourly rows of one kind."""
    if not hours.num_rows:
        return HOURLY.schema.empty_table()
    rows = Rows(hours.append_column("interval_seconds", hours.column("covered_seconds")))
    groups, _ = rows.groups(DAY_SECONDS)
    cut = _Cut(rows, DAY_SECONDS)
    columns = _keys(rows, cut, DAY_SECONDS) | {
        "kind": pa.repeat(pa.scalar(kind), len(groups.starts)),
        "nodes": pa.array(np.maximum(groups.most(rows.values("nodes")), _nodes(rows, groups))),
        "samples": pa.array(groups.sum(rows.values("samples").numbers)),
        "monitor_samples": pa.array(groups.sum(rows.values("monitor_samples").numbers)),
    }
    for prefix in ("", "monitor_"):
        columns |= _covered(prefix, groups.sum(rows.values(f"{prefix}covered_seconds").numbers), DAY_SECONDS)
    for column in columns_of(kind):
        known = rows.values(f"{column.name}_known_seconds").numbers if column.rollup is Rollup.SPREAD else rows.interval
        for name, _ in column.rolled():
            columns[name] = _of_day(name.removeprefix(column.name), rows.values(name), groups, known)
    return _complete(columns)


def _of_day(what: str, values: Values, groups: Groups, weight: Numbers) -> pa.Array:
    """One column of the daily rows; ``what`` is its ending."""
    empty = groups.sum(values.there.astype(np.int64)) == 0
    match what:
        case "_last":
            return pa.array(values.numbers[groups.last(values)[0]], mask=empty)
        case "_min":
            return pa.array(groups.least(values), mask=empty)
        case "_max":
            return pa.array(groups.most(values), mask=empty)
        case "_avg":
            return pa.array(_average(values, weight, groups), mask=empty)
    whole = groups.sum(np.where(values.there, values.numbers, 0))
    return pa.array(whole * HOUR_SECONDS / DAY_SECONDS if what == "_rate" else whole, mask=empty)


def _covered(prefix: str, seconds: Numbers, period_seconds: float) -> dict[str, pa.Array]:
    covered = np.minimum(seconds, period_seconds)
    return {f"{prefix}covered_seconds": pa.array(covered), f"{prefix}coverage": pa.array(covered / period_seconds)}


def _nodes(rows: Rows, groups: Groups) -> Numbers:
    """How many nodes each group's rows are of."""
    return groups.different(rows.node) if rows.several else np.ones(len(groups.starts), np.int64)


def _keys(rows: Rows, cut: _Cut, period_seconds: int) -> dict[str, pa.Array]:
    """Whose row it is, of when, and from when to when it has samples."""
    span = period_seconds * MICROSECONDS
    starts, ends = cut.groups.starts[cut.mine], cut.groups.ends[cut.mine]
    begin = rows.time[starts] // span * span
    table, last = rows.table, pa.array(rows.order[ends])
    # A day's rows are hours: their own first and last samples lie within.
    first_time, last_time = (name if name in table.schema.names else "time" for name in ("first_time", "last_time"))
    if first_time == "time":
        last_time = "time"
    return {
        "day": pa.array((begin // (DAY_SECONDS * MICROSECONDS)).astype(np.int32), pa.int32()).cast(pa.date32()),
        "time": pa.array(begin, pa.int64()).cast(TIME),
        "first_time": table.column(first_time).take(pa.array(rows.order[starts])).combine_chunks(),
        "last_time": table.column(last_time).take(last).combine_chunks(),
        **{name: table.column(name).take(last).combine_chunks() for name in ("uuid", "device", "name", "node")},
    }


def _complete(columns: dict[str, pa.Array]) -> pa.Table:
    """Hourly or daily rows with every column, null where the kind has none."""
    count = len(columns["uuid"])
    filled = [columns[field.name].cast(field.type) if field.name in columns else pa.nulls(count, field.type) for field in HOURLY.schema]
    return pa.table(filled, schema=HOURLY.schema)


def sequence_of_columns(kind: str) -> Sequence[str]:
    """The columns of ``samples`` that rolling up rows of ``kind`` needs."""
    key = ("time", "uuid", "device", "name", "node", "boot_id", "sequence", "interval_seconds", "monitor_time")
    return (*key, *(column.name for column in columns_of(kind)))


def columns_of_hours(kind: str) -> Sequence[str]:
    """The columns of ``hourly`` that ``days_of`` needs of rows of ``kind``: the others are null in them."""
    key = ("time", "uuid", "device", "name", "node", "first_time", "last_time", "nodes", "samples", "monitor_samples")
    covered = ("covered_seconds", "monitor_covered_seconds")
    return (*key, *covered, *(name for column in columns_of(kind) for name, _ in column.rolled()))


def periods_of(column: Column, samples: pa.Table, period_seconds: float, starts: pa.Table | None = None) -> pa.Table:
    """One metric of samples of its kind by periods of any length: key, values as in ``hourly`` without the metric's name, samples, coverage."""
    if not samples.num_rows:
        return pa.table({"time": pa.array([], TIME), **{name: pa.array([], pa.string()) for name in ("uuid", "name", "device")}})
    rows = Rows(samples, None, starts)
    span = int(period_seconds * MICROSECONDS)
    cut = _Cut(rows, period_seconds)
    begin = rows.time[cut.groups.starts] // span * span
    last = pa.array(rows.order[cut.groups.ends])
    columns: dict[str, Any] = {"time": pa.array(begin, pa.int64()).cast(TIME)}
    columns |= {name: rows.table.column(name).take(last) for name in ("uuid", "name", "device")}
    columns |= {name.removeprefix(f"{column.name}_"): values for name, values in _rolled(column, rows, cut).items()}
    covered = cut.sum(cut.seconds)
    columns |= {"samples": pa.array(cut.groups.ends - cut.groups.starts + 1), "coverage": pa.array(covered / period_seconds)}
    return pa.table(columns)
