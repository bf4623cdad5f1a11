"""Fault 4: shared storage is gone, and with it 1, 3, 8, 30 or almost all of a host's 100 VMs, before the producer knows them or after."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.figures import figure
from tests.support.lab import Guest, Lab, Node, await_true
from tests.support.lab_pipeline import VIRTFLOW, Pipeline, Service
from tests.support.lab_release import releases
from tests.support.lab_tap import Tap
from tests.support.long import length
from tests.support.prometheus import Prometheus
from tests.support.stuck_vms import (
    CAP,
    HANGING_SECONDS,
    TWO_ROUNDS,
    Footprint,
    Graphs,
    Neighbours,
    assert_monitors_late_once,
    assert_safe_groups_on_time,
    await_alerts,
    flagged,
    uuids_of,
    with_monitor,
)
from virtflow.schemas.records import NodeSnapshot

RELEASES = releases()
VMS = 100
INTERVAL_SECONDS = 4.0
"""libvirtd takes about a second to ask 100 VMs, on a CPU that it shares with all of the pipeline here."""
SETTINGS = {"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": str(INTERVAL_SECONDS)}
SCRAPE_SECONDS = 2.0
ROUND_SCRAPES = round(INTERVAL_SECONDS / SCRAPE_SECONDS) + 1
ALERTED = 30
"""Stuck VMs with which the alert is awaited too: its rule takes 30 s."""
ALMOST_ALL = 92
RESTARTS = length(3, 10)
COUNTS = length((1, 8, ALERTED), (1, 3, 8, ALERTED))
"""Three and eight are told apart by the same way: the process table names them."""
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "unchanged", "--"]
"""What a container does to the process table: only the producer's own processes are in it. A node's mounts are private already."""


@pytest.fixture(scope="module")
def prometheus(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with the shipped rules as they are."""
    folder = tmp_path_factory.mktemp("prometheus")
    with Prometheus(folder, {"virtflow": [pipeline.address]}, interval_seconds=SCRAPE_SECONDS) as prometheus:
        yield prometheus


@pytest.fixture
def node(lab: Lab, guests: list[Guest], pipeline: Pipeline) -> Iterator[Node]:
    """The host: all its VMs answer, and the pipeline's own producer samples them, before a test and after it."""
    node, producer = lab.nodes[0], pipeline.producers[0]
    with Tap(pipeline.broker.address) as tap:
        tap.await_snapshot(node.name, lambda seen: with_monitor(seen) == uuids_of(guests), time.time(), HANGING_SECONDS)
        yield node
        node.thaw(*guests)
        if pipeline.producers[0] is not producer or not producer.runs:
            pipeline.producers[0].close()
            pipeline.producers[0] = producer
            producer.start()
        tap.await_snapshot(node.name, lambda seen: with_monitor(seen) == uuids_of(guests), time.time(), HANGING_SECONDS)
    await_true(lambda: node.hung_calls() == 0, HANGING_SECONDS, "no call is held any more")


@pytest.mark.parametrize("count", COUNTS)
def test_the_live_vms_and_the_host_never_suffer(
    node: Node, guests: list[Guest], pipeline: Pipeline, prometheus: Prometheus, count: int
) -> None:
    """Safe groups of all VMs every round, the others' full metrics one round late at most, once; the stuck ones told, and only those.

    Other clients are answered at once, the hung calls stay within the cap, and the producer gives back all that it took.
    """
    stuck, healthy = guests[10 : 10 + count], guests[:10] + guests[10 + count :]
    pid = pipeline.producers[0].process.pid
    with Tap(pipeline.broker.address) as tap, Neighbours(node, healthy[-1]) as neighbours:
        await_alerts(prometheus, [])
        before, begin = Footprint.of(pid), time.time()
        node.freeze(*stuck)
        frozen = time.time()
        flagging = tap.await_rounds(node.name, lambda seen: flagged(seen) == uuids_of(stuck), frozen)
        assert flagging <= TWO_ROUNDS
        neighbours.await_looks(4)
        if count == ALERTED:
            await_alerts(prometheus, stuck)
        node.thaw(*stuck)
        thawed = time.time()
        clearing = tap.await_rounds(node.name, lambda seen: not flagged(seen), thawed)
        assert clearing <= TWO_ROUNDS
        await_alerts(prometheus, [])
        neighbours.await_looks(1)
    graphs, arrivals = Graphs(prometheus, begin), tap.of(node.name, begin)
    graphs.assert_whole(guests, healthy, ROUND_SCRAPES)
    graphs.assert_not_repeated(stuck, ROUND_SCRAPES)
    neighbours.assert_served()
    assert_safe_groups_on_time(arrivals, guests)
    assert_monitors_late_once(arrivals, healthy)
    assert max(one.snapshot.health.hung_calls for one in arrivals) == 1, "the process table names all the others"
    figure(4, f"{count} of {VMS} stuck: rounds until they are flagged", flagging)
    figure(4, f"{count} of {VMS} stuck: rounds until the flags are cleared", clearing)
    figure(4, f"{count} of {VMS} stuck: slowest answer to another client", neighbours.slowest_seconds, "s")
    before.await_again(pid)


