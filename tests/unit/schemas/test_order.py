"""Order is (boot id, sequence, part), whatever a clock says."""

from __future__ import annotations

import pytest

from virtflow.schemas.order import Freshness, Position, Seen, advance, freshness, heard

REMEMBERED_BOOTS = 8

NEW, DUPLICATE, STALE = Freshness.NEW, Freshness.DUPLICATE, Freshness.STALE


def seen(*positions: Position) -> Seen | None:
    state: Seen | None = None
    for position in positions:
        state = advance(state, position)
    return state


@pytest.mark.parametrize(
    ("before", "position", "expected"),
    [
        ((), Position("a", 5), NEW),
        ((Position("a", 5),), Position("a", 6), NEW),
        ((Position("a", 5),), Position("a", 9), NEW),
        ((Position("a", 5, 0),), Position("a", 5, 1), NEW),
        ((Position("a", 5, 1),), Position("a", 5, 1), DUPLICATE),
        ((Position("a", 5, 1),), Position("a", 5, 0), STALE),
        ((Position("a", 5),), Position("a", 4, 9), STALE),
        ((Position("a", 5),), Position("b", 0), NEW),
        ((Position("a", 5), Position("b", 0)), Position("a", 6), STALE),
        ((Position("a", 5), Position("b", 0)), Position("c", 0), NEW),
    ],
)
def test_freshness(before: tuple[Position, ...], position: Position, expected: Freshness) -> None:
    """A new boot id is newer than all before it, and one that came before stays stale."""
    assert freshness(seen(*before), position) is expected


def test_remembered_boots_are_bounded() -> None:
    """A producer that restarts indefinitely costs bounded memory."""
    state = seen(*(Position(str(number), 0) for number in range(100)))
    assert state is not None
    assert len(state.earlier) == REMEMBERED_BOOTS
    assert state.earlier[0] == Position("98", 0)


def taken(*positions: Position) -> list[Freshness]:
    """What each is, one after the other, to one who keeps the order."""
    state: Seen | None = None
    found = []
    for position in positions:
        fresh = freshness(state, position)
        found.append(fresh)
        if fresh is NEW:
            state = advance(state, position)
        elif state is not None and fresh is STALE:
            state = heard(state, position)
    return found


BOTH = (Position("a", 5), Position("b", 0))
"""A run, and the one that took its place."""


def test_an_earlier_run_that_outlives_the_later_one_is_current_again() -> None:
    """As when an update is taken back; with the third round in a row, since one or two may have been late."""
    found = taken(*BOTH, Position("a", 6), Position("a", 7), Position("a", 8), Position("a", 9), Position("b", 0))
    assert found == [NEW, NEW, STALE, STALE, NEW, NEW, STALE]


def test_an_earlier_run_is_not_current_while_the_later_one_is_heard() -> None:
    alternating = [Position("a", 6), Position("b", 1), Position("a", 7), Position("b", 2), Position("a", 8), Position("b", 3)]
    assert taken(*BOTH, *alternating) == [NEW, NEW, STALE, NEW, STALE, NEW, STALE, NEW]


def test_what_was_seen_of_an_earlier_run_comes_again_in_vain() -> None:
    """Redelivered after a crash of the processors, however much of it."""
    again = [Position("a", number) for number in range(6)]
    assert taken(*BOTH, *again, *again) == [NEW, NEW, *[STALE] * 12]


def test_parts_and_repeats_of_a_round_are_one_round() -> None:
    parts = [Position("a", 6, part) for part in range(5)]
    assert taken(*BOTH, *parts, Position("a", 7), Position("a", 6), Position("a", 7)) == [NEW, NEW, *[STALE] * 8]
