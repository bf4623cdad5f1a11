"""Feeds the fleet from the topics: first what they hold at the start, then what arrives.

The client's blocking calls run in their own thread; messages are taken in the event loop (``columns.intake``), a few milliseconds at a time,
so that scrapes and health checks are answered during the longest catch-up. Nothing here ends the service: a broker that is away or a
missing topic is waited for, a record that can't be decoded is skipped; each is counted, and logged once a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message

from virtflow.exporter.assignment import Clients, Found, Key, Partitions, Place
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.columns.intake import Intake, Reading
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.shard import shard_of
from virtflow.runtime.kafka.acls import EXPORTER_GROUP
from virtflow.runtime.kafka.broker_watch import BrokerWatch
from virtflow.runtime.kafka.clients import LIVE, ClientSettings, client_settings, consumer_settings, topic_name
from virtflow.runtime.kafka.credentials import Credentials
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import RegistryUnavailableError
from virtflow.schemas.topics import INVENTORY, METRICS, MIGRATIONS, NODES, Cleanup

LOGGER: Final = logging.getLogger("virtflow.exporter.consumer")

BATCH: Final = 500
SLICE: Final = 500
"""Messages looked at before others get their turn: a few milliseconds' work."""

READ_SECONDS: Final = 0.1
"""How long messages are collected where there are few: the client returns them all at its end."""
LOOK_SECONDS: Final = 5.0
"""How often new partitions are looked for; every second while a topic is missing."""
RETRY_SECONDS: Final = 1.0
MEASURE_SECONDS: Final = 1.0
TAKEN: Final = (METRICS, INVENTORY, MIGRATIONS, NODES)
"""The topics that are read."""


