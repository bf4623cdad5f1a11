"""A sampler on the in-memory libvirt of each release: what rounds bring while VMs hang, libvirt stands still or restarts, VMs come and go."""

from __future__ import annotations

from collections.abc import Callable

import libvirt
import pytest

from tests.support.memory_libvirt import Daemon, Migration, Vm
from tests.support.memory_libvirt.errors import error
from tests.support.simulated_host import SimulatedHost
from tests.support.simulated_rounds import flagged, whole
from virtflow.producer.hung_calls.budget import Kind
from virtflow.producer.source import Round

FRESH = "00000000-0000-4000-8000-0000000000ff"
TWO_ROUNDS = 2
LIMIT = 3
Make = Callable[..., SimulatedHost]


def listed(found: Round) -> set[str]:
    """All VMs of the round with what never waits."""
    return {reading.uuid for reading in found.readings if {"state.state", "cpu.time", "net.0.rx.bytes"} <= reading.data.keys()}


def told(host: SimulatedHost, what: str) -> list[tuple[object, ...]]:
    """The details of the events of one kind that were announced."""
    return [event.detail for event in host.events if event.what == what]


def test_while_all_is_well_a_round_is_one_call_for_everything(make: Make) -> None:
    host = make().start()
    found = host.rounds(5)[-1]
    assert (found.up, found.late, whole(found), flagged(found)) == (True, False, set(host.uuids), set())
    assert (found.hung_calls.count, found.reconnects) == (0, 0)
    assert found.seconds == {"monitor": 0.0, "safe": 0.0}
    assert found.versions.libvirt == ".".join(str(number) for number in host.daemon.release.libvirt)
    assert found.versions.hypervisor == ".".join(str(number) for number in host.daemon.release.qemu)


def test_a_calm_round_of_a_host_with_many_vms_asks_for_nothing_twice(make: Make) -> None:
    """The VMs of this host take longer than the stall timeout for their answers: no list and no health check on top."""
    host = make(vms=150)
    for vm in host.daemon.vms.values():
        vm.seconds = 0.019
    host.start(interval=10.0)
    host.rounds(3)
    before = host.daemon.served.copy()
    found = host.rounds(4)
    calls = host.daemon.served - before
    assert calls.pop("remoteDispatchConnectGetAllDomainStats") == 4 * 2, "each takes three quarters of the stall timeout of 2 s at most"
    assert calls.pop("remoteDispatchConnectListAllDomains") == 4 * 3, "for the batches, to look for jobs, and to read XML"
    assert set(calls) <= {"remoteDispatchDomainGetJobStats", "remoteDispatchDomainGetXMLDesc", "remoteDispatchDomainLookupByUUID"}
    assert [whole(one) for one in found] == [set(host.uuids)] * 4
    assert all(one.seconds["monitor"] == pytest.approx(2.85, rel=0.01) for one in found)


@pytest.mark.parametrize("processes", [False, True], ids=["hidden", "seen"])
def test_one_stuck_vm_of_many_costs_the_others_no_round(make: Make, *, processes: bool) -> None:
    """Those of the batches before its own are not asked again."""
    host = make(vms=150, processes=processes)
    for vm in host.daemon.vms.values():
        vm.seconds = 0.019
    host.start(interval=10.0)
    host.rounds(3)
    bad = host.uuids[120]
    host.daemon.freeze(bad)
    before = host.daemon.served["remoteDispatchConnectGetAllDomainStats"]
    first = host.round()
    assert host.daemon.served["remoteDispatchConnectGetAllDomainStats"] - before == 2 + 1 + 1, "two batches, a list, and those left"
    assert whole(first) == set(host.uuids) - {bad}
    after = host.rounds(3)[-1]
    assert (whole(after), flagged(after), after.hung_calls.count) == (set(host.uuids) - {bad}, {bad}, 1)


def test_a_new_vm_of_a_host_with_many_is_in_the_next_round(make: Make) -> None:
    host = make(vms=150)
    for vm in host.daemon.vms.values():
        vm.seconds = 0.019
    host.start(interval=10.0)
    host.rounds(3)
    host.daemon.add(Vm("fresh", FRESH))
    gone = host.uuids.pop(3)
    host.daemon.destroy(gone)
    host.daemon.undefine(gone)
    found = host.round()
    assert whole(found) == {*host.uuids, FRESH}


