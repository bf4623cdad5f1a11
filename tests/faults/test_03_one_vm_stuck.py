"""Fault 3: one VM's QEMU stops answering for thirty intervals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.stuck_vms import (
    FOREIGN_SECONDS,
    Neighbours,
    assert_monitors_late_once,
    assert_never_missing,
    assert_not_repeated,
    assert_safe_groups_on_time,
    await_flags,
)
from tests.support.lab import Guest, Lab, await_true
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.lab_scrape import Watch
from tests.support.lab_tap import Tap

VMS = 10
STUCK_SECONDS = 30 * INTERVAL_SECONDS


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


def test_one_stuck_vm_costs_nobody_else_anything(lab: Lab, guests: list[Guest], pipeline: Pipeline) -> None:
    """Safe groups of all VMs on time, the others' full metrics one round late at most, the stuck one flagged, one captured call."""
    node, (stuck, *healthy) = lab.nodes[0], guests
    tasks = Path(f"/proc/{pipeline.producers[0].process.pid}/task")
    threads = len(list(tasks.iterdir()))
    with Tap(pipeline.broker.address) as tap, Neighbours(node, healthy[0]) as neighbours, Watch(pipeline.address) as watch:
        watch.await_scrapes(2)
        begin = time.time()
        node.freeze(stuck)
        await_flags(pipeline, [stuck], stuck=True)
        await_true(lambda: time.time() - begin >= STUCK_SECONDS, STUCK_SECONDS + 1, "thirty intervals have passed")
        node.thaw(stuck)
        await_flags(pipeline, [stuck], stuck=False)
        watch.await_scrapes(2)
    assert max(neighbours.captured) == 1
    assert neighbours.slowest_seconds < FOREIGN_SECONDS
    assert_safe_groups_on_time(tap.of(node.name, begin), guests)
    assert_monitors_late_once(tap.of(node.name, begin), healthy)
    assert_never_missing(watch, guests)
    assert_not_repeated(watch, [stuck])
    await_true(
        lambda: node.captured_calls() == 0 and len(list(tasks.iterdir())) <= threads, 15.0, "calls and threads are back to where they were"
    )
