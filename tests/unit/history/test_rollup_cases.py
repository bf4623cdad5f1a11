"""Cases that once went wrong, with their right values: through samples, upkeep and the hours, and in the plain truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from tests.support.history_lives import METRICS, Kept, record, vm_uuid
from tests.support.history_truth import SECOND, Seen, hours
from virtflow.history.storage.table_schemas import COLUMN_OF, HOURLY

START = 1_790_000_000 // 3_600 * 3_600
CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "rollup.json").read_text())


def seen(case: dict[str, Any], sample: dict[str, Any], number: int) -> Seen:
    """One line of a case as a sample."""
    told: dict[tuple[str, str], dict[str, float]] = {("vm", ""): {}}
    if "cpu_seconds_total" in sample:
        told["vm", ""]["vm_cpu_seconds_total"] = sample["cpu_seconds_total"]
    for device, value in sample.get("write_bytes_total", {}).items():
        told["block", device] = {"vm_block_write_bytes_total": value}
    if "receive_bytes_total" in sample:
        told["network", case["device"]] = {"vm_network_receive_bytes_total": sample["receive_bytes_total"]}
    at = round((START + sample["t"]) * SECOND)
    place = (sample["state"], sample["reason"], sample.get("monitor", True))
    return Seen(at, sample["node"], f"run-{sample['node']}", number, sample["interval"], *place, told)


def samples_of(case: dict[str, Any]) -> list[list[Seen]]:
    """The commits of a case; the number of a sample is its place."""
    numbers = iter(range(10_000))
    return [[seen(case, sample, next(numbers)) for sample in commit] for commit in case["commits"]]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_increase_is_right(case: dict[str, Any], tmp_path: Path) -> None:
    """Upkeep runs after each commit; the hours add up to the right value."""
    history = Kept(tmp_path)
    history.rolled([[record(vm_uuid(1), each) for each in commit] for commit in samples_of(case)])
    kind = COLUMN_OF[case["metric"]].kind
    wanted = (pc.field("kind") == kind) & (pc.field("device") == case["device"])
    found = history.store.open(HOURLY).dataset().to_table(columns=[f"{case['metric']}_increase"], filter=wanted).column(0)
    assert pc.sum(found).as_py() == pytest.approx(case["right"], rel=1e-12)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_plain_truth_knows_it(case: dict[str, Any]) -> None:
    """What random lives are judged by is right itself."""
    rows = hours([each for commit in samples_of(case) for each in commit], METRICS)
    kind = COLUMN_OF[case["metric"]].kind
    column = f"{case['metric']}_increase"
    assert sum(row.get(column, 0) for (of, device, _), row in rows.items() if (of, device) == (kind, case["device"])) == case["right"]
