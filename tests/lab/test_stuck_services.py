"""VMs that hang while libvirt tells of them, with all of a producer's ways out: the whole pipeline, and ``virtflow node`` alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from tests.support.lab import Guest, Lab, Node
from tests.support.lab_node_alone import NodeAlone
from tests.support.lab_pipeline import Pipeline
from tests.support.lab_release import releases
from tests.support.lab_scrape import Scrape, Watch
from tests.support.lab_tap import Arrival, Tap
from tests.support.long import LONG, length
from tests.support.stuck_vms import (
    CAP,
    HANGING_SECONDS,
    TWO_ROUNDS,
    Neighbours,
    assert_healthy_served,
    assert_seldom_missed,
    flagged,
    uuids_of,
    with_monitor,
)
from tests.support.watching import Watching
from virtflow.schemas.records import NodeSnapshot

RELEASES = releases(modular=True)
NODES = 1
VMS = 26
COUNTS = (1, 2, 6) if LONG else (2,)
INTERVAL_SECONDS = 2.0
SETTINGS = {
    "VIRTFLOW_PRODUCER_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
    "VIRTFLOW_PRODUCER_INVENTORY_SECONDS": "20",
    "VIRTFLOW_PRODUCER_HUNG_CALLS_MAX": str(CAP),
}
STUCK_SECONDS = length(30.0, 210.0)
"""At full length more than a hundred rounds in both runs together."""
TWO_RUNS = 2
SHOWN_SECONDS = (TWO_ROUNDS + 1) * INTERVAL_SECONDS + 1.0
"""From a VM's stop to the scrape that flags it: the round under way, two more, and the way to the scrape."""


def define_until(node: Node, guests: Iterable[Guest], end: float, turn: Callable[[], object]) -> None:
    """Define these VMs anew, which libvirt tells as lifecycle events and makes their XML due, with a ``turn`` after each time, until ``end``."""
    while time.time() < end:
        for guest in guests:
            node.virsh("define", str(node.folder / f"{guest.uuid}.xml"))
        turn()


def assert_runs_served(arrivals: Sequence[Arrival], everyone: Sequence[Guest], healthy: Sequence[Guest]) -> None:
    """In each run of the producer: no round is missing, every VM is in it, and the healthy ones have what their monitor says."""
    found: dict[str, list[NodeSnapshot]] = {}
    for one in arrivals:
        found.setdefault(one.snapshot.boot_id, []).append(one.snapshot)
    # A new run's first rounds tell that libvirt is not connected yet.
    runs = [[seen for seen in snapshots if seen.health.up] for snapshots in found.values()]
    assert len(runs) == TWO_RUNS
    for up in runs:
        assert [seen.sequence for seen in up] == list(range(up[0].sequence, up[0].sequence + len(up)))
        assert {len(seen.vms) for seen in up} == {len(everyone)}
        assert max(seen.health.hung_calls for seen in up) <= CAP
    assert_healthy_served(runs, healthy)


@pytest.mark.parametrize("count", COUNTS)
def test_through_the_pipeline(node: Node, guests: list[Guest], lab: Lab, tmp_path: Path, count: int) -> None:
    """Producer, broker, processors and exporter, with a producer that is killed meanwhile."""
    stuck, healthy = guests[:count], guests[count:]
    with (
        Pipeline(lab, tmp_path, SETTINGS) as pipeline,
        Tap(pipeline.broker.address) as tap,
        Neighbours(node, healthy[-1]) as neighbours,
    ):
        tap.await_snapshot(node.name, lambda seen: with_monitor(seen) == uuids_of(guests), 0.0)
        pipeline.await_scrape(lambda seen: seen.uuids() == uuids_of(guests), "all VMs are shown")
        with Watch(pipeline.address) as watch:
            watch.await_scrapes(1)
            begin = time.time()
            node.freeze(*stuck)
            assert tap.await_rounds(node.name, lambda seen: flagged(seen) == uuids_of(stuck), time.time()) <= TWO_ROUNDS

            def a_round() -> None:
                tap.await_snapshot(node.name, lambda _: True, time.time())

            define_until(node, stuck, begin + STUCK_SECONDS / 2, a_round)
            pipeline.producers[0].kill()
            killed = time.time()
            pipeline.producers[0].start()
            tap.await_snapshot(node.name, lambda seen: flagged(seen) == uuids_of(stuck), killed)
            tap.await_snapshot(node.name, lambda seen: with_monitor(seen) == uuids_of(healthy), killed)
            define_until(node, stuck, begin + STUCK_SECONDS, a_round)
            thawed = time.time()
            node.thaw(*stuck)
            assert tap.await_rounds(node.name, lambda seen: not flagged(seen), time.time()) <= TWO_ROUNDS
        neighbours.await_looks(1)
        arrivals = [one for one in tap.of(node.name, begin) if one.snapshot.collected < thawed]
    neighbours.assert_served()
    assert_runs_served(arrivals, guests, healthy)
    assert {frozenset(seen.uuids()) for seen in watch.scrapes} == {frozenset(uuids_of(guests))}
    assert watch.failures == []


