"""`virtflow top --libvirt` on a real hypervisor: its VMs without an exporter, down to a disk, a stuck one, and a migration to its end."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.command import one_line_error, virtflow
from tests.support.lab import Guest, Lab, Node
from tests.support.lab_migration import Migrating
from tests.support.terminal import Terminal

SLOW_MBPS = 10


def reading(node: Node) -> tuple[str, ...]:
    """The options that name the node's libvirt, and a short interval."""
    return ("--libvirt", "--connect", node.socket_uri, "--interval", "0.5")


def test_a_disk_a_stuck_vm_and_a_migration_to_its_end(lab: Lab, guest: Guest) -> None:
    source, destination = lab.nodes
    (stuck,) = source.load_paused(1, "stuck")
    with Terminal("top", *reading(source), "--refresh", "0.5") as top:
        top.wait_for(lambda text: re.search(r"^2 VMs +0 stuck", text) is not None, "both VMs")
        top.press("v")
        top.wait_for(lambda text: re.search(rf"^>  {guest.name} +running +\d", text, re.MULTILINE) is not None, "the guest's rates, on top")
        top.press("\r")
        top.wait_for(lambda text: "disk vda" in text and "net vnet" in text, "its devices")
        top.press("j\r")
        top.wait_for(lambda text: f"disk vda of VM {guest.name}" in text and "capacity" in text, "its disk")
        source.freeze(stuck)
        try:
            top.press("vf")
            top.wait_for(lambda text: re.search(r"^>S stuck", text, re.MULTILINE) is not None and "1 of 2" in text, "the stuck VM")
        finally:
            source.thaw(stuck)
        top.wait_for(lambda text: "0 of 2" in text, "it answers again")
        migrating = Migrating.begin(guest, source, destination, SLOW_MBPS)
        top.press("m")
        top.wait_for(lambda text: re.search(rf"{guest.name} +running +[1-9]\d?%", text) is not None, "it runs")
        source.virsh("migrate-setspeed", guest.uuid, "1000")
        migrating.succeed()
        top.wait_for(lambda text: re.search(rf"{guest.name} +completed", text) is not None, "it has ended")
        top.press("q")
        assert top.end() == 0
        assert b"Traceback" not in top.sent
    Migrating.begin(guest, destination, source).succeed()


def test_once_has_rates_that_are_libvirts(node: Node, guest: Guest) -> None:
    """The CPU time between its two samples is no more than what libvirt counts around them."""
    before = int(node.domstats(guest, "cpu-total")["cpu.time"])
    done = virtflow("top", *reading(node), "--once", "--json")
    after = int(node.domstats(guest, "cpu-total")["cpu.time"])
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = (vm for vm in json.loads(done.stdout)["vms"]["items"] if vm["uuid"] == guest.uuid)
    assert (found["name"], found["state"]) == (guest.name, "running")
    assert 0 < found["cpu_cores"] * found["rate_seconds"] <= (after - before) / 1e9


def test_once_as_a_table(node: Node, guest: Guest) -> None:
    done = virtflow("top", *reading(node), "--once", "--filter", guest.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"^ +{guest.name} +running +\d", done.stdout, re.MULTILINE)


def test_once_ends_while_a_vm_is_stuck(node: Node, guest: Guest) -> None:
    """The others have their rates; no call that hangs keeps the command."""
    (stuck,) = node.load_paused(1, "hanging")
    node.freeze(stuck)
    try:
        done = virtflow("top", *reading(node), "--once", "--sort", "name", seconds=40.0)
    finally:
        node.thaw(stuck)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"^ +{guest.name} +running +\d", done.stdout, re.MULTILINE)
    assert "hanging" in done.stdout


def test_a_libvirt_that_is_away_is_one_line(tmp_path: Path) -> None:
    done = virtflow("top", "--once", "--libvirt", "--connect", f"qemu+unix:///system?socket={tmp_path}/none")
    assert "libvirt" in one_line_error(done, 1)
