"""From the rows of a roll-up to the samples a PromQL expression will look at.

Prometheus looks back five minutes from each step of a query, or over the window of a range selector: hourly points would mostly be out of
its sight. Its hints say where it will look, and a roll-up can be asked at any moment: a gauge is its row's value throughout the row, a
counter rises evenly within it. So there is a sample at every step, or in every window, and none where there is no row. A step that lies on
the end of an hour shows that hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from virtflow.history.remote_read.protocol.wire import Asked, Hints

LOOKBACK_MS: Final = 300_000
"""How far Prometheus looks back from a step, unless it was started with another ``--query.lookback-delta``."""
LATEST_MS: Final = 253_402_300_799_000
"""The end of the year 9999: Prometheus asks for "everything" by times far beyond, which are no moments of a table's."""
STALE: Final = np.array([0x7FF0000000000002], np.uint64).view(np.float64)[0]
"""Prometheus' mark that a series has ended (source: ``model/value/value.go``)."""

Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Sight:
    """Where a selector looks, in milliseconds: from and to, its step (0: one moment), its window (0: the newest sample), and what for."""

    start: int
    end: int
    step: int = 0
    window: int = 0
    func: str = ""

    @classmethod
    def of(cls, asked: Asked) -> Sight:
        """What a query's hints say; all of its range at no step where it has none."""
        hints = asked.hints
        if hints is None or not hints.end:
            return cls(_moment(asked.start), _moment(asked.end))
        start = max(asked.start, hints.start) if asked.start else hints.start
        return cls(_moment(start), _moment(_end(asked, hints)), _moment(hints.step), _moment(hints.window), hints.func)

    def steps(self) -> Numbers:
        """The moments at which the expression is evaluated, a millisecond early, so that a full hour is the end of the hour before it.

        Newer Prometheus' hints begin a millisecond later, which shows since people ask at whole seconds.
        """
        early = 2 if self.start % 1000 == 1 else 1
        first = self.start + (self.window or LOOKBACK_MS) - early
        if first > self.end:
            return np.array([self.end - 1], np.int64)
        if not self.step:
            return np.unique(np.array([first, self.end - 1], np.int64))
        return np.arange(first, self.end + 1, self.step, dtype=np.int64)

    def moments(self, starts: Numbers, period_ms: int) -> Numbers:
        """Moments to sample at rows that begin at ``starts`` and last for ``period_ms``."""
        steps = self.steps()
        ends = starts + period_ms - 1
        if not self.window:
            return steps
        if self.window >= 2 * period_ms:
            return np.unique(np.concatenate([ends, _around(steps, self.window)])) if self.counts else ends
        return _around(steps, self.window)

    @property
    def counts(self) -> bool:
        """Whether the function is one for counters."""
        return self.func in {"", "rate", "irate", "increase", "delta", "idelta", "resets", "changes"}


def gauge(starts: Numbers, period_ms: int, values: Numbers, moments: Numbers) -> tuple[Numbers, Numbers]:
    """Times and values of a gauge: the value of the row that a moment is in; a mark of its end where a row without a next one ends."""
    row = np.searchsorted(starts, moments, "right") - 1
    inside = (row >= 0) & (moments < starts[np.maximum(row, 0)] + period_ms)
    sampled = values[np.maximum(row, 0)]
    return _ended(moments, np.where(inside, sampled, np.nan))


def counter(starts: Numbers, period_ms: int, reached: tuple[Numbers, Numbers], moments: Numbers) -> tuple[Numbers, Numbers]:
    """Times and values of a counter that never falls; ``reached`` are its rows' increases and where it stood at the end of each.

    It begins where it stood in its first row, and grows by what the rows say, evenly within each.
    """
    increases, last = reached
    begin = max(0.0, float(last[0]) - float(increases[0]))
    after = begin + np.cumsum(increases)
    row = np.searchsorted(starts, moments, "right") - 1
    at = np.maximum(row, 0)
    inside = (row >= 0) & (moments < starts[at] + period_ms)
    part = np.clip((moments - starts[at] + 1) / period_ms, 0.0, 1.0)
    return _ended(moments, np.where(inside, after[at] - increases[at] * (1.0 - part), np.nan))


def _ended(moments: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """Without moments that have no value, but for the first of them after one that has: that one says that the series ended."""
    absent = np.isnan(values)
    marks = absent.copy()
    marks[0:1] = False
    marks[1:] &= ~absent[:-1]
    kept = ~absent | marks
    return moments[kept], np.where(absent, STALE, values)[kept]


def _around(steps: Numbers, window: int) -> Numbers:
    """The beginning, the middle and the end of the window before each step."""
    return np.unique(np.concatenate([steps - window + 2, steps - window // 2, steps]))


def _moment(milliseconds: int) -> int:
    """A time or a length that can be calculated with."""
    return min(max(milliseconds, 0), LATEST_MS)


def _end(asked: Asked, hints: Hints) -> int:
    return min(asked.end, hints.end) if asked.end else hints.end
