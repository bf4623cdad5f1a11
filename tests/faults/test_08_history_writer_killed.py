"""Fault 8: the history's writer is killed between write and commit, at chosen points and at random ones, and a second one is started.

The same list on a folder and on a real S3-compatible server; 200 kills and 1,000 VMs with ``--long``.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.failpoints import POINTS
from tests.support.figures import figure
from tests.support.history import Key, Writer, fleet_samples, key_of, produce, stored_keys, wait_for_samples, writing
from tests.support.long import length
from tests.support.s3 import ObjectStore
from virtflow.runtime.settings import History

KILLS = length(8, 200)
VMS = length(200, 1000)
ROUND_SECONDS = 1.0


@dataclass(frozen=True)
class Place:
    """Where the tables are, for the writer's environment and for the reader's settings."""

    settings: History
    env: Mapping[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        yield Place(History(path=str(tmp_path / "history")))
        return
    with ObjectStore(tmp_path) as store:
        yield Place(store.history, store.settings)


@pytest.fixture
def prefix(broker: Broker, request: pytest.FixtureRequest) -> str:
    """Topics of the test's own on the shared broker."""
    chosen: str = request.node.name.replace("[", "-").rstrip("]")[:60] + "."
    done = virtflow("topics", "create", "--bootstrap-servers", broker.address, "--topic-prefix", chosen, "--partitions", "3")
    assert done.returncode == 0, done.stderr
    return chosen


class Stream(threading.Thread):
    """Samples of a fleet, produced round by round as time goes by until it is told to end; remembers what it has produced."""

    def __init__(self, address: str, topic: str) -> None:
        """Produces nothing before ``start``."""
        super().__init__(daemon=True)
        self._address, self._topic = address, topic
        self.over = threading.Event()
        self.produced: Counter[Key] = Counter()

    def run(self) -> None:
        """Until ``over``."""
        sequence = 0
        while not self.over.wait(ROUND_SECONDS):
            samples = list(fleet_samples(2, VMS // 2, range(sequence, sequence + 1), interval=ROUND_SECONDS))
            produce(self._address, self._topic, samples)
            self.produced.update(map(key_of, samples))
            sequence += 1


def place_name(place: Place) -> str:
    return "S3" if place.env else "a folder"


def writer_of(broker: Broker, folder: Path, place: Place, **env: str) -> Writer:
    folder.mkdir(exist_ok=True)
    upper = {f"VIRTFLOW_{key.upper()}": value for key, value in env.items()}
    return Writer(broker.address, place.settings.path, folder, {**place.env, **upper})


def test_killed_writer_stores_all_and_nothing_twice(broker: Broker, place: Place, prefix: str, tmp_path: Path) -> None:
    """Killed over and over while a fleet streams, the rows stored are the rows produced, as a multiset."""
    dice = random.Random(8)  # noqa: S311, moments, not secrets
    writer = writer_of(broker, tmp_path / "one", place, topics_prefix=prefix, history_group=prefix, history_instance=prefix)
    stream = Stream(broker.address, f"{prefix}vm.metrics")
    stream.start()
    with writing(writer):
        for kill in range(KILLS):
            if kill % 2:
                time.sleep(dice.uniform(0.1, 3.0))
                writer.kill()
            else:
                writer.kill()
                writer.start((POINTS[kill // 2 % len(POINTS)], str(dice.randrange(3))))
                writer.wait_for_death()
            writer.start()
        stream.over.set()
        stream.join()
        stored = wait_for_samples(place.settings.path, stream.produced.total(), 60.0, writer, place.settings)
        assert writer.stop() == 0, writer.tail
    assert stored == stream.produced, (stored - stream.produced, stream.produced - stored)
    figure(8, f"kills, on {place_name(place)}", KILLS)
    figure(8, f"rows produced, each stored once, on {place_name(place)}", stored.total())


def test_two_writers_by_mistake_store_nothing_twice(broker: Broker, place: Place, prefix: str, tmp_path: Path) -> None:
    """A second writer under another group's name reads the same partitions: whoever is second gives way, and nothing is stored twice."""
    first = writer_of(broker, tmp_path / "a", place, topics_prefix=prefix, history_group=f"{prefix}1", history_instance="1")
    second = writer_of(broker, tmp_path / "b", place, topics_prefix=prefix, history_group=f"{prefix}2", history_instance="2")
    samples = list(fleet_samples(2, VMS // 2, range(10)))
    with writing(first, second):
        for start in range(0, len(samples), VMS):
            produce(broker.address, f"{prefix}vm.metrics", samples[start : start + VMS])
        wait_for_samples(place.settings.path, len(samples), 60.0, first, place.settings)
        assert first.stop() == second.stop() == 0
    assert stored_keys(place.settings.path, place.settings) == Counter(map(key_of, samples))


def test_hanging_writer_that_wakes_stores_nothing_twice(broker: Broker, place: Place, prefix: str, tmp_path: Path) -> None:
    """A writer that hangs until the group has given its partitions away commits nothing of theirs when it wakes."""
    first = writer_of(broker, tmp_path / "a", place, topics_prefix=prefix, history_group=prefix, history_commit_seconds="2")
    second = writer_of(broker, tmp_path / "b", place, topics_prefix=prefix, history_group=prefix, history_commit_seconds="2")
    samples = list(fleet_samples(2, VMS // 2, range(6)))
    half = len(samples) // 2
    with writing(first):
        produce(broker.address, f"{prefix}vm.metrics", samples[:VMS])
        wait_for_samples(place.settings.path, VMS // 2, 60.0, first, place.settings)
        produce(broker.address, f"{prefix}vm.metrics", samples[VMS:half])
        first.signal(signal.SIGSTOP)
        with writing(second):
            produce(broker.address, f"{prefix}vm.metrics", samples[half:])
            wait_for_samples(place.settings.path, len(samples), 60.0, second, place.settings)
            first.signal(signal.SIGCONT)
            assert first.stop() == second.stop() == 0
    assert stored_keys(place.settings.path, place.settings) == Counter(map(key_of, samples))
