"""Fault 13, the hand-over: a VM moves from one host to another in many ways. At every scrape one sample of each series, and no gap above two intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.lab_scrape import Watch
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import sample, uuid
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.topics import METRICS

INTERVAL = 1.0
ROUNDS = 4
"""Before the move and after it."""
CPU = "vm_cpu_seconds_total"
TWO_INTERVALS = 2
RUNNING, PAUSED = 1, 3
SLACK_SECONDS = 0.6
"""A scrape comes every 0.2 s, and a record takes a moment to it."""

Round = Callable[[int], list[VmMetrics]]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


def claim(node: str, sequence: int, state: int = RUNNING) -> VmMetrics:
    now = time.time()
    return sample(
        1,
        sequence,
        node=node,
        boot_id=node,
        interval=INTERVAL,
        collected=now,
        monitor_collected=now,
        cpu_seconds_total=100.0 + sequence,
        state=state,
    )


def at_once(turn: int) -> list[VmMetrics]:
    """The source reports it no more in the round in which the destination has it."""
    return [claim("source" if turn < 0 else "destination", turn + ROUNDS)]


def with_both(turn: int) -> list[VmMetrics]:
    """While it moves both report it: running at the source, paused at the destination, where it is built up."""
    if turn < -2:
        return [claim("source", turn + ROUNDS)]
    if turn < 0:
        return [claim("source", turn + ROUNDS), claim("destination", turn + ROUNDS, PAUSED)]
    return [claim("destination", turn + ROUNDS)]


def with_nobody(turn: int) -> list[VmMetrics]:
    """In one round neither reports it."""
    return [] if turn == 0 else at_once(turn)


def with_a_source_that_goes_on(turn: int) -> list[VmMetrics]:
    """The source's last round comes when the destination runs it already."""
    return [*at_once(turn), *([claim("source", ROUNDS)] if turn == 0 else [])]


@pytest.mark.parametrize("moves", [at_once, with_both, with_nobody, with_a_source_that_goes_on], ids=lambda moves: moves.__name__)
def test_no_scrape_has_it_twice_and_no_gap_is_above_two_intervals(broker: Broker, tmp_path: Path, moves: Round) -> None:
    writer = TopicWriter(broker.address)
    with ExporterProcess(tmp_path, broker.address, writer.prefix) as exporter:
        exporter.wait_until_ready()
        with Watch(f"127.0.0.1:{exporter.port}") as watch:  # leaving it raises where a series was there twice
            began = time.monotonic()
            for place, turn in enumerate(range(-ROUNDS, ROUNDS + 1)):
                time.sleep(max(0.0, began + place * INTERVAL - time.monotonic()))
                writer.write(METRICS, *moves(turn))
            exporter.wait_until(lambda: exporter.value(CPU, uuid=uuid(1)) == 100.0 + 2 * ROUNDS, 10.0, "the destination's newest sample")
            watch.await_scrapes(1)
    values = [value for _, value in watch.values(CPU, uuid=uuid(1))]
    gap = watch.longest_gap(CPU, uuid=uuid(1))
    assert gap <= TWO_INTERVALS * INTERVAL + SLACK_SECONDS
    assert watch.drops(CPU, uuid=uuid(1)) == 0
    assert (min(values), max(values)) == (100.0, 100.0 + 2 * ROUNDS)
    assert not watch.failures
    figure(13, f"longest gap at a hand-over {moves.__name__.replace('_', ' ')}", gap / INTERVAL, "I")
