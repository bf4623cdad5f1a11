"""Files that can't hold what is asked for are not opened, and no row is lost by it."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.support.history import fleet_samples
from virtflow.history.maintenance.kept import between
from virtflow.history.storage.delta import Opened, Store
from virtflow.history.storage.skipping import may_hold
from virtflow.history.storage.table_schemas import SAMPLES, TIME, kind_columns
from virtflow.history.writer.rows.sample_rows import sample_rows
from virtflow.runtime.settings import History

DAY = 86_400
START = time.time() // DAY * DAY - 5 * DAY
KINDS = ("vm", "vcpu", "network", "block")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Four days, each a file for each kind, as compaction makes them, and one file of all kinds, as the writer makes them."""
    table = Store(History(path=str(tmp_path_factory.mktemp("skipping")))).make(SAMPLES)
    for day in range(4):
        rows = sample_rows(fleet_samples(1, 3, range(3), interval=3_600.0, start=START + day * DAY))
        name = time.strftime("%Y-%m-%d", time.gmtime(START + day * DAY))
        of_kinds = [(kind, rows.filter(pc.equal(rows.column("kind"), kind))) for kind in KINDS]
        added = [table.write_file(name, [part], compact=True, names=kind_columns(SAMPLES, kind)) for kind, part in of_kinds]
        table.commit(added, {})
    table.commit(table.write(sample_rows(fleet_samples(1, 3, range(1), start=START + 4 * DAY))), {})
    return table


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("start", "end", "files"),
    [
        (0, DAY, 1),
        (3_600, 3_601, 1),
        (7_201, DAY, 0),
        (0, 5 * DAY, 5),
        (DAY, 2 * DAY + 1, 2),
        (-DAY, 0, 0),
        (4 * DAY, 5 * DAY, 1),
        (6 * DAY, 7 * DAY, 0),
    ],
)
def test_the_rows_are_those_of_all_files(opened: Opened, kind: str, start: int, end: int, files: int) -> None:
    first, last = START + start, START + end
    wanted = between("time", first, last) & (pc.field("kind") == kind)
    some = opened.within(first, last, kind)
    assert len(list(some.get_fragments())) == files
    names = ["day", "time", "uuid", "kind", "device", "vm_cpu_seconds_total", "vm_block_read_bytes_total"]
    order = [(name, "ascending") for name in ("time", "uuid", "device")]
    found = some.to_table(columns=names, filter=wanted).sort_by(order)
    assert found.equals(opened.dataset().to_table(columns=names, filter=wanted).sort_by(order))
    assert (found.num_rows > 0) == (files > 0)


def test_a_table_without_files_has_no_rows(tmp_path: Path) -> None:
    empty = Store(History(path=str(tmp_path))).make(SAMPLES)
    assert empty.within(START, START + DAY, "vm").to_table().equals(SAMPLES.schema.empty_table())


def test_a_file_without_bounds_may_hold_anything() -> None:
    moment = pa.scalar(int(START * 1e6)).cast(TIME)
    bounds = {"min.time": [moment, None], "max.time": [moment, None], "min.kind": ["vm", None], "max.kind": ["vm", None]}
    actions = pa.table(
        {
            "path": ["known", "unknown"],
            **{name: pa.array(values, TIME if "time" in name else pa.string()) for name, values in bounds.items()},
        }
    )
    assert may_hold(actions, START, START + 1, "vm").column("path").to_pylist() == ["known", "unknown"]
    assert may_hold(actions, START + 1, START + 2, "vm").column("path").to_pylist() == ["unknown"]
    assert may_hold(actions, START, START + 1, "block").column("path").to_pylist() == ["unknown"]
    assert may_hold(actions.select(["path"]), START, START + 1, "vm").num_rows == 2
