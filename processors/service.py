"""The processors as a service: waits for the broker and its topics, processes until it is stopped, and finishes messages in flight."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from virtflow.processors.app import build_app, use_credentials
from virtflow.processors.dead_letters.limit import DeadLetterLimit, Rule
from virtflow.processors.dead_letters.senders import senders
from virtflow.processors.delivery import Delivery
from virtflow.processors.instance_id import Fence, static_members
from virtflow.processors.lineage.marks import Lineage
from virtflow.processors.metrics import Tally
from virtflow.processors.migrations.restore import read_migrations
from virtflow.processors.migrations.state import Migrations
from virtflow.processors.migrations.stored import Stored
from virtflow.processors.pipeline import Pipeline
from virtflow.runtime.access.guard import Guard
from virtflow.runtime.kafka.broker_watch import BrokerWatch
from virtflow.runtime.kafka.clients import ClientSettings, acknowledged_producer_settings, probe_settings, topic_name
from virtflow.runtime.kafka.credentials import Credentials
from virtflow.runtime.kafka.lineage import Alarm, Probe
from virtflow.runtime.kafka.topic_admin import TopicAdmin
from virtflow.runtime.lifecycle import STOP_SECONDS, Stop, end_when_late, in_loop, notify, watchdog
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.registry.schema_ids import SchemaIds
from virtflow.runtime.settings import Kafka, Settings
from virtflow.runtime.web.server import Web, own_routes
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import EnvironmentProblemError, InputError, RegistryUnavailableError
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import EVENTS, MIGRATIONS, SNAPSHOTS

RETRY_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 3.0
"""Timeout of the request for the broker's topics; short, because stopping waits for the answer."""
LOOK_SECONDS: Final = 1.0
"""How often migrations without events are checked."""
LOOK_BACK_SECONDS: Final = 30.0
"""How often the broker is asked whether it still has what was processed; also after no broker was connected."""
DRAIN_SECONDS: Final = STOP_SECONDS * 0.5
"""Timeout for the delivery of results at the end; the remaining time is for the last commit and for leaving the group."""
LEAVE_SECONDS: Final = STOP_SECONDS * 0.2

_LOG: Final = logging.getLogger("virtflow.processors")


Read = Callable[[], dict[str, tuple[VmMigration, int]]]
"""Reads the newest migrations of the topic, with their partitions."""


class Makers(NamedTuple):
    """What builds the clients: the one that produces, those that ask and read beside the stream, and the stream framework's app."""

    producer: Callable[[ClientSettings], Any] = Producer
    consumer: Callable[[ClientSettings], Any] = Consumer
    admin: Callable[[ClientSettings], Any] = AdminClient
    app: Callable[[Settings, Path, Pipeline, Fence, Lineage], Any] = build_app


CLIENTS: Final = Makers()


class StreamBrokenError(InputError):
    """The stream framework failed: unacknowledged messages are delivered again after a restart."""


def run(settings: Settings, stop: Stop) -> None:
    """Processes until ``stop`` is set; raises ``InputError`` when it has to end. Every acknowledged message has been handled.

    The process exits soon after this returns, even if a client's thread still waits for a broker that does not answer.
    """
    threading.excepthook = _unless_cancelled
    end_when_late(stop)
    try:
        asyncio.run(Service(settings, stop).run())
    finally:
        stop.set()  # the interpreter waits for all non-daemon threads: the timer, a daemon thread, ends the process if one never returns


