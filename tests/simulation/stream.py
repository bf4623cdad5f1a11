"""In faust's place: what the processors are handed by it, in the order and with the freedom that it has.

One member of a group, whose messages go to one agent for each topic; acknowledged offsets are committed once a second, with the marks of
``processors/lineage``; every rebalance takes all partitions away and gives them again, from what was committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from tests.simulation.network import Network
from virtflow.processors.app import COMMIT_SECONDS, Sink
from virtflow.processors.dead_letters.dead_letter import Message
from virtflow.processors.instance_id import Fence, NameTakenError, instance_of
from virtflow.processors.lineage.marks import Lineage
from virtflow.runtime.kafka.clients import consumer_settings, topic_name
from virtflow.runtime.settings import Settings
from virtflow.schemas.topics import EVENTS, SNAPSHOTS

READ_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 1.0
STEADY: Final = 0.5
"""Share of the processes that have a name of their own in the group."""

Key = tuple[str, int]
Queued = tuple[int, Message]


class App:
    """The part of faust's App that the service uses."""

    def __init__(self, network: Network, settings: Settings, sink: Sink, fence: Fence, lineage: Lineage) -> None:
        """Not started."""
        self._network = network
        self._kernel = network.kernel
        self._settings = settings
        self._sink = sink
        self._fence = fence
        self._lineage = lineage
        self._stopped = asyncio.Event()
        self._stopping = self._again = False
        self._assignment = 0
        self._acked: dict[Key, int] = {}
        self._committed: dict[Key, int] = {}
        self._tasks: list[asyncio.Future[Any]] = []
        self.crash_reason: BaseException | None = None
        self.consumer = self

    async def start(self) -> None:
        """Joins the group, and reads."""
        self._loop = asyncio.get_running_loop()
        instance = {"group.instance.id": instance_of(self._settings)}
        self._client = self._network.consumer({**consumer_settings(self._settings, self._settings.processors.group), **instance})
        takers = {topic_name(self._settings, SNAPSHOTS): self._sink.take, topic_name(self._settings, EVENTS): self._sink.take_event}
        self._client.subscribe(list(takers), on_assign=self._changed, on_revoke=self._changed, on_lost=self._changed)
        self._queues: dict[str, asyncio.Queue[Queued]] = {name: asyncio.Queue(self._settings.processors.in_flight) for name in takers}
        self._tasks = [asyncio.create_task(self._agent(name, take)) for name, take in takers.items()]
        self._tasks.append(asyncio.create_task(self._commit_often()))
        self._reader = self._loop.run_in_executor(None, self._read)
        self._reader.add_done_callback(self._read_to_its_end)

    async def wait_until_stopped(self) -> None:
        """Until it has stopped, or crashed."""
        await self._stopped.wait()

    async def stop(self) -> None:
        """Commits and leaves the group."""
        self._stopping = True
        await asyncio.wait([self._reader])
        for task in self._tasks:
            task.cancel()
        await self._loop.run_in_executor(None, self._commit)
        await self._loop.run_in_executor(None, self._client.close)
        self._stopped.set()

    def goes_on(self, topic: str, partition: int) -> int:
        """The offset of a partition that comes next, -1 where that is not known or the partition is another's."""
        ours = self._lineage._partitions.get((topic, partition))
        return ours.expected if ours is not None else -1

    def rejoin(self) -> None:
        """Gives all partitions up and takes them again."""
        self._again = True

    def _read_to_its_end(self, reader: asyncio.Future[Any]) -> None:
        if not reader.cancelled() and (error := reader.exception()) is not None:
            self.crash_reason = error
            self._stopped.set()

    # -- the thread that reads

    def _read(self) -> None:
        while not self._stopping:
            messages = self._client.consume(self._settings.processors.in_flight, READ_SECONDS)
            if self._again:
                self._again = False
                self._changed(self._client, [])
            for message in messages:
                if (error := message.error()) is None:
                    self._in_loop(self._queue(self._assignment, message))
                elif error.code() == error._FATAL:
                    raise KafkaException(error)

    def _in_loop(self, work: Coroutine[Any, Any, Any]) -> None:
        """Has something done in the loop, and waits for it."""
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._kernel.wait(lambda: future.done() or self._stopping)
        if future.done() and not future.cancelled():
            future.result()

    async def _queue(self, assignment: int, message: Any) -> None:  # noqa: ANN401, the client's class
        stamp = message.timestamp()[1] / 1_000
        taken = Message(message.topic(), message.partition(), message.offset(), message.key() or b"", message.value() or b"", stamp)
        await self._queues[taken.topic].put((assignment, taken))

    def _changed(self, client: Any, partitions: list[TopicPartition]) -> None:  # noqa: ANN401, the client's class
        """The group deals the partitions: all are taken away, and those that are ours are given again."""
        self._assignment += 1
        self._acked.clear()
        self._committed.clear()
        self._in_loop(self._taken_away())
        before = {(place.topic, place.partition) for place in client.assignment()}
        changed = {(place.topic, place.partition) for place in partitions}
        ours = sorted(before - changed if changed & before else before | changed)
        client.incremental_unassign([TopicPartition(*key) for key in before])
        if self._stopping:
            return
        self._in_loop(self._given(ours))
        begins = [(topic, number, self._begin(topic, number)) for topic, number in ours]
        for topic, number, begin in begins:
            self._network.recorded(topic)[number].begin(begin)
        places = [TopicPartition(topic, number, begin if begin >= 0 else OFFSET_BEGINNING) for topic, number, begin in begins]
        client.incremental_assign(places)

    def _begin(self, topic: str, partition: int) -> int:
        while True:
            try:
                [stored] = self._client.committed([TopicPartition(topic, partition)], timeout=3.0)
                return self._lineage.begin(topic, partition, max(-1, stored.offset), stored.metadata or "")
            except KafkaException:
                self._kernel.sleep(RETRY_SECONDS)

    # -- the loop

    async def _taken_away(self) -> None:
        for queue in self._queues.values():
            while not queue.empty():
                queue.get_nowait()
        self._sink.revoked()
        try:
            await self._fence.check()
        except NameTakenError as error:
            self._sink.fail(error)
            await asyncio.Event().wait()

    async def _given(self, keys: list[Key]) -> None:
        self._fence.joined()
        self._lineage.keep(keys)
        events = topic_name(self._settings, EVENTS)
        self._sink.assigned(partition for topic, partition in keys if topic == events)

    async def _agent(self, name: str, take: Callable[[Message, Callable[[], object]], Awaitable[None]]) -> None:
        queue = self._queues[name]
        while True:
            assignment, message = await queue.get()
            if assignment == self._assignment:
                self._lineage.taken(message)
                await take(message, partial(self._acknowledge, assignment, message))

    def _acknowledge(self, assignment: int, message: Message) -> None:
        self._lineage.acknowledged(message)
        if assignment == self._assignment:
            self._acked[message.topic, message.partition] = message.offset + 1

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            await self._loop.run_in_executor(None, self._commit)

    def _commit(self) -> None:
        """What was acknowledged since the last commit; where the group has given us up, or does not answer, it comes again."""
        due = {key: offset for key, offset in self._acked.items() if self._committed.get(key) != offset}
        if not due:
            return
        places = [TopicPartition(*key, offset, metadata=self._lineage.committing(key[0], key[1], offset)) for key, offset in due.items()]
        try:
            self._client.commit(places, asynchronous=False)
        except KafkaException:
            return
        self._committed |= due


def app_maker(network: Network, made: Callable[[App], object]) -> Callable[[Settings, Path, Sink, Fence, Lineage], App]:
    """In the place of ``build_app``; ``made`` is told of each app."""

    def build(settings: Settings, folder: Path, sink: Sink, fence: Fence, lineage: Lineage) -> App:
        del folder
        app = App(network, settings, sink, fence, lineage)
        made(app)
        return app

    return build
