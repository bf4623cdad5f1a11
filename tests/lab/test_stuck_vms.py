"""VMs that hang, on a real libvirtd: frozen before, while and after they are asked, with and without the process table."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.lab import Guest, Node
from tests.support.lab_release import releases
from tests.support.lab_sampling import Sampled
from tests.support.long import length
from tests.support.stuck_vms import CAP, TWO_ROUNDS, Neighbours, assert_healthy_served, flagged, uuids_of, with_monitor
from virtflow.producer.hypervisor.connection import Opener
from virtflow.producer.hypervisor.qemu_processes import Processes
from virtflow.producer.sampler import Host, Sampler
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.settings import Libvirt, Producer, Settings
from virtflow.schemas.records import NodeSnapshot, VmSnapshot

RELEASES = releases(every_run=True, modular=True)
NODES = 1
VMS = 30
INTERVAL = 2.0
INVENTORY_SECONDS = 20.0
STUCK_SECONDS = length(20.0, 210.0)
"""In which the XML of all VMs is due once, and that of the stuck ones in each round; at full length more than a hundred rounds."""
COUNTS = length((1, 6), (1, 2, 6))
"""Of two VMs the same is held on the in-memory libvirt of both releases (tests/unit/producer/test_sampler.py)."""
TURNS = length(6, 12)
"""Six have every stage of a return, twelve have each with every second VM."""
SETTLED_ROUNDS, LATE_ROUNDS = 4, 3
"""Of so many rounds together a few may find that the VMs that are trusted answer late, which they do on a machine with too much to do."""


class Sampling(Sampled):
    """A producer on one daemon. ``hidden``: it can't read the process table."""

    _source: Sampler

    def __init__(self, node: Node, hidden: Path | None = None) -> None:
        """Nothing runs yet."""
        producer = Producer(interval_seconds=INTERVAL, inventory_seconds=INVENTORY_SECONDS, hung_calls_max=CAP)
        settings = Settings(libvirt=Libvirt(uri=node.socket_uri), producer=producer)
        host = None if hidden is None else Host(Opener(settings.libvirt), Processes(hidden))
        super().__init__(settings, Sampler(settings, host=host))

    def announce(self, guests: Iterable[Guest]) -> None:
        """As if libvirt had announced something of these VMs, after which their XML is due."""
        for guest in guests:
            self._source._inbox.put(HypervisorEvent(guest.uuid, guest.name, "lifecycle", (4, 1), time.time()))

    def await_flags(self, guests: Iterable[Guest], since: float) -> NodeSnapshot:
        """The first snapshot that flags these VMs and no others: one of the first rounds that began after ``since``."""
        uuids = uuids_of(guests)
        found = self.await_snapshot(lambda seen: seen.collected > since and flagged(seen) == uuids, f"{len(uuids)} VMs are flagged")
        begun = [seen.sequence for seen in self.snapshots if seen.health.up and since < seen.collected <= found.collected]
        assert len(begun) <= TWO_ROUNDS
        return found


def complete(vm: VmSnapshot) -> bool:
    return vm.state_state >= 0 and vm.cpu_time >= 0 and vm.net_count >= 0 and vm.balloon_current >= 0


def test_vms_that_are_stuck_before_the_first_contact_are_not_touched(node: Node, guests: list[Guest]) -> None:
    node.freeze(*guests[:5])
    with Sampling(node) as sampling:
        sampling.await_flags(guests[:5], 0.0)
        sampling.await_snapshot(lambda seen: with_monitor(seen) == uuids_of(guests[5:]), "all others answer")
        sampling.await_rounds(2)
        assert node.hung_calls() == 0


def test_vms_that_come_and_go_stay_within_the_cap(node: Node, guests: list[Guest]) -> None:
    """Stopped again at every stage of their return: while the late call comes back, while they are looked at, while they are asked."""
    with Sampling(node) as sampling:
        sampling.await_snapshot(lambda seen: len(with_monitor(seen)) == VMS, "all VMs answer")
        for turn in range(TURNS):
            guest = guests[turn % 4]
            node.freeze(guest)
            sampling.await_rounds(1 + turn % 2)
            node.thaw(guest)
            if turn % 3:
                node.freeze(guest)
                sampling.await_rounds(1)
                node.thaw(guest)
        assert all(len(snapshot.vms) == VMS and all(map(complete, snapshot.vms)) for snapshot in sampling.snapshots if snapshot.health.up)
        assert max(snapshot.health.hung_calls for snapshot in sampling.snapshots) <= CAP
        node.thaw(*guests)
        sampling.await_snapshot(lambda seen: not flagged(seen) and len(with_monitor(seen)) == VMS, "all VMs answer again")


