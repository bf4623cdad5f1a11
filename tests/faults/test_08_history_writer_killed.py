"""Fault 8: the history's writer is killed between write and commit, at chosen points and at random ones, and a second one is started."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.failpoints import POINTS
from tests.support.history import Key, Writer, fleet_samples, key_of, produce, stored_keys, wait_for_samples, writing

KILLS = int(os.environ.get("VIRTFLOW_TEST_KILLS", "20"))
VMS = int(os.environ.get("VIRTFLOW_TEST_VMS", "200"))
ROUND_SECONDS = 1.0


class Stream(threading.Thread):
    """Samples of a fleet, produced round by round as time goes by until it is told to end; remembers what it has produced."""

    def __init__(self, address: str) -> None:
        """Produces nothing before ``start``."""
        super().__init__(daemon=True)
        self._address = address
        self.over = threading.Event()
        self.produced: Counter[Key] = Counter()

    def run(self) -> None:
        sequence = 0
        while not self.over.wait(ROUND_SECONDS):
            samples = list(fleet_samples(2, VMS // 2, range(sequence, sequence + 1), interval=ROUND_SECONDS))
            produce(self._address, "vm.metrics", samples)
            self.produced.update(map(key_of, samples))
            sequence += 1


def test_killed_writer_stores_all_and_nothing_twice(tmp_path: Path) -> None:
    """Killed over and over while a fleet streams, the rows stored are the rows produced, as a multiset."""
    dice = random.Random(8)  # noqa: S311, moments, not secrets
    with Broker(tmp_path / "broker") as broker:
        virtflow("topics", "create", "--bootstrap-servers", broker.address)
        writer = Writer(broker.address, tmp_path / "history", tmp_path, {"VIRTFLOW_HISTORY_INSTANCE": "one"})
        stream = Stream(broker.address)
        stream.start()
        with writing(writer):
            for kill in range(KILLS):
                if kill % 2:
                    point = POINTS[kill // 2 % len(POINTS)]
                    writer.kill()
                    writer.start((point, str(dice.randrange(3))))
                    writer.wait_for_death()
                    writer.start()
                else:
                    time.sleep(dice.uniform(0.1, 3.0))
                    writer.kill()
                    writer.start()
            stream.over.set()
            stream.join()
            stored = wait_for_samples(tmp_path / "history", stream.produced.total(), 60.0, writer)
            assert writer.stop() == 0
        assert stored == stream.produced


def test_two_writers_by_mistake_store_nothing_twice(tmp_path: Path) -> None:
    """A second writer, even under another group's name, shares or gives way; the rows are the rows produced."""
    with Broker(tmp_path / "broker") as broker:
        virtflow("topics", "create", "--bootstrap-servers", broker.address)
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        first = Writer(broker.address, tmp_path / "history", tmp_path / "a")
        second = Writer(broker.address, tmp_path / "history", tmp_path / "b", {"VIRTFLOW_HISTORY_GROUP": "another"})
        samples = list(fleet_samples(2, VMS // 2, range(10)))
        with writing(first, second):
            for start in range(0, len(samples), VMS):
                produce(broker.address, "vm.metrics", samples[start : start + VMS])
            wait_for_samples(tmp_path / "history", len(samples), 60.0, first)
            assert first.stop() == second.stop() == 0
        assert stored_keys(tmp_path / "history") == Counter(map(key_of, samples))


def test_paused_writer_that_wakes_stores_nothing_twice(tmp_path: Path) -> None:
    """A writer that hangs until the group has given its partitions away commits nothing of theirs when it wakes."""
    with Broker(tmp_path / "broker") as broker:
        virtflow("topics", "create", "--bootstrap-servers", broker.address)
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        slow = {"VIRTFLOW_HISTORY_COMMIT_SECONDS": "2"}
        first = Writer(broker.address, tmp_path / "history", tmp_path / "a", slow)
        second = Writer(broker.address, tmp_path / "history", tmp_path / "b", slow)
        samples = list(fleet_samples(2, VMS // 2, range(6)))
        half = len(samples) // 2
        with writing(first):
            produce(broker.address, "vm.metrics", samples[:VMS])
            wait_for_samples(tmp_path / "history", VMS // 2, 60.0, first)
            produce(broker.address, "vm.metrics", samples[VMS:half])
            first.signal(signal.SIGSTOP)
            with writing(second):
                produce(broker.address, "vm.metrics", samples[half:])
                wait_for_samples(tmp_path / "history", len(samples), 60.0, second)
                first.signal(signal.SIGCONT)
                assert first.stop() == second.stop() == 0
        assert stored_keys(tmp_path / "history") == Counter(map(key_of, samples))