class Service:
    """One run of the processors."""

    def __init__(self, settings: Settings, stop: Stop, make: Makers = CLIENTS) -> None:
        """Connects only in ``run``; ``make`` builds the clients."""
        self._settings = settings
        self._make = make
        self._stop = stop
        self._stopped = asyncio.Event()
        self._missing = "the broker has not answered yet"
        self._metrics = OwnMetrics("processors")
        age = self._metrics.gauge("virtflow_processors_broker_answer_age_seconds")
        self._brokers = BrokerWatch(settings, (SNAPSHOTS, EVENTS), age, make.admin)
        self._pipeline: Pipeline | None = None

    async def run(self) -> None:
        """Serves its own pages from the start, so that they show what it waits for, and processes as soon as the topics exist."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_complain)
        self._stop.subscribe(lambda: in_loop(loop, self._stopped.set))
        guard = Guard(self._settings.web, self._metrics)
        web = Web(self._settings.processors.listen, own_routes(self._metrics, self._not_ready), self._metrics, guard=guard)
        await web.start()
        _LOG.info("own metrics at %s/metrics", web.url)
        watching = asyncio.create_task(watchdog())
        self._brokers.start()
        try:
            if await self._there(self._problem):
                await self._process()
        finally:
            watching.cancel()
            self._brokers.stop()
            notify("STOPPING=1")
            await web.stop()

    def _not_ready(self) -> str:
        return self._missing or (self._pipeline.waits_for if self._pipeline else "") or self._brokers.problem

    async def _there(self, look: Callable[[], str]) -> bool:
        """Waits until ``look`` returns no problem; False when the service is stopped before that."""
        while not self._stopped.is_set():
            problem = await asyncio.to_thread(look)
            if not problem:
                return True
            self._missing = problem
            _LOG.warning("waiting: %s", problem)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), RETRY_SECONDS)
        return False

    def _problem(self) -> str:
        try:
            states = TopicAdmin(self._settings, ANSWER_SECONDS, self._make.admin).states()
        except EnvironmentProblemError as error:
            return str(error)
        return "; ".join(f"topic {state.name}: {state.problem}; {state.fix}" for state in states if state.problem)

    async def _process(self) -> None:
        tally = Tally(self._metrics)
        settings, make = self._settings, self._make
        ids = SchemaIds(settings)
        alarm = Alarm()
        credentials = Credentials(settings.kafka)
        renewed = partial(credentials.fresh, partial(_producing, settings, alarm))
        probe = partial(Probe, lambda: make.consumer(probe_settings(settings, settings.processors.group)))
        stored = Stored(topic_name(settings, MIGRATIONS), probe)
        delivery = Delivery(_producing(settings, alarm), partial(topic_name, settings), tally, make.producer, renewed=renewed)
        delivery.stored = stored.arrived
        lineage = Lineage(probe, tally)
        limit = DeadLetterLimit(_dead_letter_rule(settings))
        codec = Codec(ids.ids, ids.fetch)
        pipeline = Pipeline(codec, delivery, limit, tally, settings.processors.in_flight)
        self._pipeline = pipeline
        migrations = Migrations(settings.processors.migration_silence_seconds)
        read = partial(_stored_now, settings, codec, make.consumer, stored)
        pipeline.follow(migrations, partial(self._read_back, migrations, read))
        pipeline.look_up(lambda: asyncio.to_thread(senders, settings, codec, time.time()))
        with tempfile.TemporaryDirectory(prefix="virtflow-processors-") as folder:
            fence = Fence(settings, lambda: static_members(settings, make.admin))
            app = make.app(settings, Path(folder), pipeline, fence, lineage)
            delivery.start()
            ids.start()
            giving_up = asyncio.create_task(_give_up(pipeline))
            looking = asyncio.create_task(_look_back(app, lineage, alarm, _Kept(pipeline, stored, read)))
            renewing = asyncio.create_task(_renew(app, settings.kafka))
            try:
                if await self._there(lambda: ids.missing):
                    await self._stream(app, pipeline)
            finally:
                giving_up.cancel()
                looking.cancel()
                renewing.cancel()
                ids.stop()
                delivery.close()

    async def _read_back(self, migrations: Migrations, read: Read) -> None:
        """Restores the migrations; waits a moment when the broker is unavailable."""
        before = migrations.forgotten
        try:
            stored = await asyncio.to_thread(read)
        except (EnvironmentProblemError, RegistryUnavailableError) as error:
            _LOG.warning("waiting: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            return
        if migrations.forgotten != before or migrations.restored:
            return  # read too early, or by another call as well
        migrations.restore(stored, time.monotonic())

    async def _stream(self, app: Any, pipeline: Pipeline) -> None:  # noqa: ANN401, faust is untyped
        """Runs the app until the service is stopped or fails; then drains, commits and leaves the group."""
        running = asyncio.create_task(_run_app(app))
        stopped = asyncio.create_task(self._stopped.wait())
        self._missing = ""
        notify("READY=1")
        _LOG.info("processing %s as group %s", self._settings.kafka.bootstrap_servers, self._settings.processors.group)
        ends: list[asyncio.Future[Any]] = [running, stopped, pipeline.failure]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        self._missing = "stopping"
        drained = await pipeline.drain(DRAIN_SECONDS)
        if not drained:
            _LOG.warning("results not delivered after %.0f s: their snapshots stay unacknowledged and are delivered again", DRAIN_SECONDS)
        await asyncio.wait([asyncio.create_task(app.stop())], timeout=LEAVE_SECONDS)
        running.cancel()
        stopped.cancel()
        if pipeline.failure.done():
            raise pipeline.failure.result()
        if not self._stopped.is_set():
            why = app.crash_reason or (running.exception() if running.done() and not running.cancelled() else None)
            raise StreamBrokenError(f"the stream from {self._settings.kafka.bootstrap_servers} broke: {type(why).__name__}: {why}")
        _LOG.info("drained, committed, stopped" if drained else "stopped")


def _dead_letter_rule(settings: Settings) -> Rule:
    own = settings.processors
    return Rule(window=own.dead_letter_window, node_window=own.dead_letter_node_window, share=own.dead_letter_share)


def _unless_cancelled(what: threading.ExceptHookArgs) -> None:
    """A library's thread that is cancelled at the end is no defect: its traceback is not printed."""
    if not issubclass(what.exc_type, asyncio.CancelledError):
        threading.__excepthook__(what)


