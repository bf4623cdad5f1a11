"""A power cut: the newest commit has length zero, ends anywhere, or names a file that is gone. ``verify`` names it, the writer refills it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from deltalake import DeltaTable

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.figures import figure
from tests.support.history import Writer, fleet_samples, key_of, produce, stored_keys, wait_for_samples, writing
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES, TABLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History

NOW = float(int(time.time()) // 10 * 10)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


def newest_commit(history: Path) -> Path:
    return max((history / "samples" / "_delta_log").glob("*.json"))


def cut(commit: Path, how: str) -> None:
    text = commit.read_bytes()
    lines = text.splitlines(keepends=True)
    left = {"empty": b"", "zeros": b"\0" * len(text), "torn": text[: len(text) // 2], "lines": b"".join(lines[:-1])}[how]
    commit.write_bytes(left)


@pytest.mark.parametrize("how", ["empty", "zeros", "torn", "lines"])
def test_the_newest_commit_is_named_and_refilled(broker: Broker, tmp_path: Path, how: str) -> None:
    name, history = uuid4().hex[:8], tmp_path / "history"
    done = virtflow("topics", "create", "--bootstrap-servers", broker.address, "--topic-prefix", f"{name}.", "--partitions", "1")
    assert done.returncode == 0, done.stderr
    writer = Writer(broker.address, history, tmp_path, {"VIRTFLOW_TOPICS_PREFIX": f"{name}.", "VIRTFLOW_HISTORY_GROUP": name})
    samples, stored = list(fleet_samples(1, 10, range(4), start=NOW)), 0
    with writing(writer):
        for half in (samples[:20], samples[20:]):
            produce(broker.address, f"{name}.vm.metrics", half)
            stored += len(half)
            wait_for_samples(history, stored, 60.0, writer)
        writer.kill()
        commit = newest_commit(history)
        cut(commit, how)
        verified = virtflow("history", "verify", "--history", str(history))
        assert verified.returncode == 1, verified.stdout
        assert commit.name in verified.stdout + verified.stderr
        commit.unlink()  # as verify says
        assert virtflow("history", "verify", "--history", str(history)).returncode == 0
        writer.start()
        wait_for_samples(history, 40, 60.0, writer)
        assert writer.stop() == 0
    assert dict(stored_keys(history)) == {key_of(sample): 1 for sample in samples}
    figure(32, "rows after the cut, refilled and each stored once", len(samples))


def test_a_file_that_is_gone_or_torn_is_named(tmp_path: Path) -> None:
    store = Store(History(path=str(tmp_path)))
    writer = TableWriter(store.make(SAMPLES), Sequences())
    for number in range(2):
        writer.begin(["p"])
        writer.take("p", number, next(iter(fleet_samples(1, 1, range(number, number + 1)))))
        writer.commit()
    first, second = sorted((tmp_path / "samples").glob("day=*/*.parquet"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    verified = virtflow("history", "verify", "--history", str(tmp_path))
    assert verified.returncode == 1
    assert f"{first.name}" in verified.stdout
    assert f"{second.name}" in verified.stdout


def test_an_entry_that_is_missing_in_between_is_named(tmp_path: Path) -> None:
    store = Store(History(path=str(tmp_path)))
    writer = TableWriter(store.make(SAMPLES), Sequences())
    for number in range(3):
        writer.begin(["p"])
        writer.take("p", number, next(iter(fleet_samples(1, 1, range(number, number + 1)))))
        writer.commit()
    gone = sorted((tmp_path / "samples" / "_delta_log").glob("*.json"))[-2]
    gone.unlink()
    assert gone.name in virtflow("history", "verify", "--history", str(tmp_path)).stdout


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files and folders that were forced to the disk, in order."""
    seen: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        seen.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return seen


def entry(table: Path, version: int) -> str:
    """The path of a version's log entry."""
    return str(table / "_delta_log" / f"{version:020d}.json")


def test_every_file_and_folder_of_new_tables_is_on_the_disk(tmp_path: Path, forced: list[str]) -> None:
    """The first entry of each log, the history's own folder, and those above it that are new, too."""
    history = tmp_path / "new" / "history"
    store = Store(History(path=str(history)))
    for table in TABLES:
        store.make(table)
        made = [path for path in (history / table.name, *(history / table.name).rglob("*")) if ".tmp" not in path.name]
        assert {str(path) for path in (*made, history, history.parent, tmp_path)} <= set(forced)
        assert entry(history / table.name, 0) in forced


def test_columns_that_are_added_and_vacuuming_are_on_the_disk(tmp_path: Path, forced: list[str]) -> None:
    table = tmp_path / "samples"
    less = SAMPLES.schema.remove(SAMPLES.schema.get_field_index("vm_state"))
    DeltaTable.create(str(table), less, partition_by=["day"])
    opened = Store(History(path=str(tmp_path))).make(SAMPLES)
    assert opened.version == 1
    assert {entry(table, 0), entry(table, 1)} <= set(forced)
    (table / "day=2026-01-01").mkdir()
    (table / "day=2026-01-01" / "part-left.parquet").touch()
    opened.vacuum(0)
    assert not list(table.glob("day=*/*.parquet"))
    assert {entry(table, version) for version in range(opened.version + 1)} <= set(forced)
    assert opened.version > 1


def test_a_folder_above_that_may_not_be_read_is_left_alone(tmp_path: Path, forced: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the private folder is in which a service with a dynamic user has its own; tests run as root, which may read all."""
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)
    Store(History(path=str(tmp_path / "history"))).make(SAMPLES)
    assert str(tmp_path / "history") in forced
    assert str(tmp_path) not in forced


@pytest.mark.parametrize("sync", ["commit", "never"])
def test_rows_are_on_the_disk_before_the_commit_that_names_them(sync: str, tmp_path: Path, forced: list[str]) -> None:
    """Files, then their folders, then the log's entry: in that order, before the writer takes it for stored."""
    made = Store(History(path=str(tmp_path), sync=sync)).make(SAMPLES)  # type: ignore[arg-type]
    before = len(forced)
    writer = TableWriter(made, Sequences())
    writer.begin(["p"])
    writer.take("p", 0, next(iter(fleet_samples(1, 1, range(1)))))
    writer.commit()
    if sync == "never":
        assert not forced
        return
    (file,) = (tmp_path / "samples").glob("day=*/*.parquet")
    commit = newest_commit(tmp_path)
    assert forced[before:] == [str(file), str(file.parent), str(tmp_path / "samples"), str(commit), str(commit.parent)]