@pytest.mark.parametrize("processes", [False, True], ids=["hidden", "seen"])
@pytest.mark.parametrize("stuck", [1, 2, 6])
def test_stuck_vms_cost_the_others_nothing_and_the_host_no_more_than_the_limit(make: Make, stuck: int, *, processes: bool) -> None:
    """Lifecycle events of stuck VMs, which make their XML due, included; what recovers is whole again within two rounds."""
    host = make(vms=26, processes=processes).start(inventory_seconds=20.0)
    host.rounds(3)
    bad, healthy = set(host.uuids[:stuck]), set(host.uuids[stuck:])
    host.daemon.freeze(*bad)
    found = []
    for _ in range(75):
        host.daemon.lifecycle(
            host.daemon.vms[host.uuids[0]], libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR
        )
        found.append(host.round())
    assert [listed(one) for one in found] == [set(host.uuids)] * 75
    if processes or stuck < LIMIT - 1:  # else the last call that may hang is not risked on VMs of which nothing is known
        complete = [healthy <= whole(one) for one in found[TWO_ROUNDS:]]
        assert sum(complete) >= 0.99 * len(complete)
    assert all(flagged(one) <= bad for one in found)
    assert max(one.hung_calls.count for one in found) <= LIMIT
    assert max(len(host.daemon.serving), host.budget.hung) <= LIMIT
    if processes or stuck < LIMIT:
        assert all(flagged(one) == bad for one in found[TWO_ROUNDS:])
    assert host.ask() == host.ask("XMLDesc") == 0.0
    host.daemon.thaw(*bad)
    after = host.rounds(TWO_ROUNDS + 1)[-1]
    assert (whole(after), flagged(after), after.hung_calls.count, host.daemon.serving) == (set(host.uuids), set(), 0, [])


def test_a_producer_that_is_killed_and_started_again_counts_what_it_left_behind(make: Make) -> None:
    host = make().start()
    host.rounds(3)
    host.daemon.freeze(*host.uuids[:2])
    host.rounds(4)
    left = len(host.daemon.serving)
    assert 1 <= left <= 2
    host.kill()
    assert len(host.daemon.serving) == left, "only the VM's recovery frees a worker"
    host.start()
    found = host.rounds(5)
    assert all(one.hung_calls.count >= left for one in found[1:])
    assert len(host.daemon.serving) <= LIMIT
    assert flagged(found[-1]) == set(host.uuids[:2])
    assert whole(found[-1]) == set(host.uuids[2:])
    host.daemon.thaw(*host.uuids[:2])
    after = host.rounds(TWO_ROUNDS + 1)[-1]
    assert (whole(after), after.hung_calls.count) == (set(host.uuids), 0)


def test_at_the_limit_nobody_is_asked_any_more(make: Make) -> None:
    """VMs that could answer are said to be not probed, not to be stuck."""
    host = make().start(limit=1)
    host.rounds(3)
    host.daemon.freeze(host.uuids[0])
    found = host.rounds(6)[-1]
    assert (found.hung_calls.count, found.hung_calls.vms_not_probed, len(host.daemon.serving)) == (1, 7, 1)
    assert (listed(found), whole(found), flagged(found)) == (set(host.uuids), set(), {host.uuids[0]})


def test_a_daemon_that_stands_still_makes_rounds_say_so_in_time(make: Make) -> None:
    """Openings that hang count as hung calls; once it goes on the next rounds are whole.

    The connection that lists all VMs is opened whatever the budget says (docs/stuck-vms.md): it may be one more than the limit.
    """
    host = make().start()
    host.rounds(3)
    host.daemon.pause()
    begin = host.clock.now
    found = host.rounds(12)
    assert [one.up for one in found] == [False] * 12
    assert host.clock.now - begin == pytest.approx(12 * 2.0, abs=2.0)
    assert 1 <= found[-1].hung_calls.count <= LIMIT + 1
    host.daemon.resume()
    after = host.rounds(8)[-1]
    assert (after.up, whole(after), after.hung_calls.count) == (True, set(host.uuids), 0)
    assert after.reconnects > 0


