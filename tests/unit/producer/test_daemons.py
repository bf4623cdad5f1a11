"""A sampler of many daemons on the in-memory libvirt of each release: what a round brings while daemons hang, die, are replaced, come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.memory_libvirt import BOOKWORM, TRIXIE, Vm
from tests.support.simulated_daemons import SimulatedDaemons
from tests.support.simulated_rounds import each_made, flagged, whole
from virtflow.producer.daemons.call_pool import THREADS
from virtflow.producer.source import Round

Make = Callable[..., SimulatedDaemons]
FRESH = "00000000-0000-4000-8000-0000000000ff"
SHUT_OFF = 5


@pytest.fixture(params=[BOOKWORM, TRIXIE], ids=["9.0", "11.3"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes the test's node."""
    yield from each_made(SimulatedDaemons, monkeypatch, request.param)


def shown(found: Round) -> set[str]:
    """All VMs of the round."""
    return {reading.uuid for reading in found.readings}


def test_the_first_round_has_every_vm_of_every_daemon(make: Make) -> None:
    node = make(daemons=30).start()
    found = node.round()
    assert (found.up, found.late, whole(found), flagged(found)) == (True, False, set(node.uuids), set())
    assert (found.daemons.found, found.daemons.silent) == (30, 0)
    assert found.inventories.keys() == set(node.uuids)
    assert len({inventory.name for inventory in found.inventories.values()}) == 30


def test_while_all_is_well_a_round_is_one_call_to_each_daemon(make: Make) -> None:
    """And no thread more than those that stay."""
    node = make(daemons=30).start(job_discovery_seconds=0.0)
    node.rounds(3)
    before = [daemon.served.copy() for daemon in node.daemons]
    found = node.rounds(4)
    asked = [daemon.served - earlier for daemon, earlier in zip(node.daemons, before, strict=True)]
    assert {calls.pop("remoteDispatchConnectGetAllDomainStats") for calls in asked} == {4}
    assert all(not calls for calls in asked), "no list, no health check, no XML on top"
    assert [whole(one) for one in found] == [set(node.uuids)] * 4
    assert node.sampler.pool.threads <= THREADS
    assert {len(daemon.sockets) for daemon in node.daemons} == {1}


def test_a_daemon_that_stands_still_costs_its_own_vm_only(make: Make) -> None:
    node = make().start()
    node.rounds(2)
    node.daemons[0].pause()
    for found in node.rounds(60):
        assert (found.up, whole(found), flagged(found)) == (True, set(node.uuids[1:]), {node.uuids[0]})
        assert (found.daemons.found, found.daemons.silent, found.late) == (3, 1, True)
        assert found.hung_calls.vms_skipped == 1
    node.daemons[0].resume()
    assert (whole(last := node.rounds(8)[-1]), flagged(last), last.daemons.silent) == (set(node.uuids), set(), 0)


def test_a_vm_of_a_silent_daemon_keeps_its_state_and_nothing_that_counts(make: Make) -> None:
    node = make().start()
    node.rounds(2)
    node.daemons[0].pause()
    reading = next(one for one in node.rounds(2)[-1].readings if one.uuid == node.uuids[0])
    assert reading.name == "shop_web-1"
    assert reading.data == {"state.state": 1, "state.reason": 1, "monitor.probed": 1, "monitor.responsive": 0}
    assert reading.monitor_collected != reading.monitor_collected


def test_a_vm_that_is_shut_off_is_not_flagged_when_its_daemon_is_silent(make: Make) -> None:
    node = make().start()
    node.daemons[0].destroy(node.uuids[0])
    node.rounds(2)
    node.daemons[0].pause()
    reading = next(one for one in node.rounds(2)[-1].readings if one.uuid == node.uuids[0])
    assert (reading.data["state.state"], "monitor.responsive" in reading.data) == (SHUT_OFF, False)


