"""The tables of the breaker, row by row."""

from __future__ import annotations

import random
from typing import get_args

import pytest

from virtflow.producer.hung_calls.breaker import Breaker
from virtflow.producer.hung_calls.breaker_types import (
    PLANS,
    TABLE,
    Abandon,
    Action,
    Answered,
    Ask,
    BatchAnswered,
    BudgetChanged,
    CheckHealth,
    Choice,
    ConnectionChanged,
    EventSeen,
    Failed,
    HungCallReturned,
    HungElsewhere,
    Limits,
    Located,
    Observation,
    Reconnected,
    Recovered,
    RoundBegan,
    State,
    Ticked,
)
from virtflow.producer.hung_calls.budget import CallBudget, Kind
from virtflow.producer.types import HealthCheck, Verdict

VMS = tuple("abcdefgh")
WITHOUT_ROW = {BatchAnswered, HungElsewhere, Reconnected}
LIMITS = Limits(stall_timeout=1.0, first_pause=2.0, longest_pause=60.0)


def starting(limit: int = 3, *, ready: bool = True) -> Breaker:
    """A host that nothing is known of."""
    breaker = Breaker(LIMITS, CallBudget(limit), random.Random(1))  # noqa: S311, jitter
    breaker.observe(ConnectionChanged(ready), 0.0)
    return breaker


def closed(limit: int = 3) -> Breaker:
    """A host whose health has been checked, in its first round, with its first call under way since 0.1."""
    breaker = starting(limit)
    assert breaker.observe(RoundBegan(VMS, 8.0), 0.0) == [CheckHealth()]
    assert breaker.observe(HealthCheck(dict.fromkeys(VMS, 0.0)), 0.1) == [Ask(1, VMS, everyone=True)]
    return breaker


def asked(actions: list[Action]) -> list[str]:
    """The VMs that are asked."""
    return [uuid for action in actions if isinstance(action, Ask) for uuid in action.uuids]


def held(uuid: str, seconds: float) -> dict[str, float]:
    return {**dict.fromkeys(VMS, 0.0), uuid: seconds}


def test_the_table_has_a_row_for_every_state_and_observation() -> None:
    kinds = set(get_args(Observation)) - WITHOUT_ROW
    assert set(TABLE) == set(PLANS) == set(State)
    assert all(set(row) == kinds for row in TABLE.values())
    assert {choice for plan in PLANS.values() for choice in plan} == set(Choice)


def test_while_all_is_well_a_round_is_one_call() -> None:
    breaker = closed()
    assert breaker.observe(Answered(1, frozenset(VMS)), 0.11) == []
    assert breaker.settled
    assert breaker.state is State.CLOSED
    assert breaker.observe(RoundBegan(VMS, 18.0), 10.0) == [Ask(2, VMS, everyone=True)]


def test_a_call_in_one_vm_for_too_long_hangs_and_the_others_are_asked_again() -> None:
    breaker = closed()
    assert breaker.observe(Ticked(), 1.0) == []
    assert breaker.observe(Ticked(), 1.2) == [CheckHealth()]
    actions = breaker.observe(HealthCheck(held("d", 1.1)), 1.2)
    assert actions == [Abandon(1, "d")]
    assert not breaker.settled
    assert breaker.observe(ConnectionChanged(ready=True), 1.3) == [Ask(2, ("a", "b", "c", "e", "f", "g", "h"))]
    assert breaker.verdicts()["d"] == Verdict(responsive=False, probed=True)
    assert breaker.budget.hung == 1


def test_a_slow_call_that_makes_progress_is_left_to_itself() -> None:
    """A thousand VMs take longer than a round: whoever is occupied is so for a moment only."""
    breaker = closed()
    for second in range(2, 30):
        breaker.observe(Ticked(), float(second))
        assert breaker.observe(HealthCheck(held(VMS[second % 8], 0.01)), float(second)) == []
    breaker.observe(Answered(1, frozenset(VMS)), 30.0)
    assert breaker.budget.hung == 0


def test_nothing_is_asked_before_there_is_a_connection() -> None:
    """The round waits for it, and the call begins with it."""
    breaker = starting(ready=False)
    breaker.observe(RoundBegan(VMS, 8.0), 0.0)
    assert breaker.observe(HealthCheck(dict.fromkeys(VMS, 0.0)), 0.1) == []
    assert (breaker.settled, breaker.due, breaker.budget.outstanding) == (False, float("inf"), 0)
    assert breaker.observe(ConnectionChanged(ready=True), 5.0) == [Ask(1, VMS, everyone=True)]
    assert breaker.due == 6.0, "it has the whole stall timeout"


