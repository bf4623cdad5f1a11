"""A record is stored once: whatever its age, whoever stored it, and whether the answer to a commit was lost."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.history import fleet_inventories, fleet_samples, key_of, rows_of, stored_keys
from virtflow.history.storage.delta import Opened, Store
from virtflow.history.storage.errors import FencedError, StorageError
from virtflow.history.storage.table_schemas import EVENT_ROWS, INVENTORY_ROWS, MIGRATION_ROWS, SAMPLES, Table
from virtflow.history.writer.dedup import Changes, Filter, Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.records import VmEvent, VmMetrics, VmMigration

HOUR = 3_600.0
NOW = float(int(time.time()))
PART = "p"


def writer_of(path: Path, table: Table = SAMPLES, known: Filter | None = None) -> TableWriter:
    writer = TableWriter(Store(History(path=str(path), sync="never")).make(table), known or Sequences())
    writer.begin([PART])
    return writer


def take(writer: TableWriter, records: Iterable[Any], offset: int = 0) -> None:
    for number, record in enumerate(records, offset):
        writer.take(PART, number, record)


def store(writer: TableWriter, records: Sequence[Any], offset: int = 0) -> None:
    take(writer, records, offset)
    writer.commit()


@pytest.mark.parametrize("ahead", [-30 * HOUR, HOUR, 20 * HOUR])
def test_a_restarted_writer_knows_records_of_any_time(tmp_path: Path, ahead: float) -> None:
    """Older than the newest ones by a day, and of a host whose clock is ahead."""
    present, other = (list(fleet_samples(1, 4, range(5), start=NOW + start)) for start in (0.0, ahead))
    other = [replace(sample, node="other") for sample in other]
    store(writer_of(tmp_path), [*other, *present])
    again = writer_of(tmp_path)
    store(again, [*other, *present])
    assert again.repeated == len(other) + len(present)
    assert stored_keys(tmp_path) == Counter(map(key_of, [*other, *present]))


def test_of_a_vm_with_many_gaps_each_sample_is_known(tmp_path: Path) -> None:
    """Every second round is missing, for half an hour."""
    samples = [sample for sample in fleet_samples(1, 1, range(360), start=NOW) if sample.sequence % 2]
    store(writer_of(tmp_path), samples)
    again = writer_of(tmp_path)
    store(again, samples)
    assert again.repeated == len(samples)


def test_hours_that_were_forgotten_are_looked_at_again(tmp_path: Path) -> None:
    """Memory for two runs of sequences, and repeats of five hours in any order."""
    samples = list(fleet_samples(1, 1, range(10), interval=1_800.0, start=NOW // HOUR * HOUR - 40 * HOUR))
    writer = writer_of(tmp_path, known=Sequences(runs=2))
    dice = random.Random(1)  # noqa: S311, an order, no secret
    for number in range(0, 24, 3):
        store(writer, dice.choices(samples, k=3), number)
    store(writer, samples, 24)
    assert stored_keys(tmp_path) == Counter(map(key_of, samples))


def test_events_are_judged_by_the_hours_they_are_of(tmp_path: Path) -> None:
    events = [
        VmEvent(uuid="u", node="n", boot_id="b", sequence=number, time=NOW - number * HOUR, kind="lifecycle", event=2)
        for number in range(6)
    ]
    store(writer_of(tmp_path, EVENT_ROWS), events)
    store(writer_of(tmp_path, EVENT_ROWS), [*events, *events])
    assert sorted(row["sequence"] for row in rows_of(tmp_path, EVENT_ROWS)) == list(range(6))


def test_inventories_that_are_read_again_are_stored_once(tmp_path: Path) -> None:
    """What changed and changed back is three rows; the same records again, in a new run as well, add nothing, also those that told nothing new."""
    first = fleet_inventories(1, 1, start=NOW)[0]
    told = ["a", "a", "b", "b", "a"]
    records = [replace(first, project=project, collected=NOW + number, sequence=number) for number, project in enumerate(told)]
    one = writer_of(tmp_path, INVENTORY_ROWS, Changes())
    store(one, records)
    store(one, records, 5)
    store(writer_of(tmp_path, INVENTORY_ROWS, Changes()), records)
    assert [row["project"] for row in rows_of(tmp_path, INVENTORY_ROWS)] == ["a", "b", "a"]


def test_migrations_that_are_read_again_are_stored_once(tmp_path: Path) -> None:
    begun = VmMigration(uuid="u", id="m", source="a", destination="b", result="running", updated_timestamp_seconds=NOW)
    records = [begun, replace(begun, result="completed"), replace(begun, id="n", updated_timestamp_seconds=NOW + 9)]
    store(writer_of(tmp_path, MIGRATION_ROWS, Changes()), records)
    store(writer_of(tmp_path, MIGRATION_ROWS, Changes()), records)
    assert sorted((row["id"], row["result"]) for row in rows_of(tmp_path, MIGRATION_ROWS)) == [
        ("m", "completed"),
        ("m", "running"),
        ("n", "running"),
    ]


def test_more_changes_than_are_remembered_are_stored_once(tmp_path: Path) -> None:
    first = fleet_inventories(1, 1, start=NOW)[0]
    records = [replace(first, project=str(number), collected=NOW + number) for number in range(50)]
    writer = writer_of(tmp_path, INVENTORY_ROWS, Changes())
    store(writer, records)
    store(writer, records, 50)
    assert len(rows_of(tmp_path, INVENTORY_ROWS)) == len(records)


@pytest.mark.parametrize("batch", [8, 100])
def test_a_migration_of_a_host_whose_clock_is_behind_is_stored_once(tmp_path: Path, batch: int) -> None:
    """A VM's last host was minutes ahead, and told more than is remembered."""
    ahead = [
        VmMigration(uuid="u", id="m", source="ahead", revision=number, updated_timestamp_seconds=NOW + 300 + number) for number in range(40)
    ]
    behind = [
        VmMigration(uuid="u", id="n", source="right", revision=40 + number, updated_timestamp_seconds=NOW + number) for number in range(6)
    ]
    told = [*ahead, *behind]
    for run in range(2):
        writer = writer_of(tmp_path, MIGRATION_ROWS, Changes())
        for again in range(2):
            for begin in range(0, len(told), batch):
                store(writer, [*told[begin : begin + batch], *behind[: 3 * again]], 1_000 * (2 * run + again) + begin)
    assert sorted(row["revision"] for row in rows_of(tmp_path, MIGRATION_ROWS)) == list(range(46))


