"""Fault 4: shared storage is gone, and with it 8, then 24 of a host's 26 VMs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.faults.stuck_vms import (
    CAP,
    FOREIGN_SECONDS,
    Neighbours,
    assert_never_missing,
    assert_safe_groups_on_time,
    await_flags,
    shown_as_stuck,
)
from tests.support.lab import Guest, Lab, await_true
from tests.support.lab_pipeline import Pipeline
from tests.support.lab_scrape import Watch
from tests.support.lab_tap import Tap

VMS = 26
RESTARTS = 10
RECOVERY_SECONDS = 30.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One node."""
    with Lab(nodes=1) as lab:
        yield lab


@pytest.fixture(scope="module")
def guests(lab: Lab) -> list[Guest]:
    """The VMs of the node."""
    return lab.nodes[0].load_paused(VMS)


@pytest.fixture(scope="module")
def pipeline(lab: Lab, guests: list[Guest], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The whole pipeline, once it shows all VMs."""
    with Pipeline(lab, tmp_path_factory.mktemp("pipeline")) as pipeline:
        pipeline.await_scrape(lambda seen: seen.uuids() == {guest.uuid for guest in guests}, "all VMs are shown")
        yield pipeline


@pytest.mark.parametrize("count", [8, 24])
def test_the_live_vms_and_the_host_never_suffer(lab: Lab, guests: list[Guest], pipeline: Pipeline, count: int) -> None:
    """Safe groups of all VMs on time, captured calls within the cap, other clients answered at once, all well again afterwards."""
    node, stuck, healthy = lab.nodes[0], guests[:count], guests[count:]
    with Tap(pipeline.broker.address) as tap, Neighbours(node, healthy[0]) as neighbours, Watch(pipeline.address) as watch:
        watch.await_scrapes(2)
        begin = time.time()
        for guest in stuck:
            node.freeze(guest)
        await_flags(pipeline, stuck, stuck=True)
        neighbours.await_looks(10)
        assert shown_as_stuck(pipeline.scrape(), healthy) == set()
        for guest in stuck:
            node.thaw(guest)
        await_flags(pipeline, guests, stuck=False)
        neighbours.await_looks(2)
    assert_safe_groups_on_time(tap.of(node.name, begin), guests)
    assert_never_missing(watch, guests)
    assert max(neighbours.captured) <= CAP
    assert neighbours.slowest_seconds < FOREIGN_SECONDS
    await_true(lambda: node.captured_calls() == 0, 10.0, "no call is held any more")


def test_restarts_of_the_producer_capture_nothing_more(lab: Lab, guests: list[Guest], pipeline: Pipeline) -> None:
    """Ten kills of the producer while 24 VMs are stuck: libvirtd holds no more calls than the cap, and others are served."""
    node, stuck, healthy = lab.nodes[0], guests[:24], guests[24:]
    producer = pipeline.producers[0]
    with Neighbours(node, healthy[0]) as neighbours:
        for guest in stuck:
            node.freeze(guest)
        for _ in range(RESTARTS):
            neighbours.await_looks(2)
            producer.kill()
            producer.start()
            pipeline.await_scrape(
                lambda seen: (seen.value("virtflow_node_rounds_total", node=node.name) or 1e9) < 10,
                "the new run's rounds",
                RECOVERY_SECONDS,
            )
        neighbours.await_looks(5)
        for guest in stuck:
            node.thaw(guest)
        await_flags(pipeline, guests, stuck=False)
    assert max(neighbours.captured) <= CAP
    assert neighbours.slowest_seconds < FOREIGN_SECONDS
