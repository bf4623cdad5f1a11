"""Lines of a terminal: text with the style of each piece, cut and padded by what characters take on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from virtflow.cli.output.table import cut, printable, width
from virtflow.exporter.page.formats import COUNTS, digits

BLOCKS: Final = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS: Final = "_.:-=+*#"


class Piece(NamedTuple):
    """Text and its style: a word of ``STYLES``, "" for none."""

    text: str
    style: str = ""


Line = list[Piece]

STYLES: Final = {
    "head": "bold",
    "title": "bold cyan",
    "soft": "bright_black",
    "bad": "bold red",
    "busy": "yellow",
    "good": "green",
    "chosen": "reverse",
    "spark": "cyan",
}
"""What the styles look like in rich's words. None of them carries what the text does not say."""


def fit(text: str, columns: int, *, right: bool = False) -> str:
    """``text``, made printable, in exactly that many columns."""
    short = cut(printable(text, 1_024), columns)
    space = " " * (columns - width(short))
    return space + short if right else short + space


def plain(line: Sequence[Piece]) -> str:
    """The line without its styles."""
    return "".join(piece.text for piece in line).rstrip()


def spark(values: Sequence[float | None], columns: int, blocks: str = BLOCKS) -> str:
    """The last values as blocks, a space where one is unknown; the largest of them is the whole height."""
    last = list(values)[-columns:]
    top = max((value for value in last if value is not None), default=0.0)
    shown = "".join(" " if value is None else blocks[min(int(value / top * len(blocks)), len(blocks) - 1) if top else 0] for value in last)
    return shown.rjust(columns)


def short(value: float | None, step: int = 1024) -> str:
    """A number with at most three digits and a letter for its size: ``1.5G``; "-" for None."""
    if value is None:
        return "-"
    for letter in ("", *COUNTS[1:]):
        if value < step - 0.5:
            return f"{digits(value)}{letter.upper() if step == 1024 else letter}"  # noqa: PLR2004, sizes
        value /= step
    return f"{digits(value)}T"


def percent(value: float | None) -> str:
    """A ratio in whole percents; "-" for None."""
    return "-" if value is None else f"{value * 100:.0f}%"
