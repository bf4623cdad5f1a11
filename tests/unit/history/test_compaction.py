"""Compaction: the rows of a day, each once, in order, whatever files they come from; row groups with no word of others' rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.support.history import fleet_samples
from virtflow.history.maintenance import kept
from virtflow.history.maintenance.compaction import Step, compact_day
from virtflow.history.maintenance.kept import Kept, is_compact
from virtflow.history.maintenance.rows import order_of
from virtflow.history.storage import delta, parquet, portions
from virtflow.history.storage.delta import Opened, Store
from virtflow.history.storage.parquet import own_words
from virtflow.history.storage.portions import Portion, Portions, in_order, with_uuid
from virtflow.history.storage.table_schemas import COLUMN_OF, SAMPLES
from virtflow.history.writer.rows.sample_rows import sample_rows
from virtflow.runtime.settings import History

DAY = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 3 * 86_400))
START = time.time() // 86_400 * 86_400 - 3 * 86_400
WORDS = pa.dictionary(pa.int32(), pa.string())


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A day of files that overlap: rows of several VMs in no order, kinds mixed, some of them twice; small groups and portions."""
    for module in (parquet, delta, portions):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", 16)
    monkeypatch.setattr(kept, "BUCKET_ROWS", 60)
    table = Store(History(path=str(tmp_path))).make(SAMPLES)
    dice = np.random.default_rng(3)
    rounds = [sample_rows(fleet_samples(2, 3, range(first, first + 4), start=START, steady=False)) for first in (6, 0, 2)]
    added = [table.write_file(DAY, [rows.cast(SAMPLES.schema).take(pa.array(dice.permutation(rows.num_rows)))]) for rows in rounds]
    added.append(table.write_file(DAY, [rounds[1].cast(SAMPLES.schema)]))
    table.commit(added, {})
    table.refresh()
    return table


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows by kind, VM, device and time."""
    keys = ("kind", "uuid", "device", "time")
    names = [*keys, *(name for name in table.schema.names if name not in keys)]
    return sorted(zip(*(table.column(name).to_pylist() for name in names), strict=True), key=lambda row: row[:4])


def compacted(opened: Opened) -> list[Any]:
    """The day's new files, with UUIDs as the dictionaries that are in the files."""
    files = tuple(opened.files())
    compact_day(Kept(opened), Step("compact", SAMPLES, DAY, files))
    assert all(map(is_compact, opened.files()))
    storage = opened.files_of_storage
    return [pq.ParquetFile(storage.open_input_file(file.path), read_dictionary=["uuid"]) for file in opened.files()]


def test_each_row_is_there_once_and_in_order(opened: Opened) -> None:
    before = rows_of(opened.dataset().to_table())
    files = compacted(opened)
    after = opened.dataset().to_table()
    assert rows_of(after) == sorted(set(before), key=lambda row: row[:4])
    assert len(before) > after.num_rows > 200
    for file in files:
        read = file.read(columns=["kind", "uuid", "device", "time"])
        keys = list(zip(*(column.to_pylist() for column in read.columns), strict=True))
        assert keys == sorted(keys)


def test_a_row_group_has_the_words_of_its_own_rows_alone(opened: Opened) -> None:
    groups = [(file, group) for file in compacted(opened) for group in range(file.num_row_groups)]
    assert len(groups) > 12
    for file, group in groups:
        words = file.read_row_group(group, columns=["uuid"]).column("uuid").combine_chunks()
        assert sorted(words.dictionary.to_pylist()) == sorted(set(words.to_pylist()))


def test_a_kind_without_rows_has_no_file(opened: Opened) -> None:
    compacted(opened)
    assert [file.path for file in opened.files() if not file.rows] == []


def test_a_column_that_no_file_has_is_in_no_compacted_file(opened: Opened) -> None:
    before = opened.files()
    rows = sample_rows(fleet_samples(1, 2, range(2), start=START))
    opened.commit([opened.write_file(DAY, [rows], names=["time", "uuid", "kind", "device", "node", "vm_state"])], {}, before)
    names = [file.schema_arrow.names for file in compacted(opened)]
    assert [sorted(COLUMN_OF.keys() & set(each)) for each in names if COLUMN_OF.keys() & set(each)] == [["vm_state"]]
    assert opened.dataset().to_table(columns=["vm_state"], filter=pc.field("kind") == "vm").column(0).null_count == 0


@pytest.mark.parametrize("footers", [0, 512])
def test_a_portion_is_what_its_condition_says(opened: Opened, monkeypatch: pytest.MonkeyPatch, footers: int) -> None:
    monkeypatch.setattr(portions, "FOOTERS", footers)
    names = ["kind", "uuid", "time", "device", "node", "vm_cpu_seconds_total", "vm_block_read_bytes_total"]
    whole, read = opened.dataset().to_table(columns=names), Portions(opened, opened.files())
    for kind, (low, high) in product(("vm", "block", "filesystem"), (("", ""), ("", "8"), ("3", "c"), ("8", ""))):
        found = read.read(Portion(kind, low, high), names)
        assert found.schema.field("uuid").type == WORDS
        assert found.schema.names == names
        assert rows_of(found) == rows_of(whole.filter((pc.field("kind") == kind) & with_uuid(low, high)))


def test_a_file_of_an_older_layout_lacks_columns(opened: Opened) -> None:
    rows = sample_rows(fleet_samples(1, 2, range(2), start=START))
    added = opened.write_file(DAY, [rows], names=["time", "uuid", "kind", "device"])
    opened.commit([added], {})
    newest = [file for file in opened.files() if file.path == added.path]
    found = Portions(opened, newest).read(Portion("vm", "", ""), ["kind", "uuid", "node", "vm_cpu_seconds_total"])
    assert found.num_rows == 4
    assert found.column("node").null_count == found.column("vm_cpu_seconds_total").null_count == 4


@pytest.mark.parametrize("order", [[3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6, 7], [7, 0, 3], [4, 5, 6, 0, 1], []])
def test_rows_in_an_order(monkeypatch: pytest.MonkeyPatch, order: Sequence[int]) -> None:
    monkeypatch.setattr(portions, "ROW_GROUP_ROWS", 2)
    words = pa.array(["a", None, "b", "c", "a", "b", "a", "d"]).cast(WORDS)
    rows = pa.table({"number": pa.chunked_array([[0, 1, 2], [3], [], [4, 5, 6, 7]]), "word": words})
    parts = list(in_order(rows, np.array(order, np.int64)))
    assert [part.num_rows for part in parts] == [2] * (len(order) // 2) + [1] * (len(order) % 2)
    assert [value for part in parts for value in part.column("number").to_pylist()] == list(order)
    assert [value for part in parts for value in part.column("word").to_pylist()] == [words[place].as_py() for place in order]


@pytest.mark.parametrize("many", [1, 2**40])
def test_order_is_that_of_two_sorts(many: int) -> None:
    dice = np.random.default_rng(5)
    series, moment = dice.integers(0, 5, 200) * many, dice.integers(10**15, 10**15 + 50, 200) + dice.integers(0, 2, 200) * 10**9
    assert order_of(series, moment).tolist() == np.lexsort((moment, series)).tolist()
    assert order_of(series[:0], moment[:0]).tolist() == []


def test_own_words_keeps_what_is_absent() -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([3, None, 1, 3], pa.int32()), pa.array(["a", "b", "c", "d"]))
    found = own_words(words)
    assert found.to_pylist() == ["d", None, "b", "d"]
    assert found.dictionary.to_pylist() == ["b", "d"]
