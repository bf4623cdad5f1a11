"""The authoritative node of a VM that two nodes report."""

from __future__ import annotations

import pytest

from virtflow.schemas import states
from virtflow.schemas.ownership import Report, authoritative


@pytest.mark.parametrize(
    ("one", "other", "winner"),
    [
        (Report("a", states.RUNNING, 10.0), Report("b", states.PAUSED, 20.0), "a"),
        (Report("a", states.PAUSED, 20.0), Report("b", states.RUNNING, 10.0), "b"),
        (Report("a", states.BLOCKED, 10.0), Report("b", states.SHUT_OFF, 20.0), "a"),
        (Report("a", states.RUNNING, 10.0), Report("b", states.RUNNING, 20.0), "b"),
        (Report("a", states.SHUT_OFF, 30.0), Report("b", states.PAUSED, 20.0), "b"),
        (Report("a", states.RUNNING, 10.0), Report("b", states.RUNNING, 10.0), "b"),
    ],
)
def test_authoritative(one: Report, other: Report, winner: str) -> None:
    """Running beats paused, paused beats gone, then the newer collection; the order of the reports does not matter."""
    assert authoritative((one, other)).node == winner
    assert authoritative((other, one)).node == winner
