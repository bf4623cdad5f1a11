"""Simulated VMs behave: the same fleet from the same seed, counters that only fall at a reboot, VMs that come and go."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from virtflow.producer.simulator.fleet import vms_at
from virtflow.producer.simulator.service import Fleet, SimulatedNode
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.catalogue.metrics import of_libvirt
from virtflow.schemas.catalogue.types import Scope, Type
from virtflow.schemas.records import NodeSnapshot

BEGAN = 1_795_476_243.0
FLEET = Fleet(nodes=3, vms=40, interval_seconds=5.0, inventory_seconds=300.0, seed=7)
COUNTERS = [source.attribute for metric, source in of_libvirt(Scope.VM) if metric.type is Type.COUNTER]


def rounds(seconds: float, node: str = "n", every: float = 5.0) -> list[NodeSnapshot]:
    simulated = SimulatedNode(FLEET, node, "boot")
    return [simulated.round_at(number, BEGAN + number * every) for number in range(int(seconds / every))]


def test_the_same_seed_gives_the_same_fleet_at_any_time() -> None:
    """A VM is a function of seed, node, slot and time, not of what was asked before."""
    later = vms_at(7, "n", 40, BEGAN + 1000)
    assert vms_at(7, "n", 40, BEGAN + 1000) == later
    assert rounds(10)[0].vms[0].uuid == vms_at(7, "n", 40, BEGAN)[0].uuid
    assert {vm.uuid for vm in vms_at(8, "n", 40, BEGAN)}.isdisjoint(vm.uuid for vm in vms_at(7, "n", 40, BEGAN))
    assert {vm.uuid for vm in vms_at(7, "m", 40, BEGAN)}.isdisjoint(vm.uuid for vm in vms_at(7, "n", 40, BEGAN))


def test_a_vms_cpu_never_does_more_than_it_has() -> None:
    """Over any interval, the CPU time grows by at most the interval times the vCPUs."""
    first, second = rounds(10)
    before = {vm.uuid: vm for vm in first.vms}
    grown = [(vm.cpu_time - before[vm.uuid].cpu_time, vm.vcpu_current) for vm in second.vms if vm.uuid in before]
    assert all(growth <= 5.0 * 1e9 * vcpus for growth, vcpus in grown)
    assert sum(growth > 0 for growth, _ in grown) > 30


def test_counters_fall_only_at_a_reboot_and_then_all_of_them_start_anew() -> None:
    reboots = 0
    for before, after in itertools.pairwise(rounds(7200, every=60.0)):
        known = {vm.uuid: vm for vm in before.vms}
        for vm in after.vms:
            if vm.uuid not in known:
                continue
            fell = {name for name in COUNTERS if getattr(vm, name) < getattr(known[vm.uuid], name)}
            reboots += bool(fell)
            assert fell in (set(), {name for name in COUNTERS if getattr(known[vm.uuid], name) > 0})
    assert reboots > 10


def test_vms_are_made_and_deleted_and_most_of_them_stay() -> None:
    seen = [{vm.uuid for vm in one.vms} for one in rounds(3600, every=60.0)]
    assert len(set.union(*seen)) > len(set.intersection(*seen)) >= 30


def test_all_kinds_of_vms_are_there() -> None:
    """Running, paused and shut off ones; with and without a balloon driver; one to four vCPUs."""
    vms = vms_at(1, "n", 400, BEGAN)
    assert {vm.stats["state.state"] for vm in vms} == {1, 3, 5}
    assert {"balloon.unused" in vm.stats for vm in vms} == {True, False}
    assert all("cpu.time" not in vm.stats for vm in vms if vm.stats["state.state"] == 5)


def test_a_round_is_what_a_producer_would_send() -> None:
    """It survives the codec, holds no unknown field, tells the node's health, and brings each VM's inventory once."""
    first, second = rounds(10)
    codec = Codec()
    decoded = codec.decode(codec.encode(first), NodeSnapshot)
    assert len(decoded.vms) == len(first.vms)
    assert (decoded.health.up, decoded.health.unknown_fields_total, decoded.health.rounds_total) == (1, 0, 1)
    assert sum(decoded.health.vms.values()) == len(decoded.vms)
    assert all(len(vm.inventory) == 1 for vm in first.vms)
    assert not any(vm.inventory for vm in second.vms)


@pytest.mark.parametrize("number", range(4))
def test_nodes_take_turns_within_the_interval(number: int) -> None:
    """The rounds are spread evenly, so that a fleet is no burst."""
    dues = list(itertools.islice(FLEET.due(100.0), 4))
    node, sequence, due = dues[number]
    assert (node, sequence) == (number % 3, number // 3)
    assert due == pytest.approx(100.0 + number * 5.0 / 3)


def test_guests_tell_what_only_they_know_when_asked() -> None:
    """Once a cycle, a truth that the cleaning leaves as it is; without the option nothing; some agents never answer, and say why."""
    assert all(not vm.guest for vm in rounds(10)[0].vms)
    simulated = SimulatedNode(replace(FLEET, guests=True), "n", "boot")
    first, second = (simulated.round_at(number, BEGAN + number * 5.0) for number in range(2))
    told = [vm.guest[0] for vm in first.vms]
    answered = [guest for guest in told if guest.agent_up == 1]
    assert len(first.vms) > len(answered) > 25
    assert {guest.reason for guest in told} >= {"", "no_channel"}
    for guest in answered:
        assert 0 <= BEGAN - guest.taken < 60
        assert guest.cpus > 0
        assert guest.filesystems
        assert guest.interfaces
        assert guest.load1 > 0
        assert (guest.cut, guest.dropped) == (0, 0)
    same = [before.guest[0] is after.guest[0] for before, after in zip(first.vms, second.vms, strict=False)]
    assert same.count(True) > 25


def test_stuck_vms_hang_half_of_the_time_and_are_flagged() -> None:
    """Then a round has what a producer has of a VM whose monitor does not answer: its state and interfaces, no disk and no guest's memory."""
    node = SimulatedNode(replace(FLEET, stuck=2), "n", "boot")
    found = [node.round_at(number, BEGAN + number * 10) for number in range(24)]
    flagged = [{vm.uuid for vm in one.vms if vm.monitor_responsive == 0} for one in found]
    stuck = set.union(*flagged)
    assert len(stuck) == 2
    assert [bool(one) for one in flagged].count(True) == 12
    for one, hung in zip(found, flagged, strict=True):
        assert hung in (set(), stuck)
        for vm in one.vms:
            if vm.uuid in hung:
                assert vm.cpu_time >= 0
                assert vm.networks
                assert (len(vm.blocks), vm.balloon_rss) == (0, -1)
