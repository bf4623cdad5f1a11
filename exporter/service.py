"""The exporter as a service, with the bus and without.

``run(settings, stop)`` reads the fleet from Kafka and serves it: that is ``virtflow exporter``. Without a bus, as ``virtflow node`` does::

    exporter = Exporter(settings)
    # in any thread, whenever there is something: VmMetrics, VmInventory, VmMigration, NodeStatus
    exporter.take(records)
    # in the main thread: serves until ``stop`` is set; raises EnvironmentProblemError where the port is taken
    exporter.serve(stop)

Neither this module nor ``fleet``, ``text`` and ``web`` import a Kafka client before ``run`` asks for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Protocol

from virtflow.exporter.api.questions import Questions
from virtflow.exporter.api.targets import checked_targets
from virtflow.exporter.clocks import SYSTEM, Clocks
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.frontend import Frontend
from virtflow.exporter.long_history.client import HistoryServer
from virtflow.exporter.migrations import MigrationText, Options
from virtflow.exporter.render.node import NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.selection import SERVICE, chosen
from virtflow.exporter.shard import shard_of
from virtflow.exporter.web import Pages
from virtflow.runtime.access.guard import Guard
from virtflow.runtime.lifecycle import Stop, in_loop, notify, stop_event, until_stopped, watchdog
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Settings
from virtflow.runtime.web.connections import Limits
from virtflow.runtime.web.server import Web
from virtflow.schemas.records import NodeStatus, VmInventory, VmMetrics, VmMigration

LOGGER: Final = logging.getLogger("virtflow.exporter")

Taken = VmMetrics | VmInventory | VmMigration | NodeStatus


class Source(Protocol):
    """What feeds the fleet while it is served."""

    topics: tuple[str, ...]

    def missing(self) -> str:
        """What keeps the fleet from being known, "" when nothing does."""
        ...

    async def run(self) -> None:
        """Feeds until it is cancelled."""
        ...


class Exporter:
    """One fleet and its pages."""

    def __init__(self, settings: Settings, clocks: Clocks = SYSTEM) -> None:
        """Raises ``SettingError`` for labels, groups or metrics that do not exist, and for a history server that can't be asked."""
        own = settings.exporter
        self._settings = own
        self._web_settings = settings.web
        self._clocks = clocks
        self._names = chosen(own.include, own.exclude)
        checked_targets(own.targets, shard_of(own.shard))
        if own.fleet_page and own.history_url:
            HistoryServer(own)
        self.metrics: Final = OwnMetrics(SERVICE)
        migrations = MigrationText(self._names, Options(own.always_export, own.absent_value, own.keep_last, own.label_value_bytes))
        self.fleet: Final = Fleet(
            VmText(self._names, own.vm_labels, own.label_value_bytes),
            NodeText(self._names, own.label_value_bytes),
            own.forget_node_seconds,
            migrations,
        )
        self._waiting: deque[Taken] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fed = False

    def take(self, records: Iterable[Taken]) -> None:
        """Hands records to the fleet; may be called from any thread, before and while it is served."""
        self._waiting.extend(records)
        loop = self._loop
        if loop is not None:
            in_loop(loop, self._drain)

    def serve(self, stop: Stop, source: Source | None = None, bound: Callable[[str], None] | None = None) -> None:
        """Serves until ``stop`` is set; raises ``EnvironmentProblemError`` where the address can't be had.

        ``bound`` is told the ``ADDRESS:PORT`` once it is served.
        """
        asyncio.run(self.serving(stop, source, bound))

    async def serving(self, stop: Stop, source: Source | None, bound: Callable[[str], None] | None) -> None:
        """``serve`` for whoever has an event loop."""
        stopped, missing = stop_event(stop), self._reason(source)
        pages = Pages(self.fleet, self._names, self.metrics, self._clocks, missing)
        frontend = Frontend(self.fleet, self._settings, self._clocks, missing) if self._settings.fleet_page else None
        routes = pages.routes(source.topics if source else (), fleet_page=frontend is not None) | (frontend.routes() if frontend else {})
        limits = Limits(self._settings.connections, self._settings.request_timeout_seconds)
        guard = Guard(self._web_settings, self.metrics)
        web = Web(self._settings.listen, routes, self.metrics, limits, guard)
        await web.start()
        LOGGER.info("serving %s/metrics", web.url)
        if bound is not None:
            bound(web.address)
        async with self._feeding(source, watchdog(), *([frontend.running()] if frontend else [])) as tasks:
            notify("READY=1")
            try:
                await until_stopped(stopped, tasks)
            finally:
                notify("STOPPING=1")
                if frontend is not None:
                    frontend.close()
                await web.stop()

    async def asked(self, stop: Stop, source: Source | None, ready: Callable[[Questions], None]) -> None:
        """Feeds the fleet without a web server until ``stop`` is set; ``ready`` is given what answers the API's questions."""
        stopped = stop_event(stop)
        frontend = Frontend(self.fleet, self._settings, self._clocks, self._reason(source))
        async with self._feeding(source, frontend.running()) as tasks:
            ready(frontend.questions)
            await until_stopped(stopped, tasks)

    @asynccontextmanager
    async def _feeding(self, source: Source | None, *work: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Takes records as long as it is entered, and does ``work`` beside; the tasks."""
        self._loop = asyncio.get_running_loop()
        self._drain()
        tasks = [asyncio.create_task(each) for each in (*work, *([source.run()] if source else []))]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._loop = None

    def _reason(self, source: Source | None) -> Callable[[], str]:
        """What says why the fleet is not known yet."""
        return source.missing if source is not None else self._missing

    def _missing(self) -> str:
        return "" if self._fed else "no sample has been taken yet"

    def _drain(self) -> None:
        """Takes what waits, in the event loop."""
        now = self._clocks.now()
        while self._waiting:
            record = self._waiting.popleft()
            self._fed = True
            if isinstance(record, VmMetrics):
                self.fleet.take_metrics(record, now)
            elif isinstance(record, VmInventory):
                self.fleet.take_inventory(record, now)
            elif isinstance(record, VmMigration):
                self.fleet.take_migration(record, now)
            else:
                self.fleet.take_node(record, now)


@contextmanager
def from_topics(settings: Settings, exporter: Exporter) -> Iterator[Source]:
    """What feeds an exporter's fleet from the topics.

    Raises ``SettingError`` for settings that can't be used, ``KafkaException`` for bad client settings.
    """
    from virtflow.exporter.consumer import TAKEN, Feed, Watched
    from virtflow.runtime.kafka.broker_watch import BrokerWatch
    from virtflow.runtime.registry.schema_ids import SchemaIds
    from virtflow.schemas.avro.codec import Codec

    ids = SchemaIds(settings)
    age = exporter.metrics.gauge("virtflow_exporter_broker_answer_age_seconds")
    with BrokerWatch(settings, TAKEN, age) as brokers:
        feed = Feed(settings, exporter.fleet, Codec(fetch=ids.fetch), exporter.metrics, SYSTEM)
        ids.connect()
        yield Watched(feed, brokers)


def run(settings: Settings, stop: Stop) -> None:
    """Reads the fleet from the topics and serves it until ``stop`` is set.

    Raises ``SettingError`` for settings that can't be used and ``EnvironmentProblemError`` where the address is taken.
    """
    exporter = Exporter(settings)
    with from_topics(settings, exporter) as source:
        exporter.serve(stop, source)
