"""The adapter as a service: ``run(settings, stop)`` reads topics and Kubernetes objects, and serves the metrics APIs until ``stop`` is set.

It never stands in the cluster's way: the APIs' discovery is served from the first moment on and until the end, whatever else is away.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol

from virtflow.adapter.answers import Answers, Rules
from virtflow.adapter.guard import ApiGuard
from virtflow.adapter.kubernetes.access import Access
from virtflow.adapter.kubernetes.client import KubernetesClient, KubernetesError
from virtflow.adapter.kubernetes.front_proxy import PATH, FrontProxyError, front_proxy_of
from virtflow.adapter.kubernetes.watch import WATCHED, Watch
from virtflow.adapter.kubernetes.watch import Watched as WatchedResource
from virtflow.adapter.objects import Objects
from virtflow.adapter.prometheus.source import PrometheusSource
from virtflow.adapter.requests import CUSTOM, EXTERNAL
from virtflow.adapter.samples.fleet import RecentFleet
from virtflow.adapter.tls import Certificates
from virtflow.adapter.web import Api
from virtflow.exporter.clocks import SYSTEM, Clocks
from virtflow.runtime.access.guard import Guard
from virtflow.runtime.lifecycle import Stop, notify, stop_event, until_stopped, watchdog
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Settings
from virtflow.runtime.web.connections import Limits
from virtflow.runtime.web.server import Web, own_routes

LOGGER: Final = logging.getLogger("virtflow.adapter")

SERVICE: Final = "adapter"
READ_BACK_LEAST: Final = 120.0
"""Seconds of samples that are read back at start at least."""
START_SECONDS: Final = 60.0
"""So long a new adapter waits for values before it is ready without them: a cluster needs its discovery more than its values."""
TRUST_SECONDS, UNTRUSTED_SECONDS = 60.0, 1.0
"""How often the front proxy's authority is read, once it is known and until then."""
FILES_SECONDS: Final = 5.0
"""How often the certificate's files are looked at."""
IDLE_SECONDS: Final = 120.0
"""Longer than the API server keeps an idle connection (90 s), so that it is the one to close it."""
MEASURE_SECONDS: Final = 5.0


class Source(Protocol):
    """What feeds the fleet."""

    def missing(self) -> str:
        """Why the fleet is not known, "" once it is."""
        ...

    async def run(self) -> None:
        """Feeds until it is cancelled."""
        ...


