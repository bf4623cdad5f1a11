"""A power cut: the newest commit has length zero, ends anywhere, or names a file that is gone. ``verify`` names it, the writer refills it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.figures import figure
from tests.support.history import Writer, fleet_samples, key_of, produce, stored_keys, wait_for_samples, writing
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES
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


@pytest.mark.parametrize("sync", ["commit", "never"])
def test_rows_are_on_the_disk_before_the_commit_that_names_them(sync: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, then their folders, then the log's entry: in that order, before the writer takes it for stored."""
    seen: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        seen.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    writer = TableWriter(Store(History(path=str(tmp_path), sync=sync)).make(SAMPLES), Sequences())  # type: ignore[arg-type]
    writer.begin(["p"])
    writer.take("p", 0, next(iter(fleet_samples(1, 1, range(1)))))
    writer.commit()
    if sync == "never":
        assert not seen
        return
    (file,) = (tmp_path / "samples").glob("day=*/*.parquet")
    wanted = [str(file), str(file.parent), str(tmp_path / "samples"), str(newest_commit(tmp_path)), str(newest_commit(tmp_path).parent)]
    assert [path for path in seen if path in wanted] == wanted
