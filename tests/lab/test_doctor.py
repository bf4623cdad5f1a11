"""``virtflow doctor`` on a real daemon of each release: before a VM was ever started, with a VM that does not answer, with a call in it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.lab import Lab, Node, await_true
from tests.support.lab_pipeline import VIRTFLOW
from tests.support.lab_release import releases
from tests.support.stuck_vms import HANGING_SECONDS

RELEASES = releases(modular=True)
CLOCK = "clock"
"""Whether the machine's clock is right is no matter of libvirt's."""


@pytest.fixture
def node(release: str) -> Iterator[Node]:
    """A host on which no VM was started yet: libvirt has not looked at its QEMU."""
    with Lab(1, release) as lab:
        yield lab.nodes[0]


@dataclass(frozen=True)
class Doctor:
    """What the command found."""

    findings: list[dict[str, Any]]
    stuck: list[dict[str, Any]]

    @property
    def wrong(self) -> set[str]:
        """The things that are wrong on the host."""
        return {str(one["thing"]) for one in self.findings if not one["ok"]} - {CLOCK}


def doctor(node: Node) -> Doctor:
    done = subprocess.run([VIRTFLOW, "doctor", "--json", "--connect", node.socket_uri], capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    return Doctor(told["findings"], told["stuck"])


def test_a_host_without_vms_is_fine_and_a_stuck_vm_is_named(node: Node) -> None:
    """Without a VM libvirt answers, whatever QEMU takes to be looked at; of a stuck one its state is said, and no call hangs in it."""
    assert doctor(node).wrong == set()
    fine, stuck = node.load_paused(2)
    node.freeze(stuck)
    try:
        found = doctor(node)
        assert [vm["uuid"] for vm in found.stuck] == [stuck.uuid]
        assert found.wrong >= {"VM"}
        assert node.hung_calls() == 0
        assert fine.uuid not in json.dumps(found.stuck)
    finally:
        node.thaw(stuck)


def test_a_call_that_another_client_left_in_a_vm_is_counted_and_not_joined(node: Node) -> None:
    """The client is told of the VM, of how long the call is held, and of the workers that are left; all other VMs are examined."""
    stuck, *others = node.load_paused(4)
    node.freeze(stuck)
    try:
        with subprocess.Popen(node.virsh_command("dommemstat", stuck.uuid), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            await_true(lambda: node.hung_calls() == 1, HANGING_SECONDS, "the client's call hangs")
            found = doctor(node)
            after = node.hung_calls()
            node.thaw(stuck)  # which ends the client as well
    finally:
        node.thaw(stuck)
    assert after == 1
    assert [vm["uuid"] for vm in found.stuck] == [stuck.uuid]
    assert found.stuck[0]["occupied_seconds"] > 0
    assert found.wrong >= {"VM", "hung calls"}
    assert found.wrong.isdisjoint({"libvirt", "events"})
    held = next(one for one in found.findings if one["thing"] == "hung calls")
    assert held["value"] == "1"
    assert {vm.uuid for vm in others}.isdisjoint({vm["uuid"] for vm in found.stuck})
