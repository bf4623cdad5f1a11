"""Produces results and reports when the broker has all of them.

One thread polls librdkafka for its delivery reports; a batch is done when all of its reports have arrived. Failed messages are
produced again, except those that every broker rejects. A message that is produced again comes after those that were produced meanwhile;
in a compacted topic, where the last one of a key counts, these are therefore held back, or produced once more after it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from virtflow.processors.dead_letters.dead_letter import Result
from virtflow.processors.metrics import Tally
from virtflow.runtime.kafka.clients import ClientSettings
from virtflow.runtime.kafka.credentials import RETIRE_SECONDS
from virtflow.runtime.kafka.librdkafka import ended
from virtflow.schemas.errors import InputError
from virtflow.schemas.topics import MIGRATIONS, Cleanup, Topic

if TYPE_CHECKING:
    from confluent_kafka import Message

POLL_SECONDS: Final = 0.1
FULL_PAUSE_SECONDS: Final = 0.01
RETRY_SECONDS: Final = (0.5, 10.0)
"""Shortest and longest pause before failed messages are produced again; it doubles in between."""

_LOG: Final = logging.getLogger("virtflow.processors")
_REFUSED: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD})
"""Errors of messages that a broker rejects every time."""


Place = tuple[str, bytes]
"""A topic and a key."""


class DeliveryFailedError(InputError):
    """The producer can't deliver to the broker any more: undelivered messages are handled again after a restart."""


class _Turn:
    """One delivery among those with the same keys of compacted topics: its keys, those whose messages were late, and whether it is over."""

    __slots__ = ("done", "keys", "late")

    def __init__(self, results: Iterable[Result]) -> None:
        self.keys = {_place(result) for result in results if result.topic.cleanup is Cleanup.COMPACT}
        self.late: set[Place] = set()
        self.done = asyncio.Event()


class _Batch:
    """The outstanding reports of one batch; ``failed`` collects what has to be produced again."""

    __slots__ = ("_done", "_lock", "_out", "failed", "fatal", "refused")

    def __init__(self, out: int, done: Callable[[], object]) -> None:
        self._out = out
        self._done = done
        self._lock = threading.Lock()
        self.failed: set[tuple[str, bytes]] = set()
        self.refused: list[str] = []
        self.fatal = ""

    def report(self, error: KafkaError | None, message: Message) -> None:
        """Called in the polling thread for every message."""
        if error is not None:
            self.note(error, str(message.topic()), message.key() or b"")
        self.count()

    def note(self, error: KafkaError, topic: str, key: bytes) -> None:
        """Classifies a failure: fatal, refused permanently, or to be retried."""
        if ended(error):
            self.fatal = str(error)
        elif error.code() in _REFUSED:
            self.refused.append(f"{topic} key {key.decode('utf-8', 'replace')[:80]!r}: {error.str()}")
        else:
            self.failed.add((topic, key))

    def count(self) -> None:
        """Counts one report as received."""
        with self._lock:
            self._out -= 1
            if self._out:
                return
        self._done()


