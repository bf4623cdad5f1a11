"""A node of many daemons as KubeVirt's are: each "pod" a daemon of its own in namespaces of its own, with one VM; one producer asks all of them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Guest, Lab, Node, await_true
from tests.support.lab_pipeline import VIRTFLOW
from tests.support.lab_release import releases
from tests.support.lab_sampling import Sampled
from tests.support.lab_session import SessionDaemon
from tests.support.stuck_vms import HANGING_SECONDS, flagged, uuids_of, with_monitor
from virtflow.producer.service import source_of
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.settings import Libvirt, Producer, Settings
from virtflow.schemas import states

RELEASES = releases(modular=True)
NODES = 3
INTERVAL = 2.0
ADDRESS_BYTES = 107


class Sampling(Sampled):
    """A producer that discovers daemons: its snapshots as they come, and what was announced."""

    def __init__(self, *patterns: str) -> None:
        """Nothing runs yet."""
        settings = Settings(libvirt=Libvirt(discover=list(patterns)), producer=Producer(interval_seconds=INTERVAL, node="worker-1"))
        self.events: list[HypervisorEvent] = []
        super().__init__(settings, source_of(settings, self.events.append))


def below_proc(node: Node, guest: Guest) -> list[str]:
    """Patterns that find a pod's socket below the roots of two of its processes, as on a node of KubeVirt's, and of no other lab's."""
    pids = [str(node.libvirtd.pid), str(node.qemu_pid(guest))]
    return [f"/proc/[{pid[0]}]{pid[1:]}/root/run/libvirt/{node.socket.name}" for pid in pids]


def below_folder(lab: Lab) -> str:
    """The pattern that finds them below one folder, as the kubelet's folder of pods is mounted."""
    return f"{lab.folder}/node*/run/{lab.nodes[0].socket.name}"


@pytest.fixture(scope="module")
def pods(lab: Lab) -> list[Guest]:
    """The VM of each pod, paused."""
    return [node.start_paused([f"shop_web-{number}"])[0] for number, node in enumerate(lab.nodes, 1)]


@pytest.fixture
def sampling(lab: Lab, pods: list[Guest]) -> Iterator[Sampling]:
    """A producer that has asked every pod once."""
    with Sampling(below_folder(lab)) as running:
        running.await_snapshot(lambda seen: with_monitor(seen) == uuids_of(pods), "all VMs answer")
        yield running


def test_daemons_that_two_patterns_lead_to_are_one_node_with_each_vm_once(lab: Lab, pods: list[Guest]) -> None:
    """Below the root of every process of each pod, and below a folder: one connection to each daemon, one order, one name."""
    below = [pattern for node, guest in zip(lab.nodes, pods, strict=True) for pattern in below_proc(node, guest)]
    with Sampling(*below, below_folder(lab)) as running:
        seen = running.await_snapshot(lambda seen: with_monitor(seen) == uuids_of(pods), "all VMs answer")
        more = running.await_rounds(3)
    assert (len(seen.vms), seen.health.daemons) == (NODES, NODES)
    assert {(one.node, one.boot_id) for one in more} == {("worker-1", seen.boot_id)}
    assert [one.sequence for one in more] == list(range(more[0].sequence, more[0].sequence + len(more)))
    assert {inventory.uuid for one in running.snapshots for vm in one.vms for inventory in vm.inventory} >= uuids_of(pods)


def test_a_path_that_is_too_long_for_a_sockets_address_is_reached(lab: Lab, pods: list[Guest]) -> None:
    folder = lab.folder / ("x" * ADDRESS_BYTES)
    folder.symlink_to(lab.folder)
    try:
        with Sampling(f"{folder}/node*/run/{lab.nodes[0].socket.name}") as running:
            running.await_snapshot(lambda seen: with_monitor(seen) == uuids_of(pods), "all VMs answer")
    finally:
        folder.unlink()


def test_a_qemu_that_is_stopped_costs_one_vm(lab: Lab, pods: list[Guest], sampling: Sampling) -> None:
    lab.nodes[0].freeze(pods[0])
    try:
        sampling.await_snapshot(lambda seen: flagged(seen) == {pods[0].uuid}, "the stuck VM is flagged")
        for seen in sampling.await_rounds(4):
            assert (flagged(seen), with_monitor(seen)) == ({pods[0].uuid}, uuids_of(pods[1:]))
            assert (seen.health.daemons, seen.health.daemons_silent, seen.health.up) == (NODES, 0, 1)
    finally:
        lab.nodes[0].thaw(pods[0])
    sampling.await_snapshot(lambda seen: with_monitor(seen) == uuids_of(pods) and not flagged(seen), "all VMs answer again")


def test_a_daemon_that_is_stopped_costs_one_vm(lab: Lab, pods: list[Guest], sampling: Sampling) -> None:
    lab.nodes[0].pause_libvirtd()
    try:
        sampling.await_snapshot(lambda seen: flagged(seen) == {pods[0].uuid}, "the VM of the silent daemon is flagged")
        for seen in sampling.await_rounds(8):
            assert (flagged(seen), with_monitor(seen)) == ({pods[0].uuid}, uuids_of(pods[1:]))
            assert (seen.health.daemons, seen.health.daemons_silent, seen.health.up) == (NODES, 1, 1)
    finally:
        lab.nodes[0].resume_libvirtd()
    sampling.await_snapshot(lambda seen: with_monitor(seen) == uuids_of(pods) and not flagged(seen), "all VMs answer again")


