"""Where every counter stood after an hour: what the next hour of the VM goes on from, however long that is after.

A row of the table ``counters`` is a VM or device on one node. The rows of a VM go on from hour to hour while the VM is reported, with all
its devices and nodes, also those that are not; so a VM's newest rows are all that is known of it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa

from virtflow.history.maintenance.authority import NEVER, STARTS, micros
from virtflow.history.maintenance.rows import Groups, Numbers, Rows, Values
from virtflow.history.storage.table_schemas import COUNTERS, TIME, columns_of
from virtflow.schemas import states
from virtflow.schemas.catalogue.types import Rollup

RUNNING: Final = (states.RUNNING, states.BLOCKED, states.SHUTTING_DOWN)


def counters_after(kind: str, rows: Rows, muted: Numbers, oldest: float) -> pa.Table:
    """The rows of ``counters`` after an hour, of all its rows of one kind in order, with what stood before.

    ``muted`` are the rows that do not count: of them only what the node said last is kept. What was last seen before ``oldest``
    (Unix seconds) is forgotten. The hour and its day are left out.
    """
    by = rows.by_node
    series, node = rows.series[by], rows.node[by]
    cut = np.ones(len(by), bool)
    cut[1:] = (series[1:] != series[:-1]) | (node[1:] != node[:-1])
    groups = Groups(np.flatnonzero(cut), len(by))
    last = rows.order[by[groups.ends]]
    known = rows.table
    columns: dict[str, pa.Array] = {name: known.column(name).take(pa.array(last)).combine_chunks() for name in ("uuid", "device", "node")}
    columns["kind"] = pa.repeat(pa.scalar(kind), len(last))
    counts = ~muted[by]
    stood = _Standing(rows, groups, counts)
    columns["last_time"] = stood.time("last_time", rows.own[by] & counts)
    if kind == "vm":
        columns |= stood.said(pa.array(last))
    for column in columns_of(kind):
        if column.rollup is Rollup.INCREASE:
            columns |= stood.counter(column.name)
    seen = rows.time[by][groups.ends] >= oldest * 1_000_000
    table = pa.table([_fitting(columns, field, len(last)) for field in COUNTERS.schema], schema=COUNTERS.schema)
    return table if seen.all() else table.filter(pa.array(seen))


class _Standing:
    """What is last known in each group of rows."""

    def __init__(self, rows: Rows, groups: Groups, counts: Numbers) -> None:
        self._rows, self._groups, self._counts = rows, groups, counts
        self._by = rows.by_node
        self._own = rows.own[self._by]
        self._time = rows.time[self._by]

    def time(self, name: str, which: Numbers) -> pa.Array:
        """The time of the last row of ``which``, or what stood before as ``name``."""
        before = self._before(name)
        return _times(self._latest(np.where(self._own, np.where(which, self._time, NEVER), before)))

    def counter(self, name: str) -> dict[str, pa.Array]:
        """A counter's last value, and when that was where it is not the time of the last sample."""
        values, times = self._rows.values(name), self._rows.times(name)[self._by]
        there = values.there[self._by] & self._counts
        last, found = self._groups.last(Values(values.numbers[self._by], there))
        numbers = pa.array(values.numbers[self._by][last], mask=~found)
        newest = self._latest(np.where(self._own & self._counts, self._time, np.where(self._own, NEVER, self._before("last_time"))))
        return {name: numbers, f"{name}_time": _times(np.where(found & (times[last] != newest), times[last], NEVER))}

    def said(self, last: pa.Array) -> dict[str, pa.Array]:
        """What a node said last of a VM, where it counts or not, since when its process is known, and when it said last that it runs."""
        table = self._rows.table
        state, interval = self._rows.values("vm_state"), self._rows.interval[self._by]
        running = self._own & state.there[self._by] & np.isin(state.numbers[self._by], RUNNING)
        ran = np.where(self._own, np.where(running, self._time, NEVER), self._before("ran_time"))
        at, found = self._groups.last(Values(ran, ran != NEVER))
        seconds = np.where(self._own, interval, self._number("ran_seconds"))
        start = np.where(self._own, self._rows.start[self._by], self._before("since"))
        since = self._latest(start)
        unknown = np.where(self._own, ~self._rows.past_known[self._by], self._is_unknown()) & (start == since[self._groups.of_rows])
        words = {name: table.column(name).take(last).combine_chunks() for name in ("vm_state", "vm_state_reason", "interval_seconds")}
        return words | {
            "claim_time": self.time("claim_time", np.ones(len(self._by), bool)),
            "ran_time": _times(np.where(found, ran[at], NEVER)),
            "ran_seconds": pa.array(seconds[at], mask=~found),
            "since": _times(since),
            "past_unknown": _one_where(self._groups.sum(unknown.astype(np.int64)) > 0),
        }

    def _latest(self, times: Numbers) -> Numbers:
        return np.asarray(np.maximum.reduceat(times, self._groups.starts))

    def _before(self, name: str) -> Numbers:
        """A time of what stood before, in the order of nodes."""
        table = self._rows.table
        if name not in table.schema.names:
            return np.full(len(self._by), NEVER)
        return micros(table.column(name))[self._rows.order][self._by]

    def _is_unknown(self) -> Numbers:
        """Of what stood before, whether the process has an unknown past."""
        table = self._rows.table
        if "past_unknown" not in table.schema.names:
            return np.zeros(len(self._by), bool)
        return np.asarray(table.column("past_unknown").is_valid().to_numpy())[self._rows.order][self._by]

    def _number(self, name: str) -> Numbers:
        if name not in self._rows.table.schema.names:
            return np.zeros(len(self._by))
        return self._rows.values(name).numbers[self._by]


def _one_where(which: Numbers) -> pa.Array:
    return pa.array(np.ones(len(which), np.int64), mask=~which)


def _times(micros_or_never: Numbers) -> pa.Array:
    return pa.array(micros_or_never, pa.int64(), mask=micros_or_never == NEVER).cast(TIME)


def _fitting(columns: dict[str, pa.Array], field: Any, count: int) -> pa.Array:  # noqa: ANN401, an Arrow field
    return columns[field.name].cast(field.type) if field.name in columns else pa.nulls(count, field.type)


def processes_of(before: pa.Table | None, starts: pa.Table) -> pa.Table:
    """The new processes of an hour, and those known before it; ``before`` are rows of ``counters`` of kind vm."""
    if before is None:
        return starts
    known = before.filter(before.column("since").is_valid())
    since, past_known = known.column("since").cast(pa.int64()), known.column("past_unknown").is_null()
    earlier = pa.table([known.column("uuid"), known.column("node"), since, past_known], schema=STARTS)
    return pa.concat_tables([earlier, starts])
