"""The last hour as a small SVG: a line over the points that are known. ``static/sparkline.js`` draws the same."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Final

from virtflow.exporter.page.formats import shown
from virtflow.exporter.page.html import Html, el

WIDTH: Final = 240
HEIGHT: Final = 40
SMALL_WIDTH: Final = 80
SMALL_HEIGHT: Final = 20
_EDGE: Final = 2


def path(values: Sequence[float | None], width: int, height: int) -> str:
    """The path's ``d``: from 0 at the bottom to the largest value at the top, with gaps where nothing is known."""
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    step = (width - 2 * _EDGE) / max(len(values) - 1, 1)
    words: list[str] = []
    drawn = False
    for place, value in enumerate(values):
        if value is None:
            drawn = False
            continue
        x, y = _EDGE + place * step, height - _EDGE - value / top * (height - 2 * _EDGE)
        words.append(f"{'L' if drawn else 'M'}{_tenth(x)} {_tenth(y)}")
        if not drawn:
            words.append("h0.1")  # a point that stands alone is seen
        drawn = True
    return "".join(words)


def summary(values: Sequence[float | None], form: str) -> str:
    """What the picture shows, in words."""
    known = [value for value in values if value is not None]
    if not known:
        return "nothing known of the last hour"
    return f"now {shown(form, known[-1])}, at most {shown(form, max(known))} in the last hour"


def sparkline(values: Sequence[float | None], form: str, label: str, *, field: str = "", small: bool = False) -> Html:
    """The picture with its description. ``field`` is where the API's answer has the values, for the scripts."""
    width, height = (SMALL_WIDTH, SMALL_HEIGHT) if small else (WIDTH, HEIGHT)
    return el(
        "svg",
        el("path", d=path(values, width, height)),
        class_="spark small" if small else "spark",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=f"{label}: {summary(values, form)}",
        data_spark=field or None,
        data_format=form,
        data_label=label,
    )


def _tenth(value: float) -> str:
    return f"{floor(value * 10 + 0.5) / 10:g}"
