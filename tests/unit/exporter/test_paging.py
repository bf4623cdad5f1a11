"""Sorted pages: each row once, in order, whatever comes and goes meanwhile."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.exporter.api.paging import Order, page
from virtflow.exporter.api.parameters import ParameterError

NAN = float("nan")
Row = tuple[str, float | None]


def order(word: str) -> Order[Row]:
    return Order(word, lambda row: row[1], lambda row: row[0])


def walk(rows: list[Row], word: str, limit: int) -> list[Row]:
    found: list[Row] = []
    after = ""
    while True:
        part = page(rows, order(word), limit, after)
        assert len(part.rows) <= limit
        found += part.rows
        after = part.after
        if not after:
            return found


ROWS: list[Row] = [("a", 1.0), ("b", None), ("c", 3.0), ("d", NAN), ("e", 1.0), ("f", 0.0)]


def test_what_is_unknown_comes_last_in_both_directions() -> None:
    assert [key for key, _ in walk(ROWS, "x", 100)] == ["f", "a", "e", "c", "b", "d"]
    assert [key for key, _ in walk(ROWS, "-x", 100)] == ["c", "e", "a", "f", "b", "d"]


values = st.one_of(st.none(), st.floats(), st.integers(-5, 5).map(float))


@given(st.dictionaries(st.text(max_size=3), values, max_size=30), st.integers(1, 7), st.sampled_from(["x", "-x"]))
def test_pages_together_are_the_whole_list(rows: dict[str, float | None], limit: int, word: str) -> None:
    """Every row once, and in order across the pages."""
    found = walk(list(rows.items()), word, limit)
    assert sorted(key for key, _ in found) == sorted(rows)
    known = [value for _, value in found if value is not None and value == value]  # noqa: PLR0124
    assert all((a >= b if word == "-x" else a <= b) for a, b in pairwise(known))


@given(st.dictionaries(st.text(max_size=3), values, min_size=3, max_size=20), st.integers(1, 5), st.data())
def test_rows_that_go_shift_nothing(rows: dict[str, float | None], limit: int, data: st.DataObject) -> None:
    """The second page has none of the first, and misses none that is still there, even when the cursor's own row is gone."""
    listed = list(rows.items())
    first = page(listed, order("x"), limit, "")
    gone = data.draw(st.sets(st.sampled_from(sorted(rows))))
    left = [(key, value) for key, value in listed if key not in gone]
    rest: list[str] = []
    after = first.after
    while after:
        part = page(left, order("x"), limit, after)
        rest += [key for key, _ in part.rows]
        after = part.after
    assert sorted(rest) == sorted({key for key, _ in left} - {key for key, _ in first.rows}) if first.after else True


def test_text_sorts_as_text() -> None:
    names: Order[str] = Order("-name", lambda row: row, lambda row: row)
    part = page(["b", "ä", "a", "c"], names, 2, "")
    assert part.rows == ["ä", "c"]
    assert page(["b", "ä", "a", "c"], names, 2, part.after).rows == ["b", "a"]


@pytest.mark.parametrize("cursor", ["x", "!!!", "e30", "W10", "WyJ4IiwgdHJ1ZSwgImEiXQ", "é", "[]", "AAAA", "W" * 3000])
def test_a_cursor_that_is_none_is_named(cursor: str) -> None:
    with pytest.raises(ParameterError) as found:
        page(ROWS, order("x"), 2, cursor)
    assert found.value.parameter == "after"
    assert "`next`" in found.value.allowed


def test_a_cursor_belongs_to_its_order() -> None:
    after = page(ROWS, order("x"), 2, "").after
    with pytest.raises(ParameterError):
        page(ROWS, order("-x"), 2, after)
    text: Order[str] = Order("x", lambda row: row, lambda row: row)
    with pytest.raises(ParameterError):
        page(["a", "b"], text, 1, after)
