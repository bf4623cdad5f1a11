"""From when to when a curve goes, and how far apart its points are: pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final, NamedTuple

DAY: Final = 86_400
POINTS: Final = 400
"""Points of a curve, where no step is asked for, at most."""
POINTS_MOST: Final = 2_000
"""Points of a curve at most, whatever is asked for."""
STEPS: Final = (60, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY)
"""Steps in seconds; from two hours and two days on `history serve` answers from hours and days."""
STEP_OF_HOURS: Final = 7_200
RAW_SECONDS: Final = 2 * DAY
"""Up to this length samples are looked at."""
LONGEST: Final = 3_640 * DAY
"""How far back anything is looked for: `history serve` answers 3,660 days, the window of the first point included."""
SAMPLES: Final = 4
"""Samples that the mean before a point is made of, at least."""


class Span(NamedTuple):
    """A range that people choose: its name in addresses, its title, its length and step in seconds; 0 where it is all that there is."""

    name: str
    title: str
    seconds: int
    step: int


SPANS: Final = (
    Span("day", "1 day", DAY, 300),
    Span("week", "1 week", 7 * DAY, 7_200),
    Span("month", "1 month", 30 * DAY, 7_200),
    Span("year", "1 year", 366 * DAY, 2 * DAY),
    Span("all", "All", 0, 0),
)
BY_NAME: Final = {span.name: span for span in SPANS}


class Period(NamedTuple):
    """Points from ``start`` to ``end`` (Unix seconds), ``step`` seconds apart, both included; all are multiples of the step."""

    start: int
    end: int
    step: int

    @property
    def points(self) -> int:
        """How many there are."""
        return (self.end - self.start) // self.step + 1

    @property
    def times(self) -> list[int]:
        """When they are."""
        return list(range(self.start, self.end + 1, self.step))

    def window(self, interval_seconds: float) -> int:
        """The seconds before a point that it is of: the step, or a few sampling intervals where that is longer."""
        return max(self.step, ceil(SAMPLES * interval_seconds)) if interval_seconds > 0 else self.step


def period(start: float, end: float, step: int = 0) -> Period:
    """The points of a range; with a fitting step where ``step`` is 0. ValueError with why, where there are none or too many."""
    if end <= start:
        raise ValueError("it ends before it begins")
    if end - start > LONGEST:
        raise ValueError(f"it is longer than {LONGEST // DAY} days")
    step = step or _fitting(end - start)
    first, last = ceil(start / step) * step, int(end // step) * step
    found = Period(first, max(first, last), step)
    if found.points > POINTS_MOST:
        raise ValueError(f"it has {found.points} points, more than {POINTS_MOST}: ask for a longer step")
    return found


def _fitting(seconds: float) -> int:
    """A step with which a range has few points; of longer ranges one that roll-ups answer, since samples would be too many."""
    least = STEP_OF_HOURS if seconds > RAW_SECONDS else STEPS[0]
    return next((each for each in STEPS if each >= least and seconds / each <= POINTS), STEPS[-1])


def of_span(span: Span, now: float) -> Period:
    """The points of a chosen range that ends now; of "all" those that are looked through for its beginning."""
    return period(now - (span.seconds or LONGEST), now, span.step)


def since_first(found: Period, values: Sequence[float | None], now: float) -> Period:
    """The points of all that there is: from a step before the first one of a coarse look that has a value.

    Where none has, nothing may be rolled up yet: then the newest samples are all.
    """
    first = next((at for at, value in zip(found.times, values, strict=True) if value is not None), None)
    return period(now - RAW_SECONDS if first is None else first - found.step, now)