def test_rounds_wait_for_a_silent_daemon_once(make: Make) -> None:
    """It holds up the round in which it falls silent until the deadline, and none after that."""
    node = make().start(interval=10.0)
    node.rounds(2)
    node.daemons[0].pause()
    took = []
    for _ in range(12):
        node.sampler.wait(node.clock.now + 2.0)
        began = node.clock.now
        node.sampler.round()
        took.append(node.clock.now - began)
    assert took[0] == pytest.approx(8.0, abs=0.1)
    assert max(took[1:]) < 1.0


def test_the_vm_of_a_daemon_that_has_died_goes_within_two_intervals(make: Make) -> None:
    """Its socket is still there, and nobody listens."""
    node = make().start()
    node.rounds(2)
    node.daemons[0].stop()
    first, *later = node.rounds(4)
    assert (shown(first), flagged(first)) == (set(node.uuids), {node.uuids[0]})
    assert [(shown(one), one.daemons.found, one.daemons.silent) for one in later] == [(set(node.uuids[1:]), 3, 1)] * 3
    node.daemons[0].begin()
    assert whole(node.rounds(8)[-1]) == set(node.uuids)


def test_a_daemon_that_is_started_again_keeps_its_vm_in_every_round(make: Make) -> None:
    node = make().start()
    before = node.rounds(2)[-1]
    node.daemons[0].restart()
    found = node.rounds(8)
    assert [shown(one) for one in found] == [set(node.uuids)] * 8
    assert whole(found[-1]) == set(node.uuids)
    assert found[-1].reconnects > before.reconnects


def test_a_daemon_with_a_new_socket_in_the_same_place_takes_over_the_vm(make: Make) -> None:
    """It answers only after a while, and the VM stays in every round."""
    node = make().start()
    node.rounds(2)
    node.hide(0)
    node.show(0)
    node.daemons[0].pause()
    held = node.rounds(3)
    assert [(shown(one), flagged(one), one.daemons.found) for one in held] == [(set(node.uuids), {node.uuids[0]}, 3)] * 3
    node.daemons[0].resume()
    assert (whole(last := node.rounds(8)[-1]), flagged(last)) == (set(node.uuids), set())


def test_pods_that_come_and_go_are_seen_in_the_next_round(make: Make) -> None:
    node = make(daemons=6)
    for number in (3, 4, 5):
        node.hide(number)
    node.start()
    assert whole(node.round()) == set(node.uuids[:3])
    node.show(3)
    node.show(4)
    assert whole(node.round()) == set(node.uuids[:5])
    node.hide(0)
    node.show(5)
    assert (whole(found := node.round()), found.daemons.found, found.daemons.silent) == (set(node.uuids[1:]), 5, 0)
    assert (whole(found), flagged(found), found.late) == (shown(found), set(), False)


def test_a_node_without_a_daemon_is_up_and_empty(make: Make) -> None:
    node = make(daemons=1)
    node.hide(0)
    found = node.start().round()
    assert (found.up, found.late, found.readings, found.daemons.found, found.daemons.silent) == (True, False, (), 0, 0)


def test_a_node_that_may_not_be_searched_is_not_up(make: Make) -> None:
    node = make(daemons=1)
    node.hide(0)
    node.denied = 7
    assert not node.start().round().up


def test_a_node_whose_only_daemon_is_silent_is_not_up_and_keeps_its_vm(make: Make) -> None:
    node = make(daemons=1).start()
    node.rounds(2)
    node.daemons[0].pause()
    found = node.rounds(2)[-1]
    assert (found.up, shown(found), flagged(found)) == (False, set(node.uuids), set(node.uuids))


def test_a_stuck_vm_costs_its_own_values_only(make: Make) -> None:
    node = make().start()
    node.rounds(2)
    node.daemons[0].freeze(node.uuids[0])
    found = node.rounds(5)[-1]
    assert (shown(found), whole(found), flagged(found)) == (set(node.uuids), set(node.uuids[1:]), {node.uuids[0]})
    assert (found.daemons.silent, found.hung_calls.count, found.hung_calls.limit) == (0, 1, 9)
    node.daemons[0].thaw(node.uuids[0])
    assert (whole(last := node.rounds(12)[-1]), flagged(last)) == (set(node.uuids), set())


