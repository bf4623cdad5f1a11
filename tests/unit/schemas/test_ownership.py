"""Who speaks for a VM that two nodes report."""

from __future__ import annotations

import pytest

from virtflow.schemas import states
from virtflow.schemas.ownership import Claim, speaks


@pytest.mark.parametrize(
    ("one", "other", "winner"),
    [
        (Claim("a", states.RUNNING, 10.0), Claim("b", states.PAUSED, 20.0), "a"),
        (Claim("a", states.PAUSED, 20.0), Claim("b", states.RUNNING, 10.0), "b"),
        (Claim("a", states.BLOCKED, 10.0), Claim("b", states.SHUT_OFF, 20.0), "a"),
        (Claim("a", states.RUNNING, 10.0), Claim("b", states.RUNNING, 20.0), "b"),
        (Claim("a", states.SHUT_OFF, 30.0), Claim("b", states.PAUSED, 20.0), "b"),
        (Claim("a", states.RUNNING, 10.0), Claim("b", states.RUNNING, 10.0), "b"),
    ],
)
def test_speaks(one: Claim, other: Claim, winner: str) -> None:
    """Running beats paused, paused beats gone, then the newer collection; everyone decides alike, whichever way it is asked."""
    assert speaks(one, other).node == winner
    assert speaks(other, one).node == winner
