"""Tables for people: aligned, and never able to harm a terminal."""

from __future__ import annotations

import pytest

from virtflow.cli.output.table import cut, fitted, plain, printable


def test_columns_are_aligned() -> None:
    assert plain(("A", "N"), [("x", "1"), ("long", "10")], right=frozenset({1})) == "A      N\nx      1\nlong  10"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (99, "NAME  RATE  VERDICT\nvm-1     5  fine and well"),
        (24, "NAME  VERDICT\nvm-1  fine and well"),
        (12, "NAME  VERDI…\nvm-1  fine …"),
    ],
)
def test_a_narrow_terminal_does_without_what_is_spare(columns: int, expected: str) -> None:
    found = fitted(("NAME", "RATE", "VERDICT"), [("vm-1", "5", "fine and well")], frozenset({1}), columns, ("RATE",))
    assert found == expected


@pytest.mark.parametrize(("columns", "expected"), [(6, "日本ab"), (5, "日本…"), (4, "日…"), (1, "…")])
def test_wide_characters_are_not_halved(columns: int, expected: str) -> None:
    assert cut("日本ab", columns) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ä 日本", "plain ä 日本"),
        ("a\tb\x1b[31mred", "a?b?[31mred"),
        ("evil\u202egnp", "evil?gnp"),
        ("line\u2028two\x85three", "line?two?three"),
        ("half\ud800", "half?"),
        ("a\u00a0b\u3000c\u202fd \U0001f469\u200d\U0001f4bb", "a\u00a0b\u3000c\u202fd \U0001f469\u200d\U0001f4bb"),
        ("x" * 300, "x" * 127 + "…"),
    ],
)
def test_cells_are_printable(text: str, expected: str) -> None:
    assert printable(text) == expected
