"""The simulated travellers: always on one node or another, and their events make the migrations they stand for."""

from __future__ import annotations

from collections import Counter

import pytest

from virtflow.processors.migrations.reducer import apply_event
from virtflow.producer.records.vm_event import vm_event
from virtflow.producer.simulator.fleet import SimulatedVm
from virtflow.producer.simulator.migrations import LEG_SECONDS, TOUR_SECONDS, happenings, travellers, travellers_at
from virtflow.schemas import states
from virtflow.schemas.ownership import Report, authoritative
from virtflow.schemas.records import VmMigration

NODES = ("n1", "n2", "n3")
SEED = 3
KNOWN = travellers(SEED, NODES, 4)
BEGIN = 1_795_476_000.0


def number(vm: SimulatedVm, key: str) -> int:
    value = vm.stats[key]
    assert isinstance(value, int)
    return value


def test_nobody_moves_alone() -> None:
    assert travellers(SEED, ("n1",), 4) == ()
    assert len(KNOWN) == 4
    assert all(one.nodes[0] != one.nodes[1] for one in KNOWN)


def test_a_traveller_runs_on_one_node_at_a_time() -> None:
    """At every moment it runs on at most one node; between the source's stop and the destination's go on none."""
    for second in range(int(TOUR_SECONDS) * 4):
        at = BEGIN + second / 4
        running: Counter[str] = Counter()
        listed: Counter[str] = Counter()
        for node in NODES:
            for vm in travellers_at(SEED, KNOWN, node, at):
                listed[vm.uuid] += 1
                running[vm.uuid] += vm.stats["state.state"] == states.RUNNING
                assert ("cpu.time" in vm.stats) or vm.stats["state.state"] == states.PAUSED
        assert set(listed) == set(running)
        assert len(listed) == len(KNOWN)
        assert max(running.values()) <= 1


def test_counters_only_fall_when_it_has_moved() -> None:
    """A process of its own at each node: its counters begin there, and grow as long as it stays."""
    one = KNOWN[:1]
    last: dict[str, int] = {}
    falls = 0
    where = ""
    for second in range(int(TOUR_SECONDS)):
        for node in one[0].nodes:
            for vm in travellers_at(SEED, one, node, BEGIN + second):
                if vm.stats["state.state"] != states.RUNNING:
                    continue
                now = number(vm, "cpu.time")
                if now < last.get(vm.uuid, 0):
                    falls += 1
                    assert node != where
                last[vm.uuid], where = now, node
    assert falls == 2


def states_of(since: float, until: float, step: float) -> list[VmMigration]:
    known: dict[str, VmMigration] = {}
    out: list[VmMigration] = []
    sequence = 0
    at = since
    while at < until:
        for node, happened in happenings(SEED, KNOWN, at, at + step):
            event = vm_event(happened, node, "boot", sequence)
            sequence += 1
            for change in apply_event(known.get(event.uuid), event):
                known[event.uuid] = change
                out.append(change)
        at += step
    return out


@pytest.mark.parametrize("step", [0.1, 7.0])
def test_the_events_make_migrations_of_every_result(step: float) -> None:
    """A whole tour: two completed, one cancelled because it does not converge, one failed; whatever the steps they are told in."""
    found = states_of(BEGIN, BEGIN + TOUR_SECONDS, step)
    ended: dict[str, VmMigration] = {one.id: one for one in found if one.result != "running"}
    for uuid in {one.uuid for one in found}:
        results = Counter(one.result for one in ended.values() if one.uuid == uuid)
        assert results["completed"] >= 1
        assert results.total() >= 3
    assert {one.result for one in ended.values()} == {"completed", "cancelled", "failed"}
    stuck = [one for one in found if one.result == "running" and one.converging == 0]
    assert {ended[one.id].result for one in stuck if one.id in ended} == {"cancelled"}
    assert all(one.dirty_ratio > 1 for one in stuck)
    assert all(one.elapsed_seconds < LEG_SECONDS for one in ended.values())


def test_the_newest_migration_agrees_with_the_samples() -> None:
    """Whoever the events say has the VM is where it runs."""
    known: dict[str, VmMigration] = {}
    ran: set[tuple[str, str]] = set()
    sequence = 0
    for second in range(int(TOUR_SECONDS)):
        at = BEGIN + second
        for node, happened in happenings(SEED, KNOWN, at - 1, at):
            sequence += 1
            for change in apply_event(known.get(happened.uuid), vm_event(happened, node, "boot", sequence)):
                known[happened.uuid] = change
        reports: dict[str, list[Report]] = {}
        for node in NODES:
            for vm in travellers_at(SEED, KNOWN, node, at):
                reports.setdefault(vm.uuid, []).append(
                    Report(node, number(vm, "state.state"), at, number(vm, "state.reason"), interval=1.0)
                )
        for uuid, listed in reports.items():
            running = [report.node for report in listed if report.state == states.RUNNING]
            if running:
                assert authoritative(listed, known.get(uuid)).node == running[0]
                ran.add((uuid, running[0]))
    assert Counter(node for _, node in ran) == Counter(node for one in KNOWN for node in one.nodes)
