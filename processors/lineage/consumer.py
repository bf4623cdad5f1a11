"""faust's consumer, with marks in what it commits, and with a look at them where it goes on from what was committed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import OffsetAndMetadata
from confluent_kafka import KafkaException
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from mode.threads import ServiceThread, WorkerThread

from virtflow.processors.lineage.marks import Lineage
from virtflow.runtime.kafka.clients import AT_ONCE, LIVE, Gather

RETRY_SECONDS: Final = 1.0
HEAVY: Final = 100.0
"""Messages a second from which on the broker gathers them: a fetch for each would cost more than what is done with it."""
_LOG: Final = logging.getLogger("virtflow.processors")


class Unawaited(WorkerThread):
    """The system's thread below it, for which the process does not wait at its end.

    faust's may go on for ever where the service is stopped at the moment at which it starts. What it does is of no account by then: all
    results are delivered and committed, or the messages are delivered again.
    """

    def __init__(self, service: ServiceThread, **options: Any) -> None:  # noqa: ANN401, mode's own
        """``options`` are those of the class."""
        super().__init__(service, **options)
        self.daemon = True


class Traffic:
    """How the broker is to answer, by how much arrives: at once, or what it has gathered for a moment.

    An event of a small fleet is not kept waiting, and a large one's messages come many in an answer.
    """

    def __init__(self) -> None:
        """Nothing has arrived."""
        self._gather = AT_ONCE
        self._arrived = 0
        self._began = float("-inf")

    def gather(self, messages: int, now: float) -> Gather:
        """After so many more messages at ``now`` (monotonic seconds): as the second before, or the longer time of one fetch, has brought them."""
        self._arrived += messages
        if (seconds := now - self._began) >= 1.0:
            self._gather = LIVE if self._arrived / seconds >= HEAVY else AT_ONCE
            self._arrived, self._began = 0, now
        return self._gather


class MarkedThread(AIOKafkaConsumerThread):
    """faust's thread of a consumer: its commits carry marks, and it goes on from what they say."""

    def __init__(self, lineage: Lineage, consumer: Consumer, **options: Any) -> None:  # noqa: ANN401, faust's own
        """``options`` are those of the class."""
        self._lineage = lineage
        self._traffic = Traffic()
        super().__init__(consumer, Worker=Unawaited, **options)

    async def _fetch_records(self, consumer: AIOKafkaConsumer, *wanted: Any, **options: Any) -> Any:  # noqa: ANN401, faust's own
        records = await super()._fetch_records(consumer, *wanted, **options)
        gather = self._traffic.gather(sum(map(len, records.values())), time.monotonic())
        # faust has no setting for these two, and a consumer's can't be changed otherwise; each fetch has them as they are then.
        fetcher = consumer._fetcher  # noqa: SLF001, as above
        fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = gather.least_bytes, gather.milliseconds  # noqa: SLF001, as above
        return records

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """Goes on from what was committed, or from before it where the broker has lost that."""
        found: Mapping[Any, int] = await self.call_thread(self._seek_to_committed)
        return found

    async def _seek_to_committed(self) -> Mapping[Any, int]:
        consumer = self._ensure_consumer()
        offsets: dict[Any, Any] = {}
        places = list(consumer.assignment())
        committed = await consumer._coordinator.fetch_committed_offsets(places) if places else {}  # noqa: SLF001, aiokafka drops the metadata elsewhere
        for place in places:
            stored = committed.get(place)
            offset = await _begin(self._lineage, place, stored)
            offsets[place] = offset if offset >= 0 else None
            if offset >= 0:
                consumer.seek(place, offset)
        return offsets

    async def _commit(self, offsets: Mapping[Any, int]) -> bool:
        # As the class has it, but for the metadata, which it leaves empty.
        consumer = self._ensure_consumer()
        commit = consumer.commit

        async def with_marks(plain: Mapping[Any, OffsetAndMetadata]) -> None:
            await commit({place: self._marked(place, stored) for place, stored in plain.items()})

        consumer.commit = with_marks
        try:
            done: bool = await super()._commit(offsets)
        finally:
            del consumer.commit
        return done

    def _marked(self, place: Any, stored: OffsetAndMetadata) -> OffsetAndMetadata:  # noqa: ANN401, aiokafka is untyped
        return OffsetAndMetadata(stored.offset, self._lineage.committing(place.topic, place.partition, stored.offset))

    def rejoin(self) -> None:
        """Has the group deal the partitions again, from any thread: they are all given up and taken over."""
        self.thread_loop.call_soon_threadsafe(self._ensure_consumer()._coordinator.request_rejoin)  # noqa: SLF001, there is no public way


class MarkedConsumer(Consumer):
    """faust's consumer, that keeps a lineage."""

    _thread: MarkedThread

    def __init__(self, lineage: Lineage, transport: Any, **options: Any) -> None:  # noqa: ANN401, faust's own
        """``options`` are those of the class."""
        self._lineage = lineage
        super().__init__(transport, **options)

    def _new_consumer_thread(self) -> MarkedThread:
        return MarkedThread(self._lineage, self, loop=self.loop, beacon=self.beacon)

    def rejoin(self) -> None:
        """As the thread's."""
        self._thread.rejoin()


async def _begin(lineage: Lineage, place: Any, stored: OffsetAndMetadata | None) -> int:  # noqa: ANN401, aiokafka is untyped
    """Where a partition goes on; waits for a broker that does not answer."""
    offset, metadata = (stored.offset, stored.metadata or "") if stored is not None else (-1, "")
    while True:
        try:
            return await asyncio.to_thread(lineage.begin, place.topic, place.partition, offset, metadata)
        except KafkaException as error:
            _LOG.warning("waiting: %s[%d]: %s", place.topic, place.partition, error)
            await asyncio.sleep(RETRY_SECONDS)
