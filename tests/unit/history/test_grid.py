"""Where a PromQL expression looks at a roll-up: a full hour is the end of the hour before it, for every Prometheus and every kind of query."""

from __future__ import annotations

import numpy as np
import pytest

from virtflow.history.remote_read.resample import STALE, Sight, counter, gauge

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
