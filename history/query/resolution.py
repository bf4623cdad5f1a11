"""Which table answers: the coarsest that is fine enough for the step asked for and still reaches back so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from virtflow.history.maintenance.rollup import DAY_SECONDS, HOUR_SECONDS
from virtflow.history.storage.table_schemas import DAILY, HOURLY, SAMPLES, Table
from virtflow.runtime.settings import History

POINTS: Final = 500
"""Points a range has where no step was asked for, at most."""
_STEPS: Final = (10, 30, 60, 300, 900, HOUR_SECONDS, 3 * HOUR_SECONDS, 6 * HOUR_SECONDS, DAY_SECONDS, 7 * DAY_SECONDS, 30 * DAY_SECONDS)


@dataclass(frozen=True, slots=True)
class Tier:
    """A table of samples or of roll-ups, and how long one row of it stands for (0 for samples)."""

    table: Table
    seconds: int


RAW: Final = Tier(SAMPLES, 0)
HOURS: Final = Tier(HOURLY, HOUR_SECONDS)
DAYS: Final = Tier(DAILY, DAY_SECONDS)


def tier_for(step_seconds: float, start: float, now: float, settings: History) -> Tier:
    """The tier for points ``step_seconds`` apart that begin at ``start`` (Unix seconds)."""
    if step_seconds < HOUR_SECONDS and start >= now - settings.raw_days * DAY_SECONDS:
        return RAW
    if step_seconds < DAY_SECONDS and start >= now - settings.hourly_days * DAY_SECONDS:
        return HOURS
    return DAYS


def step_for(seconds: float) -> int:
    """A round step that gives a range of so many seconds no more than ``POINTS`` points."""
    return next((step for step in _STEPS if seconds / step <= POINTS), _STEPS[-1])
