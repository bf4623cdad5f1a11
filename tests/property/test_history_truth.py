"""Random lives of VMs through samples, hours and days: each cell equals the plain calculation sample by sample."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.history_lives import METRICS, Kept, Life
from tests.support.history_truth import Row, days, hours
from tests.support.long import length
from virtflow.history.storage.table_schemas import DAILY, HOURLY, Table

LIVES: Final = 200
"""Lives in one history: they share its commits and its upkeep."""
HOURS: Final = length(12, 30)
"""Upkeep's time grows with the hours and not with the lives: twelve of them with a midnight in the middle have all that a day has."""
COMMITS: Final = 3
SEEDS: Final = length(1, 10)
START: Final = 1_790_000_000 // 86_400 * 86_400 + length(18, 0) * 3_600
MICRO: Final = 1_000_000


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_cell_is_the_truth(seed: int, tmp_path: Path) -> None:
    """Late, repeated and in whatever commits they come: the roll-ups are those of the samples."""
    lives = [Life(seed * LIVES + number, START * MICRO, HOURS) for number in range(LIVES)]
    history = Kept(tmp_path)
    commits = [life.commits(COMMITS) for life in lives]
    history.rolled([record for of_life in commits for record in of_life[number]] for number in range(COMMITS))
    of_hours, of_days = stored(history, HOURLY), stored(history, DAILY)
    for life in lives:
        truth = hours(life.samples, METRICS)
        compare(truth, of_hours.pop(life.uuid, {}), life)
        compare(days(truth), of_days.pop(life.uuid, {}), life)
    assert not of_hours
    assert not of_days


def stored(history: Kept, table: Table) -> dict[str, dict[tuple[str, str, int], Row]]:
    """The rows of a table by VM, then by kind, device and beginning in microseconds."""
    found: dict[str, dict[tuple[str, str, int], Row]] = {}
    for row in history.store.open(table).dataset().to_table().to_pylist():
        times = {name: round(row[name].timestamp() * MICRO) for name in ("time", "first_time", "last_time")}
        found.setdefault(row["uuid"], {})[row["kind"], row["device"], times["time"]] = row | times
    return found


def compare(truth: dict[tuple[str, str, int], Row], found: dict[tuple[str, str, int], Row], life: Life) -> None:
    """Every cell that either has."""
    assert truth.keys() == found.keys(), life.uuid
    for key, right in truth.items():
        row = {name: value for name, value in found[key].items() if name in right or (_is_cell(name) and value is not None)}
        assert right.keys() == row.keys(), (life.uuid, key, right.keys() ^ row.keys())
        wrong = {name: (value, row[name]) for name, value in right.items() if not _equal(value, row[name])}
        assert not wrong, (life.uuid, key, wrong)


def _is_cell(name: str) -> bool:
    return name.endswith(("_increase", "_rate", "_avg", "_min", "_max", "_known_seconds"))


def _equal(right: Any, found: Any) -> bool:  # noqa: ANN401, cells of any kind
    if isinstance(right, str):
        return bool(right == found)
    return found is not None and math.isclose(right, found, rel_tol=1e-9, abs_tol=1e-6)