@dataclass
class NodeWatch(Watching):
    """Scrapes a node alone, for as long as its context lasts."""

    pause_seconds: ClassVar[float] = 0.3

    alone: NodeAlone
    scrapes: list[Scrape] = field(default_factory=list)

    def look(self) -> None:
        """Scrape once."""
        seen = self.alone.scrape()
        if seen.series:
            self.scrapes.append(seen)

    def await_shown(self, condition: Callable[[Scrape], bool], what: str, seconds: float = HANGING_SECONDS) -> None:
        """Wait for a scrape of now on for which ``condition`` holds."""
        begin = len(self.scrapes)
        self.await_seen(lambda: any(condition(seen) for seen in self.scrapes[begin:]), seconds, what)


def rounds_of(scrapes: Iterable[Scrape], age: str, guest: Guest) -> int:
    """How many rounds the scrapes have seen of a VM, told apart by what the metric ``age`` says of their time."""
    ages = [(seen.time, seen.value(age, uuid=guest.uuid)) for seen in scrapes]
    times = sorted(when - old for when, old in ages if old is not None)
    return sum(later - earlier > INTERVAL_SECONDS / 2 for earlier, later in itertools.pairwise([float("-inf"), *times]))


def fell_out(scrapes: Sequence[Scrape], node: Node) -> int:
    """How many rounds were not begun while these scrapes were taken."""
    first, last = (seen.value("virtflow_node_rounds_skipped_total", node=node.name) for seen in (scrapes[0], scrapes[-1]))
    assert first is not None
    assert last is not None
    return round(last - first)


def unresponsive(seen: Scrape) -> set[str]:
    """The UUIDs of those VMs that a scrape shows not to respond."""
    return {uuid for uuid in seen.uuids() if seen.value("vm_responsive", uuid=uuid) == 0}


@pytest.mark.parametrize("count", COUNTS)
def test_through_a_node_alone(node: Node, guests: list[Guest], tmp_path: Path, count: int) -> None:
    """``virtflow node``, which is killed meanwhile."""
    stuck, healthy = guests[:count], guests[count:]
    alone = NodeAlone(node, tmp_path, "--log-level", "warning", settings=SETTINGS)
    complete = uuids_of(guests)

    def answered(seen: Scrape, wanted: Iterable[Guest]) -> bool:
        return all(seen.value("vm_block_read_requests_total", uuid=guest.uuid, device="vda") is not None for guest in wanted)

    try:
        alone.await_scrape(lambda seen: seen.uuids() == complete and answered(seen, guests), "all VMs answer", HANGING_SECONDS)
        with NodeWatch(alone) as watch, Neighbours(node, healthy[-1]) as neighbours:
            node.freeze(*stuck)
            watch.await_shown(lambda seen: unresponsive(seen) == uuids_of(stuck), "the stuck VMs are flagged", SHOWN_SECONDS)
            begin = len(watch.scrapes)

            def a_scrape() -> None:
                watch.await_shown(lambda _: True, "a scrape")

            end = time.time() + STUCK_SECONDS / 2
            define_until(node, stuck, end, a_scrape)
            alone.kill()
            first = watch.scrapes[begin:]
            alone.start()
            watch.await_shown(
                lambda seen: unresponsive(seen) == uuids_of(stuck) and answered(seen, healthy), "the new run serves the others"
            )
            begin = len(watch.scrapes)
            define_until(node, stuck, end + STUCK_SECONDS / 2, a_scrape)
            second = watch.scrapes[begin:]
            node.thaw(*stuck)
            watch.await_shown(lambda seen: unresponsive(seen) == set() and seen.uuids() == complete, "all VMs respond", SHOWN_SECONDS)
            neighbours.await_looks(1)
    finally:
        alone.kill()
    neighbours.assert_served()
    runs = (first, second)
    assert {frozenset(seen.uuids()) for run in runs for seen in run} == {frozenset(complete)}
    rounds = sum(rounds_of(run, "vm_sample_age_seconds", healthy[0]) + fell_out(run, node) for run in runs)
    rounds_answered = {guest.name: sum(rounds_of(run, "vm_monitor_age_seconds", guest) for run in runs) for guest in healthy}
    assert_seldom_missed(rounds, rounds_answered)