def test_a_daemon_that_is_started_again_keeps_its_vm(lab: Lab, pods: list[Guest], sampling: Sampling) -> None:
    """It makes a new socket in the same place; the VM runs on."""
    begin = len(sampling.snapshots)
    lab.nodes[0].restart_libvirtd()
    sampling.await_snapshot(lambda seen: with_monitor(seen) == uuids_of(pods), "all VMs answer")
    away = [seen for seen in sampling.snapshots[begin:] if pods[0].uuid not in {vm.uuid for vm in seen.vms}]
    assert not away


def test_pods_that_come_and_go_are_seen_within_two_intervals(lab: Lab, pods: list[Guest], sampling: Sampling) -> None:
    node = Node(NODES + 1, lab.folder, lab.network, lab.nodes[0].hypervisor)
    try:
        (fresh,) = node.start_paused(["shop_web-9"])
        there = time.time()
        first = sampling.await_snapshot(lambda seen: fresh.uuid in with_monitor(seen), "the new pod's VM is there")
        assert first.health.daemons == NODES + 1
        assert sum(there < seen.collected <= first.collected for seen in sampling.snapshots) <= 2
        told = [event for event in sampling.events if event.uuid == fresh.uuid]
        # A first list that comes while the VM still starts says so: it might arrive by a migration.
        assert all(event.what == "lifecycle" or event.detail == (states.PAUSED, states.PAUSED_STARTING_UP) for event in told)
        node.virsh("resume", fresh.uuid)
        await_true(lambda: any(one.uuid == fresh.uuid for one in sampling.events), HANGING_SECONDS, "its events are announced")
    finally:
        node.close()
        node.socket.unlink()  # as the pod's folder goes with it
    gone = time.time()
    last = sampling.await_snapshot(lambda seen: seen.health.daemons == NODES, "the pod has gone")
    assert fresh.uuid not in {vm.uuid for vm in last.vms}
    assert sum(gone < seen.collected <= last.collected for seen in sampling.snapshots) <= 2
    assert with_monitor(sampling.await_rounds(1)[-1]) == uuids_of(pods)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """The command's result."""
    return subprocess.run([VIRTFLOW, *words], capture_output=True, text=True, check=False)


def test_commands_ask_every_daemon(lab: Lab, pods: list[Guest], tmp_path: Path) -> None:
    pattern = below_folder(lab)
    found = json.loads(command("check", "--for", "node", "--discover", pattern, "--json").stdout)["findings"]
    (told,) = [one for one in found if one["thing"] == "libvirt daemons"]
    assert (told["ok"], told["detail"]) == (True, f"{NODES} of {NODES} answer, {NODES} VMs, statistics readable")
    sample = json.loads(command("snapshot", "--discover", pattern, "--format", "json").stdout)
    assert {vm["uuid"] for vm in sample["vms"]} == uuids_of(pods)
    lab.nodes[0].freeze(pods[0])
    try:
        doctor = json.loads(command("doctor", "--discover", pattern, "--json").stdout)
        assert [vm["uuid"] for vm in doctor["stuck"]] == [pods[0].uuid]
    finally:
        lab.nodes[0].thaw(pods[0])
    none = command("check", "--for", "node", "--discover", f"{tmp_path}/*/sock")
    assert "no daemon is found" in none.stdout


def test_commands_name_a_daemon_that_does_not_answer(lab: Lab, pods: list[Guest]) -> None:
    del pods
    lab.nodes[0].pause_libvirtd()
    try:
        limit = {"VIRTFLOW_LIBVIRT_CONNECT_TIMEOUT_SECONDS": "2"}
        words = [VIRTFLOW, "check", "--for", "node", "--discover", below_folder(lab), "--json"]
        done = subprocess.run(
            ["env", *(f"{key}={value}" for key, value in limit.items()), *words], capture_output=True, text=True, check=False
        )
        wrong = [one for one in json.loads(done.stdout)["findings"] if not one["ok"] and one["thing"].startswith("libvirt")]
        assert [(one["thing"], one["value"], one["detail"]) for one in wrong] == [
            ("libvirt daemon", str(lab.nodes[0].socket), "no answer within 2 s")
        ]
    finally:
        lab.nodes[0].resume_libvirtd()


def test_a_users_daemon_is_asked_as_the_one_of_a_pod(lab: Lab) -> None:
    """Unprivileged, with a socket that is its user's alone, and the names that KubeVirt gives; also by the status that it saves of its VMs."""
    daemon = SessionDaemon(lab.nodes[0], lab.folder / "pods" / "1")
    guest = daemon.start_paused("shop_web-7")
    assert (daemon.folder / "run" / "libvirt" / "qemu" / "run" / "shop_web-7.xml").exists()
    with Sampling(f"{lab.folder}/pods/*/run/libvirt/{daemon.socket.name}") as running:
        running.await_snapshot(lambda seen: with_monitor(seen) == {guest.uuid}, "the VM answers")
        await_true(lambda: any(vm.inventory for one in running.snapshots for vm in one.vms), HANGING_SECONDS, "the VM is described")
    (inventory, *_) = [inventory for one in running.snapshots for vm in one.vms for inventory in vm.inventory]
    assert (inventory.platform, inventory.namespace, inventory.platform_name) == ("kubevirt", "shop", "web-7")
    daemon.virsh("destroy", guest.uuid)
    daemon.process.stop()
