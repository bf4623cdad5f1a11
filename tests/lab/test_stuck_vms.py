"""VMs that hang, on a real libvirtd: frozen before, while and after they are asked, with and without the process table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.lab import Guest, Lab, Node, await_true
from virtflow.producer.health import Outgoing
from virtflow.producer.processes import Processes
from virtflow.producer.sample import Sampler
from virtflow.producer.service import rounds
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.settings import Libvirt, Producer, Settings
from virtflow.schemas.records import NodeSnapshot, VmSnapshot

VMS = 30
INTERVAL = 1.0
CAP = 3
WAIT_SECONDS = 20.0
DESCRIPTORS = Path("/proc/self/fd")


class Sampling:
    """A producer without a bus, in this process: its snapshots as they come. ``hidden``: it can't read the process table."""

    def __init__(self, node: Node, hidden: Path | None = None) -> None:
        """Nothing runs yet."""
        settings = Settings(libvirt=Libvirt(uri=node.socket_uri), producer=Producer(interval_seconds=INTERVAL, captive_calls=CAP))
        self._source = Sampler(settings)
        if hidden is not None:
            self._source._monitor._processes = Processes(hidden)
        self._stop = Stop()
        self._thread = threading.Thread(target=rounds, args=(settings, self._source, self._stop, self), daemon=True)
        self.snapshots: list[NodeSnapshot] = []

    def offer(self, snapshot: NodeSnapshot) -> None:
        """Keep a snapshot."""
        self.snapshots.append(snapshot)

    def outgoing(self) -> Outgoing:
        """Nothing waits."""
        return Outgoing()

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        self._source.close(2.0)

    def await_rounds(self, count: int) -> list[NodeSnapshot]:
        """So many more snapshots."""
        begin = len(self.snapshots)
        await_true(lambda: len(self.snapshots) >= begin + count, WAIT_SECONDS, f"{count} more rounds")
        return self.snapshots[begin:]

    def await_snapshot(self, wanted: Callable[[NodeSnapshot], bool], what: str, seconds: float = WAIT_SECONDS) -> NodeSnapshot:
        """The first snapshot that comes now and is wanted."""
        begin = len(self.snapshots)
        found: list[NodeSnapshot] = []

        def seen() -> bool:
            found.extend(snapshot for snapshot in self.snapshots[begin:] if wanted(snapshot))
            return bool(found)

        await_true(seen, seconds, what)
        return found[0]

    def await_flags(self, guests: Iterable[Guest], rounds_at_most: int) -> NodeSnapshot:
        """The first snapshot that flags these VMs and no others, within so many rounds."""
        uuids = {guest.uuid for guest in guests}
        return self.await_snapshot(lambda seen: flagged(seen) == uuids, f"{len(uuids)} VMs are flagged", rounds_at_most * INTERVAL + 1.0)


def flagged(snapshot: NodeSnapshot) -> set[str]:
    return {vm.uuid for vm in snapshot.vms if vm.monitor_responsive == 0}


def with_monitor(snapshot: NodeSnapshot) -> set[str]:
    return {vm.uuid for vm in snapshot.vms if vm.blocks and vm.blocks[0].rd_reqs >= 0}


def complete(vm: VmSnapshot) -> bool:
    return vm.state_state >= 0 and vm.cpu_time >= 0 and vm.net_count >= 0 and vm.balloon_current >= 0


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """One host."""
    with Lab(nodes=1) as lab:
        yield lab.nodes[0]


@pytest.fixture(scope="module")
def all_guests(node: Node) -> list[Guest]:
    """Its VMs."""
    return node.load_paused(VMS)


@pytest.fixture
def guests(node: Node, all_guests: list[Guest]) -> Iterator[list[Guest]]:
    """All VMs, none of them frozen before and after the test."""
    yield all_guests
    for guest in all_guests:
        node.thaw(guest)
    await_true(lambda: node.captured_calls() == 0, WAIT_SECONDS, "libvirtd holds no call any more")


