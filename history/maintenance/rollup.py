"""From samples to hours, from hours to days: pure, a column at a time.

What a VM used is the sum of what its counters grew by, sample to sample, in the hour of the later sample. A counter that fell
began anew, and all it shows since then is growth. So it did when the VM came to another node, unless the counter is the guest's
own, which moves with it. Growth between the last sample before a period and its first one belongs to the period; across a gap too.
Nothing is known of what was before a series' very first sample, so that one adds nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.storage.table_schemas import HOURLY, TIME, Column, columns_of
from virtflow.schemas import states
from virtflow.schemas.catalogue.types import Rollup, Tier
from virtflow.schemas.ownership import LEFT_STATES

HOUR_SECONDS: Final = 3_600
DAY_SECONDS: Final = 86_400
MICROSECONDS: Final = 1_000_000
RETURN_INTERVALS: Final = 3
"""A VM that was silent on its node for so many of its intervals, and was seen on another meanwhile, has come back as a new process."""

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

    def sum(self, numbers: Numbers) -> Numbers:
        """The sum over each group."""
        return np.asarray(np.add.reduceat(numbers, self.starts))

    def least(self, values: Values) -> Numbers:
        """The smallest value of each group; its largest possible where it has none."""
        return np.asarray(np.minimum.reduceat(np.where(values.there, values.numbers, _limit(values.numbers, 1)), self.starts))

    def most(self, values: Values) -> Numbers:
        """The largest value of each group; its smallest possible where it has none."""
        return np.asarray(np.maximum.reduceat(np.where(values.there, values.numbers, _limit(values.numbers, -1)), self.starts))

    def last(self, values: Values, series: Numbers | None = None) -> tuple[Numbers, Numbers]:
        """The last value of each group, and where there is one; with ``series`` an earlier group's of the same series will do."""
        rows = np.maximum.accumulate(np.where(values.there, np.arange(len(values.there)), -1))[self.ends]
        found = rows >= self.starts
        if series is not None:
            found = (rows >= 0) & (series[np.maximum(rows, 0)] == series[self.starts])
        return values.numbers[np.where(found, rows, 0)], found