def test_a_vm_in_which_another_client_s_call_hangs_is_skipped() -> None:
    """Our call has skipped it, so its answer is partial; a health check says why."""
    breaker = closed()
    others = frozenset(VMS) - {"c"}
    assert breaker.observe(Answered(1, others, frozenset("c")), 0.5) == [CheckHealth(("c",))]
    assert breaker.observe(HealthCheck({"c": 30.0}), 0.6) == []
    assert breaker.verdicts()["c"].responsive is False
    assert breaker.budget.hung == 0


def test_a_vm_that_a_job_holds_for_a_moment_is_asked_once_more_in_the_round() -> None:
    breaker = closed()
    breaker.observe(Answered(1, frozenset(VMS) - {"c"}, frozenset("c")), 0.15)
    assert breaker.observe(HealthCheck({"c": 0.02}), 0.2) == [Ask(2, ("c",), most=120)]
    assert breaker.observe(Answered(2, frozenset(), frozenset("c")), 0.7) == [CheckHealth(("c",))]
    assert breaker.observe(HealthCheck({"c": 0.0}), 0.8) == []
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize(("seconds", "most"), [(0.001, 128), (0.0125, 60), (0.05, 16)])
def test_as_many_vms_are_asked_at_a_time_as_take_three_quarters_of_the_stall_timeout(seconds: float, most: int) -> None:
    """At least 16 and at most 128; the next round's call is made up of so many by each of libvirt's."""
    breaker = closed()
    breaker.observe(Answered(1, frozenset(VMS)), 0.1 + seconds * len(VMS))
    assert breaker.observe(RoundBegan(VMS, 18.0), 10.0) == [Ask(2, VMS, everyone=True, most=most)]


def test_each_batch_of_a_call_has_the_stall_timeout_for_itself() -> None:
    breaker = closed()
    for moment, batch in [(1.0, "abc"), (1.9, "def")]:
        assert breaker.observe(BatchAnswered(1, frozenset(batch)), moment) == []
        assert breaker.due == moment + 1.0
    assert not breaker.settled
    assert breaker.observe(Ticked(), 2.8) == []
    assert breaker.observe(Answered(1, frozenset("gh")), 2.8) == []
    assert (breaker.settled, breaker.state, breaker.calls["answered"]) == (True, State.CLOSED, 1)


def test_what_answered_before_a_batch_hung_is_healthy_and_not_asked_again() -> None:
    """Where nothing names the stuck VM, those of its batch and of later ones are asked in small batches."""
    breaker = closed()
    breaker.observe(BatchAnswered(1, frozenset("abc")), 0.5)
    assert breaker.observe(Ticked(), 1.5) == [CheckHealth()]
    assert breaker.observe(HealthCheck(held("e", 0.99) | held("e", 1.0)), 1.5) == [Abandon(1, "e")]
    assert breaker.observe(ConnectionChanged(ready=True), 1.6) == [Ask(2, ("d", "f", "g", "h"), most=16)]
    assert {uuid for uuid, verdict in breaker.verdicts().items() if verdict.responsive} == set("abcd")


def test_a_late_batch_says_that_its_vms_answer() -> None:
    """The call that hung goes on after its culprit, and is still out."""
    breaker = closed()
    breaker.observe(Ticked(), 1.2)
    breaker.observe(HealthCheck(held("b", 1.1)), 1.2)
    assert breaker.budget.hung == 1
    actions = breaker.observe(BatchAnswered(1, frozenset("abc")), 3.0)
    assert actions == [Recovered("b", 1.2)]
    assert breaker.verdicts()["b"] == Verdict(responsive=True, probed=True)
    assert breaker.budget.hung == 1
    breaker.observe(Answered(1, frozenset("defgh")), 3.1)
    assert breaker.budget.hung == 0


def test_a_batch_of_an_unknown_call_means_nothing() -> None:
    breaker = closed()
    breaker.observe(Answered(1, frozenset(VMS)), 0.5)
    assert breaker.observe(BatchAnswered(1, frozenset(), frozenset("c")), 0.6) == []
    assert breaker.verdicts()["c"] == Verdict(responsive=True, probed=True)


