"""The authoritative node of a VM that migrates, which reports are no sample of it, and when two reports are a split-brain."""

from __future__ import annotations

import pytest

from virtflow.schemas.ownership import (
    Report,
    SplitBrain,
    authoritative,
    current_reports,
    handed_over,
    has_left,
    is_split_brain,
    not_before,
    track_split_brain,
)
from virtflow.schemas.records import VmMigration
from virtflow.schemas.states import (
    PAUSED,
    PAUSED_MIGRATION,
    PAUSED_POSTCOPY,
    PAUSED_STARTING_UP,
    RUNNING,
    SHUT_OFF,
    SHUT_OFF_CRASHED,
    SHUT_OFF_FAILED,
    SHUT_OFF_MIGRATED,
    SHUT_OFF_UNKNOWN,
)

UUID = "01c4627c-7455-4be4-b014-9523f6d7e739"


def report(node: str, state: int, collected: float = 100.0, reason: int = 1, arrived: float = float("nan")) -> Report:
    return Report(node, state, collected, reason, 10.0, arrived)


def migration(result: str, *, resumed: float = float("nan"), kind: str = "pre_copy") -> VmMigration:
    return VmMigration(uuid=UUID, source="a", destination="b", result=result, kind=kind, resumed_timestamp_seconds=resumed)


A_RUNS, B_RUNS = report("a", RUNNING), report("b", RUNNING)
A_LATER = report("a", RUNNING, 110.0)
A_STOPS = report("a", PAUSED, 110.0, PAUSED_MIGRATION)
A_GONE = report("a", SHUT_OFF, 120.0)
B_ARRIVES = report("b", PAUSED, 130.0, PAUSED_STARTING_UP)
B_WAITS = report("b", PAUSED, 130.0, PAUSED_MIGRATION)
B_PAUSED = report("b", PAUSED, 90.0, 1)
A_LEFT = report("a", SHUT_OFF, 120.0, SHUT_OFF_MIGRATED)
A_POSTCOPY = report("a", PAUSED, 120.0, PAUSED_POSTCOPY)
A_POSTCOPY_FAILED = report("a", PAUSED, 120.0, 13)
RUNS_ON = migration("running")
HANDED = migration("running", resumed=100.0)


@pytest.mark.parametrize(
    ("reports", "known", "expected"),
    [
        ((A_RUNS, B_ARRIVES), None, "a"),
        ((A_RUNS, B_ARRIVES), RUNS_ON, "a"),
        ((A_STOPS, B_WAITS), RUNS_ON, "a"),
        ((A_STOPS, B_RUNS), RUNS_ON, "b"),
        ((A_LATER, B_RUNS), HANDED, "b"),
        ((A_LATER, B_RUNS), migration("completed"), "b"),
        ((A_GONE, B_RUNS), migration("completed"), "b"),
        ((A_GONE, B_PAUSED), migration("completed"), "b"),
        ((A_LATER, B_PAUSED), migration("completed"), "b"),
        ((A_RUNS, report("b", SHUT_OFF, 200.0)), migration("completed"), "a"),
        ((A_RUNS, report("c", RUNNING, 200.0)), migration("completed"), "c"),
        ((A_RUNS, B_WAITS), migration("failed"), "a"),
        ((A_RUNS, report("b", RUNNING, 200.0)), migration("cancelled"), "a"),
        ((A_RUNS, report("b", RUNNING, 200.0)), migration("unknown"), "b"),
        ((B_ARRIVES,), RUNS_ON, "b"),
        ((A_RUNS, B_RUNS), None, "b"),
        ((A_RUNS, report("b", RUNNING, 200.0)), RUNS_ON, "b"),
        ((A_LATER, B_RUNS), RUNS_ON, "a"),
        ((A_LEFT, B_WAITS), RUNS_ON, "b"),
        ((A_LEFT, report("b", SHUT_OFF, 90.0)), None, "b"),
        ((A_POSTCOPY, report("b", PAUSED, 90.0)), None, "b"),
        ((A_GONE, B_ARRIVES), None, "b"),
        ((A_POSTCOPY_FAILED, B_PAUSED), migration("failed", resumed=100.0, kind="post_copy"), "b"),
    ],
)
def test_one_node_is_authoritative(reports: tuple[Report, ...], known: VmMigration | None, expected: str) -> None:
    """Newest migration known, then running over paused over arriving, then the newer collection; the order of asking is the same to it."""
    assert authoritative(reports, known).node == expected
    assert authoritative(reversed(reports), known).node == expected


