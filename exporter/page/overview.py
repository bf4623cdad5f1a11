"""The first page: how many of what, what needs attention, who uses most, what happened last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from virtflow.exporter.page.columns import ATTENTION, EVENTS, MIGRATIONS_RUNNING, NODES_ATTENTION, TOPS
from virtflow.exporter.page.formats import shown
from virtflow.exporter.page.html import Html, el, join
from virtflow.exporter.page.layout import section
from virtflow.exporter.page.tables import Row, TableColumn, table

FEW: Final = 10
"""Rows of each list."""


class Lists(NamedTuple):
    """What the lists of the page show, as the API tells it."""

    fleet: Mapping[str, Any]
    stuck: Sequence[Row]
    conflicts: Sequence[Row]
    nodes_down: Sequence[Row]
    nodes_hung: Sequence[Row]
    migrations: Sequence[Row]
    events: Sequence[Row]


SOURCES: Final = {
    "stuck": f"vms?{urlencode({'flag': 'stuck', 'limit': FEW})}",
    "conflicts": f"vms?{urlencode({'flag': 'conflict', 'limit': FEW})}",
    "nodes_down": f"nodes?{urlencode({'state': 'down', 'limit': FEW})}",
    "nodes_hung": f"nodes?{urlencode({'state': 'hung', 'limit': FEW})}",
    "migrations": f"migrations?{urlencode({'result': 'running', 'limit': FEW})}",
    "events": f"events?{urlencode({'limit': FEW})}",
}
"""Where each list is in the API, below its prefix."""

TILES: Final = (
    ("vms", "VMs", "count", "/vms", ""),
    ("stuck", "stuck", "count", "/vms?flag=stuck", "alarm"),
    ("migrating", "migrating", "count", "/migrations?result=running", "busy"),
    ("conflicts", "conflicts", "count", "/vms?flag=conflict", "alarm"),
    ("nodes.known", "nodes", "count", "/nodes", ""),
    ("nodes.down", "nodes down", "count", "/nodes?state=down", "alarm"),
    ("nodes.hung", "nodes with hung calls", "count", "/nodes?state=hung", "alarm"),
)
SUMS: Final = (
    ("cpu_cores", "CPU cores in use", "cores"),
    ("vcpus", "virtual CPUs", "count"),
    ("memory_used_bytes", "memory in use", "size"),
    ("memory_bytes", "memory there is", "size"),
    ("disk_read_bytes_per_second", "disk read", "rate"),
    ("disk_write_bytes_per_second", "disk written", "rate"),
    ("network_receive_bytes_per_second", "received", "rate"),
    ("network_transmit_bytes_per_second", "sent", "rate"),
)


def overview(lists: Lists) -> Html:
    """The page's content."""
    listed = (
        ("Stuck VMs", "stuck", ATTENTION, lists.stuck),
        ("VMs in conflict", "conflicts", ATTENTION, lists.conflicts),
        ("Nodes that are down", "nodes_down", NODES_ATTENTION, lists.nodes_down),
        ("Nodes with hung calls", "nodes_hung", NODES_ATTENTION, lists.nodes_hung),
        ("Migrations under way", "migrations", MIGRATIONS_RUNNING, lists.migrations),
        ("Newest events", "events", EVENTS, lists.events),
    )
    return join(
        el("h1", "The fleet"), _numbers(lists.fleet), _tops(lists.fleet), el("div", *(_listed(*each) for each in listed), class_="columns")
    )


def _numbers(fleet: Mapping[str, Any]) -> Html:
    tiles = (
        el("a", _value(fleet, path, form), el("span", title), href=href, class_=f"tile {tone}".strip())
        for path, title, form, href, tone in TILES
    )
    sums = (el("div", el("dt", title), el("dd", _value(fleet, path, form))) for path, title, form in SUMS)
    return section(
        "In numbers",
        el("div", *tiles, class_="tiles"),
        el("dl", *sums, class_="sums"),
        el("div", table("VMs by state", (STATE, COUNT), states_of(fleet), "states"), class_="states"),
        source="fleet",
    )


STATE: Final = TableColumn("state", "State", "vmstate")
COUNT: Final = TableColumn("vms", "VMs", "count")


def states_of(fleet: Mapping[str, Any]) -> list[dict[str, Any]]:
    """VMs by state, as rows."""
    return [{"state": state, "vms": count} for state, count in fleet["states"].items()]


def _value(fleet: Mapping[str, Any], path: str, form: str) -> Html:
    value: Any = fleet
    for word in path.split("."):
        value = value[word]
    return el("b", shown(form, value), data_value=path, data_format=form, class_="zero" if value == 0 else None)


def _tops(fleet: Mapping[str, Any]) -> Html:
    name = TableColumn("name", "VM", "vm")
    lists = (
        el(
            "div",
            el("h3", el("a", title, href=f"/vms?sort=-{word}")),
            table(title, (name, TableColumn("value", title, form)), fleet["top"][word], f"top.{word}"),
        )
        for word, title, form in TOPS
    )
    return section("Who uses most", el("div", *lists, class_="tops"), source="fleet")


def _listed(title: str, name: str, columns: Sequence[TableColumn], rows: Sequence[Row]) -> Html:
    return section(title, table(title, columns, rows, "items"), source=SOURCES[name])