class Feed:
    """Reads the topics until it is cancelled. ``missing`` says what keeps it from being ready."""

    def __init__(  # noqa: PLR0913, the last one is for tests
        self,
        settings: Settings,
        fleet: Fleet,
        codec: Codec,
        metrics: OwnMetrics,
        clocks: Clocks,
        *,
        reading: Reading | None = None,
        clients: Clients | None = None,
    ) -> None:
        """Connects to nothing yet; ``reading`` is the exporter's and ``clients`` are those of the settings where None.

        Raises ``SettingError`` where a secret can't be read, ``KafkaException`` for bad client settings.
        """
        own = settings.exporter
        reading = reading or Reading("exporter", EXPORTER_GROUP, own.read_back_seconds, own.shard, together=True)
        rows = {topic_name(settings, topic): topic for topic in TAKEN}
        back = {name: reading.back_seconds if topic is METRICS else None for name, topic in rows.items()}
        self._brokers = settings.kafka.bootstrap_servers
        self._shard = shard_of(reading.shard)
        self._problem = self._unresolved = ""
        self._rows = rows
        self.topics = tuple(topic.name for topic in rows.values())
        self._settings, self._group = settings, reading.group
        self._credentials = Credentials(settings.kafka)
        clients = clients or Clients(*self._client_settings())
        self._partitions = Partitions(clients, back, clocks.wall, self._shard)
        self._intake = Intake(fleet, codec, metrics, rows, clocks, reading)
        self._clocks = clocks
        self._behind = metrics.gauge(reading.metric("lag_messages"))
        self._skipped = metrics.counter(reading.metric("skipped_records_total"))
        self._places: dict[Key, Place] = {}
        self._gaps: dict[Key, list[tuple[int, int]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._missing_topics: tuple[str, ...] = tuple(rows)
        # Samples come last: whose they are, and which of two nodes' ones count, is known by then.
        self._held = frozenset(name for name, topic in rows.items() if topic is METRICS)
        self._looked = self._measured = float("-inf")
        self._ready = False

    def missing(self) -> str:
        """Why the fleet is not known yet; "" once it is. Whether the broker still answers is for ``Watched``."""
        if self._ready:
            return ""
        if self._looked == float("-inf"):
            return f"no answer from the brokers {self._brokers}"
        if self._missing_topics:
            return f"topics missing: {', '.join(self._missing_topics)}; `virtflow topics create` makes them"
        if self._problem or self._unresolved:
            return self._problem or self._unresolved
        behind = sum(place.behind for place in self._places.values())
        if behind or self._held:
            return f"reading back, {behind} of {len(self._places)} partitions to go"
        self._ready = True
        return ""

    async def run(self) -> None:
        """Reads until it is cancelled; closes the client then."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._renew_when_due()
                await self._look_when_due()
                messages = await loop.run_in_executor(self._thread, self._partitions.read, BATCH, READ_SECONDS)
                await self._take(messages)
                await self._measure_when_due()
                if not self._places:
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            await asyncio.shield(loop.run_in_executor(self._thread, self._partitions.close))
            self._thread.shutdown(wait=False)

    async def _renew_when_due(self) -> None:
        """Reads on with new clients where the credentials were changed."""
        settings = self._credentials.fresh(self._client_settings)
        if settings is None:
            return
        places = {key: place.next for key, place in self._places.items()}
        renew = partial(self._partitions.reconnect, *settings, places)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, renew)
        except KafkaException as error:
            LOGGER.warning("the Kafka client can't be made, the one before stays: %s", _words(error))

    def _client_settings(self) -> tuple[ClientSettings, ClientSettings]:
        """Of the client that reads and of the one that asks, with the credentials as they are now."""
        return consumer_settings(self._settings, self._group, LIVE), client_settings(self._settings)

    async def _look_when_due(self) -> None:
        """Checks periodically which topics and partitions there are."""
        loop, now = asyncio.get_running_loop(), self._clocks.now()
        held = self._still_held()
        if held == self._held and now - self._looked < (RETRY_SECONDS if self._missing_topics else LOOK_SECONDS):
            return
        try:
            found = await loop.run_in_executor(self._thread, self._partitions.look, held)
        except KafkaException as error:
            LOGGER.warning("the brokers %s do not answer: %s; waiting for them", self._brokers, _words(error))
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._looked, self._held = now, held
        self._found(found)

    def _still_held(self) -> frozenset[str]:
        """The topics that are not read before the other topics have been read to their ends."""
        reads = self._looked == float("-inf") or any(place.behind for place in self._places.values())
        return self._held if reads else frozenset()

    async def _measure_when_due(self) -> None:
        """Sets the lag in messages, about once a second."""
        now = self._clocks.now()
        if now - self._measured < MEASURE_SECONDS:
            return
        self._measured = now
        ends = await asyncio.get_running_loop().run_in_executor(self._thread, self._partitions.ends)
        behind = dict.fromkeys(self._rows, 0)
        for key, end in ends.items():
            if key in self._places:
                behind[key[0]] += max(0, end - self._places[key].next)
        for name, messages in behind.items():
            self._behind.labels(topic=self._rows[name].name).set(messages)

    def _found(self, found: Found) -> None:
        self._undealt(found.counts)
        if found.missing:
            LOGGER.warning("topics missing: %s; waiting for `virtflow topics create`", ", ".join(found.missing))
        for topic, partition in found.gone:
            if topic not in found.anew:
                LOGGER.warning("%s [%d] is gone: it will be read from its beginning when it is back", topic, partition)
            del self._places[topic, partition]
        for topic in found.anew:
            LOGGER.warning("%s was deleted and created again: it is read from its beginning", self._rows[topic].name)
            self._intake.made_anew(self._rows[topic])
        self._missing_topics = found.missing
        self._places.update(found.places)

    def _undealt(self, counts: Mapping[str, int]) -> None:
        """Logs once that the topics of VMs can't be divided among shards. During the start this keeps the exporter from being ready."""
        problem = self._shard.problem({name: count for name, count in counts.items() if self._rows[name] is not NODES})
        if problem and problem != self._problem:
            LOGGER.warning("shard %d/%d: %s", self._shard.number, self._shard.of, problem)
        self._problem = problem

    async def _take(self, messages: Iterable[Message]) -> None:
        """Takes the messages in slices, and hands over what waits when that is due."""
        taken = 0
        for message in messages:
            if self._intake.unresolved(message):
                self._intake.settle()
                await self._resolved(message)
            place = self._places.get((message.topic() or "", message.partition() or 0))
            problem = message.error()
            if problem is not None:
                self._notice(problem, place, message.offset() or 0)
            elif place is not None:
                self._intake.take(message, behind=place.behind)
                self._passed(message, place)
                taken += 1
                if taken % SLICE == 0:
                    await asyncio.sleep(0)
        self._intake.caught_up = not self._held and not any(place.behind for place in self._places.values())
        if self._intake.due():
            for _ in self._intake.settling():
                await asyncio.sleep(0)
        if self._gaps:
            await self._judge_gaps()

    async def _resolved(self, message: Message) -> None:
        """Waits until the registry has answered for the schema of a message; later messages wait as well."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self._thread, self._intake.resolve, message)
            except RegistryUnavailableError as error:
                self._unresolved = str(error)
                LOGGER.warning("waiting: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._unresolved = ""
                return

    def _passed(self, message: Message, place: Place) -> None:
        """Updates the position. A gap may be a loss, except in compacted topics, which always have gaps."""
        topic, expected = self._rows[message.topic() or ""], place.next
        skipped = place.passed(message.offset() or 0)
        if skipped < 0:
            LOGGER.warning("%s [%s] was created again: it is read from offset %s", topic.name, message.partition(), message.offset())
        elif skipped > 0 and topic.cleanup is Cleanup.DELETE:
            self._gaps.setdefault((message.topic() or "", message.partition() or 0), []).append((expected, expected + skipped))

    async def _judge_gaps(self) -> None:
        """Counts records that were deleted before they were read: those below the partition's first offset, queried after the gap was seen.

        Transactions and mirrored topics leave gaps that never held a record.
        """
        gaps = {key: found for key, found in self._gaps.items() if key in self._places}
        try:
            lows = await asyncio.get_running_loop().run_in_executor(self._thread, self._partitions.lows, list(gaps))
        except KafkaException as error:
            LOGGER.warning("whether records were deleted is not known yet: %s; asking again", _words(error))
            return
        self._gaps.clear()
        for (name, partition), found in gaps.items():
            lost = sum(max(0, min(lows[name, partition], end) - start) for start, end in found)
            if lost:
                topic = self._rows[name].name
                self._skipped.labels(topic=topic).inc(lost)
                LOGGER.warning("%s [%d]: %d records were deleted before they were taken", topic, partition, lost)

    def _notice(self, problem: KafkaError, place: Place | None, offset: int) -> None:
        """Handles a notice that the client returns in place of a message."""
        if problem.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001, the client's own name
            if place is not None:
                place.ended(offset)
        else:
            LOGGER.warning("the brokers %s: %s", self._brokers, problem.str())


class Watched:
    """A feed that is not ready while the brokers are silent either."""

    def __init__(self, feed: Feed, brokers: BrokerWatch) -> None:
        """``brokers`` is started and stopped by the caller."""
        self._feed = feed
        self._brokers = brokers
        self.topics = feed.topics

    def missing(self) -> str:
        """Why the fleet is not known, or no longer heard of; "" while it is."""
        return self._feed.missing() or self._brokers.problem

    async def run(self) -> None:
        """Feeds until it is cancelled."""
        await self._feed.run()


def _words(error: KafkaException) -> str:
    problem = error.args[0] if error.args else error
    return problem.str() if isinstance(problem, KafkaError) else str(problem)
