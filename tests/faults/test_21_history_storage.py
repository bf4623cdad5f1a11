"""Fault 21: the history's storage is full, read-only or away. The writer pauses, commits nothing, resumes; nothing is lost, nothing twice."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.figures import figure
from tests.support.history import Writer, fleet_samples, key_of, produce, stored_keys, wait_for_samples, writing
from tests.support.small_disk import small_disk

NOW = float(int(time.time()) // 10 * 10)
MIB = 1 << 20


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of the test's own."""
    with small_disk(tmp_path / "disk", 24) as folder:
        yield folder


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def make(broker: Broker, folder: Path, path: Path, name: str) -> Writer:
    done = virtflow("topics", "create", "--bootstrap-servers", broker.address, "--topic-prefix", f"{name}.", "--partitions", "2")
    assert done.returncode == 0, done.stderr
    return Writer(broker.address, path, folder, {"VIRTFLOW_TOPICS_PREFIX": f"{name}.", "VIRTFLOW_HISTORY_INSTANCE": name})


def outage(broker: Broker, writer: Writer, topic: str, change: tuple[Callable[[], None], Callable[[], None]]) -> None:
    """Some samples before, many during and some after an outage, which ``change`` begins and ends: all are stored, once."""
    begin, end = change
    path = Path(writer.path)
    samples = list(fleet_samples(1, 40, range(30), start=NOW))
    third = len(samples) // 3
    with writing(writer):
        produce(broker.address, topic, samples[:third])
        wait_for_samples(path, third, 30, writer)
        begin()
        produce(broker.address, topic, samples[third : 2 * third])
        writer.until(lambda: "not ready" in writer.ready())
        writer.until(lambda: "more read" in writer.tail)  # it is not ready, too, while the commit that is about to fail takes long
        end()
        produce(broker.address, topic, samples[2 * third :])
        wait_for_samples(path, len(samples), 60, writer)
        writer.until(lambda: writer.ready() == "ready")
        assert writer.stop() == 0
    assert stored_keys(path) == Counter(map(key_of, samples))
    figure(21, "rows produced before, during and after, each stored once", len(samples))


def test_storage_full(broker: Broker, disk: Path, tmp_path: Path) -> None:
    writer = make(broker, tmp_path, disk / "history", "full")
    ballast = disk / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as out, suppress(OSError):
            while out.write(b"x" * 4096):
                pass

    def room() -> None:
        remount(disk, "size=64m")
        ballast.unlink()

    outage(broker, writer, "full.vm.metrics", (fill, room))


def test_storage_read_only(broker: Broker, disk: Path, tmp_path: Path) -> None:
    remount(disk, "size=64m")
    writer = make(broker, tmp_path, disk / "history", "ro")
    outage(broker, writer, "ro.vm.metrics", (lambda: remount(disk, "ro"), lambda: remount(disk, "rw")))


def test_storage_away(broker: Broker, tmp_path: Path) -> None:
    """The folder is gone (a mount that was lost) and comes back as it was."""
    writer = make(broker, tmp_path, tmp_path / "history", "away")
    history, aside = tmp_path / "history", tmp_path / "aside"

    def lose() -> None:
        history.rename(aside)
        history.write_text("the mount point's own file")

    def restore() -> None:
        history.unlink()
        aside.rename(history)

    outage(broker, writer, "away.vm.metrics", (lose, restore))


def test_a_damaged_file_is_named_and_the_rest_is_readable(broker: Broker, tmp_path: Path) -> None:
    """`history verify` finds it; other days answer as before, and the log's damage is found too."""
    writer = make(broker, tmp_path, tmp_path / "history", "damage")
    samples = [*fleet_samples(1, 4, range(3), start=NOW), *fleet_samples(1, 4, range(10, 13), start=NOW - 86_400)]
    with writing(writer):
        produce(broker.address, "damage.vm.metrics", samples)
        wait_for_samples(tmp_path / "history", len(samples), 30, writer)
    days = sorted((tmp_path / "history" / "samples").glob("day=*"))
    file = next(days[0].glob("*.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[:200] + bytes(400) + whole[600:])
    path = str(tmp_path / "history")
    found = virtflow("history", "verify", "--history", path)
    assert found.returncode == 1
    assert file.name in found.stdout
    assert found.stdout.count("\n") == 1
    sql = f"SELECT count(name) FROM samples WHERE day = '{days[1].name[4:]}'"  # noqa: S608, our own
    asked = virtflow("history", "query", "--history", path, "--format", "csv", sql)
    assert asked.returncode == 0, asked.stderr
    whole_query = virtflow("history", "query", "--history", path, "SELECT * FROM samples")
    assert whole_query.returncode == 1
    assert "verify" in whole_query.stderr
    file.write_bytes(whole)
    log = max((tmp_path / "history" / "samples" / "_delta_log").glob("0*.json"))
    log.write_text('{"add": broken')
    found = virtflow("history", "verify", "--history", path)
    assert found.returncode == 1
    assert log.name in found.stdout
