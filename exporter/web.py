"""The exporter's own pages: ``/metrics`` for Prometheus, ``/about`` for people, ``/readyz`` for whoever starts it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from aiohttp import web

from virtflow.exporter.clocks import Clocks
from virtflow.exporter.exposition import Counts, exposition
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.page.landing import Status, TopicLag, page
from virtflow.exporter.page.site import secured, static
from virtflow.exporter.scrape_cache import Answer, Renderings, accepts_gzip
from virtflow.exporter.selection import GROUPS, UnknownNameError, collected
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.version import version
from virtflow.runtime.web.server import EXPOSITION_TYPE, Handler, readiness, text

COLLECT: Final = "collect[]"


class Pages:
    """The routes over one fleet. ``missing`` returns why the fleet is not known yet, "" when it is."""

    def __init__(self, fleet: Fleet, names: frozenset[str], metrics: OwnMetrics, clocks: Clocks, missing: Callable[[], str]) -> None:
        """``names`` are the metrics that are exported."""
        self._fleet = fleet
        self._names = names
        self._metrics = metrics
        self._clocks = clocks
        self._missing = missing
        self._topics: tuple[str, ...] = ()
        self._fleet_page = False
        self._counts: Counts = {}
        self._started = clocks.now()
        self._renderings = Renderings(self._text)
        self._scrapes = metrics.counter("virtflow_exporter_scrapes_total")
        self._seconds = metrics.counter("virtflow_exporter_scrape_seconds_total")

    def routes(self, topics: tuple[str, ...] = (), *, fleet_page: bool = False) -> dict[str, Handler]:
        """Paths and their handlers; ``topics`` are those whose lag the page shows, and ``fleet_page`` says that another one is at ``/``."""
        self._topics = topics
        self._fleet_page = fleet_page
        home = {} if fleet_page else {"/": self.landing}
        return {**home, "/about": self.landing, "/metrics": self.scrape, "/readyz": readiness(self._missing), "/static/{file:.+}": static}

    async def scrape(self, request: web.Request) -> web.StreamResponse:
        """The exposition, or 400 with the groups for an unknown name in ``collect[]``."""
        try:
            words = request.query.getall(COLLECT, [])
            names = self._names & collected(words) if words else self._names
        except UnknownNameError as error:
            return text(str(error), status=400)
        gzip = accepts_gzip(request.headers.get("Accept-Encoding", ""))
        answer = await self._renderings.answer(names, gzip=gzip)
        try:
            return await _send(request, answer, gzip=gzip)
        finally:
            self._renderings.release(answer)
            self._scrapes.inc()

    async def landing(self, request: web.Request) -> web.Response:
        """The page about this exporter."""
        del request
        self._fleet.expire(self._clocks.now())
        nodes = self._fleet.nodes()
        lags = [
            TopicLag(
                topic,
                self._metrics.value("virtflow_exporter_lag_seconds", topic),
                int(self._metrics.value("virtflow_exporter_lag_messages", topic)),
            )
            for topic in self._topics
        ]
        status = Status(
            version=version(),
            missing=self._missing(),
            vms=len(self._fleet.vms()),
            nodes=len(nodes),
            down=sum(node.silent or node.status.health.up == 0 for node in nodes),
            series=sum(self._counts.values()),
            scrapes=int(self._metrics.value("virtflow_exporter_scrapes_total")),
            uptime_seconds=self._clocks.now() - self._started,
            groups=[group for group, names in GROUPS.items() if names & self._names],
            lags=lags,
            fleet_page=self._fleet_page,
        )
        return secured(web.Response(text=page(status), content_type="text/html"))

    def _text(self, names: frozenset[str]) -> Iterator[str]:
        """The fleet's text, then the exporter's own metrics; time between two steps, when other tasks run, is not counted."""
        begun = time.perf_counter()
        for _ in self._fleet.rendering():
            self._seconds.inc(time.perf_counter() - begun)
            yield ""
            begun = time.perf_counter()
        self._fleet.expire(self._clocks.now())
        for chunk in exposition(self._fleet, names, self._clocks.wall(), self._counts):
            self._seconds.inc(time.perf_counter() - begun)
            yield chunk
            begun = time.perf_counter()
        self._metrics.gauge("virtflow_exporter_vms").set(len(self._fleet.vms()))
        self._metrics.gauge("virtflow_exporter_nodes").set(len(self._fleet.nodes()))
        self._metrics.gauge("virtflow_exporter_series").set(sum(self._counts.values()))
        own = self._metrics.render(names).decode()
        self._seconds.inc(time.perf_counter() - begun)
        yield own


async def _send(request: web.Request, answer: Answer, *, gzip: bool) -> web.StreamResponse:
    """Sends the answer as fast as the client reads; aborts the connection when the answer is dropped meanwhile."""
    response = web.StreamResponse(headers={"Content-Type": EXPOSITION_TYPE, "Vary": "Accept-Encoding"})
    if gzip:
        response.headers["Content-Encoding"] = "gzip"
    response.content_length = answer.size
    await response.prepare(request)
    if request.method != "HEAD":
        for chunk in answer:
            await response.write(chunk)
    if answer.dropped and request.transport is not None:
        request.transport.abort()
    return response
