"""The tables in memory do what real ones do: each test runs on both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.simulation.storage import MemoryStore, Tables
from virtflow.history.storage.delta import Store
from virtflow.history.storage.errors import FencedError, StorageError
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.history.writer.rows.sample_rows import sample_rows
from virtflow.runtime.settings import History
from virtflow.schemas.records import VmMetrics

HOUR: Final = 1_790_000_000 // 3_600 * 3_600
Make = Callable[[], Any]


@pytest.fixture(params=["in memory", "on disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:  # noqa: ANN401, either of two stores
    """One of each test's own."""
    if request.param == "in memory":
        return MemoryStore(Tables())
    return Store(History(path=str(tmp_path), sync="never"))


def rows(*moments: float) -> pa.Table:
    """Samples of one VM."""
    return sample_rows(
        [
            VmMetrics(uuid="11111111-2222-4333-8444-555555555555", name="vm", node="a", boot_id="b", sequence=n, collected=at, interval=1.0)
            for n, at in enumerate(moments)
        ]
    )


def test_rows_and_numbers_are_there_after_a_commit(store: Any) -> None:  # noqa: ANN401, either of two stores
    opened = store.make(SAMPLES)
    before = opened.version
    opened.commit(opened.write(rows(HOUR, HOUR + 1)), {"p": 7}, notes={"n": "words"})
    assert opened.number("p") == 7
    assert opened.version == before + 1
    again = store.open(SAMPLES)
    assert again.number("p") == 7
    assert again.number("q") is None
    assert again.read(["sequence"]).column("sequence").to_pylist() == [0, 1]
    assert again.read(["sequence"], pc.field("sequence") > 0).num_rows == 1
    assert again.notes("n") == ["words"]
    assert again.notes("other") == []


def test_rows_that_were_written_are_not_there_before_a_commit(store: Any) -> None:  # noqa: ANN401, either of two stores
    opened = store.make(SAMPLES)
    opened.discard(opened.write(rows(HOUR)))
    assert store.open(SAMPLES).files() == []


def test_each_hour_has_a_file_with_its_bounds(store: Any) -> None:  # noqa: ANN401, either of two stores
    opened = store.make(SAMPLES)
    opened.commit(opened.write(rows(HOUR, HOUR + 3_599.5, HOUR + 3_600)), {})
    found = sorted((file.rows, file.first, file.last) for file in store.open(SAMPLES).files())
    assert found == [(1, HOUR + 3_600, HOUR + 3_600), (2, HOUR, HOUR + 3_599.5)]


def test_of_two_commits_of_one_name_the_second_is_fenced(store: Any) -> None:  # noqa: ANN401, either of two stores
    store.make(SAMPLES)
    first, second = store.open(SAMPLES), store.open(SAMPLES)
    first.commit(first.write(rows(HOUR)), {"p": 1, "p/commit": 11})
    added = second.write(rows(HOUR))
    with pytest.raises(FencedError):
        second.commit(added, {"p": 1, "p/commit": 12})
    assert store.open(SAMPLES).number("p/commit") == 11
    assert store.open(SAMPLES).read(["sequence"]).num_rows == 1


def test_commits_of_different_names_do_not_hinder_each_other(store: Any) -> None:  # noqa: ANN401, either of two stores
    store.make(SAMPLES)
    first, second = store.open(SAMPLES), store.open(SAMPLES)
    first.commit(first.write(rows(HOUR)), {"p": 1})
    second.commit(second.write(rows(HOUR + 1)), {"q": 1})
    assert store.open(SAMPLES).read(["sequence"]).num_rows == 2


def test_a_table_moves_on_only_when_it_is_asked_to(store: Any) -> None:  # noqa: ANN401, either of two stores
    store.make(SAMPLES)
    first, second = store.open(SAMPLES), store.open(SAMPLES)
    first.commit(first.write(rows(HOUR)), {"p": 1})
    assert second.number("p") is None
    assert second.files() == []
    second.refresh()
    assert second.number("p") == 1
    assert len(second.files()) == 1


def test_files_are_replaced_at_once_and_an_older_version_has_the_old_ones(store: Any) -> None:  # noqa: ANN401, either of two stores
    opened = store.make(SAMPLES)
    opened.commit(opened.write(rows(HOUR)), {})
    opened.refresh()
    old, version = opened.files(), opened.version
    opened.commit([opened.write_file(old[0].day, [rows(HOUR, HOUR + 1)])], {}, old)
    assert [file.rows for file in store.open(SAMPLES).files()] == [2]
    assert [file.path for file in store.at(SAMPLES, version).files()] == [old[0].path]


def test_a_file_is_taken_out_once(store: Any) -> None:  # noqa: ANN401, either of two stores
    opened = store.make(SAMPLES)
    opened.commit(opened.write(rows(HOUR)), {})
    opened.refresh()
    other = store.open(SAMPLES)
    opened.commit([], {}, opened.files())
    with pytest.raises(StorageError):
        other.commit([], {}, other.files())


def test_notes_come_from_the_newest_on(store: Any) -> None:  # noqa: ANN401, either of two stores
    opened = store.make(SAMPLES)
    for number in range(3):
        opened.refresh()
        opened.commit([], {"p": number}, notes={"n": str(number)})
    opened.refresh()
    assert opened.notes("n") == ["2", "1", "0"]
    assert opened.notes("n", 2) == ["2", "1"]
