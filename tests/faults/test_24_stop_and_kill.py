"""Fault 24, the processors' part: TERM at any moment drains, commits and ends with 0 within 10 s; KILL loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from tests.support.broker import Broker
from tests.support.figures import figure
from tests.support.processors import CODEC, Bus, Processors, eventually, snapshot
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.topics import METRICS

Identity = tuple[str, int]


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def bus(own_broker: Broker) -> Bus:
    bus = Bus(own_broker)
    bus.create_topics()
    return bus


def messages(node: str, count: int) -> Iterator[tuple[str, bytes]]:
    return ((node, CODEC.encode(snapshot(node, sequence, 20))) for sequence in range(count))


def samples(bus: Bus) -> list[Identity]:
    return sorted((m.node, m.sequence) for m in bus.records(METRICS, VmMetrics))


@pytest.mark.parametrize("taken", [1, 40, 200])
def test_term_under_load_drains_commits_and_ends_with_0(bus: Bus, tmp_path: Path, taken: int) -> None:
    """What is committed is exactly what was delivered: a successor repeats nothing and misses nothing."""
    feeding = Thread(target=lambda: bus.produce(messages("node-1", 400), pause=0.01))
    with Processors(bus, tmp_path) as processors:
        feeding.start()
        eventually("load", lambda: processors.value("virtflow_processors_messages_total") >= taken)
        began = time.monotonic()
        assert processors.terminate(10.0) == 0
        took = time.monotonic() - began
        assert took < 10.0
        figure(24, "from TERM under load to the end", took, "s")
    feeding.join()
    with processors:
        bus.wait_until_committed()
        assert processors.terminate(10.0) == 0
    assert samples(bus) == sorted(("node-1", sequence) for sequence in range(400) for _ in range(20))
    figure(24, "VM samples of both runs, each once", 400 * 20)


def test_term_while_the_broker_is_frozen_still_ends_in_time(tmp_path: Path) -> None:
    """Results that can't be delivered stay unacknowledged; the process does not wait for them beyond its time."""
    with Broker(tmp_path / "broker") as broker:
        bus = Bus(broker)
        bus.create_topics()
        with Processors(bus, tmp_path) as processors:
            bus.produce(messages("node-1", 50))
            broker.pause()
            began = time.monotonic()
            processors.terminate(12.0)
            took = time.monotonic() - began
            assert took < 12.0
            figure(24, "from TERM to the end while the broker is frozen", took, "s")
            broker.resume()
        with Processors(bus, tmp_path) as successor:
            bus.wait_until_committed()
            assert successor.terminate(10.0) == 0
        assert set(samples(bus)) == {("node-1", sequence) for sequence in range(50)}


def test_term_while_waiting_for_the_broker_ends_at_once(tmp_path: Path) -> None:
    bus = Bus(Broker(tmp_path / "broker"))
    processors = Processors(bus, tmp_path)
    processors.start(ready=False)
    eventually("waiting", lambda: "does not answer" in processors.page("/readyz")[1])
    assert processors.terminate(12.0) == 0
