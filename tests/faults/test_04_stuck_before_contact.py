"""Fault 4, where the producer knows nothing: VMs are stuck before it starts, and it may or may not see the host's process table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.stuck_vms import CAP, FOREIGN_SECONDS, MONITOR_METRIC, Neighbours, await_flags, shown_as_stuck
from tests.support.lab import Guest, Lab, Node, await_true
from tests.support.lab_pipeline import VIRTFLOW, Pipeline, Service
from tests.support.lab_scrape import Scrape

VMS = 12
SEARCH_SECONDS = 20.0
"""In which stuck VMs that nothing names are told from the others by asking in portions."""
OWN_PROC = 'mount --make-private /proc && mount -t proc proc /proc && exec "$@"'
CONTAINER = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--propagation", "unchanged", "--", "sh", "-c", OWN_PROC, "sh"]
"""What a container does to the process table: only the producer's own processes are in it.

/proc alone is made private, not the root as ``--mount-proc`` would: the root is no mount point where the tests run in a changed root.
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One node."""
    with Lab(nodes=1) as lab:
        yield lab


@pytest.fixture(scope="module")
def guests(lab: Lab) -> list[Guest]:
    """The VMs of the node."""
    return lab.nodes[0].load_paused(VMS)


def monitors_shown(seen: Scrape, guests: list[Guest]) -> bool:
    """Whether what the monitors of all these VMs say is there."""
    return all(seen.value(MONITOR_METRIC, uuid=guest.uuid, device="vda") is not None for guest in guests)


def producer_in_a_container(pipeline: Pipeline, node: Node) -> Service:
    """A producer that does not see the VMs' processes."""
    log = pipeline.folder / "container.log"
    return Service(node.name, log, lambda: node.spawn([*CONTAINER, VIRTFLOW, "producer"], log, pipeline.environment))


def told_as_not_probed(seen: Scrape, guest: Guest) -> bool:
    """Whether the scrape says that it is unknown whether the VM answers, because nobody may be asked any more to find out."""
    return seen.value("vm_monitor_probed", uuid=guest.uuid) == 0.0


@pytest.mark.parametrize(
    ("hidden", "count"), [(False, 2), (True, 1), (True, 2)], ids=["two of whom the processes are seen", "one hidden", "two hidden"]
)
def test_the_live_vms_are_found_among_the_stuck_ones(lab: Lab, guests: list[Guest], tmp_path: Path, *, hidden: bool, count: int) -> None:
    """The stuck ones are flagged, the live ones have full metrics; no more calls are lost than the cap, and all is well again afterwards.

    With the table hidden each stuck VM costs a call: before the last one that may be lost, the rest is told as not probed.
    """
    node, stuck, healthy = lab.nodes[0], guests[3 : 3 + count], guests[:3] + guests[3 + count :]
    for guest in stuck:
        node.freeze(guest)
    spent = hidden and count >= CAP - 1
    with Pipeline(lab, tmp_path, whole=False) as pipeline, Neighbours(node, healthy[-1]) as neighbours:
        if hidden:
            pipeline.producers[0] = producer_in_a_container(pipeline, node)
        pipeline.start_services()
        pipeline.await_scrape(
            lambda seen: all(monitors_shown(seen, [guest]) or (spent and told_as_not_probed(seen, guest)) for guest in healthy),
            "all live VMs have full metrics, or are told as not probed",
            SEARCH_SECONDS,
        )
        pipeline.await_scrape(
            lambda seen: shown_as_stuck(seen, guests) == {guest.uuid for guest in stuck}, "the stuck VMs are flagged", SEARCH_SECONDS
        )
        neighbours.await_looks(3)
        for guest in stuck:
            node.thaw(guest)
        await_flags(pipeline, guests, stuck=False)
        pipeline.await_scrape(lambda seen: monitors_shown(seen, guests), "all VMs have full metrics again", SEARCH_SECONDS)
    assert max(neighbours.captured) <= CAP
    assert neighbours.slowest_seconds < FOREIGN_SECONDS
    await_true(lambda: node.captured_calls() == 0, 15.0, "no call is held any more")