ONE = list(fleet_samples(1, 10, range(10), start=NOW - 200))
OTHER = [replace(sample, node="other", boot_id="other") for sample in ONE]


def test_a_commit_of_other_records_up_to_the_same_offset_is_not_taken_for_ours(tmp_path: Path) -> None:
    first, second = writer_of(tmp_path), writer_of(tmp_path)
    store(first, ONE)
    take(second, OTHER)
    with pytest.raises(FencedError):
        second.commit()
    assert second.moved() == [PART]
    assert second.begin([PART]) == {PART: len(ONE)}
    store(second, OTHER, len(ONE))
    assert stored_keys(tmp_path) == Counter(map(key_of, [*ONE, *OTHER]))


class Commits:
    """The storage's commits, of which the answers of some are lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lost: type[Exception]) -> None:
        """The first commits are made, and raise these."""
        self._commit, self._lost = Opened.commit, list(lost)

        def commit(opened: Opened, *words: Any, **more: Any) -> None:  # noqa: ANN401, as the class has it
            self.make(opened, *words, **more)

        monkeypatch.setattr(Opened, "commit", commit)

    def make(self, opened: Opened, added: Any, numbers: Mapping[str, int], **more: Any) -> None:  # noqa: ANN401, actions
        """As always; then what was to be raised."""
        self._commit(opened, added, numbers, **more)
        if self._lost:
            raise self._lost.pop(0)("the answer was lost")


@pytest.mark.parametrize("more", [[], OTHER])
def test_a_commit_whose_answer_was_lost_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[VmMetrics]) -> None:
    """Also when more was taken since: that is stored by the next one."""
    writer = writer_of(tmp_path)
    Commits(monkeypatch, StorageError)
    take(writer, ONE)
    with pytest.raises(StorageError):
        writer.commit()
    take(writer, more, len(ONE))
    writer.commit()
    assert stored_keys(tmp_path) == Counter(map(key_of, [*ONE, *more]))
    assert (writer.waiting, writer.behind, writer.moved()) == (0, False, [])
    store(writer, ONE, len(ONE + more))
    assert writer.repeated == len(ONE)


def test_a_commit_that_met_itself_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage took it, the answer was lost, and the library's next try found the partition moved: by itself."""
    writer = writer_of(tmp_path)
    Commits(monkeypatch, FencedError)
    store(writer, ONE)
    assert stored_keys(tmp_path) == Counter(map(key_of, ONE))
    store(writer, [*ONE, *OTHER], len(ONE))
    assert stored_keys(tmp_path) == Counter(map(key_of, [*ONE, *OTHER]))