def test_storage_that_fails_under_all_vms_holds_some_threads_and_no_vm_is_lost(make: Make) -> None:
    node = make(daemons=30).start(interval=10.0)
    node.rounds(2)
    for daemon, uuid in zip(node.daemons, node.uuids, strict=True):
        daemon.freeze(uuid)
    found = node.rounds(6)[-1]
    assert (shown(found), flagged(found), found.daemons.silent) == (set(node.uuids), set(node.uuids), 0)
    assert node.sampler.pool.threads <= THREADS + found.hung_calls.count
    for daemon, uuid in zip(node.daemons, node.uuids, strict=True):
        daemon.thaw(uuid)
    assert (whole(last := node.rounds(40)[-1]), flagged(last)) == (set(node.uuids), set())
    assert node.sampler.pool.threads <= THREADS


def test_thirty_daemons_that_stand_still_hold_a_bounded_number_of_threads(make: Make) -> None:
    node = make(daemons=60).start(interval=10.0)
    node.rounds(2)
    for daemon in node.daemons[:30]:
        daemon.pause()
    found = node.rounds(30)
    assert all(whole(one) == set(node.uuids[30:]) for one in found)
    assert all(flagged(one) == set(node.uuids[:30]) for one in found)
    assert node.sampler.pool.threads <= THREADS + 4 * 30
    for daemon in node.daemons[:30]:
        daemon.resume()
    assert whole(node.rounds(8)[-1]) == set(node.uuids)
    assert node.sampler.pool.threads <= THREADS


def test_events_of_every_daemon_are_announced(make: Make) -> None:
    node = make().start()
    node.rounds(2)
    for daemon, uuid in zip(node.daemons, node.uuids, strict=True):
        daemon.suspend(uuid)
    node.rounds(1)
    assert [event.uuid for event in node.events if event.what == "lifecycle"] == node.uuids


def test_a_daemon_with_a_vm_more_shows_both(make: Make) -> None:
    node = make().start()
    node.rounds(2)
    node.daemons[0].add(Vm("shop_web-9", FRESH))
    assert whole(node.rounds(2)[-1]) == {*node.uuids, FRESH}


def test_a_vm_that_two_daemons_report_is_in_a_round_once_and_counted(make: Make) -> None:
    """Where it runs, whoever was found first."""
    node = make()
    node.daemons[0].suspend(node.uuids[0])
    node.daemons[1].add(Vm("shop_web-1", node.uuids[0]))
    found = node.start().rounds(3)
    assert [len(one.readings) for one in found] == [3] * 3
    assert [one.data["state.state"] for one in found[-1].readings if one.uuid == node.uuids[0]] == [1]
    assert [one.drops.get("duplicate_vm", 0) for one in found] == [0, 1, 2]


def test_what_has_been_counted_stays_when_its_daemon_goes(make: Make) -> None:
    node = make().start()
    node.daemons[0].restart()
    node.rounds(4)
    node.daemons[0].restart()
    before = node.rounds(4)[-1]
    node.hide(0)
    after = node.rounds(2)[-1]
    assert after.reconnects >= before.reconnects > 0
    assert all(after.hung_calls.calls[outcome] >= count for outcome, count in before.hung_calls.calls.items())


def test_a_socket_that_another_path_leads_to_keeps_its_connection(make: Make) -> None:
    """The process below whose root it was seen has ended, and others of the pod run on."""
    node = make().start()
    node.rounds(2)
    inode = node.found.pop(node.paths[0])
    node.found["/pods/1b/virtqemud-sock"] = inode
    found = node.rounds(3)[-1]
    assert (whole(found), found.daemons.found, found.reconnects) == (set(node.uuids), 3, 0)


def test_closing_lets_go_of_every_connection(make: Make) -> None:
    node = make().start()
    node.rounds(2)
    assert node.sampler.close(2.0)
    assert [daemon.sockets for daemon in node.daemons] == [()] * 3


def test_closing_says_that_a_call_hangs(make: Make) -> None:
    node = make().start()
    node.rounds(2)
    node.daemons[0].freeze(node.uuids[0])
    node.rounds(3)
    assert not node.sampler.close(2.0)
