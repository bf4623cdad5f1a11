"""Tables for people: aligned, and never able to harm a terminal."""

from __future__ import annotations

import pytest

from virtflow.cli.table import plain, printable


def test_columns_are_aligned() -> None:
    assert plain(("A", "N"), [("x", "1"), ("long", "10")], right=frozenset({1})) == "A      N\nx      1\nlong  10"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ä 日本", "plain ä 日本"),
        ("a\tb\x1b[31mred", "a?b?[31mred"),
        ("evil\u202egnp", "evil?gnp"),
        ("line\u2028two\x85three", "line?two?three"),
        ("half\ud800", "half?"),
        ("x" * 300, "x" * 127 + "…"),
    ],
)
def test_cells_are_printable(text: str, expected: str) -> None:
    assert printable(text) == expected
