"""Fault 5 with a simulated hypervisor: the broker is away, for 1, 6 and 30 minutes with ``--long``. What waited is sent faster than more happens."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.criteria import Criteria
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

ROW = 5
OUTAGES = length((8.0,), (60.0, 360.0, 1800.0))
KEPT = 8
SILENT_SECONDS = 4.0
SILENT = 'virtflow_processors_broker_answer_age_seconds{topic="vm.snapshots"}'


@pytest.mark.parametrize("seconds", OUTAGES)
def test_nothing_of_an_outage_is_lost_that_should_be_kept(tmp_path: Path, criteria: Criteria, seconds: float) -> None:
    with Broker(tmp_path / "broker") as broker:
        bus = Bus(broker, partitions=2)
        bus.create_topics()
        producer = SimulatedProducer(bus.environment(), tmp_path, ring_rounds=KEPT)
        with producer, Processors(bus, tmp_path / "processors") as processors:
            eventually("rounds and events", lambda: bool(rounds_of(bus, producer) and events_of(bus, producer)), SECONDS)
            criteria.baseline()
            broker.stop()
            stopped = time.monotonic()
            criteria.tells("a silent broker", lambda: processors.value(SILENT) > SILENT_SECONDS, row=ROW, seconds=SECONDS)
            time.sleep(max(0.0, stopped + seconds - time.monotonic()))
            ended = time.time()
            broker.start()
            recovers(bus, producer, processors, criteria, row=ROW, ended=ended)
        assert_events(bus, producer, ROW)
        assert_rounds(bus, producer, ROW, KEPT)
        assert_sampled(bus, producer, ROW)
