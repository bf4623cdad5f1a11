"""Tables for people: aligned columns, and whatever fits of them on a terminal; nothing is ever cut to nothing."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from virtflow.cli.output.say import say_text
from virtflow.schemas.text import printable as safe

LAST_COLUMN = 26
"""Columns of the terminal that are enough of a table's last column, its distance included."""
ABSENT: Final = frozenset({"", "-"})
"""Cells that say that there is nothing."""
NO_ROWS: Final = "no rows"
DISTANCE: Final = 2


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], right: frozenset[int] = frozenset()) -> None:
    """Prints ``rows`` below ``head``; the columns ``right`` are aligned to the right. Cells are made printable.

    On a terminal the table is made to fit, and its head is bold unless NO_COLOR is set (source: no-color.org).
    """
    head = [printable(name) for name in head]
    cells = [[printable(cell) for cell in row] for row in rows]
    terminal = sys.stdout.isatty()
    text = readable(head, cells, right, shutil.get_terminal_size().columns) if terminal else whole(head, cells, right)
    bold = terminal and cells and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    say_text(text, bold=bool(bold))


def whole(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """The table with every column however wide it is; an empty one says so."""
    return plain(head, rows, right) if rows else f"{NO_ROWS} ({', '.join(name.lower() for name in head)})"


def readable(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int], columns: int) -> str:
    """The table for a terminal with that many columns.

    What is too wide loses the columns that are absent in every row, then has its last column folded; what is too wide even so becomes
    one record a block.
    """
    if not rows:
        return "\n".join(textwrap.wrap(whole(head, rows), max(columns, 1)))
    if _fits(plain(head, rows, right), columns):
        return plain(head, rows, right)
    kept = [n for n in range(len(head)) if any(row[n] not in ABSENT for row in rows)] or [0]
    head, rows = [head[n] for n in kept], [[row[n] for n in kept] for row in rows]
    right = frozenset(place for place, n in enumerate(kept) if n in right)
    if _fits(plain(head, rows, right), columns):
        return plain(head, rows, right)
    return folded(head, rows, right, columns) or records(head, rows, columns)


def folded(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int], columns: int) -> str:
    """The table with its last column in several lines; "" where too little room is left for that, or where it has numbers."""
    last = len(head) - 1
    left = max((width(line) for line in plain(head[:last], [row[:last] for row in rows], right).splitlines()), default=0) + DISTANCE
    if not last or last in right or columns - left < LAST_COLUMN:
        return ""
    lines: list[list[str]] = []
    for row in rows:
        parts = fold(row[last], columns - left)
        lines.append([*row[:last], parts[0]])
        lines += [[*[""] * last, part] for part in parts[1:]]
    return plain(head, lines, right)


def records(head: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> str:
    """One record a block: a line for each column, the names in front; what is absent is left out."""
    names = [name.lower() for name in head]
    left = min(max(map(width, names)), max(columns // 2, 1)) + DISTANCE
    blocks = []
    for row in rows:
        lines: list[str] = []
        for name, cell in zip(names, row, strict=True):
            if cell in ABSENT:
                continue
            shown = cut(name, left - DISTANCE)
            parts = fold(cell, max(columns - left, 8))
            lines.append(shown + " " * (left - width(shown)) + parts[0])
            lines += [" " * left + part for part in parts[1:]]
        blocks.append("\n".join(lines or ["-"]))
    return "\n\n".join(blocks)


def fold(text: str, columns: int) -> list[str]:
    """``text`` in lines of at most that many columns, broken at spaces where there are any; at least one."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and width(lines[-1]) + 1 + width(word) <= columns:
            lines[-1] += f" {word}"
            continue
        rest = word
        while width(rest) > columns:
            end = next(n for n in range(len(rest), 0, -1) if width(rest[:n]) <= columns or n == 1)
            lines.append(rest[:end])
            rest = rest[end:]
        lines.append(rest)
    return lines


def _fits(text: str, columns: int) -> bool:
    return all(width(line) <= columns for line in text.splitlines())


def plain(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """The table as aligned columns without lines around them."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(width(line[n]) for line in lines) for n in range(len(head))]

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
        return max(map(width, table(kept[:-1]))) + LAST_COLUMN

    kept = list(range(len(head)))
    for name in spare:
        if min(max(map(width, table(kept))), least(kept)) <= columns:
            break
        kept = [n for n in kept if head[n] != name]
    return "\n".join(cut(line, columns) for line in table(kept))


def cut(text: str, columns: int) -> str:
    """``text`` cut to that many columns, with a mark where something is missing."""
    if width(text) <= columns:
        return text
    end = len(text)
    while end and width(text[:end]) >= columns:
        end -= 1
    return text[:end] + "…"


def width(text: str) -> int:
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
