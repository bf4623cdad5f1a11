"""Random lives of VMs through samples, hours and days: each cell equals the plain calculation sample by sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from tests.support.history_bills import KEYS, Owned, Vm, capacity, usage
from tests.support.history_lives import FOREIGN, METRICS, Kept, Life
from tests.support.history_truth import Row, days, hours
from tests.support.long import QUICK, length
from virtflow.history.query.report import Report, report
from virtflow.history.storage.table_schemas import DAILY, HOURLY, INVENTORY_ROWS, Table
from virtflow.history.writer.dedup import Changes
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.records import VmInventory

LIVES: Final = 20 if QUICK else 200
"""Lives in one history: they share its commits and its upkeep."""
HOURS: Final = length(10, 30)
"""Upkeep's time grows with the hours and not with the lives: ten of them with a midnight in the middle have all that a day has."""
COMMITS: Final = 3
SEEDS: Final = length(1, 10)
MICRO: Final = 1_000_000
MONTHS: Final = {
    name: range(*(round(datetime(2026, number, 1, tzinfo=UTC).timestamp()) * MICRO for number in (month, month + 1)))
    for name, month in (("2026-09", 9), ("2026-10", 10))
}
START: Final = MONTHS["2026-10"].start // MICRO - length(5, 24) * 3_600
"""Most lives are cut in two by the end of a month; reports of both months are compared."""
PLAIN: Final = {"usage": usage, "capacity": capacity}
REPORTS: Final = length(
    {
        3_600: (
            *(("usage", by, month) for by in ("vm", "project") for month in MONTHS),
            ("usage", "owner", "2026-10"),
            ("usage", "node", "2026-09"),
            ("capacity", "vm", "2026-09"),
            ("capacity", "owner", "2026-10"),
        ),
        86_400: (("usage", "vm", "2026-10"), ("capacity", "project", "2026-09")),
    },
    dict.fromkeys((3_600, 86_400), tuple(product(PLAIN, KEYS, MONTHS))),
)
"""The reports that are compared: of what kind, by what, and of which month; from the hours, and from the days."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_cell_is_the_truth(seed: int, tmp_path: Path) -> None:
    """Late, repeated and in whatever commits they come: the roll-ups are those of the samples."""
    lives = [Life(seed * LIVES + number, START * MICRO, HOURS) for number in range(LIVES)]
    history = Kept(tmp_path)
    commits = [life.commits(COMMITS) for life in lives]
    history.rolled([record for of_life in commits for record in of_life[number]] for number in range(COMMITS))
    of_hours, of_days = stored(history, HOURLY), stored(history, DAILY)
    by_hours, by_days, dice = dict[str, Vm](), dict[str, Vm](), Random(seed)  # noqa: S311, owners, not secrets
    for life in lives:
        truth = hours(life.samples, METRICS)
        compare(truth, of_hours.pop(life.uuid, {}), life)
        assert life.ambiguous or not [key for key, row in truth.items() if has_foreign_growth(row)], life.uuid
        truth_of_days = days(truth)
        compare(truth_of_days, of_days.pop(life.uuid, {}), life)
        owners = owners_of(dice)
        by_hours[life.uuid], by_days[life.uuid] = Vm(truth, owners), Vm(truth_of_days, owners)
    assert not of_hours
    assert not of_days
    own(history, by_hours)
    compare_reports(history, by_hours, 3_600)
    compare_reports(history, by_days, 86_400)


def has_foreign_growth(row: Row) -> bool:
    """Whether a whole counter of another VM with the UUID has become growth."""
    return any(value >= FOREIGN / (1_000 if "seconds" in name else 1) for name, value in row.items() if name.endswith("_increase"))


def owners_of(dice: Random) -> list[Owned]:
    """Nobody, one, or several one after the other."""
    changes = sorted(START * MICRO + dice.randrange(HOURS * 3_600) * MICRO for _ in range(dice.choice((0, 1, 1, 1, 2, 3))))
    return [Owned(at, f"p{dice.randrange(6)}", f"u{dice.randrange(4)}") for at in changes]


def own(history: Kept, vms: Mapping[str, Vm]) -> None:
    """Stores the inventory."""
    writer = TableWriter(history.store.make(INVENTORY_ROWS), Changes())
    writer.begin(["p"])
    told = [(uuid, owned) for uuid, vm in vms.items() for owned in vm.owners]
    for offset, (uuid, owned) in enumerate(told):
        inventory = VmInventory(uuid=uuid, node="n", collected=owned.since / MICRO, project_id=owned.project, user_id=owned.owner)
        writer.take("p", offset, inventory)
    writer.commit()


def compare_reports(history: Kept, vms: Mapping[str, Vm], period_seconds: int) -> None:
    """Every cell of the reports, from the hours or, as if these were gone, from the days."""
    settings = History(path=history.settings.path, hourly_days=36_500 if period_seconds == 3_600 else 1)
    for kind, by, month in REPORTS[period_seconds]:
        rows = report(history.store, settings, Report(kind, month, by)).to_pylist()
        found = {
            row[KEYS[by]]: {name: value for name, value in row.items() if value is not None and not isinstance(value, str)} for row in rows
        }
        truth = PLAIN[kind](vms, by, MONTHS[month], period_seconds * MICRO)
        assert truth.keys() == found.keys(), (kind, by, month)
        for key, right in truth.items():
            assert right.keys() == found[key].keys(), (kind, by, month, key, right.keys() ^ found[key].keys())
            wrong = {name: (value, found[key][name]) for name, value in right.items() if not _equal(value, found[key][name], name)}
            assert not wrong, (kind, by, month, key, wrong)


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


def _equal(right: Any, found: Any, name: str = "") -> bool:  # noqa: ANN401, cells of any kind
    if isinstance(right, str):
        return bool(right == found)
    return found is not None and math.isclose(right, found, rel_tol=1e-9, abs_tol=0.5 if name.endswith("_bytes") else 1e-6)
