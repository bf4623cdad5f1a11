"""The breaker under random interleavings: never above the limit, no VM skipped indefinitely, nothing wrong exported."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.stuck_host import INTERVAL, StuckHost
from virtflow.producer.hung_calls.breaker_types import State
from virtflow.producer.types import Verdict

VMS = 12
NUMBERS = st.integers(0, VMS - 1)
MISHAPS = st.one_of(
    st.tuples(st.just("freeze"), NUMBERS),
    st.tuples(st.just("thaw"), NUMBERS),
    st.tuples(st.just("event"), NUMBERS),
    st.tuples(st.just("reconnect"), NUMBERS),
    st.tuples(st.just("steps"), NUMBERS),
    st.tuples(st.just("round"), NUMBERS),
    st.tuples(st.just("restart"), NUMBERS),
    st.tuples(st.just("poll"), NUMBERS),
    st.tuples(st.just("hang"), NUMBERS),
    st.tuples(st.just("resume"), NUMBERS),
)
AT_A_TIME = st.sampled_from([1, 3, 5, VMS])
"""VMs that one of libvirt's calls asks."""
FINE = Verdict(responsive=True, probed=True)


def befall(host: StuckHost, what: str, number: int) -> None:
    match what:
        case "freeze" | "thaw" | "event" | "poll":
            getattr(host, what)(host.uuids[number])
        case "reconnect" | "round" | "hang" | "resume":
            getattr(host, what)()
        case "steps":
            for _ in range(number):
                host.step()
        case "restart":
            settle(host)
            host.start()


def settle(host: StuckHost) -> None:
    """Until no call is under way but those that are held: a kill in the middle of one is the lab's matter."""
    for _ in range(200):
        host.step()
        if all(call.inside in host.frozen for call in host.calls):
            return


@settings(max_examples=300, deadline=None)
@given(st.lists(MISHAPS, max_size=60), st.integers(1, 6), st.booleans(), st.booleans(), AT_A_TIME)
def test_hung_calls_stay_within_the_limit(mishaps: list[tuple[str, int]], limit: int, honest: bool, visible: bool, most: int) -> None:  # noqa: FBT001
    """Whatever happens, and over restarts as long as libvirt tells who is occupied."""
    host = StuckHost(VMS, limit, honest=honest, visible=visible, most=most)
    for what, number in mishaps:
        if what in {"restart", "hang"} and not honest:
            continue
        befall(host, what, number)
    assert host.most_occupied <= limit
    assert host.most_outstanding <= limit


@settings(max_examples=300, deadline=None)
@given(st.lists(MISHAPS, max_size=60), st.integers(1, 6), st.booleans(), st.booleans(), AT_A_TIME)
def test_nobody_is_skipped_indefinitely(mishaps: list[tuple[str, int]], limit: int, honest: bool, visible: bool, most: int) -> None:  # noqa: FBT001
    """Once all VMs answer, all are trusted again, and a round costs one call."""
    host = StuckHost(VMS, limit, honest=honest, visible=visible, most=most)
    for what, number in mishaps:
        befall(host, what, number)
    host.resume()
    for uuid in host.uuids:
        host.thaw(uuid)
    for _ in range(3 if honest or visible else 40):
        host.round()
    assert host.breaker.verdicts() == dict.fromkeys(host.uuids, FINE)
    assert host.breaker.state is State.CLOSED
    before = host.breaker.calls["answered"]
    host.round()
    assert host.breaker.calls["answered"] == before + 1


@settings(max_examples=200, deadline=None)
@given(st.lists(NUMBERS, min_size=4, max_size=20), st.integers(1, 6), st.booleans(), AT_A_TIME)
def test_each_hung_call_is_known_to_be_where_it_is(turns: list[int], limit: int, visible: bool, most: int) -> None:  # noqa: FBT001
    """Also one whose VM recovered, and that went on to hang in another one: some rounds later, where libvirt tells who is occupied."""
    host = StuckHost(VMS, limit, visible=visible, most=most)
    host.round()
    for uuid in (host.uuids[number] for number in turns):
        (host.thaw if uuid in host.frozen else host.freeze)(uuid)
        for _ in range(4):
            host.round()
        assert host.budget.hung_vms() == {call.inside for call in host.calls if call.inside}
        assert host.budget.hung == len(host.budget.hung_vms())


@settings(max_examples=200, deadline=None)
@given(st.sets(NUMBERS, max_size=VMS), st.booleans(), st.integers(2, 6), AT_A_TIME)
def test_the_process_table_names_all_at_the_price_of_one_call(stuck: set[int], honest: bool, limit: int, most: int) -> None:  # noqa: FBT001
    """However many freeze at once: one call is lost, all of them are flagged and the others answer within two rounds."""
    host = StuckHost(VMS, limit, honest=honest, most=most)
    host.round()
    for number in stuck:
        host.freeze(host.uuids[number])
    begin = host.now
    host.round()
    host.round()
    verdicts = host.breaker.verdicts()
    assert {uuid for uuid, verdict in verdicts.items() if verdict.responsive is False} == host.frozen
    assert all(host.answered_at[uuid] > begin + INTERVAL for uuid in host.uuids if uuid not in host.frozen)
    assert host.most_occupied == min(1, len(stuck))