def test_a_daemon_that_restarts_is_found_again_and_tells_events_once(make: Make) -> None:
    host = make().start()
    host.rounds(3)
    host.daemon.restart()
    found = host.rounds(3)
    assert found[-1].up
    assert whole(found[-1]) == set(host.uuids)
    assert found[-1].reconnects > 0
    host.events.clear()
    host.daemon.suspend(host.uuids[0])
    host.round()
    assert told(host, "lifecycle") == [(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)]


def test_openings_that_hang_and_then_succeed_leave_one_connection_and_tell_events_once(make: Make) -> None:
    """All of them come back when the daemon goes on; whoever is not needed closes, its callbacks with it."""
    host = make()
    host.daemon.pause()
    host.start()
    host.rounds(12)
    host.daemon.resume()
    found = host.rounds(4)
    assert whole(found[-1]) == set(host.uuids)
    host.events.clear()
    host.daemon.suspend(host.uuids[0])
    host.round()
    assert told(host, "lifecycle") == [(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)]
    assert sum(bool(socket.callbacks) for socket in host.daemon.sockets) == 1


def test_a_daemon_that_is_away_is_tried_again_and_again(make: Make) -> None:
    host = make()
    host.daemon.stop()
    host.start()
    assert [one.up for one in host.rounds(4)] == [False] * 4
    host.daemon.begin()
    found = host.rounds(3)[-1]
    assert (found.up, whole(found)) == (True, set(host.uuids))


def test_vms_come_with_their_inventory_and_go(make: Make) -> None:
    host = make().start()
    first = {uuid for one in host.rounds(5) for uuid in one.inventories}
    assert first == set(host.uuids)
    host.daemon.create_paused(Vm("fresh", FRESH, persistent=False))
    found = host.rounds(2)
    assert FRESH in whole(found[-1])
    assert [disk.device for one in found if FRESH in one.inventories for disk in one.inventories[FRESH].disks] == ["vda"]
    host.daemon.destroy(FRESH)
    host.daemon.destroy(host.uuids[0])
    gone = host.rounds(2)[-1]
    assert {reading.uuid for reading in gone.readings} == set(host.uuids)
    off = next(reading for reading in gone.readings if reading.uuid == host.uuids[0])
    assert off.data["state.state"] == libvirt.VIR_DOMAIN_SHUTOFF
    assert flagged(gone) == set()