def test_two_that_run_for_longer_than_a_hand_over_are_a_conflict() -> None:
    """Two intervals pass as a hand-over; the contest ends when one of them lets go."""
    both = (A_RUNS, B_RUNS)
    tracked = track_split_brain(SplitBrain(), both, 1000.0)
    tracked = track_split_brain(tracked, both, 1010.0)
    assert not is_split_brain(tracked, both, 1020.0)
    assert is_split_brain(tracked, both, 1020.1)
    over = track_split_brain(tracked, (A_GONE, B_RUNS), 1021.0)
    assert not is_split_brain(over, (A_GONE, B_RUNS), 2000.0)
    assert not is_split_brain(track_split_brain(over, both, 2000.0), both, 2020.0)


def test_what_is_of_a_process_that_is_over_does_not_speak_again() -> None:
    """There and back within the time a claim stays: the first stay's last sample is not the second one's first."""
    there = VmMigration(
        uuid=UUID, source="a", destination="b", result="completed", paused_timestamp_seconds=105.0, resumed_timestamp_seconds=205.0
    )
    back = VmMigration(
        uuid=UUID, source="b", destination="a", result="completed", paused_timestamp_seconds=210.0, resumed_timestamp_seconds=110.0
    )
    first_stay, second_stay, between = report("a", RUNNING, 104.0), report("a", RUNNING, 111.0), report("b", RUNNING, 206.0)
    known = not_before({}, there)
    assert current_reports([first_stay, between], known) == [between]
    assert current_reports([first_stay], known) == [first_stay]
    known = not_before(known, back)
    assert current_reports([first_stay, between], known) == [between]
    assert authoritative(current_reports([second_stay, between], known), back) == second_stay
    assert not_before(known, VmMigration(uuid=UUID, source="a", destination="b", result="failed")) == known


def test_there_and_back_is_no_conflict() -> None:
    """Each hand-over begins the contest anew; one that lasts after the last of them is a conflict."""
    both = (A_RUNS, B_RUNS)
    tracked = SplitBrain()
    hops = [VmMigration(uuid=UUID, id=str(hop), result="completed") for hop in range(3)]
    for hop, at in zip(hops, (1000.0, 1015.0, 1030.0), strict=True):
        tracked = track_split_brain(tracked, both, at, hop)
        assert not is_split_brain(tracked, both, at + 15.0)
    assert track_split_brain(tracked, both, 1040.0, hops[-1]) == tracked
    assert is_split_brain(tracked, both, 1051.0)


@pytest.mark.parametrize(("source_again", "expected"), [(990.0, False), (1009.0, False), (1011.0, True)])
def test_what_a_node_said_before_it_let_go_is_no_conflict(source_again: float, expected: bool) -> None:  # noqa: FBT001, the table's column
    """After a hand-over the source says nothing more: its last claim, however late it came, does not count indefinitely."""
    tracked = SplitBrain(1000.0)
    reports = (report("a", RUNNING, arrived=source_again), report("b", RUNNING, arrived=1025.0))
    assert is_split_brain(tracked, reports, 1025.0) is expected


def test_a_watcher_that_has_just_started_knows_no_floor_of_an_earlier_trip() -> None:
    """From a to b to c, told only of the last hop: what a said before that arrived is over; what it says afterwards counts."""
    hop = VmMigration(
        uuid=UUID, source="b", destination="c", result="completed", paused_timestamp_seconds=110.0, resumed_timestamp_seconds=110.5
    )
    known, since = not_before({}, hop), 1_000.0
    first_stay, between = report("a", RUNNING, 104.0, arrived=990.0), report("b", RUNNING, 109.9, arrived=998.0)
    assert current_reports([first_stay, between], known, since=since) == [between]
    arrived = report("c", RUNNING, 111.0, arrived=1_001.0)
    assert current_reports([first_stay, between, arrived], known, since=since) == [arrived]
    again = report("a", RUNNING, 50.0, arrived=1_001.0)
    assert current_reports([again, arrived], known, since=since) == [again, arrived]