class Delivery:
    """A librdkafka producer behind an event loop."""

    def __init__(
        self,
        config: ClientSettings,
        name_of: Callable[[Topic], str],
        tally: Tally,
        make: Callable[[ClientSettings], Any] = Producer,
        *,
        renewed: Callable[[], ClientSettings | None] = lambda: None,
    ) -> None:
        """``config`` is librdkafka's, and ``make`` builds the client from it; ``name_of`` gives a topic's name on the broker.

        Retries and refusals are counted in ``tally``. ``renewed`` returns settings to build the client again with, None while there is no reason.
        """
        self._make = make
        self._renewed = renewed
        self.stored: Callable[[Message], object] | None = None
        """Told of each migration that the broker has acknowledged, in the thread that polls."""
        self._config = config
        self._producer = make(config)
        self._purges_at = math.inf
        self._retiring = False
        self._lock = threading.Lock()
        """Held while a message is given to the client, and while the client is replaced."""
        self._name_of = name_of
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="deliver", daemon=True)
        self._names: dict[str, str] = {}
        self._turns: dict[Place, list[_Turn]] = {}
        """The deliveries that are under way, by the keys of compacted topics, in their order."""
        self._tally = tally

    def start(self) -> None:
        """Starts the thread that reads the delivery reports."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; callers await ``deliver`` before."""
        self._over.set()
        self._thread.join()

    async def deliver(self, results: list[Result]) -> None:
        """Returns when the broker has acknowledged every result; raises ``DeliveryFailedError`` when the producer is unusable.

        Of the results of one key of a compacted topic the last one of the last call is the last one there.
        """
        turn = _Turn(results)
        before = self._enter(turn)
        try:
            if any(other.late & turn.keys for other in before):
                await self._until_there([result for result in results if _place(result) not in turn.keys], turn)
                results = [result for result in results if _place(result) in turn.keys]
                for other in before:
                    if other.late & turn.keys:
                        await other.done.wait()
            under_way = [other for other in before if not other.done.is_set()]
            await self._until_there(results, turn)
            overtaken: set[Place] = set()
            for other in under_way:
                await other.done.wait()
                overtaken |= other.late & turn.keys
            if overtaken:
                turn.late |= overtaken
                await self._until_there([result for result in results if _place(result) in overtaken], turn)
        finally:
            self._leave(turn)

    def _enter(self, turn: _Turn) -> list[_Turn]:
        """The deliveries before it that are under way and have a key in common with it, in their order."""
        before = list(dict.fromkeys(other for key in turn.keys for other in self._turns.get(key, ())))
        for key in turn.keys:
            self._turns.setdefault(key, []).append(turn)
        return before

    def _leave(self, turn: _Turn) -> None:
        turn.done.set()
        for key in turn.keys:
            self._turns[key].remove(turn)
            if not self._turns[key]:
                del self._turns[key]

    async def _until_there(self, results: list[Result], turn: _Turn) -> None:
        """Produces results until the broker has them all, or has refused them for good."""
        pause, longest = RETRY_SECONDS
        while results:
            batch = await self._attempt(results)
            if batch.fatal:
                raise DeliveryFailedError(batch.fatal)
            self._tally.refused_messages.inc(len(batch.refused))
            for why in batch.refused:
                _LOG.error("the broker will never take a message, left out: %s", why)
            results = [result for result in results if (self._topic(result.topic), result.key) in batch.failed]
            if results:
                turn.late |= {_place(result) for result in results} & turn.keys
                self._tally.retries.inc(len(results))
                _LOG.warning("%d messages were not delivered, produced again in %.1f s", len(results), pause)
                await asyncio.sleep(pause)
                pause = min(longest, pause * 2)

    async def _attempt(self, results: list[Result]) -> _Batch:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        batch = _Batch(len(results), partial(loop.call_soon_threadsafe, done.set))
        for result in results:
            while not self._accepted(result, batch):  # noqa: ASYNC110, librdkafka does not report when its queue has room again
                await asyncio.sleep(FULL_PAUSE_SECONDS)
        await done.wait()
        return batch

    def _accepted(self, result: Result, batch: _Batch) -> bool:
        """Passes a result to librdkafka; False while its queue is full, and while the client is to be replaced."""
        topic = self._topic(result.topic)
        report = partial(self._migration, batch) if result.topic is MIGRATIONS and self.stored is not None else batch.report
        try:
            with self._lock:
                if self._retiring:
                    return False
                self._producer.produce(topic, result.value, result.key, on_delivery=report, headers=list(result.headers) or None)
        except BufferError:
            return False
        except KafkaException as error:
            batch.note(error.args[0], topic, result.key)
            batch.count()
        return True

    def _migration(self, batch: _Batch, error: KafkaError | None, message: Message) -> None:
        if error is None and self.stored is not None:
            self.stored(message)
        batch.report(error, message)

    def _topic(self, topic: Topic) -> str:
        name = self._names.get(topic.name)
        if name is None:
            name = self._names[topic.name] = self._name_of(topic)
        return name

    def _poll(self) -> None:
        while not self._over.is_set():
            self._renew()
            try:
                self._producer.poll(POLL_SECONDS)
            except KafkaException as error:  # raised once, when an error ends the client: reports still arrive, `produce` fails
                _LOG.warning("the Kafka client cannot go on: %s", error.args[0].str())

    def _renew(self) -> None:
        """Replaces a client whose credentials were changed, once it has delivered what it has; what it can't deliver, the next one does."""
        if (config := self._renewed()) is not None:
            with self._lock:
                self._config, self._retiring, self._purges_at = config, True, time.monotonic() + RETIRE_SECONDS
        if not self._retiring:
            return
        if len(self._producer):
            if time.monotonic() >= self._purges_at:
                self._producer.purge()
            return
        try:
            producer = self._make(self._config)
        except KafkaException as error:
            _LOG.warning("the Kafka client can't be made, it is tried again: %s", error.args[0].str())
            return
        with self._lock:
            self._producer, self._retiring, self._purges_at = producer, False, math.inf


def _place(result: Result) -> Place:
    return result.topic.name, result.key