@pytest.mark.parametrize("most", [128, 4])
@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize(("stuck", "limit"), [(0, 2), (1, 3), (2, 5), (4, 7)])
def test_without_the_process_table_each_costs_a_call_and_the_others_go_on(honest: bool, stuck: int, limit: int, most: int) -> None:  # noqa: FBT001
    """Where only libvirt names them, or where not even libvirt does: then a call more, because the first one names nobody."""
    host = StuckHost(40, limit, honest=honest, visible=False, most=most)
    host.round()
    for uuid in host.uuids[7 : 7 + stuck]:
        host.freeze(uuid)
    for _ in range(12):
        host.round()
    begin = host.now
    host.round()
    verdicts = host.breaker.verdicts()
    live = {uuid for uuid in host.uuids if uuid not in host.frozen and host.answered_at[uuid] > begin}
    assert {uuid for uuid, verdict in verdicts.items() if verdict.responsive is False} == host.frozen
    assert live == set(host.uuids) - host.frozen
    assert host.most_occupied == stuck


def test_more_than_can_be_told_apart_are_flagged_as_not_probed() -> None:
    """One slot is kept for VMs that are known to be good; nobody else is asked, and nobody is said to be stuck who may not be."""
    host = StuckHost(40, 3, visible=False)
    host.round()
    for number in (5, 15, 25, 35):
        host.freeze(host.uuids[number])
    for _ in range(4):
        host.round()
    verdicts = host.breaker.verdicts()
    assert {uuid for uuid, verdict in verdicts.items() if verdict.responsive is False} == {"vm-005", "vm-015"}
    assert {uuid for uuid, verdict in verdicts.items() if verdict.responsive} == set(host.uuids[:15]) - {"vm-005"}
    assert all(not verdicts[uuid].probed for uuid in host.uuids[16:])
    assert host.most_occupied == 2


@pytest.mark.parametrize("stuck", [(5, 15, 25), (0, 1, 7)], ids=["some answered before", "nobody did"])
def test_the_last_call_is_spent_only_while_nobody_would_lose_by_it(stuck: tuple[int, ...]) -> None:
    """Nothing names the stuck VMs but the calls they hold: known VMs keep the last call, and where there is none it finds one."""
    host = StuckHost(40, 3, visible=False)
    host.round()
    for number in stuck:
        host.freeze(host.uuids[number])
    for _ in range(40):
        host.round()
    served = {uuid for uuid, verdict in host.breaker.verdicts().items() if verdict.responsive}
    assert served == (set(host.uuids[:15]) - {"vm-005"} if stuck[0] else {"vm-002"})
    assert host.most_occupied == 2
    for number in stuck[1:]:
        host.thaw(host.uuids[number])
    host.round()
    host.round()
    assert {uuid for uuid, verdict in host.breaker.verdicts().items() if not verdict.responsive} == host.frozen, "one came back"


@pytest.mark.parametrize("limit", range(1, 7))
def test_openings_that_hang_count_and_end_with_the_hang(limit: int) -> None:
    """Beside them nothing else is begun; once the daemon goes on all VMs are asked again."""
    host = StuckHost(VMS, limit)
    host.round()
    host.hang()
    for _ in range(20):
        host.round()
    assert host.budget.hung == host.most_outstanding == min(limit, 9)
    assert host.breaker.state is State.STARTING
    host.resume()
    host.round()
    host.round()
    assert (host.budget.hung, host.breaker.state) == (0, State.CLOSED)
    assert host.breaker.verdicts() == dict.fromkeys(host.uuids, FINE)


def test_the_safe_connection_is_opened_at_the_cap_as_well() -> None:
    """Otherwise nothing would ever see the VMs recover whose calls make up the limit."""
    host = StuckHost(VMS, 2)
    host.round()
    for uuid in host.uuids[:2]:
        host.freeze(uuid)
        host.poll(uuid)
        host.round()
    assert host.breaker.state is State.OPEN
    host.hang()
    for _ in range(5):
        host.round()
    assert (host.budget.hung, host.most_outstanding) == (3, 2)
    host.resume()
    for uuid in host.uuids[:2]:
        host.thaw(uuid)
    for _ in range(3):
        host.round()
    assert host.breaker.verdicts() == dict.fromkeys(host.uuids, FINE)


def test_two_thousand_vms_of_which_none_answers() -> None:
    host = StuckHost(2000, 3)
    for uuid in host.uuids:
        host.freeze(uuid)
    for _ in range(3):
        host.round()
    assert host.most_occupied == 0, "the look at the start names them all"
    assert {verdict.responsive for verdict in host.breaker.verdicts().values()} == {False}


@pytest.mark.parametrize("visible", [True, False])
def test_ten_restarts_while_vms_are_stuck(visible: bool) -> None:  # noqa: FBT001
    host = StuckHost(40, 3, visible=visible)
    host.round()
    for number in (3, 9, 27, 31, 36):
        host.freeze(host.uuids[number])
    for _ in range(10):
        host.round()
        host.round()
        settle(host)
        host.start()
    assert host.most_occupied <= 3