@pytest.mark.parametrize(
    ("occupied", "hung", "state"),
    [(0, 0, State.CLOSED), (1, 1, State.PROBING), (2, 2, State.DEGRADED), (3, 3, State.OPEN), (5, 5, State.OPEN)],
)
def test_what_an_earlier_run_left_behind_counts(occupied: int, hung: int, state: State) -> None:
    breaker = starting(3)
    breaker.observe(RoundBegan(VMS, 8.0), 0.0)
    checked = {uuid: 500.0 if place < occupied else 0.0 for place, uuid in enumerate(VMS)}
    actions = breaker.observe(HealthCheck(checked), 0.1)
    assert (breaker.budget.hung, breaker.state) == (hung, state)
    assert not set(asked(actions)) & set(VMS[:occupied])
    assert bool(asked(actions)) is (state is not State.OPEN)


def test_what_was_left_behind_ends_with_the_vm_s_recovery() -> None:
    breaker = starting(1)
    breaker.observe(RoundBegan(VMS, 8.0), 0.0)
    assert breaker.observe(HealthCheck(held("a", 500.0)), 0.1) == []
    assert breaker.observe(RoundBegan(VMS, 18.0), 10.0) == [CheckHealth()]
    assert breaker.observe(HealthCheck(dict.fromkeys(VMS, 0.0)), 10.1) == [Ask(1, VMS[1:])]


def test_a_late_result_clears_its_culprit_but_nobody_who_got_stuck_since() -> None:
    breaker = closed()
    breaker.observe(Ticked(), 1.2)
    breaker.observe(HealthCheck(held("d", 1.1), {"b": "T"}), 1.3)
    breaker.observe(Answered(1, frozenset(VMS)), 60.0)
    verdicts = breaker.verdicts()
    assert (verdicts["d"].responsive, verdicts["b"].responsive, breaker.budget.hung) == (True, False, 0)


def test_an_event_is_worth_a_health_check() -> None:
    breaker = closed()
    assert breaker.observe(EventSeen("d"), 0.2) == []
    breaker.observe(Ticked(), 1.2)
    breaker.observe(HealthCheck(held("d", 1.1)), 1.2)
    assert breaker.observe(EventSeen("d"), 3.0) == [CheckHealth()]
    assert breaker.observe(EventSeen("gone"), 3.0) == []


def test_a_vm_that_makes_libvirt_fail_costs_only_itself() -> None:
    breaker = closed()
    actions = breaker.observe(Failed(1, lost=False), 0.2)
    done: list[str] = []
    now = 0.2
    while actions:
        (ask,) = actions
        assert isinstance(ask, Ask)
        done += ask.uuids
        now += 0.01
        bad = "c" in ask.uuids
        actions = breaker.observe(Failed(ask.call, lost=False) if bad else Answered(ask.call, frozenset(ask.uuids)), now)
    assert done == list(VMS)
    assert [uuid for uuid, verdict in breaker.verdicts().items() if not verdict.responsive] == ["c"]


def test_a_lost_connection_ends_the_round_s_asking() -> None:
    breaker = closed()
    assert breaker.observe(Failed(1, lost=True), 0.2) == []
    assert breaker.observe(Reconnected(), 0.3) == []
    assert breaker.observe(RoundBegan(VMS, 18.0), 10.0) == [CheckHealth()]


def test_vms_that_vanish_are_forgotten() -> None:
    breaker = closed()
    breaker.observe(Ticked(), 1.2)
    breaker.observe(HealthCheck(held("d", 1.1)), 1.2)
    breaker.observe(RoundBegan(("a", "b"), 18.0), 10.0)
    assert set(breaker.verdicts()) == {"a", "b"}
    assert breaker.budget.hung == 1, "the call is still in there"


def test_calls_of_another_kind_go_into_vms_that_are_not_skipped() -> None:
    """One that hangs makes its VM skipped, until a health check finds it free and a call is answered."""
    breaker = closed(limit=2)
    assert not breaker.may_ask("a", healthy=True), "nothing is known of it yet"
    assert breaker.may_ask("a", healthy=False)
    breaker.observe(Answered(1, frozenset(VMS)), 0.5)
    assert breaker.may_ask("b", healthy=True)
    lease = breaker.budget.acquire(Kind.JOB, "b")
    assert lease is not None
    lease.abandon()
    breaker.observe(HungElsewhere("b"), 1.0)
    assert (breaker.budget.hung, breaker.verdicts()["b"].responsive) == (1, False)
    assert not breaker.may_ask("b", healthy=False)
    assert breaker.suspects("b")
    assert not breaker.suspects("a")
    assert breaker.observe(RoundBegan(VMS, 18.0), 10.0) == [CheckHealth()]
    assert set(asked(breaker.observe(HealthCheck(dict.fromkeys(VMS, 0.0)), 10.1))) == set(VMS) - {"b"}


