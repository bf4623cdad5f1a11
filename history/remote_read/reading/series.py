"""From the rows of one label set to its samples: as they came, or from a roll-up at the moments that an expression looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.query.resolution import Tier
from virtflow.history.remote_read.protocol.wire import Series
from virtflow.history.remote_read.reading.labels import Labels
from virtflow.history.remote_read.reading.resample import STALE, Sight, counter, gauge
from virtflow.history.storage.table_schemas import COLUMN_OF, Column
from virtflow.schemas.catalogue.types import Rollup

STALE_INTERVALS: Final = 3
NEVER: Final = 1 << 52
"""A moment beyond all others, in milliseconds."""

Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of one label set in the order of their time, one per moment.

    ``goes_on`` is, for each row after which another label set of the same VM and device goes on, when it does so (milliseconds, ``NEVER`` after
    the last row of all); where the device is missing from the VM's next sample, when that is; and -1 for the others.
    """

    labels: Labels
    rows: pa.Table
    goes_on: Numbers


def raw_series(name: str, sight: Sight, found: Rows) -> Series:
    """Samples as they came, and a mark where Prometheus would have put one: absent values, gaps, missing devices, other series that go on."""
    rows = found.rows
    times = milliseconds(rows)
    values = numbers(rows.column(name)) if name in COLUMN_OF else np.ones(len(times))
    live = np.round(numbers(rows.column("interval_seconds")) * 1000 * STALE_INTERVALS)
    other = found.goes_on >= 0
    after = np.where(other, found.goes_on, np.append(times[1:], NEVER))
    ends = np.where(after - times > live, times + live, np.where(other, after, -1))
    kept = ~np.isnan(values)
    marks = (ends > 0) & (ends <= sight.end) & kept
    absent = ~kept
    absent[1:] &= kept[:-1]
    absent[0:1] = False
    moments = np.concatenate([times[absent], ends[marks].astype(np.int64), times[kept]])
    sampled = np.concatenate([np.full(int(absent.sum() + marks.sum()), STALE), values[kept]])
    order = np.argsort(moments, kind="stable")
    moments, sampled = moments[order], sampled[order]
    single = np.append(moments[1:] != moments[:-1], True) & (moments >= sight.start) & (moments <= sight.end)
    return Series(found.labels, moments[single], sampled[single])


def rolled_series(name: str, tier: Tier, sight: Sight, found: Rows) -> Series:
    """A roll-up at the moments that the expression looks at."""
    rows = found.rows
    starts = milliseconds(rows)
    period = tier.seconds * 1000
    moments = sight.moments(starts, period)
    column = COLUMN_OF.get(name)
    if column is not None and column.rollup is Rollup.INCREASE:
        grown, last = numbers(rows.column(f"{name}_increase")), numbers(rows.column(f"{name}_last"))
        there = ~np.isnan(grown) & ~np.isnan(last)
        if not there.any():
            return Series(found.labels, np.array([], np.int64), np.array([]))
        times, values = counter(starts[there], period, (grown[there], last[there]), moments)
    else:
        values = np.ones(len(starts)) if column is None else numbers(rows.column(_gauge_column(column, sight)))
        there = ~np.isnan(values)
        times, values = gauge(starts[there], period, values[there], moments) if there.any() else (starts[:0], values[:0])
    within = (times >= sight.start) & (times <= sight.end)
    return Series(found.labels, times[within], values[within])


def milliseconds(rows: pa.Table) -> Numbers:
    """The rows' times."""
    return np.asarray(rows.column("time").cast(pa.int64()).to_numpy() // 1000)


def numbers(column: pa.ChunkedArray) -> Numbers:
    """A column's values as doubles, NaN where there is none; seconds are the doubles nearest to their decimal digits."""
    if pa.types.is_decimal(column.type):
        wide = column.cast(pa.decimal128(38, column.type.scale))
        parts = [_unscaled(chunk) for chunk in wide.chunks]
        digits = np.concatenate(parts) if parts else np.zeros(0)
        return np.where(column.is_null().to_numpy(), np.nan, digits / 10.0**column.type.scale)
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy())


def _unscaled(chunk: pa.Array) -> Numbers:
    """The whole numbers that decimals are stored as; all of ours fit into the lower half of their 16 bytes."""
    halves = np.frombuffer(chunk.buffers()[1], np.int64)
    return halves[2 * chunk.offset : 2 * (chunk.offset + len(chunk)) : 2]


def _gauge_column(column: Column, sight: Sight) -> str:
    """Which of a gauge's columns answers: its extremes where the extreme of a window is asked for, else its average."""
    if column.rollup is not Rollup.SPREAD:
        return f"{column.name}_last"
    ending = {"max_over_time": "max", "min_over_time": "min"}.get(sight.func, "avg")
    return f"{column.name}_{ending}"
