"""Curves over time, drawn with Braille dots in the terminal."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from virtflow.cli.output.table import printable

ROWS: Final = 16
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a Braille character's dots, by row and column (source: Unicode's Braille patterns)."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: its name and its points (Unix seconds, value) in the order of time; ``gap_seconds`` apart they are not joined."""

    name: str
    points: Sequence[tuple[float, float]]
    gap_seconds: float


@dataclass(frozen=True, slots=True)
class Frame:
    """The part of the plane that is shown."""

    left: float
    right: float
    low: float
    high: float

    @classmethod
    def around(cls, curves: Sequence[Curve]) -> Frame:
        """The frame that holds all points."""
        times = [moment for curve in curves for moment, _ in curve.points] or [0.0]
        values = [value for curve in curves for _, value in curve.points if math.isfinite(value)] or [0.0]
        low, high = min(values), max(values)
        room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
        return cls(min(times), max(*times, min(times) + 1.0), low - room if low < 0 or low > room else 0.0, high + room)

    def moment(self, seconds: float) -> str:
        """A time on the axis, in UTC: to the second where all is within an hour."""
        form = "%Y-%m-%d %H:%M:%S" if self.right - self.left < 3_600 else "%Y-%m-%d %H:%M"  # noqa: PLR2004, an hour
        return time.strftime(form, time.gmtime(seconds))

    def at(self, point: tuple[float, float], size: tuple[int, int]) -> tuple[int, int]:
        """Where a point is on a raster of that size, from the top left."""
        across = (point[0] - self.left) / (self.right - self.left)
        up = (point[1] - self.low) / (self.high - self.low)
        return round(across * (size[0] - 1)), round((1 - up) * (size[1] - 1))


def in_terminal(curves: Sequence[Curve], title: str) -> str:
    """The curves as lines of text."""
    width = min(shutil.get_terminal_size().columns, 160) - 14
    frame, size = Frame.around(curves), (2 * width, 4 * ROWS)
    dots = [[0] * width for _ in range(ROWS)]
    for curve in curves:
        for start, end in _strokes(curve):
            for x, y in _line(frame.at(start, size), frame.at(end, size)):
                dots[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    lines = [printable(title)]
    for number, row in enumerate(dots):
        value = frame.high - (frame.high - frame.low) * number / (ROWS - 1)
        label = short(value) if number % 5 == 0 else ""
        lines.append(f"{label:>11} │" + "".join(chr(0x2800 + bits) for bits in row))
    first, last = frame.moment(frame.left), frame.moment(frame.right)
    lines.append(" " * 13 + first + last.rjust(max(0, width - len(first))))
    return "\n".join(lines + [f"{'':13}{printable(curve.name)}" for curve in curves])


def short(value: float) -> str:
    """A number with few digits and a letter for its size."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def _strokes(curve: Curve) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The lines between points that belong together; a point that stands alone is a line to itself."""
    points = [point for point in curve.points if math.isfinite(point[1])]
    if not points:
        return []
    joined = [(a, b) for a, b in pairwise(points) if b[0] - a[0] <= curve.gap_seconds]
    touched = {point for pair in joined for point in pair}
    return joined + [(point, point) for point in points if point not in touched]


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots of a straight line."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (start[0] + round((end[0] - start[0]) * n / steps), start[1] + round((end[1] - start[1]) * n / steps)) for n in range(steps + 1)
    ]
