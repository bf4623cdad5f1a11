"""The lab itself: real daemons and guests that obey, and nothing left when it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.lab import Guest, Lab, LabError, await_true, run
from tests.support.lab_release import RELEASES as KNOWN
from tests.support.lab_release import releases

RELEASES = releases(every_run=True)
GROWING = (
    "cpu.time",
    "vcpu.0.time",
    "net.0.rx.bytes",
    "net.0.tx.bytes",
    "block.0.rd.bytes",
    "block.0.wr.reqs",
    "block.0.fl.reqs",
    "balloon.last-update",
)


def test_nodes_are_hosts_of_their_own(lab: Lab) -> None:
    """Each node has its own name, and sees its own processes only."""
    assert [node.virsh("hostname").strip() for node in lab.nodes] == ["node1", "node2"]
    assert [node.exec("hostname").strip() for node in lab.nodes] == ["node1", "node2"]
    assert lab.nodes[0].exec("pgrep", "-x", "libvirtd").split() != []
    assert len(lab.nodes[0].exec("pgrep", "-x", "libvirtd").split()) == 1


def test_the_hypervisor_is_the_releases(lab: Lab) -> None:
    """The daemon and QEMU say the versions that the table of tested releases names."""
    expected = KNOWN[lab.nodes[0].hypervisor.release]
    said = lab.nodes[0].virsh("version", "--daemon")
    assert f"Running against daemon: {expected.libvirt}." in said
    assert f"Running hypervisor: QEMU {expected.qemu}." in said


def test_a_guest_makes_its_counters_grow(lab: Lab, guest: Guest) -> None:
    """CPU, network, disks and balloon statistics all move without a hand."""
    node = lab.nodes[0]
    before = node.domstats(guest)

    def all_grew() -> bool:
        now = node.domstats(guest)
        return all(int(now[key]) > int(before[key]) for key in GROWING)

    await_true(all_grew, 30.0, "all counters grow")


def test_the_daemon_restarts_and_hangs_beside_its_guests(lab: Lab, guest: Guest) -> None:
    """A restart keeps the VM's process; a paused daemon does not answer, and goes on afterwards."""
    node = lab.nodes[0]
    process = node.qemu_pid(guest)
    node.restart_libvirtd()
    assert node.qemu_pid(guest) == process
    node.pause_libvirtd()
    with pytest.raises(LabError, match="no answer"):
        node.virsh("list", timeout_seconds=0.5)
    node.resume_libvirtd()
    assert "web-1" in node.virsh("list", "--name")


def test_a_frozen_guest_is_stopped_and_thaws(lab: Lab, guest: Guest) -> None:
    """Freezing stops QEMU's process, and the safe groups answer all the same."""
    node = lab.nodes[0]
    status = Path(f"/proc/{node.qemu_pid(guest)}/stat")
    node.freeze(guest)
    await_true(lambda: status.read_text().rsplit(")", 1)[1].split()[0] == "T", 5.0, "QEMU stops")
    assert node.domstats(guest, "state", "interface")["state.state"] == "1"
    assert node.hung_calls() == 0
    with pytest.raises(LabError, match="no answer"):
        node.virsh("dommemstat", guest.uuid, timeout_seconds=1.0)
    assert node.hung_calls() == 1
    node.thaw(guest)
    await_true(lambda: node.hung_calls() == 0, 5.0, "the call comes back with the VM")
    await_true(lambda: status.read_text().rsplit(")", 1)[1].split()[0] != "T", 5.0, "QEMU goes on")


def test_a_guest_migrates_and_reboots(lab: Lab, guest: Guest) -> None:
    """The VM is on exactly one node after a migration, and a reboot begins its counters anew."""
    first, second = lab.nodes
    lab.migrate(guest, first, second)
    assert guest.uuid not in first.virsh("list", "--all", "--uuid")
    before = int(second.domstats(guest, "block")["block.0.rd.reqs"])
    lab.migrate(guest, second, first)
    first.reboot(guest, wait=False)
    assert int(first.domstats(guest, "block")["block.0.rd.reqs"]) <= before


def test_paused_vms_come_by_the_dozen_and_go(lab: Lab) -> None:
    """VMs without an operating system are for scale: paused, with devices, gone when deleted."""
    node = lab.nodes[1]
    many = node.load_paused(6)
    assert set(node.virsh("list", "--uuid").split()) == {guest.uuid for guest in many}
    assert node.domstats(many[0], "state")["state.state"] == "3"
    for guest in many:
        node.delete(guest)
    assert node.virsh("list", "--all", "--uuid").split() == []


KILLED_RUN = """
import os, signal
from tests.support.lab import Lab
lab = Lab(nodes=1)
node = lab.nodes[0]
vm = node.load_paused(1)[0]
node.freeze(vm)
node.pause_libvirtd()
print(lab.folder, lab.network.index, node.qemu_pid(vm), node.libvirtd.pid, node.libvirtd.outer_pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_no_process(lab: Lab) -> None:
    """Two labs never share a number, and SIGKILL of a test run takes all its processes with it, the stopped ones too."""
    root = Path(__file__).parents[2]
    dead = subprocess.run([sys.executable, "-c", KILLED_RUN], cwd=root, capture_output=True, text=True, check=False, timeout=60)
    folder, index, *processes = dead.stdout.split()
    assert int(index) != lab.network.index
    await_true(lambda: not any(Path(f"/proc/{process}").exists() for process in processes), 10.0, "the processes of a killed run end")
    run(["rm", "-r", folder])
