"""Tables for people: aligned, and never able to harm a terminal."""

from __future__ import annotations

import pytest

from virtflow.cli.output.table import cut, fitted, fold, plain, printable, readable, whole


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


HEAD = ("NAME", "KIND", "NOTE", "MEANING")
ROWS = [("vm_cpu_seconds_total", "counter", "-", "CPU time the VM has used, of all its virtual CPUs"), ("x", "gauge", "", "short")]


def test_a_table_that_fits_is_as_it_is() -> None:
    assert readable(HEAD, ROWS, frozenset(), 200) == plain(HEAD, ROWS)


def test_columns_that_nobody_fills_go_first() -> None:
    found = readable(HEAD, ROWS, frozenset(), 82)
    assert found.splitlines()[0].split() == ["NAME", "KIND", "MEANING"]
    assert "has used, of all its virtual CPUs" in found


def test_the_last_column_is_folded_where_there_is_room() -> None:
    assert readable(HEAD, ROWS, frozenset(), 60) == (
        "NAME                  KIND     MEANING\n"
        "vm_cpu_seconds_total  counter  CPU time the VM has used, of\n"
        "                               all its virtual CPUs\n"
        "x                     gauge    short"
    )


def test_what_is_wider_is_one_record_a_block() -> None:
    assert readable(HEAD, ROWS, frozenset(), 40) == (
        "name     vm_cpu_seconds_total\n"
        "kind     counter\n"
        "meaning  CPU time the VM has used, of\n"
        "         all its virtual CPUs\n"
        "\n"
        "name     x\n"
        "kind     gauge\n"
        "meaning  short"
    )


def test_numbers_are_not_folded() -> None:
    head, row = ("A" * 30, "B" * 30, "N"), ("a", "b", "123,456,789,012")
    assert readable(head, [row], frozenset({2}), 70).startswith("a" * 30 + "  a\n")


@pytest.mark.parametrize("columns", [1, 5, 20, 40, 80, 120])
@pytest.mark.parametrize("count", [1, 3, 60])
def test_no_value_is_lost_and_no_line_too_wide(columns: int, count: int) -> None:
    """However many columns there are; words that are longer than a line are broken."""
    head = [f"COLUMN {number}" for number in range(count)]
    row = [f"value-{number}" for number in range(count)]
    found = readable(head, [row, ["-"] * count], frozenset(), columns)
    joined = "".join(found.split())
    assert all(value in joined for value in row)
    if columns >= 20:
        assert max(map(len, found.splitlines())) <= columns


def test_an_empty_table_says_so() -> None:
    assert readable(("NAME", "NODE"), [], frozenset(), 80) == "no rows (name, node)"
    assert whole(("NAME",), []) == "no rows (name)"
    assert max(map(len, readable([f"COLUMN {n}" for n in range(60)], [], frozenset(), 80).splitlines())) <= 80


@pytest.mark.parametrize(
    ("text", "lines"), [("", [""]), ("ab cd", ["ab", "cd"]), ("abcdef", ["abc", "def"]), ("日本語", ["日", "本", "語"])]
)
def test_text_is_folded_at_spaces_or_where_it_must_be(text: str, lines: list[str]) -> None:
    assert fold(text, 3) == lines
