"""Where a PromQL expression looks at a roll-up: a full hour is the end of the hour before it, for every Prometheus and every kind of query."""

from __future__ import annotations

import numpy as np
import pytest

from virtflow.history.remote_read.reading.resample import STALE, Sight, counter, gauge

LOOKBACK_MS = 300_000

HOUR = 3_600_000
START = 1_790_000_000_000 // HOUR * HOUR
HOURS = np.array([START, START + HOUR, START + 2 * HOUR])
VALUES = np.array([10.0, 20.0, 30.0])


@pytest.mark.parametrize("later", [0, 1], ids=["hints as they were", "hints that begin a millisecond later"])
def test_a_full_hour_is_the_hour_that_ends_there(later: int) -> None:
    at = START + HOUR
    instant = Sight(at - LOOKBACK_MS + later, at)
    over_time = Sight(at - LOOKBACK_MS + later, at + 3 * HOUR, step=HOUR)
    assert dict(zip(*gauge(HOURS, HOUR, VALUES, instant.moments(HOURS, HOUR)), strict=True)) == {at - 1: 10.0}
    times, values = gauge(HOURS, HOUR, VALUES, over_time.moments(HOURS, HOUR))
    assert times.tolist() == [at - 1, at + HOUR - 1, at + 2 * HOUR - 1, at + 3 * HOUR - 1]
    assert values[:3].tolist() == VALUES.tolist()
    assert values[3:].view(np.uint64).tolist() == [STALE.view(np.uint64)]  # where the rows end the series does


def test_a_counter_rises_evenly_and_never_falls() -> None:
    sight = Sight(START + HOUR // 4 - LOOKBACK_MS, START + 2 * HOUR, step=HOUR // 4)
    times, values = counter(HOURS, HOUR, (np.array([4.0, 8.0, 4.0]), np.array([4.0, 12.0, 2.0])), sight.moments(HOURS, HOUR))
    assert values.tolist() == pytest.approx([1, 2, 3, 4, 6, 8, 10, 12], rel=1e-6)
    assert (np.diff(times) == HOUR // 4).all()


MINUTE = 60_000


@pytest.mark.parametrize(
    ("window", "func", "rows_too"),
    [(2 * HOUR, "rate", True), (2 * HOUR, "", True), (2 * HOUR, "avg_over_time", False), (HOUR + HOUR // 2, "rate", False)],
)
def test_where_a_window_is_looked_at(window: int, func: str, *, rows_too: bool) -> None:
    """Its begin, middle and end, where it is shorter than two rows; else each row's end, and for a counter both."""
    at = START + 3 * HOUR
    moments = Sight(at - window, at, window=window, func=func).moments(HOURS, HOUR).tolist()
    ends = [int(start) + HOUR - 1 for start in HOURS]
    around = [at - 1 - window + 2, at - 1 - window // 2, at - 1]
    if rows_too:
        assert moments == sorted({*ends, *around})
    else:
        assert moments == (ends if window == 2 * HOUR else around)


def test_without_a_step_a_range_is_its_first_moment_and_its_last() -> None:
    assert Sight(START - LOOKBACK_MS, START + HOUR).steps().tolist() == [START - 1, START + HOUR - 1]


def test_a_range_that_ends_before_its_first_moment_is_its_end() -> None:
    assert Sight(START, START + MINUTE, step=MINUTE).steps().tolist() == [START + MINUTE - 1]


def test_a_counter_begins_where_it_stood_before_its_first_row() -> None:
    """And never below 0, where it fell in that row."""
    for last, begin in ((100.0, 96.0), (1.0, 0.0)):
        _, values = counter(HOURS[:1], HOUR, (np.array([4.0]), np.array([last])), np.array([START, START + HOUR - 1]))
        assert values.tolist() == pytest.approx([begin, begin + 4.0], abs=1e-5)