def test_restarts_of_the_producer_capture_nothing_more(node: Node, guests: list[Guest], pipeline: Pipeline) -> None:
    """Kills of the producer while almost all VMs are stuck: libvirtd holds no more calls than the cap, and others are served."""
    stuck, healthy = guests[:ALMOST_ALL], guests[ALMOST_ALL:]
    producer = pipeline.producers[0]
    with Tap(pipeline.broker.address) as tap, Neighbours(node, healthy[0]) as neighbours:
        node.freeze(*stuck)
        tap.await_snapshot(node.name, lambda seen: flagged(seen) == uuids_of(stuck), time.time())
        for _ in range(RESTARTS):
            neighbours.await_looks(1)
            producer.kill()
            killed = time.time()
            producer.start()
            tap.await_snapshot(node.name, lambda seen: flagged(seen) == uuids_of(stuck), killed)
        neighbours.await_looks(5)
    neighbours.assert_served()
    figure(4, f"hung calls at most, over {RESTARTS} kills of the producer with {ALMOST_ALL} VMs stuck", max(neighbours.hung))
    for one in tap.of(node.name):
        assert one.snapshot.health.hung_calls <= CAP
        assert len(one.snapshot.vms) in {0, VMS}, "all VMs are in every round but those before libvirt is connected"


def in_a_container(pipeline: Pipeline, node: Node) -> Service:
    """A producer that does not see the VMs' processes."""
    log = pipeline.folder / "container.log"
    return Service(node.name, log, lambda: node.spawn([*CONTAINER, VIRTFLOW, "producer"], log, pipeline.environment))


@pytest.mark.parametrize(
    ("hidden", "count"), [(False, 2), (True, 1), (True, 2)], ids=["two of whom the processes are seen", "one hidden", "two hidden"]
)
def test_the_live_vms_are_found_among_those_stuck_before_contact(
    node: Node, guests: list[Guest], pipeline: Pipeline, *, hidden: bool, count: int
) -> None:
    """The stuck ones are flagged, the live ones have full metrics; no more calls are lost than the cap.

    With the table hidden each stuck VM costs a call: before the last one that may be lost, the rest is told as not probed.
    """
    stuck, healthy = guests[3 : 3 + count], guests[:3] + guests[3 + count :]
    assert pipeline.producers[0].stop() == 0
    if hidden:
        pipeline.producers[0] = in_a_container(pipeline, node)

    def found(seen: NodeSnapshot) -> bool:
        unknown = {vm.uuid for vm in seen.vms if vm.monitor_probed == 0} if hidden and count >= CAP - 1 else set()
        return flagged(seen) == uuids_of(stuck) and with_monitor(seen) >= uuids_of(healthy) - unknown

    with Tap(pipeline.broker.address) as tap, Neighbours(node, healthy[-1]) as neighbours:
        node.freeze(*stuck)
        begin = time.time()
        pipeline.producers[0].start()
        tap.await_snapshot(node.name, found, begin, HANGING_SECONDS)
        neighbours.await_looks(3)
        node.thaw(*stuck)
        tap.await_snapshot(node.name, lambda seen: with_monitor(seen) == uuids_of(guests), time.time(), HANGING_SECONDS)
    neighbours.assert_served()