def _producing(settings: Settings, alarm: Alarm) -> ClientSettings:
    """The settings of the client that produces, with the credentials as they are now."""
    return {**acknowledged_producer_settings(settings), "error_cb": alarm}


async def _renew(app: Any, kafka: Kafka) -> None:  # noqa: ANN401, faust is untyped
    """Has the app's connections use credentials that were changed."""
    credentials = Credentials(kafka)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        credentials.fresh(partial(use_credentials, app, kafka))


async def _run_app(app: Any) -> None:  # noqa: ANN401, faust is untyped
    await app.start()
    await app.wait_until_stopped()


async def _give_up(pipeline: Pipeline) -> None:
    """Restores migrations and ends those that have timed out, periodically."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await pipeline.give_up(time.monotonic(), time.time())


def _stored_now(
    settings: Settings, codec: Codec, make: Callable[[ClientSettings], Any], stored: Stored
) -> dict[str, tuple[VmMigration, int]]:
    """The migrations that are in the topic."""
    stored.forget()
    return read_migrations(settings, codec, make, stored.has)


class _Kept(NamedTuple):
    """Has migrations stored again that the broker has lost."""

    pipeline: Pipeline
    stored: Stored
    read: Read

    async def look(self) -> None:
        """Raises ``KafkaException`` or ``EnvironmentProblemError`` where the broker does not answer."""
        if not await asyncio.to_thread(self.stored.intact):
            await self.pipeline.store_again(await asyncio.to_thread(self.read))


async def _look_back(app: Any, lineage: Lineage, alarm: Alarm, kept: _Kept) -> None:  # noqa: ANN401, faust is untyped
    """Has the partitions taken over again where the broker has lost what was processed; counts what it has deleted before it was taken.

    Before that migrations are stored again that it has lost: taken over they are read from the topic.
    """
    looked = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await asyncio.to_thread(lineage.count_missing)
            if alarm.raised or time.monotonic() - looked > LOOK_BACK_SECONDS:
                looked, alarm.raised = time.monotonic(), False
                await kept.look()
                if not await asyncio.to_thread(lineage.intact):
                    app.consumer.rejoin()
        except (KafkaException, EnvironmentProblemError, RegistryUnavailableError) as error:
            alarm.raised = True
            _LOG.warning("whether the broker has what was processed is asked again: %s", error)


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs an unhandled error of a library's task in one line, where asyncio would print a traceback."""
    del loop
    error = context.get("exception")
    _LOG.warning("unhandled error of a library: %s: %s: %s", context["message"], type(error).__name__, error)