def freeze_between_rounds(sampling: Sampling, node: Node, guests: list[Guest]) -> None:
    """Stops VMs all at one moment at which no round is under way, trying again until it was one.

    One of them that answered in the round in which the others were stopped would be trusted, and cost the last slot. A late round's calls
    go on when it has ended.
    """
    freeze = node.freezer(*guests)
    while True:
        earlier, before = sampling.await_rounds(2)[-2:]
        if before.health.rounds_late_total > earlier.health.rounds_late_total:
            continue
        freeze()
        frozen = time.time()
        if sampling.await_rounds(1)[0].collected > frozen:
            return
        node.thaw(*guests)
        sampling.await_snapshot(lambda seen: len(with_monitor(seen)) == len(with_monitor(before)), "they answer again")  # noqa: B023, before the next


def told_apart(seen: NodeSnapshot) -> bool:
    """Whether all but one slot are taken by VMs that hang, and each of the other VMs has either answered or is flagged."""
    answered = sum(vm.monitor_responsive == 1 for vm in seen.vms)
    return seen.health.hung_calls <= CAP - 1 and seen.health.vms_skipped + seen.health.vms_not_probed + answered == VMS


def test_without_the_process_table_libvirt_names_them(node: Node, guests: list[Guest], tmp_path: Path) -> None:
    """One stuck VM costs a call and nobody else anything; of more, the cap less one are told apart and one slot serves the trusted."""
    with Sampling(node, hidden=tmp_path) as sampling:
        sampling.await_snapshot(lambda seen: len(with_monitor(seen)) == VMS, "all VMs answer")
        begin = time.time()
        node.freeze(guests[4])
        sampling.await_flags([guests[4]], begin)
        sampling.await_snapshot(lambda seen: len(with_monitor(seen)) == VMS - 1, "the others are served")
        freeze_between_rounds(sampling, node, guests[5:10])
        snapshot = sampling.await_snapshot(lambda seen: seen.health.vms_not_probed > 0, "the others are flagged as not probed")
        seen = [snapshot, *sampling.await_rounds(SETTLED_ROUNDS + LATE_ROUNDS)]
        assert all(one.health.hung_calls <= CAP and all(map(complete, one.vms)) for one in seen)
        assert len(list(filter(told_apart, seen))) >= SETTLED_ROUNDS
        node.thaw(*guests)
        sampling.await_snapshot(lambda seen: not flagged(seen) and len(with_monitor(seen)) == VMS, "all VMs answer again")


@pytest.mark.parametrize("count", COUNTS)
def test_events_of_stuck_vms_cost_the_others_no_round(node: Node, guests: list[Guest], count: int) -> None:
    """However often the XML of a stuck VM is due, and while another run of the producer begins: all VMs are listed, the others answer."""
    stuck, healthy = guests[:count], guests[count:]
    with Sampling(node) as sampling, Neighbours(node, healthy[-1]) as neighbours:
        sampling.await_snapshot(lambda seen: len(with_monitor(seen)) == VMS, "all VMs answer")
        begin = time.time()
        node.freeze(*stuck)
        sampling.await_flags(stuck, begin)
        while time.time() - begin < STUCK_SECONDS / 2:
            sampling.announce(stuck)
            sampling.await_rounds(1)
        with Sampling(node) as again:
            again.await_snapshot(lambda seen: flagged(seen) == uuids_of(stuck), "the new run flags them")
            again.await_snapshot(lambda seen: with_monitor(seen) == uuids_of(healthy), "the new run is answered by the others")
            while time.time() - begin < STUCK_SECONDS:
                sampling.announce(stuck)
                again.announce(stuck)
                sampling.await_rounds(1)
        thawed = time.time()
        node.thaw(*stuck)
        sampling.await_flags([], thawed)
        neighbours.await_looks(1)
    neighbours.assert_served()
    seen = [snapshot for snapshot in sampling.snapshots if begin < snapshot.collected < thawed]
    assert all(len(snapshot.vms) == VMS and all(map(complete, snapshot.vms)) for snapshot in seen)
    assert_healthy_served([seen], healthy)


@pytest.mark.parametrize("visible", [True, False])
def test_a_new_run_counts_what_the_one_before_left_behind(node: Node, guests: list[Guest], tmp_path: Path, visible: bool) -> None:  # noqa: FBT001
    """Runs that are given up with a call in a VM: each successor finds it and adds none while it may not."""
    hidden = None if visible else tmp_path
    with Sampling(node, hidden) as first:
        first.await_snapshot(lambda seen: len(with_monitor(seen)) == VMS, "all VMs answer")
        node.freeze(*guests[:6])
        first.await_snapshot(lambda seen: seen.health.hung_calls > 0, "a call is lost")
        for _ in range(4):
            with Sampling(node, hidden) as again:
                snapshot = again.await_snapshot(lambda seen: len(seen.vms) == VMS, "the new run's rounds")
                again.await_rounds(2)
            assert snapshot.health.hung_calls >= 1
            assert node.hung_calls() <= CAP
