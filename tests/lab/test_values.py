"""What the exporter shows of real VMs is what libvirt says of them, from two hypervisors through the whole pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.libvirt_truth import Envelope
from tests.support.lab import Guest, GuestSpec, Lab, Node
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.lab_process import await_true
from tests.support.lab_release import releases
from tests.support.lab_scrape import Scrape, Watch, stored
from tests.support.prometheus import Prometheus, check_metrics

RELEASES = releases(every_run=True)
FRESH_SECONDS = 60.0
SHUT_OFF = 5.0
THREE_INTERVALS = 3 * INTERVAL_SECONDS
RESET_AT_REBOOT = {"vm_cpu_seconds_total", "vm_vcpu_seconds_total", "vm_block_read_bytes_total"}
"""One series each; network devices get a new name with the new process, so theirs are other series."""
ON_THE_WAY_SECONDS = 0.5
"""From the sample through broker and processors to the scrape that sees it."""


@pytest.fixture(scope="module")
def vms(lab: Lab) -> dict[str, tuple[Node, Guest]]:
    """A VM of each kind by name: under load on either node, paused from the start, and shut off."""
    first, second = lab.nodes
    web = first.start_guest(GuestSpec("web-1", disks=2, nics=2), wait=False)
    db = second.start_guest(GuestSpec("db-1", memory_mib=192, balloon_mib=160), wait=False)
    still = second.load_paused(1, "still")[0]
    spec = GuestSpec("cold-1")
    first.define(spec.uuid, first.xml_of(spec, "10.99.0.9/24"))
    cold = Guest(spec.name, spec.uuid, first.disks / "cold.console")
    first.await_up(web)
    second.await_up(db)
    return {guest.name: (node, guest) for node, guest in ((first, web), (second, db), (second, still), (first, cold))}


@pytest.fixture(scope="module")
def pipeline(lab: Lab, vms: dict[str, tuple[Node, Guest]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The pipeline on both nodes, started when the VMs run."""
    assert vms
    with Pipeline(lab, tmp_path_factory.mktemp("pipeline")) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def prometheus(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A real Prometheus that scrapes the exporter every interval."""
    with Prometheus(
        tmp_path_factory.mktemp("prometheus"), {"virtflow": [pipeline.address]}, interval_seconds=INTERVAL_SECONDS
    ) as prometheus:
        yield prometheus


def collected_since(seen: Scrape, guest: Guest, when: float) -> bool:
    """Whether all the scrape shows of the VM was asked of libvirt after ``when``; a VM that is shut off has no monitor to ask."""
    ages = [seen.value("vm_sample_age_seconds", uuid=guest.uuid)]
    if seen.value("vm_state", uuid=guest.uuid) != SHUT_OFF:
        ages.append(seen.value("vm_monitor_age_seconds", uuid=guest.uuid))
    return all(age is not None and seen.time - age > when for age in ages)


def compare(prometheus: Prometheus, node: Node, guest: Guest, gauge_slack: float) -> list[str]:
    """Ask Prometheus between two answers of ``virsh domstats``; what is wrong with what it holds.

    Libvirt is left alone in between: a call of ours would hold the VM's job lock just when the producer asks without waiting.
    """
    before = node.domstats(guest)
    start = time.time()
    held: list[Scrape] = []

    def fresh() -> bool:
        held.append(stored(prometheus, guest.uuid))
        return collected_since(held[-1], guest, start)

    await_true(fresh, FRESH_SECONDS, f"Prometheus holds a sample of {guest.name} that is newer than the question")
    return Envelope.of([before, node.domstats(guest)]).complaints(held[-1].of_vm(guest.uuid), gauge_slack)


@pytest.mark.parametrize("name", ["web-1", "db-1", "still-0000", "cold-1"])
def test_every_metric_is_what_libvirt_says_under_load(prometheus: Prometheus, vms: dict[str, tuple[Node, Guest]], name: str) -> None:
    """Every series that libvirt has a value for is there, no other, and each counter lies between libvirt's before and after."""
    assert compare(prometheus, *vms[name], gauge_slack=0.05) == []


@pytest.mark.parametrize("name", ["web-1", "db-1"])
def test_every_metric_of_a_suspended_vm_is_exactly_what_libvirt_says(
    prometheus: Prometheus, vms: dict[str, tuple[Node, Guest]], name: str
) -> None:
    """A VM that stands still has no growth to hide behind: gauges too are equal, in base units."""
    node, guest = vms[name]
    node.virsh("suspend", guest.uuid)
    try:
        assert compare(prometheus, node, guest, gauge_slack=0.0) == []
    finally:
        node.virsh("resume", guest.uuid)


def test_promtool_has_nothing_to_say(pipeline: Pipeline) -> None:
    """The exposition passes Prometheus' own linter."""
    check_metrics(pipeline.scrape().text)


def test_vms_appear_and_vanish_within_three_intervals(lab: Lab, pipeline: Pipeline) -> None:
    """From libvirt's answer to the scrape that shows the VM, and from its end to the scrape that shows nothing of it."""
    node = lab.nodes[0]
    guests = node.load_paused(3, "brief")
    uuids = {guest.uuid for guest in guests}
    limit = THREE_INTERVALS + ON_THE_WAY_SECONDS
    pipeline.await_scrape(lambda seen: uuids <= seen.uuids(), "new VMs appear", limit)
    for guest in guests:
        node.delete(guest)
    pipeline.await_scrape(lambda seen: not uuids & seen.uuids(), "deleted VMs vanish", limit)


def test_a_reboot_drops_counters_once(pipeline: Pipeline, prometheus: Prometheus, vms: dict[str, tuple[Node, Guest]]) -> None:
    """A new QEMU process begins at 0: each counter of the VM falls exactly once, and is not shown twice meanwhile."""
    node, guest = vms["db-1"]
    before = pipeline.scrape()
    counters = [key for key in before.of_vm(guest.uuid) if key[0] in RESET_AT_REBOOT]
    assert {name for name, _ in counters} == RESET_AT_REBOOT
    with Watch(pipeline.address) as watch:
        watch.await_scrapes(2)
        node.reboot(guest)
        booted = time.time()
        pipeline.await_scrape(lambda seen: collected_since(seen, guest, booted), "the VM after its reboot")
        watch.await_scrapes(2)
    for name, labels in counters:
        assert watch.drops(name, uuid=guest.uuid, **dict(labels)) == 1, name
    await_true(lambda: collected_since(stored(prometheus, guest.uuid), guest, booted), FRESH_SECONDS, "Prometheus has seen the reboot")
    for name in RESET_AT_REBOOT:
        assert prometheus.value(f'resets({name}{{uuid="{guest.uuid}"}}[2m])') == 1, name
