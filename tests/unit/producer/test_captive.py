"""The tables of the captives, row by row."""

from __future__ import annotations

import random
from typing import get_args

import pytest

from virtflow.producer.hung_calls.breaker import Captives
from virtflow.producer.hung_calls.breaker_types import (
    PLANS,
    TABLE,
    Abandon,
    Answered,
    Ask,
    Choice,
    Failed,
    Host,
    Limits,
    Look,
    Looked,
    Moved,
    Observation,
    Openings,
    Reconnected,
    RoundBegan,
    Started,
    Ticked,
    Verdict,
)

VMS = tuple("abcdefgh")
WITHOUT_ROW = {Started, Reconnected}


def calm(cap: int = 3) -> Captives:
    """A host that has been looked at, in its first round, with its first call under way since 0.1."""
    captives = Captives(Limits(cap, 1.0, 2.0, 60.0), random.Random(1))  # noqa: S311, jitter
    assert captives.observe(RoundBegan(VMS, 8.0), 0.0) == [Look()]
    assert captives.observe(Looked(dict.fromkeys(VMS, 0.0)), 0.1) == [Ask(1, VMS, everyone=True)]
    captives.observe(Started(1), 0.1)
    return captives


def held(uuid: str, seconds: float) -> dict[str, float]:
    return {**dict.fromkeys(VMS, 0.0), uuid: seconds}


def test_the_table_has_a_row_for_every_state_and_observation() -> None:
    kinds = set(get_args(Observation)) - WITHOUT_ROW
    assert set(TABLE) == set(PLANS) == set(Host)
    assert all(set(row) == kinds for row in TABLE.values())
    assert {choice for plan in PLANS.values() for choice in plan} == set(Choice)


def test_while_all_is_well_a_round_is_one_call() -> None:
    captives = calm()
    assert captives.observe(Answered(1, frozenset(VMS)), 0.5) == []
    assert captives.settled
    assert captives.host is Host.CALM
    assert captives.observe(RoundBegan(VMS, 18.0), 10.0) == [Ask(2, VMS, everyone=True)]


def test_a_call_in_one_vm_for_too_long_is_captured_and_the_others_are_asked_anew() -> None:
    captives = calm()
    assert captives.observe(Ticked(), 1.0) == []
    assert captives.observe(Ticked(), 1.2) == [Look()]
    actions = captives.observe(Looked(held("d", 1.1)), 1.2)
    assert actions == [Abandon(1), Ask(2, ("a", "b", "c", "e", "f", "g", "h"))]
    assert captives.verdicts()["d"] == Verdict(responsive=False, probed=True)
    assert captives.slots.lost == 1


def test_a_slow_call_that_makes_progress_is_left_to_itself() -> None:
    """A thousand VMs take longer than a round: whoever is occupied is so for a moment only."""
    captives = calm()
    for second in range(2, 30):
        captives.observe(Ticked(), float(second))
        assert captives.observe(Looked(held(VMS[second % 8], 0.01)), float(second)) == []
    captives.observe(Answered(1, frozenset(VMS)), 30.0)
    assert captives.slots.lost == 0


def test_a_call_that_waits_for_its_connection_is_not_captured() -> None:
    captives = Captives(Limits(3, 1.0, 2.0, 60.0), random.Random(1))  # noqa: S311, jitter
    captives.observe(RoundBegan(VMS, 8.0), 0.0)
    captives.observe(Looked(dict.fromkeys(VMS, 0.0)), 0.1)
    assert captives.due == float("inf")
    assert captives.observe(Ticked(), 100.0) == []


def test_a_vm_that_somebody_else_s_call_holds_is_skipped_without_a_capture() -> None:
    """Our call has passed it by, so its answer is partial; a look says why."""
    captives = calm()
    others = frozenset(VMS) - {"c"}
    assert captives.observe(Answered(1, others, frozenset("c")), 0.5) == [Look(("c",))]
    assert captives.observe(Looked({"c": 30.0}), 0.6) == []
    assert captives.verdicts()["c"].responsive is False
    assert captives.slots.lost == 0


def test_a_vm_that_a_job_holds_for_a_moment_is_asked_once_more_in_the_round() -> None:
    captives = calm()
    captives.observe(Answered(1, frozenset(VMS) - {"c"}, frozenset("c")), 0.5)
    assert captives.observe(Looked({"c": 0.02}), 0.6) == [Ask(2, ("c",))]
    captives.observe(Started(2), 0.6)
    assert captives.observe(Answered(2, frozenset(), frozenset("c")), 0.7) == [Look(("c",))]
    assert captives.observe(Looked({"c": 0.0}), 0.8) == []
    assert captives.host is Host.CALM


@pytest.mark.parametrize(
    ("occupied", "lost", "host"),
    [(0, 0, Host.CALM), (1, 1, Host.SEARCHING), (2, 2, Host.GUARDED), (3, 3, Host.SILENT), (5, 5, Host.SILENT)],
)
def test_what_an_earlier_run_left_behind_counts(occupied: int, lost: int, host: Host) -> None:
    captives = Captives(Limits(3, 1.0, 2.0, 60.0), random.Random(1))  # noqa: S311, jitter
    captives.observe(RoundBegan(VMS, 8.0), 0.0)
    looked = {uuid: 500.0 if place < occupied else 0.0 for place, uuid in enumerate(VMS)}
    actions = captives.observe(Looked(looked), 0.1)
    assert (captives.slots.lost, captives.host) == (lost, host)
    asked = [uuid for action in actions if isinstance(action, Ask) for uuid in action.uuids]
    assert not set(asked) & set(VMS[:occupied])
    assert bool(asked) is (host is not Host.SILENT)


