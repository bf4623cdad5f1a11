"""Tables whose columns are declared once: the head carries field and format of each, so that the scripts fill in new rows alike.

A row is what the API tells, as JSON builtins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from virtflow.exporter.page.formats import ABSENT, shown
from virtflow.exporter.page.html import Html, el, join
from virtflow.exporter.page.sparkline import sparkline

Row = Mapping[str, Any]


class TableColumn(NamedTuple):
    """A column: the field of a row, its title, its format, the API's word to sort by it ("" for none), and whether narrow screens leave it out."""

    field: str
    title: str
    format: str = "text"
    sort: str = ""
    wide: bool = False
    form: str = ""
    """The format of a sparkline's values."""


NUMBERS: Final = frozenset({"size", "rate", "per_second", "percent", "cores", "latency", "duration", "count", "bar"})
"""Formats that are aligned to the right."""
BAR_WIDTH: Final = 48
KEYS: Final = ("uuid", "node", "id", "device", "vcpu", "mountpoint", "address", "state", "why")
"""Fields that tell a row from another one; the first that a row has counts, an event's id before its VM."""


def key_of(row: Row) -> str:
    """What tells a row from the others."""
    if "kind" in row and "id" in row and "time" in row:
        return str(row["id"])
    return str(next((row[key] for key in KEYS if key in row), ""))


def class_of(row: Row) -> str:
    """What is special about a row."""
    words = list(row.get("flags", ()))
    if row.get("up") is False:
        words.append("down")
    if row.get("hung_calls"):
        words.append("hung")
    if row.get("result") in {"failed", "cancelled", "incomplete"}:
        words.append("failed")
    return " ".join(words)


def cell(column: TableColumn, row: Row) -> Html:  # noqa: PLR0911, C901, one for each format
    """The content of a cell."""
    value = row.get(column.field)
    match column.format:
        case "vm":
            return join(vm_link(row), *(el("span", flag.replace("_", " "), class_=f"flag {flag}") for flag in row.get("flags", ())))
        case "node" if value:
            return el("a", el("bdi", str(value)), href=node_address(str(value)))
        case "project" if value:
            return el("a", el("bdi", str(value)), href=f"/vms?{urlencode({'project': value})}")
        case "runbook":
            return runbook(str(value), column.form)
        case "state":
            return el("span", shown("word", value), class_=f"state {value}")
        case "vmstate":
            return el("a", shown("word", value), href=f"/vms?{urlencode({'state': value})}")
        case "bar":
            return bar(value)
        case "spark":
            return sparkline(value or [], column.form, column.title, small=True)
        case "clock" if value is not None:
            return el("time", shown("clock", value))
        case "text" if value:
            return el("bdi", str(value))
    return join(shown(column.format, value))


def node_address(node: str) -> str:
    """The address of a node's page."""
    return f"/nodes/{quote(node, safe='')}"


def vm_link(row: Row) -> Html:
    """A link to the VM's page; of a node's event to the node's."""
    if not row.get("uuid"):
        node = str(row.get("node") or "")
        return el("a", el("bdi", node or ABSENT), href=node_address(node) if node else "/nodes")
    return el(
        "a", el("bdi", str(row.get("name") or row["uuid"])), href=f"/vms/{quote(str(row['uuid']), safe='')}", title=row.get("title") or None
    )


def runbook(alert: str, docs: str) -> Html:
    """The name of an alert, which leads to its runbook where ``docs`` says where those are."""
    if not alert or not docs:
        return join(shown("text", alert))
    return el("a", alert, href=f"{docs}/runbooks/{quote(alert, safe='')}.md", rel="noreferrer noopener")


def bar(value: float | None) -> Html:
    """A ratio as text and as a bar."""
    filled = round(min(value or 0.0, 1.0) * BAR_WIDTH)
    picture = el(
        "svg",
        el("rect", class_="whole", width=BAR_WIDTH, height=6),
        el("rect", class_="part", width=filled, height=6),
        class_="bar",
        viewBox=f"0 0 {BAR_WIDTH} 6",
        width=BAR_WIDTH,
        height=6,
        aria_hidden="true",
    )
    return join(el("span", shown("percent", value)), picture)


def table(caption: str, columns: Sequence[TableColumn], rows: Sequence[Row], path: str, sorting: Sorting | None = None) -> Html:
    """The table in a region that scrolls. ``path`` is where the API's answer has the rows; below it stands what says that there are none."""
    heads = join(*(_head(column, sorting) for column in columns))
    lines = join(*(_line(columns, row) for row in rows))
    body = el("table", el("caption", caption), el("thead", el("tr", heads)), el("tbody", lines), data_rows=path)
    scrolls = el("div", body, class_="scrolls", role="region", aria_label=caption, tabindex=0, hidden=not rows)
    return el("div", scrolls, el("p", "None.", class_="nothing", hidden=bool(rows)), class_="listing")


class Sorting(NamedTuple):
    """How a table is sorted now, and the address of the same page with another order."""

    word: str
    path: str
    query: Mapping[str, str]

    def link(self, sort: str) -> str:
        """The address that sorts by ``sort``; pages begin again."""
        return f"{self.path}?{urlencode({**{k: v for k, v in self.query.items() if k != 'after'}, 'sort': sort})}"


def _head(column: TableColumn, sorting: Sorting | None) -> Html:
    title: Html | str = column.title
    order = None
    if sorting is not None and column.sort:
        order = {column.sort: "ascending", f"-{column.sort}": "descending"}.get(sorting.word)
        first = column.sort if column.format not in NUMBERS else f"-{column.sort}"
        flipped = {"ascending": f"-{column.sort}", "descending": column.sort}
        title = el("a", column.title, href=sorting.link(flipped.get(order or "", first)), data_sort=column.sort)
    return el(
        "th",
        title,
        scope="col",
        class_=_classes(column) or None,
        aria_sort=order,
        data_field=column.field,
        data_format=column.format,
        data_form=column.form or None,
        data_title=column.title,
    )


def _line(columns: Sequence[TableColumn], row: Row) -> Html:
    cells = join(*(el("td", cell(column, row), class_=_classes(column) or None) for column in columns))
    return el("tr", cells, data_key=key_of(row), class_=class_of(row) or None)


def _classes(column: TableColumn) -> str:
    return " ".join(word for word, holds in (("number", column.format in NUMBERS), ("wide", column.wide)) if holds)
