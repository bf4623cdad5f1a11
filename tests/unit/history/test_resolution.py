"""Which table answers a range, and how far apart its points are."""

from __future__ import annotations

import pytest

from virtflow.history.query.resolution import DAYS, HOURS, RAW, Tier, step_for, tier_for
from virtflow.runtime.settings import History

DAY, HOUR = 86_400, 3_600
NOW = 1_795_476_000.0
KEPT = History(raw_days=30, hourly_days=396)


@pytest.mark.parametrize(
    ("step", "days_ago", "expected"),
    [
        (1, 0, RAW),
        (HOUR - 1, 30, RAW),
        (HOUR, 0, HOURS),
        (60, 31, HOURS),
        (DAY - 1, 396, HOURS),
        (DAY, 0, DAYS),
        (60, 397, DAYS),
    ],
)
def test_the_coarsest_table_that_is_fine_enough_and_reaches_back(step: float, days_ago: int, expected: Tier) -> None:
    """Each bound belongs to the finer table's side of its age, and to the coarser one's side of its step."""
    assert tier_for(step, NOW - days_ago * DAY, NOW, KEPT) is expected


@pytest.mark.parametrize(("tier", "seconds"), [(RAW, 0), (HOURS, HOUR), (DAYS, DAY)])
def test_a_row_stands_for(tier: Tier, seconds: int) -> None:
    assert tier.seconds == seconds


@pytest.mark.parametrize(
    ("seconds", "step"),
    [
        (1, 10),
        (5_000, 10),
        (5_001, 30),
        (15_001, 60),
        (30_001, 300),
        (150_001, 900),
        (450_001, HOUR),
        (500 * HOUR + 1, 3 * HOUR),
        (1_500 * HOUR + 1, 6 * HOUR),
        (3_000 * HOUR + 1, DAY),
        (500 * DAY + 1, 7 * DAY),
        (3_500 * DAY + 1, 30 * DAY),
        (50_000 * DAY, 30 * DAY),
    ],
)
def test_a_round_step_of_at_most_five_hundred_points(seconds: float, step: int) -> None:
    """The smallest of them; of a range that is longer than any of them allows, the largest."""
    assert step_for(seconds) == step