class Rows:
    """Samples of one kind, brought into order by VM, device and time, with what stood before them in front."""

    def __init__(self, samples: pa.Table, before: pa.Table | None) -> None:
        """``samples`` as in the table; ``before`` are hourly rows, at most one per VM and device."""
        samples = _numbers_only(samples)
        self.table = samples if before is None else pa.concat_tables([_as_samples(before), samples], promote_options="default")
        own = np.ones(self.table.num_rows, bool)
        own[: self.table.num_rows - samples.num_rows] = False
        series = series_of(self.table)
        node = _codes(self.table.column("node"))
        time = self.table.column("time").cast(pa.int64()).to_numpy()
        order = np.lexsort((time, series))
        order = order[distinct(self.table, order, series[order], time[order])]
        self.order, self.series, self.node, self.time, self.own = order, series[order], node[order], time[order], own[order]
        self.interval = pc.fill_null(self.table.column("interval_seconds"), 0.0).to_numpy()[order]
        self.segment, self.fresh = self._segments()

    def values(self, name: str) -> Values:
        """A column in this order."""
        return Values.of(self.table.column(name), self.order)

    def groups(self, period_seconds: float) -> tuple[Groups, Numbers]:
        """The groups by series and period, and which of them are not of what stood before."""
        period = np.where(self.own, self.time // int(period_seconds * MICROSECONDS), -1)
        cut = np.ones(len(period), bool)
        cut[1:] = (self.series[1:] != self.series[:-1]) | (period[1:] != period[:-1])
        starts = np.flatnonzero(cut)
        return Groups(starts, len(period)), period[starts] >= 0

    def _segments(self) -> tuple[Numbers, Numbers]:
        """The process each row's counters belong to, as a number, and which of those began within these rows.

        In the order of time; two nodes that both report a VM for a while have a process each.
        """
        count = len(self.series)
        by_node = np.lexsort((np.arange(count), self.node, self.series))
        series, node, time = self.series[by_node], self.node[by_node], self.time[by_node]
        first = np.ones(count, bool)
        first[1:] = (series[1:] != series[:-1]) | (node[1:] != node[:-1])
        silent = np.zeros(count, bool)
        silent[1:] = (time[1:] - time[:-1]) > RETURN_INTERVALS * self.interval[by_node][1:] * MICROSECONDS
        moved = np.zeros(count, bool)
        moved[1:] = (self.series[1:] == self.series[:-1]) & (self.node[1:] != self.node[:-1])
        known_before = np.zeros(count, bool)
        known_before[1:] = self.series[1:] == self.series[:-1]
        begins = (first & known_before[by_node]) | (~first & silent & moved[by_node])
        segment = np.empty(count, np.int64)
        segment[by_node] = np.cumsum(first | begins) - 1
        fresh = np.zeros(int(segment.max(initial=-1)) + 1, bool)
        fresh[segment[by_node[begins]]] = True
        return segment, fresh


def increases(rows: Rows, values: Values, *, of_guest: bool) -> Numbers:
    """By how much a counter grew up to each row since the one before it."""
    grown = np.zeros_like(values.numbers)
    there = np.flatnonzero(values.there)
    if not len(there):
        return grown
    by_segment = there[np.argsort(rows.segment[there], kind="stable")]
    numbers, segment = values.numbers[by_segment], rows.segment[by_segment]
    same = segment[1:] == segment[:-1]
    step = numbers[1:] - numbers[:-1]
    since = np.where(step >= 0, step, numbers[1:])
    begun = np.where(rows.fresh[segment], numbers, numbers.dtype.type(0))
    if of_guest and rows.fresh.any():
        begun = np.where(begun > 0, _moved_with(rows, values, there)[by_segment], begun)
    grown[by_segment[0]] = begun[0]
    grown[by_segment[1:]] = np.where(same, since, begun[1:])
    return grown


def _moved_with(rows: Rows, values: Values, there: Numbers) -> Numbers:
    """By how much a guest's counter grew since the VM's last value wherever that was read."""
    grown = np.zeros_like(values.numbers)
    numbers, series = values.numbers[there], rows.series[there]
    step = numbers[1:] - numbers[:-1]
    grown[there[1:]] = np.where(series[1:] == series[:-1], np.where(step >= 0, step, numbers[1:]), 0)
    return grown


def hours_of(kind: str, samples: pa.Table, before: pa.Table | None = None) -> pa.Table:
    """The hourly rows of samples of one kind; ``before`` are the hourly rows that hold what stood before them."""
    if not samples.num_rows:
        return HOURLY.schema.empty_table()
    rows = Rows(samples, before)
    groups, mine = rows.groups(HOUR_SECONDS)
    columns: dict[str, pa.Array] = _keys(rows, groups, mine, HOUR_SECONDS)
    monitored = Values.of(rows.table.column("monitor_time").cast(pa.int64()), rows.order).there
    covered = np.minimum(groups.sum(rows.interval), HOUR_SECONDS)[mine]
    columns |= {
        "kind": pa.repeat(pa.scalar(kind), int(mine.sum())),
        "samples": pa.array((groups.ends - groups.starts + 1)[mine]),
        "monitor_samples": pa.array(groups.sum(monitored.astype(np.int64))[mine]),
        "covered_seconds": pa.array(covered),
        "coverage": pa.array(covered / HOUR_SECONDS),
    }
    for column in columns_of(kind):
        columns |= _rolled(column, rows, groups, mine)
    return _complete(columns)


def _rolled(column: Column, rows: Rows, groups: Groups, mine: Numbers) -> dict[str, pa.Array]:
    """One metric's columns of the hourly rows."""
    values = rows.values(column.name)
    counted = groups.sum(values.there.astype(np.int64))
    empty = (counted == 0)[mine]
    name = column.name

    def filled(numbers: Numbers, absent: Numbers = empty) -> pa.Array:
        return pa.array(numbers, mask=absent)

    last, found = groups.last(values, rows.series if column.rollup is Rollup.INCREASE else None)
    kept = {f"{name}_last": filled(last[mine], ~found[mine])}
    match column.rollup:
        case Rollup.INCREASE:
            grown = groups.sum(increases(rows, values, of_guest=column.of_guest))[mine]
            return {f"{name}_increase": filled(grown), **kept}
        case Rollup.STATES:
            held = np.where(values.there, rows.interval, 0.0)
            minutes = {word: groups.sum(np.where(values.numbers == n, held, 0.0))[mine] / 60 for n, word in enumerate(column.states)}
            return {f"{name}_{word}_minutes": filled(spent) for word, spent in minutes.items()} | kept
        case Rollup.LAST:
            return kept
    total = groups.sum(np.where(values.there, values.numbers, 0).astype(np.float64))[mine]
    return {
        f"{name}_avg": filled(total / np.maximum(counted[mine], 1)),
        f"{name}_min": filled(groups.least(values)[mine]),
        f"{name}_max": filled(groups.most(values)[mine]),
    }


def days_of(kind: str, hours: pa.Table) -> pa.Table:
    """The daily rows of hourly rows of one kind."""
    if not hours.num_rows:
        return HOURLY.schema.empty_table()
    rows = Rows(hours.append_column("interval_seconds", hours.column("covered_seconds")), None)
    groups, mine = rows.groups(DAY_SECONDS)
    covered = np.minimum(groups.sum(rows.values("covered_seconds").numbers), DAY_SECONDS)
    columns: dict[str, pa.Array] = _keys(rows, groups, mine, DAY_SECONDS)
    columns |= {
        "kind": pa.repeat(pa.scalar(kind), len(groups.starts)),
        "samples": pa.array(groups.sum(rows.values("samples").numbers)),
        "monitor_samples": pa.array(groups.sum(rows.values("monitor_samples").numbers)),
        "covered_seconds": pa.array(covered),
        "coverage": pa.array(covered / DAY_SECONDS),
    }
    for column in columns_of(kind):
        weight = rows.values("samples" if column.tier is Tier.SAFE else "monitor_samples").numbers
        for name, _ in column.rolled():
            columns[name] = _of_day(name.removeprefix(column.name), rows.values(name), groups, weight)
    return _complete(columns)


def _of_day(what: str, values: Values, groups: Groups, weight: Numbers) -> pa.Array:
    """One column of the daily rows; ``what`` is its ending."""
    empty = groups.sum(values.there.astype(np.int64)) == 0
    match what:
        case "_last":
            last, found = groups.last(values)
            return pa.array(last, mask=~found)
        case "_min":
            return pa.array(groups.least(values), mask=empty)
        case "_max":
            return pa.array(groups.most(values), mask=empty)
        case "_avg":
            weighs = np.where(values.there, np.maximum(weight, 1), 0).astype(np.float64)
            return pa.array(groups.sum(values.numbers * weighs) / np.maximum(groups.sum(weighs), 1), mask=empty)
    return pa.array(groups.sum(np.where(values.there, values.numbers, 0)), mask=empty)


def _keys(rows: Rows, groups: Groups, mine: Numbers, period_seconds: int) -> dict[str, pa.Array]:
    """Whose row it is, of when, and from when to when it has samples."""
    span = period_seconds * MICROSECONDS
    starts, ends = groups.starts[mine], groups.ends[mine]
    begin = rows.time[starts] // span * span
    table, last = rows.table, pa.array(rows.order[ends])
    # A day's rows are hours: their own first and last samples lie within.
    first_time, last_time = (name if name in table.schema.names else "time" for name in ("first_time", "last_time"))
    return {
        "day": pa.array((begin // (DAY_SECONDS * MICROSECONDS)).astype(np.int32), pa.int32()).cast(pa.date32()),
        "time": pa.array(begin, pa.int64()).cast(TIME),
        "first_time": table.column(first_time).take(pa.array(rows.order[starts])).combine_chunks(),
        "last_time": table.column(last_time).take(last).combine_chunks(),
        **{name: table.column(name).take(last).combine_chunks() for name in ("uuid", "device", "name", "node")},
    }


def newest(hours: pa.Table) -> pa.Table:
    """Of hourly rows the last one of each VM and device."""
    if not hours.num_rows:
        return hours
    series, time = series_of(hours), hours.column("time").cast(pa.int64()).to_numpy()
    order = np.lexsort((time, series))
    ends = np.append(np.flatnonzero(series[order][1:] != series[order][:-1]), len(order) - 1)
    return hours.take(pa.array(order[ends]))


SPEAKS_BY: Final = ("uuid", "node", "boot_id", "sequence", "time", "vm_state", "vm_state_reason")
"""The columns by which it is known which samples speak for their VM."""


def arriving(samples: pa.Table) -> pa.Table:
    """Keys of samples that are none of their VM: it has left the node by a migration, or it is incoming or gone and another node has it.

    ``samples`` are rows of kind vm with ``SPEAKS_BY``. Paused for its migration a VM is on both nodes: it speaks where it
    ran until then, since the last of what its process counted is seen only there.
    """
    state, reason = (pc.fill_null(samples.column(name), -1) for name in ("vm_state", "vm_state_reason"))
    gone = pc.is_in(state, pa.array([states.NO_STATE, states.SHUT_OFF, states.CRASHED]))
    paused = pc.and_(pc.equal(state, states.PAUSED), pc.is_in(reason, pa.array([states.PAUSED_MIGRATION, states.PAUSED_STARTING_UP])))
    mute = pc.or_(gone, paused)
    left = _is_any(state, reason, LEFT_STATES)
    departed = samples.filter(left)
    silent = samples.filter(
        pc.and_(pc.and_(mute, pc.invert(left)), pc.invert(_stands_where_it_ran(samples, mute.to_numpy(), paused.to_numpy())))
    )
    if not silent.num_rows:
        return departed
    nodes = samples.select(["uuid", "node"]).group_by("uuid").aggregate([("node", "count_distinct")])
    shared = nodes.filter(pc.greater(nodes.column("node_count_distinct"), 1)).column("uuid")
    return pa.concat_tables([departed, silent.filter(pc.is_in(silent.column("uuid"), shared.combine_chunks()))])


def _is_any(state: pa.ChunkedArray, reason: pa.ChunkedArray, pairs: Iterable[tuple[int, int]]) -> pa.ChunkedArray:
    """Which samples are in one of these states with its reason."""
    return functools.reduce(pc.or_, (pc.and_(pc.equal(state, one), pc.equal(reason, why)) for one, why in pairs))


def _stands_where_it_ran(samples: pa.Table, mute: Numbers, paused: Numbers) -> pa.Array:
    """Which paused samples are of the node that spoke for the VM last."""
    vm, node = _codes(samples.column("uuid")), _codes(samples.column("node"))
    order = np.lexsort((samples.column("time").cast(pa.int64()).to_numpy(), vm))
    vm, node = vm[order], node[order]
    spoke = np.maximum.accumulate(np.where(mute[order], -1, np.arange(len(order))))
    same = (spoke >= 0) & (vm[spoke] == vm) & (node[spoke] == node)
    stands = np.zeros(len(order), bool)
    stands[order] = same & paused[order]
    return pa.array(stands)


def without(samples: pa.Table, silent: pa.Table) -> pa.Table:
    """The samples that are none of ``silent``, devices included."""
    if not silent.num_rows:
        return samples
    keys = ["uuid", "node", "boot_id", "sequence"]
    return samples.join(silent.select(keys), keys, join_type="left anti").select(samples.schema.names)


def _complete(columns: dict[str, pa.Array]) -> pa.Table:
    """Hourly or daily rows with every column, null where the kind has none."""
    count = len(columns["uuid"])
    filled = [columns[field.name].cast(field.type) if field.name in columns else pa.nulls(count, field.type) for field in HOURLY.schema]
    return pa.table(filled, schema=HOURLY.schema)


def _numbers_only(table: pa.Table) -> pa.Table:
    """The table with its decimals as doubles: exact to the microsecond up to nine milliard seconds."""
    fields = [field.with_type(pa.float64()) if pa.types.is_decimal(field.type) else field for field in table.schema]
    return table.cast(pa.schema(fields))


def _as_samples(hours: pa.Table) -> pa.Table:
    """Hourly rows as the samples they end with."""
    ends = {name: name.removesuffix("_last") for name in hours.schema.names if name.endswith("_last")}
    keys = {name: name for name in ("uuid", "device", "name", "node")}
    chosen: dict[str, Any] = {new: hours.column(old) for old, new in {**keys, **ends}.items()}
    return pa.table(chosen | {"time": hours.column("last_time"), "interval_seconds": pa.nulls(hours.num_rows, pa.float64())})


def series_of(table: pa.Table) -> Numbers:
    """A number for each VM and device; equal for equal ones."""
    device = _codes(table.column("device"))
    return np.asarray(_codes(table.column("uuid")).astype(np.int64) * (int(device.max(initial=0)) + 1) + device)


def _codes(column: pa.ChunkedArray) -> Numbers:
    """A number for each word, in the order of the words."""
    encoded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    rank = np.empty(len(encoded.dictionary), np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    return np.asarray(rank[encoded.indices.to_numpy()])


def distinct(table: pa.Table, order: Numbers, series: Numbers, time: Numbers) -> Numbers:
    """Which rows in ``order`` are not the one before once more: the same moment, node, producer run and sequence."""
    again = np.zeros(len(order), bool)
    again[1:] = (series[1:] == series[:-1]) & (time[1:] == time[:-1])
    if again.any() and "sequence" in table.schema.names:
        for name in ("node", "boot_id", "sequence"):
            column = table.column(name)
            values = Values.of(column, order).numbers if name == "sequence" else _codes(column)[order]
            again[1:] &= values[1:] == values[:-1]
        return ~again
    return np.ones(len(order), bool)


def sequence_of_columns(kind: str) -> Sequence[str]:
    """The columns of ``samples`` that rolling up rows of ``kind`` needs."""
    key = ("time", "uuid", "device", "name", "node", "boot_id", "sequence", "interval_seconds", "monitor_time")
    return (*key, *(column.name for column in columns_of(kind)))


def _limit(numbers: Numbers, sign: int) -> Any:  # noqa: ANN401, a number of the column's own type
    """What is larger (sign 1) or smaller (sign -1) than any value."""
    if numbers.dtype.kind == "f":
        return sign * np.inf
    limits = np.iinfo(numbers.dtype)
    return limits.max if sign > 0 else limits.min


def periods_of(column: Column, samples: pa.Table, period_seconds: float) -> pa.Table:
    """One metric of samples of its kind by periods of any length: key, values as in ``hourly`` without the metric's name, samples, coverage."""
    if not samples.num_rows:
        samples = samples.slice(0, 0)
    rows = Rows(samples, None)
    span = int(period_seconds * MICROSECONDS)
    if not samples.num_rows:
        return pa.table({"time": pa.array([], TIME), **{name: pa.array([], pa.string()) for name in ("uuid", "name", "device")}})
    groups, mine = rows.groups(period_seconds)
    begin = rows.time[groups.starts] // span * span
    last = pa.array(rows.order[groups.ends])
    columns: dict[str, Any] = {"time": pa.array(begin, pa.int64()).cast(TIME)}
    columns |= {name: rows.table.column(name).take(last) for name in ("uuid", "name", "device")}
    columns |= {name.removeprefix(f"{column.name}_"): values for name, values in _rolled(column, rows, groups, mine).items()}
    covered = groups.sum(rows.interval)
    columns |= {"samples": pa.array(groups.ends - groups.starts + 1), "coverage": pa.array(np.minimum(covered / period_seconds, 1.0))}
    return pa.table(columns)
