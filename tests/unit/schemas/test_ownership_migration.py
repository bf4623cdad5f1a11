"""Who speaks for a VM that migrates, and when two claims are a conflict."""

from __future__ import annotations

import pytest

from virtflow.schemas.ownership import Claim, Contest, conflict, contest, current, floors, speaker
from virtflow.schemas.records import VmMigration
from virtflow.schemas.states import PAUSED, PAUSED_MIGRATION, PAUSED_STARTING_UP, RUNNING, SHUT_OFF

UUID = "01c4627c-7455-4be4-b014-9523f6d7e739"


def claim(node: str, state: int, collected: float = 100.0, reason: int = 1, arrived: float = float("nan")) -> Claim:
    return Claim(node, state, collected, reason, 10.0, arrived)


def migration(result: str, *, resumed: float = float("nan")) -> VmMigration:
    return VmMigration(uuid=UUID, source="a", destination="b", result=result, resumed_timestamp_seconds=resumed)


A_RUNS, B_RUNS = claim("a", RUNNING), claim("b", RUNNING)
A_LATER = claim("a", RUNNING, 110.0)
A_STOPS = claim("a", PAUSED, 110.0, PAUSED_MIGRATION)
A_GONE = claim("a", SHUT_OFF, 120.0)
B_ARRIVES = claim("b", PAUSED, 130.0, PAUSED_STARTING_UP)
B_WAITS = claim("b", PAUSED, 130.0, PAUSED_MIGRATION)
B_PAUSED = claim("b", PAUSED, 90.0, 1)
RUNS_ON = migration("running")
HANDED = migration("running", resumed=100.0)


@pytest.mark.parametrize(
    ("claims", "known", "expected"),
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
        ((A_RUNS, claim("b", SHUT_OFF, 200.0)), migration("completed"), "a"),
        ((A_RUNS, claim("c", RUNNING, 200.0)), migration("completed"), "c"),
        ((A_RUNS, B_WAITS), migration("failed"), "a"),
        ((A_RUNS, claim("b", RUNNING, 200.0)), migration("cancelled"), "a"),
        ((A_RUNS, claim("b", RUNNING, 200.0)), migration("unknown"), "b"),
        ((B_ARRIVES,), RUNS_ON, "b"),
        ((A_RUNS, B_RUNS), None, "b"),
    ],
)
def test_one_node_speaks(claims: tuple[Claim, ...], known: VmMigration | None, expected: str) -> None:
    """Newest migration known, then running over paused over arriving, then the newer collection; the order of asking is the same to it."""
    assert speaker(claims, known).node == expected
    assert speaker(reversed(claims), known).node == expected


def test_two_that_run_for_longer_than_a_hand_over_are_a_conflict() -> None:
    """Two intervals pass as a hand-over; the contest ends when one of them lets go."""
    both = (A_RUNS, B_RUNS)
    contested = contest(Contest(), both, 1000.0)
    contested = contest(contested, both, 1010.0)
    assert not conflict(contested, both, 1020.0)
    assert conflict(contested, both, 1020.1)
    over = contest(contested, (A_GONE, B_RUNS), 1021.0)
    assert not conflict(over, (A_GONE, B_RUNS), 2000.0)
    assert not conflict(contest(over, both, 2000.0), both, 2020.0)


def test_what_is_of_a_process_that_is_over_does_not_speak_again() -> None:
    """There and back within the time a claim stays: the first stay's last sample is not the second one's first."""
    there = VmMigration(
        uuid=UUID, source="a", destination="b", result="completed", paused_timestamp_seconds=105.0, resumed_timestamp_seconds=205.0
    )
    back = VmMigration(
        uuid=UUID, source="b", destination="a", result="completed", paused_timestamp_seconds=210.0, resumed_timestamp_seconds=110.0
    )
    first_stay, second_stay, between = claim("a", RUNNING, 104.0), claim("a", RUNNING, 111.0), claim("b", RUNNING, 206.0)
    known = floors({}, there)
    assert current([first_stay, between], known) == [between]
    assert current([first_stay], known) == [first_stay]
    known = floors(known, back)
    assert current([first_stay, between], known) == [between]
    assert speaker(current([second_stay, between], known), back) == second_stay
    assert floors(known, VmMigration(uuid=UUID, source="a", destination="b", result="failed")) == known


def test_there_and_back_is_no_conflict() -> None:
    """Each hand-over begins the contest anew; one that lasts after the last of them is a conflict."""
    both = (A_RUNS, B_RUNS)
    contested = Contest()
    hops = [VmMigration(uuid=UUID, id=str(hop), result="completed") for hop in range(3)]
    for hop, at in zip(hops, (1000.0, 1015.0, 1030.0), strict=True):
        contested = contest(contested, both, at, hop)
        assert not conflict(contested, both, at + 15.0)
    assert contest(contested, both, 1040.0, hops[-1]) == contested
    assert conflict(contested, both, 1051.0)


@pytest.mark.parametrize(("source_again", "expected"), [(990.0, False), (1009.0, False), (1011.0, True)])
def test_what_a_node_said_before_it_let_go_is_no_conflict(source_again: float, expected: bool) -> None:  # noqa: FBT001, the table's column
    """After a hand-over the source says nothing more: its last claim, however late it came, does not count for ever."""
    contested = Contest(1000.0)
    claims = (claim("a", RUNNING, arrived=source_again), claim("b", RUNNING, arrived=1025.0))
    assert conflict(contested, claims, 1025.0) is expected


def test_a_watcher_that_has_just_started_knows_no_floor_of_an_earlier_trip() -> None:
    """From a to b to c, told only of the last hop: what a said before that arrived is over; what it says afterwards counts."""
    hop = VmMigration(
        uuid=UUID, source="b", destination="c", result="completed", paused_timestamp_seconds=110.0, resumed_timestamp_seconds=110.5
    )
    known, since = floors({}, hop), 1_000.0
    first_stay, between = claim("a", RUNNING, 104.0, arrived=990.0), claim("b", RUNNING, 109.9, arrived=998.0)
    assert current([first_stay, between], known, since) == [between]
    arrived = claim("c", RUNNING, 111.0, arrived=1_001.0)
    assert current([first_stay, between, arrived], known, since) == [arrived]
    again = claim("a", RUNNING, 50.0, arrived=1_001.0)
    assert current([again, arrived], known, since) == [again, arrived]


def test_a_hand_over_whose_moment_nobody_told_sets_no_floor() -> None:
    """A destination that nobody heard of is not taken for a node of an earlier trip."""
    hop = VmMigration(uuid=UUID, source="a", destination="b", result="completed", paused_timestamp_seconds=105.0)
    assert floors({"b": 90.0}, hop) == {"a": 105.0, "b": 90.0}
    early = claim("b", RUNNING, 106.0, arrived=990.0)
    assert current([early], floors({}, hop), 1_000.0) == [early]
