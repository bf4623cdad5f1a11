"""What a writer asks the table's log before a commit: each number that is looked up costs as much CPU as a commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtflow.history.storage.delta import Opened, Store
from virtflow.history.storage.table_schemas import EVENT_ROWS
from virtflow.history.writer.dedup import filters
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.records import VmEvent

PARTS = tuple(f"vm.events/id/{number}" for number in range(12))


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are looked up, as they are."""
    names: list[str] = []
    number = Opened.number

    def noted(self: Opened, name: str) -> int | None:
        names.append(name)
        return number(self, name)

    monkeypatch.setattr(Opened, "number", noted)
    return names


def store(folder: Path, sync: str = "commit") -> Store:
    return Store(History(path=str(folder), sync=sync))  # type: ignore[arg-type]


def begun(store: Store) -> TableWriter:
    writer = TableWriter(store.make(EVENT_ROWS), filters()[EVENT_ROWS.name])
    writer.begin(PARTS)
    return writer


def taken(writer: TableWriter, offset: int) -> None:
    for part in PARTS:
        writer.take(part, offset, VmEvent(uuid="u", node="n", boot_id=part, sequence=offset, time=1.7e9, kind="lifecycle", event=2))


@pytest.mark.parametrize("sync", ["commit", "never"])
def test_a_writer_alone_looks_nothing_up(tmp_path: Path, looked_up: list[str], sync: str) -> None:
    """Once it knows the numbers of its partitions, each version of the table is one that it made itself."""
    writer = begun(store(tmp_path, sync))
    for offset in range(3):
        taken(writer, offset)
        if offset:
            looked_up.clear()
        writer.commit()
    assert looked_up == []
    assert (writer.rows, writer.waiting) == (3 * len(PARTS), 0)


def test_after_another_commit_it_looks_once(tmp_path: Path, looked_up: list[str]) -> None:
    """Upkeep commits, too, and moves no partition; another writer does, and is found out."""
    place = store(tmp_path)
    writer = begun(place)
    taken(writer, 0)
    writer.commit()
    place.make(EVENT_ROWS).commit([], {"upkeep": 1})
    looked_up.clear()
    for offset in (1, 2):
        taken(writer, offset)
        writer.commit()
    assert len(looked_up) == len(PARTS)
    other = begun(place)
    taken(other, 3)
    other.commit()
    taken(writer, 3)
    assert sorted(writer.moved()) == sorted(PARTS)
