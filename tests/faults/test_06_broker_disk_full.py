"""Fault 6: the disk of the broker is full. It ends, as Kafka does; the services wait, and go on by themselves once it is back with room."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.criteria import Criteria
from tests.support.figures import figure
from tests.support.long import length
from tests.support.outage import (
    SECONDS,
    assert_events,
    assert_rounds,
    assert_sampled,
    events_of,
    recovers,
    rounds_of,
)
from tests.support.processors import Bus, Processors, eventually
from tests.support.simulated_producer import SimulatedProducer
from tests.support.small_disk import small_disk

ROW = 6
FULL_SECONDS = length(5.0, 120.0)
KEPT = 8
SILENT_SECONDS = 4.0
SILENT = 'virtflow_processors_broker_answer_age_seconds{topic="vm.snapshots"}'


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of the broker's own."""
    with small_disk(tmp_path / "disk", 48) as folder:
        yield folder


def fill(ballast: Path) -> None:
    """Takes all that is left of a file system, and goes on doing so for as long as anything is."""
    with ballast.open("ab", buffering=0) as out:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while out.write(b"x" * size):
                    pass


def test_a_full_disk_is_an_outage_like_any_other(disk: Path, tmp_path: Path, criteria: Criteria) -> None:
    with Broker(disk / "broker") as broker:
        bus = Bus(broker, partitions=2)
        bus.create_topics()
        producer = SimulatedProducer(bus.environment(), tmp_path, ring_rounds=KEPT)
        with producer, Processors(bus, tmp_path / "processors") as processors:
            eventually("rounds and events", lambda: bool(rounds_of(bus, producer) and events_of(bus, producer)), SECONDS)
            criteria.baseline()
            ballast = disk / "ballast"

            def has_ended() -> bool:
                fill(ballast)
                return broker.has_ended()

            eventually("the broker's end", has_ended, SECONDS)
            figure(ROW, "bytes of the disk that were left to nobody", ballast.stat().st_size)
            criteria.tells("a silent broker", lambda: processors.value(SILENT) > SILENT_SECONDS, row=ROW, seconds=SECONDS)
            time.sleep(FULL_SECONDS)
            ended = time.time()
            ballast.unlink()
            broker.start()
            recovers(bus, producer, processors, criteria, row=ROW, ended=ended)
        assert_events(bus, producer, ROW)
        assert_rounds(bus, producer, ROW, KEPT)
        assert_sampled(bus, producer, ROW)
