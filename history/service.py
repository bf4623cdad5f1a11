"""The history's writer as a service: waits for broker, topics and storage, writes until told to stop, keeps the tables in order."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from confluent_kafka import KafkaException

from virtflow.history.maintenance.scheduler import Upkeep
from virtflow.history.storage.delta import Store
from virtflow.history.storage.errors import NewerTableError, StorageError
from virtflow.history.storage.table_schemas import WRITTEN
from virtflow.history.writer.consumer import Consume
from virtflow.history.writer.offsets import Names
from virtflow.history.writer.source import CLIENTS, Makers, source_of
from virtflow.history.writer.validation import Intake
from virtflow.runtime.access.guard import Guard
from virtflow.runtime.kafka.broker_watch import BrokerWatch
from virtflow.runtime.kafka.topic_admin import TopicAdmin
from virtflow.runtime.lifecycle import Stop, end_when_late, notify, watchdog
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.registry.schema_ids import SchemaIds
from virtflow.runtime.settings import Settings
from virtflow.runtime.web.server import Web, own_routes
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import EnvironmentProblemError, InputError, SettingError

RETRY_SECONDS: Final = 2.0
_LOG: Final = logging.getLogger("virtflow.history")


def run(settings: Settings, stop: Stop) -> None:
    """Writes until ``stop`` is set; raises ``InputError`` where it can't go on, with nothing half stored.

    The process ends soon after ``stop`` is set, also where the storage does not answer: what was not committed is read again.
    """
    end_when_late(stop)
    try:
        asyncio.run(Service(settings, stop).run())
    finally:
        stop.set()  # the interpreter waits for every thread: the timer ends one that never returns


class Service:
    """One run of the writer: its pages in the event loop, its work in a thread."""

    def __init__(self, settings: Settings, stop: Stop, make: Makers = CLIENTS) -> None:
        """Raises ``SettingError`` where the storage's settings are no good; nothing is connected before ``run``."""
        self._settings = settings
        self._make = make
        self._stop = stop
        self._store = Store(settings.history)
        self._metrics = OwnMetrics("history")
        self._missing = "the broker has not answered yet"
        topics = [table.topic for table in WRITTEN if table.topic is not None]
        age = self._metrics.gauge("virtflow_history_broker_answer_age_seconds")
        self._brokers = BrokerWatch(settings, topics, age, make.admin)
        self._consume: Consume | None = None
        # Asked for at each scrape: a commit that hangs holds up the thread that sets the other figures.
        self._metrics.gauge("virtflow_history_ready").set_function(lambda: float(not self._not_ready()))

    async def run(self) -> None:
        """Serves its own pages from the start, so that waiting can be seen."""
        guard = Guard(self._settings.web, self._metrics)
        web = Web(self._settings.history.listen, own_routes(self._metrics, self._not_ready), self._metrics, guard=guard)
        await web.start()
        _LOG.info("own metrics at %s/metrics", web.url)
        watching = asyncio.create_task(watchdog())
        self._brokers.start()
        try:
            await asyncio.to_thread(self._work)
        finally:
            watching.cancel()
            self._brokers.stop()
            notify("STOPPING=1")
            await web.stop()

    def _not_ready(self) -> str:
        return self._missing or (self._consume.failing if self._consume else "") or self._brokers.problem

    def _work(self) -> None:
        """Waits until everything is there; then writes."""
        ids = SchemaIds(self._settings)
        ids.connect()
        codec = Codec(fetch=ids.fetch)
        if (consume := self._built(codec)) is not None:
            self._write(consume, codec)

    def _write(self, consume: Consume, codec: Codec) -> None:
        upkeep = Upkeep(self._settings, self._metrics)
        upkeep.start(lambda: self._consume is not None and self._consume.leads)
        self._stop.subscribe(upkeep.end)
        self._missing = ""
        self._consume = consume
        notify("READY=1")
        _LOG.info("writing %s into %s", self._settings.kafka.bootstrap_servers, self._store)
        try:
            while consume.run(self._stop.is_set):
                _LOG.warning("%s: a new client goes on", consume.left)
                if (another := self._built(codec)) is None:
                    break
                self._missing, self._consume = "", another
                consume = another
        finally:
            upkeep.stop()
        _LOG.info("stopped: %s", consume.left)

    def _built(self, codec: Codec) -> Consume | None:
        """The consumer with its tables open; None when it was time to stop before they were."""
        while not self._stop.is_set():
            try:
                return self._build(codec)
            except (SettingError, NewerTableError):
                raise
            except (StorageError, EnvironmentProblemError) as error:
                self._missing = str(error)
                _LOG.warning("waiting: %s", error)
                self._stop.wait(RETRY_SECONDS)
        return None

    def _build(self, codec: Codec) -> Consume:
        settings = self._settings
        names = Names(settings, self._make.admin)
        for state in TopicAdmin(settings, make=self._make.admin).states():
            if state.problem and state.name in names.topics:
                raise EnvironmentProblemError(thing="topic", value=state.name, why=state.problem, fix=state.fix)
        names.learn()
        try:
            source = source_of(settings, names, self._make)
        except KafkaException as error:
            raise InputError(f"the Kafka client can't be made: {error}") from error
        self._missing = f"the storage {self._store} has not answered yet"
        consume = Consume(source, self._store, Intake(codec, settings.history, self._metrics), settings.history)
        consume.count_into(self._metrics)
        return consume
