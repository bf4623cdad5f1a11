"""A VM's long history as charts: a line for each curve, drawn here, so that it needs no script; and all values as a table.

The values are with the charts: ``static/charts.js`` makes others of them, with axes, a cursor and zoom.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from virtflow.exporter.long_history.curves import CURVES, Curve
from virtflow.exporter.long_history.periods import DAY, SPANS, Period
from virtflow.exporter.long_history.source import Curves
from virtflow.exporter.page.formats import clock, duration, shown
from virtflow.exporter.page.html import Html, el, join
from virtflow.exporter.page.sparkline import path
from virtflow.exporter.page.tables import TableColumn, table

WIDTH: Final = 640
HEIGHT: Final = 120
TICKS: Final = 5
ID: Final = "long-history"
COLUMNS: Final = (TableColumn("time", "Time (UTC)", "clock"), *(TableColumn(each.name, each.title, each.format) for each in CURVES))
NAMES: Final = tuple(curve.name for curve in CURVES)
NOTHING: Final = "The history knows nothing of this VM."


class Mark(NamedTuple):
    """A moment that the charts mark, in Unix seconds, and what happened."""

    at: float
    what: str


def history_address(uuid: str, span: str) -> str:
    """The page of its own with the charts."""
    return f"/vms/{quote(uuid, safe='')}/history?{urlencode({'range': span})}"


def part(uuid: str, chosen: str, *content: Html) -> Html:
    """The part of a page that has the ranges to choose from, and ``content`` below."""
    links = (
        el("a", span.title, href=history_address(uuid, span.name), class_="button", aria_current="true" if span.name == chosen else None)
        for span in SPANS
    )
    return el("section", el("h2", "History"), el("nav", *links, class_="ranges", aria_label="Range of the history"), *content, id=ID)


def waiting(uuid: str, chosen: str) -> Html:
    """The part before it is filled: the history is only asked once somebody has chosen a range. Scripts fill it in."""
    if not chosen:
        return part(uuid, "", el("p", "Choose how far back.", class_="nothing"))
    link = el("a", "Show the charts", href=history_address(uuid, chosen), data_load=True)
    return part(uuid, chosen, el("p", link, class_="nothing"))


def failed(why: str) -> Html:
    """One line about why there are no charts."""
    return el("p", why, class_="missing")


def charts(found: Curves, marks: Sequence[Mark]) -> Html:
    """A chart for each curve, what is marked in them, and the values."""
    period = found.period
    if not any(value is not None for values in found.values.values() for value in values):
        return el("p", NOTHING, class_="nothing")
    inside = [mark for mark in marks if period.start <= mark.at <= period.end]
    figures = (_chart(curve, found.values[curve.name], period, inside) for curve in CURVES)
    return join(
        el("p", f"Each value is the mean of the {duration(period.step)} before it. Times are UTC.", class_="counted"),
        el("div", *figures, class_="history-charts", data_start=period.start, data_step=period.step, data_marks=json.dumps(inside)),
        el("ul", *(el("li", f"{clock(mark.at)}: ", el("bdi", mark.what)) for mark in inside), class_="marks") if inside else None,
        el("details", el("summary", "All values"), table("Values of the history", COLUMNS, rows_of(found), "history")),
    )


def rows_of(found: Curves) -> list[Mapping[str, Any]]:
    """A row for each time at which anything is known."""
    names, columns = list(found.values), list(found.values.values())
    rows = ({"time": at, **dict(zip(names, values, strict=True))} for at, *values in zip(found.period.times, *columns, strict=True))
    return [row for row in rows if any(row[name] is not None for name in names)]


def summary(curve: Curve, values: Sequence[float | None]) -> str:
    """What a chart shows, in words."""
    known = [value for value in values if value is not None]
    if not known:
        return "nothing known"
    mean = sum(known) / len(known)
    return f"{shown(curve.format, mean)} on average, {shown(curve.format, max(known))} at most"


def _chart(curve: Curve, values: Sequence[float | None], period: Period, marks: Sequence[Mark]) -> Html:
    words = summary(curve, values)
    picture = el(
        "svg",
        *(el("line", x1=0, x2=WIDTH, y1=y, y2=y, class_="grid") for y in (2, HEIGHT // 2, HEIGHT - 2)),
        *(_line(mark, period) for mark in marks),
        el("path", d=path(values, WIDTH, HEIGHT)),
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{curve.title}: {words}",
        data_label=curve.title,
        data_format=curve.format,
        data_values=for_scripts(values),
    )
    top = max((value for value in values if value is not None), default=None)
    scale = el("div", el("span", shown(curve.format, top)), el("span", "0"), class_="scale", aria_hidden="true")
    times = el("div", *(el("span", text) for text in ticks(period)), class_="ticks", aria_hidden="true")
    return el("figure", el("figcaption", curve.title, " ", el("b", words)), el("div", scale, picture, class_="plot"), times)


def for_scripts(values: Sequence[float | None]) -> str:
    """The values as JSON, with more digits than are ever shown."""
    return f"[{','.join('null' if value is None else f'{value:.7g}' for value in values)}]"


def _line(mark: Mark, period: Period) -> Html:
    x = round((mark.at - period.start) / max(period.end - period.start, 1) * WIDTH, 1)
    return el("line", el("title", mark.what), x1=x, x2=x, y1=0, y2=HEIGHT, class_="mark")


def ticks(period: Period) -> list[str]:
    """The times along a chart, evenly spaced: of a day the hours, else the days."""
    length = period.end - period.start
    part_of = slice(11, 16) if length <= DAY else slice(10)
    return [clock(period.start + length * number / (TICKS - 1))[part_of] for number in range(TICKS)]