class Adapter:
    """One adapter: its fleet, its objects, and its pages."""

    def __init__(self, settings: Settings, clocks: Clocks = SYSTEM) -> None:
        """Raises ``EnvironmentProblemError`` where the certificate or the way to the API server is missing."""
        own = settings.adapter
        self._settings = own
        self._web = settings.web
        self._clocks = clocks
        self._started = clocks.now()
        self._complete = False
        self.metrics: Final = OwnMetrics(SERVICE)
        self.fleet: Final = RecentFleet(own.window_seconds, own.namespace_field)
        self._objects = Objects()
        self._certificates = Certificates(own)
        self._client = KubernetesClient(own)
        self._watches = [self._watch(watched) for watched in WATCHED]
        self._source: Source | None = None
        groups = (CUSTOM, EXTERNAL) if own.external else (CUSTOM,)
        self._rules = Rules(own.window_seconds, own.complete_share)
        answers = Answers(self.fleet, self._objects, self._rules)
        self._count: Callable[[], int] = lambda: len(self.fleet.vms())
        self._api = Api(answers, Access(self._client, clocks.now), groups, self.metrics, clocks, self.values_missing)
        self._trusted = asyncio.Event()

    def _watch(self, watched: WatchedResource) -> Watch:
        lists = self.metrics.counter("virtflow_adapter_lists_total").labels(resource=watched.resource.value)
        return Watch(self._client, watched, self._objects, lists.inc)

    def from_prometheus(self) -> Source:
        """A source that asks Prometheus for what a query needs, in place of one that feeds the fleet."""
        source = PrometheusSource(self._settings, self._objects, self._rules, self._clocks)
        self._api.prepare, self._count = source.answers, source.vms
        return source

    def values_missing(self) -> str:
        """Why no values are known yet: the topics are being read back, or objects were never listed; "" once they were."""
        if not self._complete:
            source = self._source.missing() if self._source is not None else "no source"
            unlisted = next((watch.problem for watch in self._watches if not watch.listed), "")
            if missing := source or unlisted:
                return missing
            self._complete = True
        return ""

    def not_ready(self) -> str:
        """Why the cluster should not send requests: the end is near, nobody is trusted, or a new adapter has no values yet."""
        if self._api.draining:
            return "stopping"
        if self._api.proxy is None:
            return "the front proxy's certificate authority is not known"
        missing = self.values_missing()
        return missing if self._clocks.now() - self._started < START_SECONDS else ""

    async def serving(self, stop: Stop, source: Source) -> None:
        """Serves until ``stop`` is set; raises ``EnvironmentProblemError`` where an address can't be had."""
        own, self._source = self._settings, source
        stopped = stop_event(stop)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._client)
            limits = Limits(own.connections, idle_seconds=IDLE_SECONDS)
            api = Web(own.api_listen, self._api.routes(), self.metrics, limits, ApiGuard(self._certificates))
            # The door's own figures are those of the APIs.
            pages = Web(own.listen, own_routes(self.metrics, self.not_ready), OwnMetrics(SERVICE), guard=Guard(self._web, self.metrics))
            for web in (api, pages):
                await web.start()
                stack.push_async_callback(web.stop)
            LOGGER.info("serving the metrics APIs at %s, its own pages at %s", api.url, pages.url)
            notify("READY=1")
            works = [source.run(), self._trust(), self._renew(), self._measure(), watchdog(), *(watch.run() for watch in self._watches)]
            await _working(stopped, works, self._drain)

    async def _drain(self) -> None:
        """Answers for a while longer, and asks clients to leave."""
        notify("STOPPING=1")
        self._api.draining = True
        await asyncio.sleep(self._settings.drain_seconds)

    async def _trust(self) -> None:
        """Reads again and again who the front proxy is; what was known stays while the API server is away."""
        while True:
            try:
                self._api.proxy = front_proxy_of(await self._client.get(PATH))
                self._trusted.set()
            except (KubernetesError, FrontProxyError, OSError) as error:
                LOGGER.warning("who the front proxy is can't be read: %s; trying again", error)
            await asyncio.sleep(UNTRUSTED_SECONDS if self._api.proxy is None else TRUST_SECONDS)

    async def _renew(self) -> None:
        """Serves by another certificate or authority when they change."""
        await self._trusted.wait()
        while True:
            try:
                authority = self._api.proxy.authority if self._api.proxy is not None else ""
                if self._certificates.renewed(authority):
                    LOGGER.info("the certificate, or the front proxy's authority, was read anew")
            except (OSError, ssl.SSLError) as error:
                LOGGER.warning("the certificate can't be read: %s; the one before is shown", error)
            await asyncio.sleep(FILES_SECONDS)

    async def _measure(self) -> None:
        """Sets the gauges."""
        gauge = self.metrics.gauge
        while True:
            self.fleet.expire(self._clocks.now())
            gauge("virtflow_adapter_vms").set(self._count())
            gauge("virtflow_adapter_trusted").set(self._api.proxy is not None)
            for watched, watch in zip(WATCHED, self._watches, strict=True):
                gauge("virtflow_adapter_objects").labels(resource=watched.resource.value).set(self._objects.count(watched.resource))
                gauge("virtflow_adapter_watched").labels(resource=watched.resource.value).set(not watch.problem)
            await asyncio.sleep(MEASURE_SECONDS)


def run(settings: Settings, stop: Stop) -> None:
    """Reads and serves until ``stop`` is set.

    Raises ``SettingError`` for settings that can't be used and ``EnvironmentProblemError`` where something that it needs is not there.
    """
    from virtflow.exporter.columns.intake import Reading
    from virtflow.exporter.consumer import TAKEN, Feed, Watched
    from virtflow.runtime.kafka.acls import ADAPTER_GROUP
    from virtflow.runtime.kafka.broker_watch import BrokerWatch
    from virtflow.runtime.registry.schema_ids import SchemaIds
    from virtflow.schemas.avro.codec import Codec

    adapter = Adapter(settings)
    if settings.adapter.prometheus_url:
        asyncio.run(adapter.serving(stop, adapter.from_prometheus()))
        return
    ids = SchemaIds(settings)
    age = adapter.metrics.gauge("virtflow_adapter_broker_answer_age_seconds")
    reading = Reading(SERVICE, ADAPTER_GROUP, max(READ_BACK_LEAST, 2 * settings.adapter.window_seconds))
    with BrokerWatch(settings, TAKEN, age) as brokers:
        feed = Feed(settings, adapter.fleet, Codec(fetch=ids.fetch), adapter.metrics, SYSTEM, reading=reading)
        ids.connect()
        asyncio.run(adapter.serving(stop, Watched(feed, brokers)))


async def _working(stopped: asyncio.Event, works: list[Coroutine[Any, Any, None]], drain: Any) -> None:  # noqa: ANN401, an async function
    """Works until the stop, and drains then while the works go on; the exception of one that has failed is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await until_stopped(stopped, tasks)
        await drain()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
