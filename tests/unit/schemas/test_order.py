"""Order is (boot id, sequence, part), whatever a clock says."""

from __future__ import annotations

import pytest

from virtflow.schemas.order import Freshness, Position, Seen, advance, freshness

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
    assert len(state.earlier_boots) == REMEMBERED_BOOTS
    assert state.earlier_boots[0] == "98"
