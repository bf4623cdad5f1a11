"""Sorted pages: the rows after a cursor that names the last row before, so that rows which come and go shift nothing.

What is unknown comes last in both directions; equal values are in the order of their keys.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from msgspec import Struct

from virtflow.exporter.api.parameters import ParameterError

T = TypeVar("T")
Value = float | str | None
_ALLOWED: Final = "`next` of an answer with the same sort"


class Page(Struct, Generic[T], frozen=True):
    """Some rows, and the cursor after the last one; "" where no row is left."""

    rows: list[T]
    after: str


class Order(Struct, Generic[T], frozen=True):
    """How rows are sorted: ``word`` as the client says it, with a minus for the largest first, and what they are sorted by."""

    word: str
    value: Callable[[T], Value]
    key: Callable[[T], str]

    @property
    def descending(self) -> bool:
        """Whether the largest comes first."""
        return self.word.startswith("-")


def page(rows: Sequence[T], order: Order[T], limit: int, after: str) -> Page[T]:
    """At most ``limit`` rows after the cursor ``after``, from the beginning where that is ""; raises ``ParameterError`` for a bad cursor."""
    cursor = _cursor(after, order.word) if after else None
    ordered = _sorted(rows, order)
    try:
        start = _beyond(ordered, cursor, descending=order.descending) if cursor else 0
    except TypeError as error:
        raise ParameterError("after", after, _ALLOWED) from error
    found = ordered[start : start + limit]
    last = found[-1] if found and start + limit < len(ordered) else None
    return Page([row for _, _, row in found], _written(order.word, last[0], last[1]) if last else "")


def _sorted(rows: Sequence[T], order: Order[T]) -> list[tuple[Value, str, T]]:
    known: list[tuple[Value, str, T]] = []
    unknown: list[tuple[Value, str, T]] = []
    for row in rows:
        value = order.value(row)
        # NaN is not itself.
        if value is None or value != value:  # noqa: PLR0124
            unknown.append((None, order.key(row), row))
        else:
            known.append((value, order.key(row), row))
    known.sort(key=_by_value, reverse=order.descending)
    unknown.sort(key=_by_key)
    return known + unknown


def _by_value(one: tuple[Value, str, T]) -> tuple[Value, str]:
    return one[0], one[1]


def _by_key(one: tuple[Value, str, T]) -> str:
    return one[1]


def _beyond(ordered: Sequence[tuple[Value, str, T]], cursor: tuple[Value, str], *, descending: bool) -> int:
    """The place of the first row after the cursor."""
    value, key = cursor
    for place, (mine, name, _) in enumerate(ordered):
        if mine is None:
            if value is not None or name > key:
                return place
        elif value is not None:
            here, there = (mine, name), (value, key)
            if here < there if descending else here > there:
                return place
    return len(ordered)


def _written(word: str, value: Value, key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([word, value, key]).encode()).decode().rstrip("=")


def _cursor(text: str, word: str) -> tuple[Value, str]:
    """The value and key in a cursor; raises ``ParameterError`` for one that is none, or that belongs to another order."""
    try:
        told = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise ParameterError("after", text, _ALLOWED) from error
    match told:
        case [str(sort), (int() | float() | str() | None) as value, str(key)] if sort == word and not isinstance(value, bool):
            return value, key
    raise ParameterError("after", text, _ALLOWED)