def test_hung_calls_of_others_leave_less_room() -> None:
    """Openings that hang, for example: what is left decides the state."""
    breaker = closed(limit=3)
    breaker.observe(Answered(1, frozenset(VMS)), 0.5)
    leases = [breaker.budget.acquire(Kind.OPENING) for _ in range(3)]
    states = [breaker.state]
    for lease in leases:
        assert lease is not None
        lease.abandon()
        breaker.observe(BudgetChanged(), 5.0)
        states.append(breaker.state)
    assert states == [State.CLOSED, State.PROBING, State.DEGRADED, State.OPEN]
    for lease in leases:
        assert lease is not None
        lease.release()
    assert (breaker.budget.hung, breaker.state) == (0, State.CLOSED)


def test_a_call_waits_for_a_lease_and_begins_with_it() -> None:
    breaker = starting(limit=1)
    opening = breaker.budget.acquire(Kind.OPENING)
    assert opening is not None
    breaker.observe(RoundBegan(VMS, 8.0), 0.0)
    assert breaker.observe(HealthCheck(dict.fromkeys(VMS, 0.0)), 0.1) == []
    assert not breaker.settled
    opening.release()
    assert breaker.observe(BudgetChanged(), 0.3) == [Ask(1, VMS, everyone=True)]
    assert breaker.budget.acquire(Kind.JOB, "a") is None


def test_a_recovery_says_since_when_the_vm_was_skipped() -> None:
    breaker = closed()
    breaker.observe(Ticked(), 1.2)
    breaker.observe(HealthCheck(held("d", 1.1)), 1.2)
    actions = breaker.observe(Answered(1, frozenset(VMS)), 60.0)
    assert [action for action in actions if isinstance(action, Recovered)] == [Recovered("d", 1.2)]


def test_a_vm_that_is_new_in_an_answer_is_known_healthy_at_once() -> None:
    """It was started after the round's VMs were listed."""
    breaker = closed()
    breaker.observe(Answered(1, frozenset({*VMS, "new"})), 0.5)
    assert breaker.may_ask("new", healthy=True)
    breaker.observe(RoundBegan(VMS, 18.0), 10.0)
    assert not breaker.may_ask("new", healthy=True)


def unnamed() -> Breaker:
    """A call that began at 0.1 and has been left alone at 5.5, as no health check saw a VM occupied."""
    breaker = closed()
    actions: list[Action] = []
    for now in (4.5, 5.5):
        breaker.observe(Ticked(), now)
        actions = breaker.observe(HealthCheck(held("a", 0.0)), now)
    assert actions == [Abandon(1)]
    return breaker


def test_a_vm_that_cannot_be_asked_is_the_one_that_the_hung_call_is_in() -> None:
    breaker = unnamed()
    assert breaker.observe(ConnectionChanged(ready=True), 5.6) == [Ask(2, ("a",))]
    assert breaker.observe(Answered(2, frozenset(), frozenset("a")), 5.7) == [Located("a", 0.1), CheckHealth(("a",))]
    assert breaker.budget.hung_vms() == {"a"}
    assert breaker.observe(Answered(1, frozenset(VMS)), 60.0) == [Recovered("a", 5.7)]


@pytest.mark.parametrize(
    ("since", "located"),
    [(-0.3, [Located("d", 0.1)]), (0.1, [Located("d", 0.1)]), (5.5, [Located("d", 0.1)]), (-0.5, []), (5.6, [])],
    ids=["about its begin", "its begin", "its end", "before it", "after it"],
)
def test_a_vm_that_is_occupied_since_that_call_was_made_is_the_one(since: float, located: list[Action]) -> None:
    """Another client's call was there before it, or came later."""
    breaker = unnamed()
    breaker.observe(RoundBegan(VMS, 18.0), 10.0)
    actions = breaker.observe(HealthCheck(held("d", 10.0 - since)), 10.0)
    assert [action for action in actions if isinstance(action, Located)] == located
    assert breaker.budget.hung_vms() == ({"d"} if located else set())


