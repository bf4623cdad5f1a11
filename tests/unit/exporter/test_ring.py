"""The last hour of a VM: a fixed size, gaps where nothing was known, and no value older than an hour."""

from __future__ import annotations

import sys

import pytest

from virtflow.exporter.views.ring import COLUMNS, POINTS, Ring


def point(value: float) -> tuple[float, ...]:
    return tuple(value + number for number in range(len(COLUMNS)))


def test_points_come_back_by_column_and_minute() -> None:
    ring = Ring()
    ring.put(100, point(1.0))
    ring.put(101, point(2.0))
    assert ring.column(COLUMNS[0], 101)[-3:] == [None, 1.0, 2.0]
    assert ring.column(COLUMNS[1], 101)[-1] == 3.0
    assert len(ring.column(COLUMNS[0], 101)) == 60


@pytest.mark.parametrize("gap", [1, 2, 59, 60, 61, 500])
def test_minutes_without_a_point_are_unknown(gap: int) -> None:
    """Also those that had one an hour before."""
    ring = Ring()
    for minute in range(POINTS):
        ring.put(minute, point(minute))
    ring.put(POINTS - 1 + gap, point(7.0))
    column = ring.column(COLUMNS[0], POINTS - 1 + gap)
    assert column[-1] == 7.0
    assert column[-1 - min(gap - 1, POINTS - 1) : -1] == [None] * min(gap - 1, POINTS - 1)
    kept = [value for value in column[:-1] if value is not None]
    assert kept == [float(minute) for minute in range(gap, POINTS)]


def test_the_hour_moves_on_without_points() -> None:
    ring = Ring()
    ring.put(0, point(1.0))
    assert ring.column(COLUMNS[0], 30)[-31] == 1.0
    assert ring.column(COLUMNS[0], POINTS) == [None] * POINTS


def test_unknown_values_are_none() -> None:
    ring = Ring()
    ring.put(5, (float("nan"),) * len(COLUMNS))
    assert ring.column(COLUMNS[0], 5)[-1] is None


def test_its_size_is_what_the_page_says() -> None:
    """docs/fleet-page.md: 2 KiB a VM, however long it runs."""
    ring = Ring()
    for minute in range(1_000):
        ring.put(minute, point(minute))
    assert sys.getsizeof(ring.values) + sys.getsizeof(ring) <= 2_100
