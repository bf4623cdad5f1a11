"""A node's page: what it tells of itself, what is wrong there and what to do about it, its VMs, its migrations and its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from aiohttp import web

from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.endpoints import BY_NAME
from virtflow.exporter.api.parameters import parse
from virtflow.exporter.api.updates import Updates
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.details.links import Links
from virtflow.exporter.page import columns
from virtflow.exporter.page.html import Html, el, join
from virtflow.exporter.page.layout import section
from virtflow.exporter.page.site import page_reply, plain, problem
from virtflow.exporter.page.tables import Row, TableColumn, table
from virtflow.exporter.page.vm_page import facts
from virtflow.runtime.web.server import Handler

PATH: Final = "/nodes/{node}"
FEW: Final = 20
VMS: Final = {"sort": "-cpu", "history": "cpu_cores", "limit": "100"}
FACTS: Final = (
    ("up", "Up", "yes"),
    ("reason", "Why not", "text"),
    ("vms", "VMs", "count"),
    ("running", "Running", "count"),
    ("stuck", "Stuck", "count"),
    ("cpu_cores", "CPU cores in use", "cores"),
    ("vcpus", "Virtual CPUs", "count"),
    ("memory_used_bytes", "Memory in use", "size"),
    ("hung_calls", "Hung calls", "count"),
    ("hung_calls_limit", "At most", "count"),
    ("vms_skipped", "VMs not asked", "count"),
    ("rounds_late", "Late rounds", "count"),
    ("interval_seconds", "Sampled every", "duration"),
    ("sample_age_seconds", "Age of its status", "duration"),
    ("version", "virtflow", "text"),
    ("libvirt_version", "libvirt", "text"),
    ("hypervisor_version", "QEMU", "text"),
)


class Parts(NamedTuple):
    """What the page shows, as the API tells it."""

    node: Mapping[str, Any]
    vms: Sequence[Row]
    migrations: Sequence[Row]
    events: Sequence[Row]


def findings_columns(docs: str) -> tuple[TableColumn, ...]:
    """The columns of what is wrong; ``docs`` is where the runbooks are."""
    return (
        TableColumn("thing", "What"),
        TableColumn("why", "Why"),
        TableColumn("fix", "What to do"),
        TableColumn("alert", "Runbook", "runbook", form=docs),
    )


def sources(node: str) -> dict[str, str]:
    """Where each part of the page is in the API, below its prefix."""
    return {
        "node": f"nodes/{quote(node, safe='')}",
        "vms": f"vms?{urlencode({'node': node, **VMS})}",
        "migrations": f"migrations?{urlencode({'node': node, 'limit': FEW})}",
        "events": f"events?{urlencode({'node': node, 'limit': FEW})}",
    }


def node_page(parts: Parts, links: Links) -> Html:
    """The page's content."""
    name = parts.node["node"]
    source = sources(name)
    more = el("p", el("a", "All its VMs, with search and order", href=f"/vms?{urlencode({'node': name})}"))
    return join(
        el("h1", el("bdi", name)),
        links.of_node(name),
        section("Now", facts(parts.node, FACTS), source=source["node"]),
        section(
            "What is wrong",
            table("What is wrong", findings_columns(links.docs), parts.node["findings"], "findings"),
            el(
                "p", "From what the node reports of itself. ", el("code", "virtflow doctor"), " on the node looks closer.", class_="counted"
            ),
            source=source["node"],
        ),
        section("Its VMs, by cores", table("Its VMs, by cores", columns.VMS, parts.vms, "items"), more, source=source["vms"]),
        section("Migrations", table("Migrations", columns.MIGRATIONS, parts.migrations, "items"), source=source["migrations"]),
        section("Events", table("Events", columns.EVENTS, parts.events, "items"), source=source["events"]),
    )


class NodePage:
    """The handler of the page."""

    def __init__(self, answers: Answers, updates: Updates, clocks: Clocks, links: Links) -> None:
        """As the site, and where links lead."""
        self._answers = answers
        self._updates = updates
        self._clocks = clocks
        self._links = links

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        return {PATH: self.page}

    async def page(self, request: web.Request) -> web.StreamResponse:
        """A node's page."""
        await self._updates.fresh()
        wall, tell, name = self._clocks.wall(), self._answers, request.match_info["node"]
        found = tell.node(name, wall)
        if found is None:
            text = f"No node named {name[:80]} is known now."
            return page_reply(request, tell, ("No such node", "/nodes"), problem("No such node", text), 404)

        def few(endpoint: str, **given: str) -> list[Row]:
            values = {**parse(BY_NAME[endpoint].parameters, given.items()), "node": name}
            return list(plain(tell.named(endpoint, values, wall))["items"])

        parts = Parts(plain(found), few("vms", **VMS), few("migrations", limit=str(FEW)), few("events", limit=str(FEW)))
        return page_reply(request, tell, (name, "/nodes"), node_page(parts, self._links))
