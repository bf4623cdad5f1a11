"""A history whose table ``counters`` was made before it had the column ``past_unknown`` goes on with the next upkeep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.support.history_lives import Kept, record, vm_uuid
from tests.support.history_truth import Seen
from tests.unit.history.test_rollup_cases import CASES, samples_of
from virtflow.history.storage.table_schemas import COUNTERS, HOURLY

COLUMN: Final = "past_unknown"
TWICE: Final = {vm_uuid(number): case for number, case in enumerate(CASES) if case["name"].startswith("moved B to A")}


def without_the_column(table: Path) -> None:
    """Takes the column out of every file and of the log."""
    for file in table.glob("day=*/*.parquet"):
        pq.write_table(pq.read_table(file, partitioning=None).drop_columns([COLUMN]), file)
    for commit in (table / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in commit.read_text().splitlines()]
        for action in actions:
            if "metaData" in action:
                schema = json.loads(action["metaData"]["schemaString"])
                schema["fields"] = [field for field in schema["fields"] if field["name"] != COLUMN]
                action["metaData"]["schemaString"] = json.dumps(schema)
        commit.write_text("".join(json.dumps(action) + "\n" for action in actions))


def parts(case: dict[str, Any]) -> tuple[list[Seen], list[Seen]]:
    """The samples from before another VM runs on B, and the others."""
    samples = sorted((each for commit in samples_of(case) for each in commit), key=lambda each: each.at)
    moved = next(each.at for each in samples if each.node == "A")
    first = next(number for number, each in enumerate(samples) if each.at > moved and (each.node, each.state) == ("B", 1))
    return samples[:first], samples[first:]


@pytest.fixture(name="history")
def older(tmp_path: Path) -> Kept:
    """The VMs until another one of the same UUID starts, in tables as they were."""
    history = Kept(tmp_path)
    history.rolled([[record(uuid, each) for uuid, case in TWICE.items() for each in parts(case)[0]]])
    without_the_column(tmp_path / COUNTERS.name)
    return history


def names(history: Kept) -> list[str]:
    """The columns of ``counters``."""
    return [field.name for field in history.store.open(COUNTERS).delta.schema().fields]


def test_the_column_is_added_and_the_values_are_right(history: Kept) -> None:
    """What began before the column was there, and what begins after it."""
    assert len(TWICE) == 4
    assert COLUMN not in names(history)
    history.rolled([[record(uuid, each) for uuid, case in TWICE.items() for each in parts(case)[1]]])
    assert COLUMN in names(history)
    columns: list[str] = ["uuid", "vm_cpu_seconds_total_increase"]
    rows = history.store.open(HOURLY).dataset().to_table(columns=columns, filter=pc.field("kind") == "vm")
    found: dict[str, Any] = dict.fromkeys(TWICE, 0)
    for row in rows.to_pylist():
        found[row["uuid"]] += row["vm_cpu_seconds_total_increase"] or 0
    assert found == {uuid: pytest.approx(case["right"], rel=1e-12) for uuid, case in TWICE.items()}
