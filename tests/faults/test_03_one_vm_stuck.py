"""Fault 3: one VM's QEMU stops answering, for five minutes with ``--long``."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.figures import figure
from tests.support.lab import Guest, Lab, await_true
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.lab_release import releases
from tests.support.lab_tap import Tap
from tests.support.long import length
from tests.support.prometheus import Prometheus
from tests.support.stuck_vms import (
    TWO_ROUNDS,
    Footprint,
    Graphs,
    Neighbours,
    assert_monitors_late_once,
    assert_safe_groups_on_time,
    await_alerts,
    flagged,
)

RELEASES = releases(modular=True)
VMS = 10
STUCK_SECONDS = length(35.0, 300.0)
SCRAPE_SECONDS = 1.0
ROUND_SCRAPES = round(INTERVAL_SECONDS / SCRAPE_SECONDS) + 1


def test_one_stuck_vm_costs_nobody_else_anything(lab: Lab, guests: list[Guest], pipeline: Pipeline, tmp_path: Path) -> None:
    """Safe groups of all VMs on time, the others' full metrics one round late at most, the stuck one told, one hung call."""
    node, (stuck, *healthy) = lab.nodes[0], guests
    pid = pipeline.producers[0].process.pid
    with (
        Tap(pipeline.broker.address) as tap,
        Neighbours(node, healthy[0]) as neighbours,
        Prometheus(tmp_path, {"virtflow": [pipeline.address]}, interval_seconds=SCRAPE_SECONDS) as prometheus,
    ):
        prometheus.wait_for(f'vm_responsive{{uuid="{stuck.uuid}"}} == 1', seconds=60.0)
        before, begin = Footprint.of(pid), time.time()
        node.freeze(stuck)
        frozen = time.time()
        flagging = tap.await_rounds(node.name, lambda seen: flagged(seen) == {stuck.uuid}, frozen)
        assert flagging <= TWO_ROUNDS
        await_alerts(prometheus, [stuck])
        await_true(lambda: time.time() - begin >= STUCK_SECONDS, STUCK_SECONDS + 1, "the fault's time has passed")
        node.thaw(stuck)
        thawed = time.time()
        clearing = tap.await_rounds(node.name, lambda seen: not flagged(seen), thawed)
        assert clearing <= TWO_ROUNDS
        await_alerts(prometheus, [])
        graphs = Graphs(prometheus, begin)
        graphs.assert_whole(guests, healthy, ROUND_SCRAPES)
        graphs.assert_not_repeated([stuck], ROUND_SCRAPES)
        neighbours.await_looks(1)
    neighbours.assert_served()
    assert max(neighbours.hung) == 1
    figure(3, "rounds until the stuck VM is flagged", flagging)
    figure(3, "rounds until the flag is cleared", clearing)
    figure(3, "slowest answer to another client", neighbours.slowest_seconds, "s")
    assert_safe_groups_on_time(tap.of(node.name, begin), guests)
    assert_monitors_late_once(tap.of(node.name, begin), healthy)
    await_true(lambda: node.hung_calls() == 0, 60.0, "no call is held any more")
    before.await_again(pid)