def test_a_hand_over_whose_moment_nobody_told_sets_no_floor() -> None:
    """A destination that nobody heard of is not taken for a node of an earlier trip."""
    hop = VmMigration(uuid=UUID, source="a", destination="b", result="completed", paused_timestamp_seconds=105.0)
    assert not_before({"b": 90.0}, hop) == {"a": 105.0, "b": 90.0}
    early = report("b", RUNNING, 106.0, arrived=990.0)
    assert current_reports([early], not_before({}, hop), since=1_000.0) == [early]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (migration("running"), False),
        (migration("running", resumed=100.0), True),
        (migration("completed"), True),
        (migration("failed", resumed=100.0), False),
        (migration("incomplete", resumed=100.0), False),
        (migration("failed", kind="post_copy"), False),
        (migration("failed", resumed=100.0, kind="post_copy"), True),
    ],
)
def test_handed_over(known: VmMigration, expected: bool) -> None:  # noqa: FBT001, the table's column
    """A pre-copy migration that fails goes back to its source; after the switch of a post-copy one there is no way back."""
    assert handed_over(known) is expected


DONE, FAILED, UNKNOWN = migration("completed"), migration("failed"), migration("unknown")


@pytest.mark.parametrize(
    ("node", "state", "reason", "known", "expected"),
    [
        ("a", SHUT_OFF, SHUT_OFF_MIGRATED, None, True),
        ("c", SHUT_OFF, SHUT_OFF_MIGRATED, DONE, True),
        ("a", PAUSED, PAUSED_POSTCOPY, None, True),
        ("a", PAUSED, PAUSED_MIGRATION, DONE, False),
        ("a", SHUT_OFF, SHUT_OFF_UNKNOWN, None, False),
        ("a", SHUT_OFF, SHUT_OFF_UNKNOWN, UNKNOWN, False),
        ("a", SHUT_OFF, SHUT_OFF_UNKNOWN, DONE, True),
        ("b", SHUT_OFF, SHUT_OFF_UNKNOWN, DONE, False),
        ("c", SHUT_OFF, SHUT_OFF_UNKNOWN, DONE, False),
        ("a", SHUT_OFF, SHUT_OFF_CRASHED, DONE, False),
        ("a", SHUT_OFF, 1, DONE, False),
        ("b", SHUT_OFF, SHUT_OFF_CRASHED, FAILED, True),
        ("b", SHUT_OFF, SHUT_OFF_FAILED, FAILED, True),
        ("a", SHUT_OFF, SHUT_OFF_CRASHED, FAILED, False),
        ("b", SHUT_OFF, 1, FAILED, False),
        ("a", RUNNING, SHUT_OFF_MIGRATED, DONE, False),
    ],
)
def test_has_left(node: str, state: int, reason: int, known: VmMigration | None, expected: bool) -> None:  # noqa: FBT001, the table's column
    """By its state alone where that can't be anything else, by the migration where the reason does not tell of an end."""
    assert has_left(report(node, state, reason=reason), known) is expected


def test_a_vm_that_ran_there_since_has_not_left() -> None:
    """Unless its state says so."""
    assert not has_left(report("a", SHUT_OFF, reason=SHUT_OFF_UNKNOWN), DONE, ran_since=True)
    assert has_left(A_LEFT, DONE, ran_since=True)


def test_no_report_of_a_process_elsewhere_is_current_beside_the_vm() -> None:
    """Incoming, or left: only without any other report."""
    for elsewhere in (B_ARRIVES, B_WAITS):
        assert current_reports([A_RUNS, elsewhere], {"a": 200.0}, RUNS_ON) == [A_RUNS]
    assert current_reports([A_LEFT, B_RUNS], {"b": 200.0}) == [B_RUNS]
    assert current_reports([B_WAITS], {}, RUNS_ON) == [B_WAITS]
