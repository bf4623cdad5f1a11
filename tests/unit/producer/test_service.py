"""The grid of rounds: late ones are made up for or left out, never stacked."""

from __future__ import annotations

import pytest

from virtflow.producer.service import skipped


@pytest.mark.parametrize(
    ("took", "left_out"), [(0.0, 0), (0.8, 0), (1.0, 0), (1.2, 0), (1.5, 0), (1.6, 1), (2.4, 1), (2.5, 1), (2.6, 2), (60.0, 59)]
)
def test_a_round_that_is_half_an_interval_late_begins_at_once_and_later_ones_fall_out(took: float, left_out: int) -> None:
    assert skipped(took * 10.0, 10.0) == left_out
