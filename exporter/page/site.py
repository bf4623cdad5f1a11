"""The handlers of the page: parameters are those of the API, and so are the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.endpoints import BY_NAME
from virtflow.exporter.api.parameters import ParameterError, parse
from virtflow.exporter.api.replies import not_modified, packed, unchanged
from virtflow.exporter.api.updates import Updates
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.page.assets import assets
from virtflow.exporter.page.html import Html, el, join
from virtflow.exporter.page.layout import CONTENT_POLICY, document
from virtflow.exporter.page.lists import LISTINGS, Asked, listing
from virtflow.exporter.page.overview import FEW, Lists, overview
from virtflow.exporter.page.vm_page import Extra, vm_page
from virtflow.runtime.web.server import Handler

HTML_TYPE: Final = "text/html"
NAMES: Final = 500
"""Nodes that a filter's field offers."""


Extras = Callable[[Mapping[str, Any], Mapping[str, str]], Extra]


def no_extras(vm: Mapping[str, Any], query: Mapping[str, str]) -> Extra:
    """A VM's page without anything besides."""
    del vm, query
    return Extra()


class Site:
    """The page over one fleet."""

    def __init__(self, answers: Answers, updates: Updates, clocks: Clocks, extras: Extras = no_extras) -> None:
        """As the API's routes; ``extras`` is what a VM's page has besides, by the VM and the page's parameters."""
        self._answers = answers
        self._updates = updates
        self._clocks = clocks
        self._extras = extras

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        lists = {LISTINGS[name].path: self._listing(name) for name in LISTINGS}
        return {"/": self.overview, **lists, "/vms/{uuid}": self.vm}

    async def overview(self, request: web.Request) -> web.StreamResponse:
        """The first page."""
        await self._updates.fresh()
        wall, tell = self._clocks.wall(), self._answers

        def few(name: str, **given: str) -> list[dict[str, Any]]:
            values = {**parse(BY_NAME[name].parameters, given.items()), "limit": FEW}
            return list(plain(tell.named(name, values, wall))["items"])

        fleet = plain(tell.fleet(wall))
        lists = Lists(
            fleet,
            few("vms", flag="stuck"),
            few("vms", flag="conflict"),
            few("nodes", state="down"),
            few("nodes", state="hung"),
            few("migrations", result="running"),
            few("events"),
        )
        return self._page(request, "Overview", "/", overview(lists))

    async def vm(self, request: web.Request) -> web.StreamResponse:
        """A VM's page."""
        await self._updates.fresh()
        uuid = request.match_info["uuid"]
        found = self._answers.vm(uuid, self._clocks.wall())
        if found is None:
            return self._page(
                request, "No such VM", "/vms", problem("No such VM", f"No VM with the UUID {uuid[:80]} is exported now."), 404
            )
        values = {**parse(BY_NAME["events"].parameters, []), "vm": uuid, "limit": 20}
        events = plain(self._answers.events(values, self._clocks.wall()))["items"]
        vm = plain(found)
        return self._page(request, found.name or uuid, "/vms", vm_page(vm, events, self._extras(vm, request.query)))

    def _listing(self, name: str) -> Handler:
        page = LISTINGS[name]

        async def handle(request: web.Request) -> web.StreamResponse:
            await self._updates.fresh()
            wall, tell = self._clocks.wall(), self._answers
            query = {key: value for key, value in request.query.items() if value}
            try:
                given = [*request.query.items(), *page.fixed.items()]
                values = parse(BY_NAME[name].parameters, given)
                answer = tell.named(name, values, wall)
            except ParameterError as error:
                return self._page(request, "Bad request", page.path, problem("Bad request", str(error)), 400)
            projects = [one.project for one in tell.projects()] if name == "vms" else []
            nodes = [node.status.node for node in tell.view.fleet.nodes()[:NAMES]] if name != "nodes" else []
            asked = Asked(query, str(values.get("sort", "")), projects, nodes)
            return self._page(request, page.title, page.path, listing(name, plain(answer), asked))

        return handle

    def _page(self, request: web.Request, title: str, section: str, main: Html, status: int = 200) -> web.Response:
        return page_reply(request, self._answers, (title, section), main, status)


def page_reply(request: web.Request, fleet: Answers, place: tuple[str, str], main: Html, status: int = 200) -> web.Response:
    """A whole page; ``place`` is its title and the path of the section that it belongs to."""
    text = document(*place, main, missing=fleet.missing(), version=fleet.version)
    return secured(packed(request, text.encode("utf-8", "replace"), HTML_TYPE, status=status))


async def static(request: web.Request) -> web.StreamResponse:
    """A file of the page; asked again each time, and answered with 304 where nothing changed."""
    asset = assets().get(request.match_info["file"])
    if asset is None:
        raise web.HTTPNotFound
    if unchanged(request, asset.tag):
        return not_modified(asset.tag)
    return secured(packed(request, asset.body, asset.kind, tag=asset.tag))


def secured(reply: web.Response) -> web.Response:
    """With the headers that keep a page from loading or running anything else."""
    reply.headers["Content-Security-Policy"] = CONTENT_POLICY
    reply.headers["Referrer-Policy"] = "no-referrer"
    return reply


def plain(answer: object) -> Mapping[str, Any]:
    """An answer as JSON builtins, as the scripts get it."""
    found: Mapping[str, Any] = msgspec.to_builtins(answer)
    return found


def problem(title: str, text: str) -> Html:
    """The content of a page that says what is wrong."""
    return join(el("h1", title), el("p", text, class_="missing"))