def test_a_vm_that_makes_libvirt_fail_costs_no_other(make: Make) -> None:
    host = make().start()
    host.rounds(3)
    vm = host.daemon.vms[host.uuids[0]]
    vm.failures["domainListGetStats"] = error(libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: of this VM alone")
    found = host.rounds(5)[-1]
    assert found.up
    assert set(host.uuids[1:]) <= whole(found)
    vm.failures.clear()
    assert whole(host.rounds(3)[-1]) == set(host.uuids)


def test_a_vm_whose_xml_is_no_description_is_counted_and_keeps_its_metrics(make: Make) -> None:
    host = make()
    host.daemon.vms[host.uuids[0]].xml = "<domain"
    found = host.start().rounds(5)
    assert sum(found[-1].drops.values()) == 1
    assert {uuid for one in found for uuid in one.inventories} == set(host.uuids[1:])
    assert whole(found[-1]) == set(host.uuids)


def test_an_xml_that_libvirt_refuses_is_asked_for_again(make: Make) -> None:
    host = make()
    failures = host.daemon.vms[host.uuids[0]].failures
    failures["XMLDesc"] = error(libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: of this VM alone")
    found = host.start(inventory_seconds=20.0).rounds(3)
    assert {uuid for one in found for uuid in one.inventories} == set(host.uuids[1:])
    failures.clear()
    assert host.uuids[0] in {uuid for one in host.rounds(8) for uuid in one.inventories}


def test_a_migration_s_job_is_polled_until_its_end_is_announced(make: Make) -> None:
    host = make(vms=2).start()
    host.rounds(3)
    destination = Daemon(host.clock, host.daemon.release)
    Migration(host.daemon, destination, host.uuids[0]).begin()
    found = host.rounds(9)
    assert max(one.jobs for one in found) == 1
    polls = [detail[0]["time_elapsed"] for detail in told(host, "job")]  # type: ignore[index]
    assert len(polls) >= 5
    assert polls == sorted(polls)
    assert len(told(host, "job_completed")) == 1
    assert told(host, "lifecycle")[0] == (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED)
    after = host.rounds(3)
    assert [one.jobs for one in after] == [0] * 3
    assert whole(after[-1]) == {host.uuids[1]}


def test_a_migration_that_runs_already_is_found_by_a_producer_that_starts(make: Make) -> None:
    host = make(vms=2)
    Migration(host.daemon, Daemon(host.clock, host.daemon.release), host.uuids[0], passes=5).begin()
    host.clock.advance(9.0)
    host.start()
    host.rounds(3)
    assert told(host, "job")


def test_a_vm_that_arrives_by_migration_is_announced_by_the_first_list(make: Make) -> None:
    host = make(vms=1)
    source = Daemon(host.clock, host.daemon.release)
    source.add(Vm("moving", FRESH))
    Migration(source, host.daemon, FRESH).begin()
    host.start()
    host.rounds(1)
    assert told(host, "state") == [(libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)]


def test_a_poll_that_hangs_is_left_alone_and_counted(make: Make) -> None:
    host = make(vms=2).start()
    host.rounds(3)
    Migration(host.daemon, Daemon(host.clock, host.daemon.release), host.uuids[0], prepare_seconds=1.0, passes=500).begin()
    host.rounds(3)
    host.daemon.freeze(host.uuids[0])
    found = host.rounds(8)[-1]
    assert flagged(found) == {host.uuids[0]}
    assert 1 <= found.hung_calls.count <= LIMIT
    assert found.job_polls.get("hung", 0) + found.job_polls.get("skipped", 0) >= 1
    assert whole(found) == {host.uuids[1]}


def test_without_anybody_who_listens_no_job_is_polled(make: Make) -> None:
    host = make(vms=2).start(events=False)
    Migration(host.daemon, Daemon(host.clock, host.daemon.release), host.uuids[0]).begin()
    assert all(not one.job_polls for one in host.rounds(6))
    assert host.events == []


def test_an_interrupt_ends_the_round_and_the_wait_at_once(make: Make) -> None:
    host = make().start()
    host.rounds(2)
    host.daemon.pause()
    host.sampler.interrupt()
    begin = host.clock.now
    host.sampler.round()
    host.sampler.wait(begin + 100.0)
    assert host.clock.now - begin < 1.0


def test_the_sampler_closes_its_connections_unless_a_call_hangs(make: Make) -> None:
    host = make().start()
    host.rounds(3)
    host.daemon.freeze(host.uuids[0])
    host.rounds(2)
    assert host.sampler.close(1.0) is False
    host.daemon.thaw(host.uuids[0])
    host.clock.settle()
    assert host.sampler.close(1.0) is True
    assert host.daemon.sockets == ()


def test_agents_of_stuck_vms_are_avoided(make: Make) -> None:
    """The budget that sampler and agents share knows them, for as long as they are stuck."""
    host = make(vms=8).start()
    host.rounds(3)
    stuck = host.uuids[2]
    assert not host.budget.hangs_in(stuck, Kind.AGENT)
    host.daemon.freeze(stuck)
    host.rounds(6)
    assert [uuid for uuid in host.uuids if host.budget.hangs_in(uuid, Kind.AGENT)] == [stuck]
    host.daemon.thaw(stuck)
    host.rounds(6)
    assert not host.budget.hangs_in(stuck, Kind.AGENT)


def test_after_a_connection_was_lost_all_xml_is_read_again(make: Make) -> None:
    """Events may have been missed meanwhile."""
    host = make(vms=8).start()
    host.rounds(6)
    assert not host.round().inventories
    host.daemon.restart()
    found = host.rounds(10)
    assert {uuid for one in found for uuid in one.inventories} == set(host.uuids)