@pytest.mark.parametrize("count", [1, 3, 8])
def test_vms_that_freeze_cost_the_others_nothing(node: Node, guests: list[Guest], count: int) -> None:
    """Flagged and cleared within two intervals, the others served, one call lost, all threads and descriptors given back."""
    stuck, healthy = guests[:count], {guest.uuid for guest in guests[count:]}
    with Sampling(node) as sampling:
        sampling.await_snapshot(lambda seen: len(with_monitor(seen)) == VMS, "all VMs answer")
        sampling.await_rounds(1)
        threads, descriptors = threading.active_count(), len(list(DESCRIPTORS.iterdir()))
        for guest in stuck:
            node.freeze(guest)
        sampling.await_flags(stuck, 3)
        during = sampling.await_rounds(5)
        assert node.captured_calls() == 1
        for guest in stuck:
            node.thaw(guest)
        sampling.await_flags([], 3)
        sampling.await_snapshot(lambda seen: len(with_monitor(seen)) == VMS, "all VMs answer again")
        await_true(
            lambda: threading.active_count() <= threads and len(list(DESCRIPTORS.iterdir())) <= descriptors,
            WAIT_SECONDS,
            "all is given back",
        )
    for snapshot in during:
        assert all(complete(vm) for vm in snapshot.vms)
        assert len(snapshot.vms) == VMS
        assert snapshot.health.captured_calls == 1
    for one, next_one in pairwise(during):
        assert with_monitor(one) | with_monitor(next_one) == healthy, "one round late at most"


def test_vms_that_are_stuck_before_the_first_contact_are_not_touched(node: Node, guests: list[Guest]) -> None:
    for guest in guests[:5]:
        node.freeze(guest)
    with Sampling(node) as sampling:
        snapshot = sampling.await_flags(guests[:5], 4)
        assert with_monitor(snapshot) == {guest.uuid for guest in guests[5:]}
        sampling.await_rounds(2)
        assert node.captured_calls() == 0


def test_vms_that_come_and_go_stay_within_the_cap(node: Node, guests: list[Guest]) -> None:
    """Stopped again at every stage of their return: while the late call comes back, while they are looked at, while they are asked."""
    with Sampling(node) as sampling:
        sampling.await_snapshot(lambda seen: len(with_monitor(seen)) == VMS, "all VMs answer")
        for turn in range(12):
            guest = guests[turn % 4]
            node.freeze(guest)
            sampling.await_rounds(1 + turn % 2)
            node.thaw(guest)
            if turn % 3:
                node.freeze(guest)
                sampling.await_rounds(1)
                node.thaw(guest)
        assert all(len(snapshot.vms) == VMS and all(map(complete, snapshot.vms)) for snapshot in sampling.snapshots if snapshot.health.up)
        assert max(snapshot.health.captured_calls for snapshot in sampling.snapshots) <= CAP
        for guest in guests:
            node.thaw(guest)
        sampling.await_snapshot(lambda seen: not flagged(seen) and len(with_monitor(seen)) == VMS, "all VMs answer again")


def test_without_the_process_table_libvirt_names_them(node: Node, guests: list[Guest], tmp_path: Path) -> None:
    """One stuck VM costs a call and nobody else anything; of more, the cap less one are told apart and one slot serves the trusted."""
    with Sampling(node, hidden=tmp_path) as sampling:
        sampling.await_snapshot(lambda seen: len(with_monitor(seen)) == VMS, "all VMs answer")
        node.freeze(guests[4])
        sampling.await_flags([guests[4]], 3)
        sampling.await_snapshot(lambda seen: len(with_monitor(seen)) == VMS - 1, "the others are served")
        for guest in guests[5:10]:
            node.freeze(guest)
        snapshot = sampling.await_snapshot(lambda seen: seen.health.vms_not_probed > 0, "the others are flagged as not probed")
        for seen in [snapshot, *sampling.await_rounds(4)]:
            assert seen.health.captured_calls <= CAP - 1
            assert all(map(complete, seen.vms))
            assert seen.health.vms_skipped + seen.health.vms_not_probed + sum(vm.monitor_responsive == 1 for vm in seen.vms) == VMS
        for guest in guests:
            node.thaw(guest)
        sampling.await_snapshot(lambda seen: not flagged(seen) and len(with_monitor(seen)) == VMS, "all VMs answer again")


@pytest.mark.parametrize("visible", [True, False])
def test_a_new_run_counts_what_the_one_before_left_behind(node: Node, guests: list[Guest], tmp_path: Path, visible: bool) -> None:  # noqa: FBT001
    """Runs that are given up with a call in a VM: each successor finds it and adds none while it may not."""
    hidden = None if visible else tmp_path
    with Sampling(node, hidden) as first:
        first.await_snapshot(lambda seen: len(with_monitor(seen)) == VMS, "all VMs answer")
        for guest in guests[:6]:
            node.freeze(guest)
        first.await_snapshot(lambda seen: seen.health.captured_calls > 0, "a call is lost")
        for _ in range(4):
            with Sampling(node, hidden) as again:
                snapshot = again.await_snapshot(lambda seen: len(seen.vms) == VMS, "the new run's rounds")
                again.await_rounds(2)
            assert snapshot.health.captured_calls >= 1
            assert node.captured_calls() <= CAP