def test_what_was_left_behind_ends_with_the_vm_s_recovery() -> None:
    captives = Captives(Limits(1, 1.0, 2.0, 60.0), random.Random(1))  # noqa: S311, jitter
    captives.observe(RoundBegan(VMS, 8.0), 0.0)
    assert captives.observe(Looked(held("a", 500.0)), 0.1) == []
    assert captives.observe(RoundBegan(VMS, 18.0), 10.0) == [Look()]
    assert captives.observe(Looked(dict.fromkeys(VMS, 0.0)), 10.1) == [Ask(1, VMS[1:])]


def test_a_late_result_clears_its_culprit_but_nobody_who_got_stuck_since() -> None:
    captives = calm()
    captives.observe(Ticked(), 1.2)
    captives.observe(Looked(held("d", 1.1), {"b": "T"}), 1.3)
    captives.observe(Answered(1, frozenset(VMS)), 60.0)
    verdicts = captives.verdicts()
    assert (verdicts["d"].responsive, verdicts["b"].responsive, captives.slots.lost) == (True, False, 0)


def test_an_event_is_worth_a_look() -> None:
    captives = calm()
    assert captives.observe(Moved("d"), 0.2) == []
    captives.observe(Ticked(), 1.2)
    captives.observe(Looked(held("d", 1.1)), 1.2)
    assert captives.observe(Moved("d"), 3.0) == [Look()]
    assert captives.observe(Moved("gone"), 3.0) == []


def test_a_vm_that_makes_libvirt_fail_costs_only_itself() -> None:
    captives = calm()
    actions = captives.observe(Failed(1, lost=False), 0.2)
    asked: list[str] = []
    now = 0.2
    while actions:
        (ask,) = actions
        assert isinstance(ask, Ask)
        asked += ask.uuids
        now += 0.01
        captives.observe(Started(ask.call), now)
        bad = "c" in ask.uuids
        actions = captives.observe(Failed(ask.call, lost=False) if bad else Answered(ask.call, frozenset(ask.uuids)), now)
    assert asked == list(VMS)
    assert [uuid for uuid, verdict in captives.verdicts().items() if not verdict.responsive] == ["c"]


def test_a_lost_connection_ends_the_round_s_asking() -> None:
    captives = calm()
    assert captives.observe(Failed(1, lost=True), 0.2) == []
    assert captives.observe(Reconnected(), 0.3) == []
    assert captives.observe(RoundBegan(VMS, 18.0), 10.0) == [Look()]


def test_vms_that_vanish_are_forgotten() -> None:
    captives = calm()
    captives.observe(Ticked(), 1.2)
    captives.observe(Looked(held("d", 1.1)), 1.2)
    captives.observe(RoundBegan(("a", "b"), 18.0), 10.0)
    assert set(captives.verdicts()) == {"a", "b"}
    assert captives.slots.lost == 1, "the call is still in there"


def test_polls_of_jobs_take_a_slot_of_the_cap() -> None:
    captives = calm(cap=2)
    assert captives.may_poll("a", vouched=False)
    assert not captives.may_poll("b", vouched=False)
    captives.poll_returned("a")
    captives.observe(Answered(1, frozenset(VMS)), 0.5)
    assert captives.may_poll("b", vouched=True)
    captives.poll_lost("b", 1.0)
    assert (captives.slots.lost, captives.verdicts()["b"].responsive) == (1, False)
    assert not captives.may_poll("b", vouched=False)
    assert captives.observe(RoundBegan(VMS, 18.0), 10.0) == [Look()]
    captives.observe(Looked(dict.fromkeys(VMS, 0.0)), 10.1)
    assert captives.slots.lost == 0


def test_hanging_openings_count_and_leave_no_room_for_more() -> None:
    captives = calm(cap=3)
    captives.observe(Answered(1, frozenset(VMS)), 0.5)
    captives.observe(Openings(hanging=2), 5.0)
    assert (captives.slots.lost, captives.host, captives.may_open()) == (2, Host.GUARDED, True)
    captives.observe(Openings(others=1, hanging=2), 6.0)
    assert not captives.may_open()
    assert not captives.may_poll("a", vouched=True), "the opening under way may hang as well"
    captives.observe(Openings(hanging=3), 7.0)
    assert captives.host is Host.SILENT
    captives.observe(Openings(), 8.0)
    assert (captives.slots.lost, captives.host) == (0, Host.CALM)


def test_a_call_shares_its_slot_with_the_opening_of_its_connection() -> None:
    """With a single slot that is the difference between asking and never asking."""
    captives = Captives(Limits(1, 1.0, 2.0, 60.0), random.Random(1))  # noqa: S311, jitter
    captives.observe(RoundBegan(VMS, 8.0), 0.0)
    assert captives.observe(Looked(dict.fromkeys(VMS, 0.0)), 0.1) == [Ask(1, VMS, everyone=True)]
    assert captives.may_open()
    captives.observe(Openings(own=1), 0.1)
    assert not captives.may_open()
    captives.observe(Openings(), 0.2)
    captives.observe(Started(1), 0.2)
    assert not captives.may_open()


def test_a_call_waits_for_another_connection_s_opening_and_begins_with_its_end() -> None:
    captives = Captives(Limits(1, 1.0, 2.0, 60.0), random.Random(1))  # noqa: S311, jitter
    captives.observe(Openings(others=1), 0.0)
    captives.observe(RoundBegan(VMS, 8.0), 0.0)
    assert captives.observe(Looked(dict.fromkeys(VMS, 0.0)), 0.1) == []
    assert captives.observe(Openings(), 0.3) == [Ask(1, VMS, everyone=True)]
