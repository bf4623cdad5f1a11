"""Tables for people: rich where it is installed and the output is a terminal, plain columns otherwise."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence

from virtflow.cli.output.say import say_text
from virtflow.schemas.text import printable as safe

LAST_COLUMN = 26
"""Columns of the terminal that are enough of a table's last column, its distance included."""


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], right: frozenset[int] = frozenset()) -> None:
    """Prints ``rows`` below ``head``; the columns ``right`` are aligned to the right. Cells are made printable."""
    head = [printable(name) for name in head]
    cells = [[printable(cell) for cell in row] for row in rows]
    if not (sys.stdout.isatty() and _rich_table(head, cells, right)):
        say_text(plain(head, cells, right))


def plain(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """The table as aligned columns without lines around them."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(_width(line[n]) for line in lines) for n in range(len(head))]

    def text(line: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(w) if n in right else cell.ljust(w) for n, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()

    return "\n".join(text(line) for line in lines)


def fitted(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int], columns: int, spare: Sequence[str]) -> str:
    """The plain table for a terminal with that many columns: columns in ``spare`` (names in ``head``) are left out first, in that order, then lines are cut.

    The last column may be shortened before another column is left out.
    """

    def table(kept: Sequence[int]) -> list[str]:
        mine = frozenset(place for place, n in enumerate(kept) if n in right)
        return plain([head[n] for n in kept], [[row[n] for n in kept] for row in rows], mine).splitlines()

    def least(kept: Sequence[int]) -> int:
        return max(map(_width, table(kept[:-1]))) + LAST_COLUMN

    kept = list(range(len(head)))
    for name in spare:
        if min(max(map(_width, table(kept))), least(kept)) <= columns:
            break
        kept = [n for n in kept if head[n] != name]
    return "\n".join(cut(line, columns) for line in table(kept))


def cut(text: str, columns: int) -> str:
    """``text`` cut to that many columns, with a mark where something is missing."""
    if _width(text) <= columns:
        return text
    end = len(text)
    while end and _width(text[:end]) >= columns:
        end -= 1
    return text[:end] + "…"


def _width(text: str) -> int:
    """Width of ``text`` in terminal columns: wide characters count two, combining characters and joiners none."""
    return sum((unicodedata.east_asian_width(char) in "WF") + 1 for char in text if not _takes_none(char))


def _takes_none(char: str) -> bool:
    return bool(unicodedata.combining(char)) or unicodedata.category(char) == "Cf"


def printable(text: str, longest: int = 128) -> str:
    """``text`` made safe for a terminal (each unsafe character becomes ``?``), at most ``longest`` characters.

    VM names are untrusted: on a terminal they could move the cursor or reverse the text direction.
    """
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return safe(cut, longest, "?")


def _rich_table(head: Sequence[str], rows: Iterable[Sequence[str]], right: frozenset[int]) -> bool:
    """Prints the table with rich; returns False where rich is not installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        return False
    table = Table(box=box.SIMPLE_HEAD)
    for n, name in enumerate(head):
        table.add_column(name, justify="right" if n in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=max(shutil.get_terminal_size().columns, 60)).print(table)
    return True