def test_a_vm_in_which_a_call_of_another_kind_hangs_is_not_the_one() -> None:
    breaker = unnamed()
    lease = breaker.budget.acquire(Kind.JOB, "d")
    assert lease is not None
    lease.abandon()
    breaker.observe(HungElsewhere("d"), 6.0)
    breaker.observe(RoundBegan(VMS, 18.0), 10.0)
    actions = breaker.observe(HealthCheck(held("d", 6.0)), 10.0)
    assert not [action for action in actions if isinstance(action, Located)]


def test_a_hung_call_that_returns_without_its_vm_says_so() -> None:
    """Of a VM that was never found, or has gone; one that is there says by itself that it recovers, and a lost connection says nothing."""
    assert unnamed().observe(Answered(1, frozenset(VMS)), 60.0) == [HungCallReturned("", 0.1)]
    assert HungCallReturned("", 0.1) in unnamed().observe(Failed(1, lost=False), 60.0)
    assert unnamed().observe(Failed(1, lost=True), 60.0) == []
    breaker = closed()
    breaker.observe(Ticked(), 1.2)
    breaker.observe(HealthCheck(held("d", 1.1)), 1.2)
    breaker.observe(RoundBegan(("a", "b"), 18.0), 10.0)
    assert breaker.observe(Failed(1, lost=False), 10.1) == [HungCallReturned("d", 0.1)]
    assert closed().observe(Failed(1, lost=True), 0.2) == []


def moved_on() -> Breaker:
    """A call that hung in "b" from 0.1 on; "b" has answered another one at 10.4."""
    breaker = closed()
    breaker.observe(Ticked(), 1.2)
    assert breaker.observe(HealthCheck(held("b", 1.1)), 1.2) == [Abandon(1, "b")]
    breaker.observe(RoundBegan(VMS, 18.0), 10.0)
    breaker.observe(ConnectionChanged(ready=True), 10.1)
    assert asked(breaker.observe(HealthCheck(held("b", 0.0)), 10.2)) == list("acdefgh")
    assert asked(breaker.observe(Answered(2, frozenset("acdefgh")), 10.3)) == ["b"]
    assert breaker.observe(Answered(3, frozenset("b")), 10.4) == [Recovered("b", 1.2)]
    return breaker


def test_a_call_whose_vm_has_recovered_is_in_none_that_is_known() -> None:
    """It still counts."""
    breaker = moved_on()
    assert (breaker.budget.hung, breaker.budget.hung_vms()) == (1, frozenset())
    assert breaker.observe(Answered(1, frozenset(VMS)), 10.5) == []
    assert breaker.budget.hung == 0


def test_a_vm_that_is_occupied_for_too_long_is_the_one_that_a_call_has_gone_on_to() -> None:
    """But not one that cannot be asked for a moment: until the call returns, it passes through all VMs that are left."""
    breaker = moved_on()
    breaker.observe(RoundBegan(VMS, 28.0), 20.0)
    assert asked(breaker.observe(HealthCheck(held("d", 0.0)), 20.1)) == list(VMS)
    assert breaker.observe(Answered(4, frozenset("abcefgh"), frozenset("d")), 20.2) == [CheckHealth(("d",))]
    assert Located("d", 0.1) in breaker.observe(HealthCheck(held("d", 1.1)), 20.3)
    assert breaker.budget.hung_vms() == {"d"}


@pytest.mark.parametrize(("since", "located"), [(8.8, []), (9.0, [Located("d", 0.1)]), (9.8, [Located("d", 0.1)])])
def test_a_vm_that_was_occupied_while_the_call_was_in_another_one_is_not_it(since: float, located: list[Action]) -> None:
    """The call was seen in its first VM at 9.4 for the last time; what is in the other one since before that is another client's."""
    breaker = closed()
    breaker.observe(Ticked(), 1.2)
    breaker.observe(HealthCheck(held("b", 1.1)), 1.2)
    breaker.observe(RoundBegan(VMS, 9.3), 9.3)
    breaker.observe(HealthCheck(held("b", 9.3)), 9.4)
    breaker.observe(RoundBegan(VMS, 18.0), 11.0)
    actions = breaker.observe(HealthCheck(held("d", 11.0 - since)), 11.0)
    assert [action for action in actions if isinstance(action, Located)] == located
