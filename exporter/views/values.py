"""Single values of the API's rows, and the columns that rows are sorted by."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
Number = TypeVar("Number", int, float)


class Column(NamedTuple, Generic[T]):
    """A name to sort by, what it stands for, and the value; None or NaN is unknown and comes last."""

    name: str
    about: str
    value: Callable[[T], float | str | None]


def known(value: Number) -> Number | None:
    """None for what is absent: NaN for doubles, -1 for integers."""
    return value if value >= 0 else None


def ratio(part: float, of: float) -> float | None:
    """``part`` of ``of``; None where either is unknown or there is nothing."""
    return part / of if of > 0 and part >= 0 else None


def age(then: float, now: float) -> float | None:
    """Seconds since ``then``, to the millisecond; 0 where it is in the future, None where it is unknown."""
    return None if isnan(then) else round(max(now - then, 0.0), 3)
