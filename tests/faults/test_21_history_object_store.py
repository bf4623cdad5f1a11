"""Fault 21 on S3-compatible storage: it is gone, it hangs. The writer pauses, commits nothing, resumes; nothing is lost, nothing twice."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.figures import figure
from tests.support.history import Writer, fleet_samples, key_of, produce, stored_keys, wait_for_samples, writing
from tests.support.s3 import ObjectStore

NOW = float(int(time.time()) // 10 * 10)
TOPIC = "vm.metrics"


def outage(folder: Path, store: ObjectStore, change: tuple[Callable[[], None], Callable[[], None]], said: str) -> None:
    """Some samples before, many during and some after an outage, which ``change`` begins and ends: all are stored, once."""
    begin, end = change
    samples = list(fleet_samples(1, 40, range(30), start=NOW))
    third = len(samples) // 3
    with Broker(folder / "broker") as broker, store:
        assert virtflow("topics", "create", "--bootstrap-servers", broker.address, "--partitions", "2").returncode == 0
        writer = Writer(broker.address, store.history.path, folder, store.settings)
        with writing(writer):
            produce(broker.address, TOPIC, samples[:third])
            wait_for_samples("", third, 30, writer, store.history)
            begin()
            produce(broker.address, TOPIC, samples[third : 2 * third])
            writer.until(lambda: said in writer.ready(), 60)
            end()
            produce(broker.address, TOPIC, samples[2 * third :])
            assert wait_for_samples("", len(samples), 90, writer, store.history) == Counter(map(key_of, samples))
            writer.until(lambda: writer.ready() == "ready")
            assert writer.stop() == 0
        assert stored_keys("", store.history) == Counter(map(key_of, samples))
        figure(21, "rows produced before, during and after, each stored once", len(samples))


def test_it_is_gone_and_comes_back(tmp_path: Path) -> None:
    """Killed, and started again with what it had."""
    store = ObjectStore(tmp_path, kept=True)
    outage(tmp_path, store, (store.kill, store.start), "not ready")


def test_it_hangs(tmp_path: Path) -> None:
    """It takes connections and answers nothing: the writer says how long a commit takes already, and goes on where it was."""
    store = ObjectStore(tmp_path)
    outage(tmp_path, store, (lambda: store.signal(signal.SIGSTOP), lambda: store.signal(signal.SIGCONT)), "commit under way")


def test_it_hangs_and_the_writer_is_told_to_stop(tmp_path: Path) -> None:
    """It ends in time, without the commit that is under way; the next one stores all of it, once."""
    samples = list(fleet_samples(1, 40, range(20), start=NOW))
    half = len(samples) // 2
    with Broker(tmp_path / "broker") as broker, ObjectStore(tmp_path) as store:
        assert virtflow("topics", "create", "--bootstrap-servers", broker.address, "--partitions", "2").returncode == 0
        writer = Writer(broker.address, store.history.path, tmp_path, store.settings)
        with writing(writer):
            produce(broker.address, TOPIC, samples[:half])
            wait_for_samples("", half, 60, writer, store.history)
            store.signal(signal.SIGSTOP)
            produce(broker.address, TOPIC, samples[half:])
            writer.until(lambda: "commit under way" in writer.ready(), 60)
            assert writer.stop() == 1
            assert "ended in the middle of a call" in writer.tail
            store.signal(signal.SIGCONT)
            writer.start()
            assert wait_for_samples("", len(samples), 90, writer, store.history) == Counter(map(key_of, samples))
            assert writer.stop() == 0
