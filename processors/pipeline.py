"""How the processors handle a message: compute the results, deliver them, acknowledge; bounded and in order.

A message is acknowledged when the broker has all its results *and* every message taken before it is acknowledged. The stream
framework must never receive acknowledgements out of order: on a partition without a committed offset it would commit an offset beyond a
message that is still being handled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from virtflow.processors.dead_letters.dead_letter import Message, Result, dead_letter, reason_of
from virtflow.processors.dead_letters.limit import DeadLetterLimit
from virtflow.processors.dedup import Orders
from virtflow.processors.delivery import DeliveryFailedError
from virtflow.processors.handlers import Outcome, migration_results, outcome_of, outcome_of_event
from virtflow.processors.metrics import Tally
from virtflow.processors.migrations.state import Migrations
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import EnvironmentProblemError, InputError, RegistryUnavailableError, UndecodableError
from virtflow.schemas.records import VmMigration

_LOG: Final = logging.getLogger("virtflow.processors")

AGAIN_SECONDS: Final = 1.0
"""How often a registry or a broker that does not answer is asked again."""

Acknowledge = Callable[[], object]
ReadBack = Callable[[], Awaitable[None]]
"""Returns once the migrations are known."""
Senders = Callable[[], Awaitable[Iterable[str]]]
"""The nodes that send messages that can be decoded; raises ``EnvironmentProblemError`` or ``RegistryUnavailableError`` when that is not known."""


class _Step(NamedTuple):
    """How a topic's messages are handled, and whether their keys name the node that sent them."""

    outcome: Callable[[Message], Outcome]
    keyed_by_node: bool


class Deliverer(Protocol):
    """The sender of results."""

    async def deliver(self, results: list[Result]) -> None:
        """Returns when the broker has all of them; raises ``DeliveryFailedError`` when they can't be delivered any more."""


class _UnderWay:
    """A message whose results are being delivered; ``acknowledge`` is None once its partition was revoked."""

    __slots__ = ("acknowledge", "done")

    def __init__(self, acknowledge: Acknowledge) -> None:
        self.acknowledge: Acknowledge | None = acknowledge
        self.done = False


class Pipeline:
    """All messages that this process is handling."""

    def __init__(self, codec: Codec, delivery: Deliverer, limit: DeadLetterLimit, tally: Tally, in_flight: int) -> None:
        """At most ``in_flight`` messages are handled at a time; ``limit`` decides when too many are undecodable."""
        self._codec = codec
        self._delivery = delivery
        self._limit = limit
        self._tally = tally
        self._orders = Orders()
        self._under_way: deque[_UnderWay] = deque()
        self._places = asyncio.Semaphore(in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self._revocations = 0
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        """Set when processing has to end: the reason."""
        self.waits_for = ""
        """Why the next message is not taken yet: the schema registry or the broker does not answer."""
        self._migrations: Migrations | None = None
        self._read_back: ReadBack | None = None
        self._senders: Senders | None = None

    def follow(self, migrations: Migrations, read_back: ReadBack) -> None:
        """Applies the messages of ``take_event`` to ``migrations``, which ``read_back`` restores first."""
        self._migrations, self._read_back = migrations, read_back

    def look_up(self, senders: Senders) -> None:
        """Before it ends because nothing was decoded since the start, it asks ``senders`` for those who send something else."""
        self._senders = senders

    async def take_event(self, message: Message, acknowledge: Acknowledge) -> None:
        """As ``take``, for a message of ``vm.events``."""
        await self._taken(message, acknowledge, _Step(self._event_outcome, keyed_by_node=False), self._migrations_known)

    async def give_up(self, now: float, wall: float) -> None:
        """Ends the migrations that have timed out; restores them first, where no event has come since the partitions were assigned."""
        if self._migrations is None or self._closed:
            return
        if self._read_back is not None and self._migrations.assigned and not self._migrations.restored:
            await self._read_back()
        lost = self._migrations.time_out(now, wall)
        for migration in lost:
            self._tally.migrations.labels(result=migration.result).inc()
        self._tally.migrations_running.set(self._migrations.running)
        try:
            await self._delivery.deliver(migration_results(lost, self._codec))
        except DeliveryFailedError as error:
            self.fail(error)

    async def store_again(self, stored: Mapping[str, tuple[VmMigration, int]]) -> None:
        """Stores the migrations that the topic has lost; ``stored`` is what it has."""
        gone = self._migrations.missing_from(stored) if self._migrations is not None and not self._closed else []
        if gone:
            _LOG.warning("the broker has lost %d migrations, which are stored again", len(gone))
        try:
            await self._delivery.deliver(migration_results(gone, self._codec))
        except DeliveryFailedError as error:
            self.fail(error)

    async def take(self, message: Message, acknowledge: Acknowledge) -> None:
        """Starts to handle a message and returns as soon as there is room for the next one.

        Never returns once processing has ended: the message then stays unacknowledged. So does one that still waited when its partition was revoked.
        """
        await self._taken(message, acknowledge, _Step(self._snapshot_outcome, keyed_by_node=True))

    async def _taken(self, message: Message, acknowledge: Acknowledge, step: _Step, ready: ReadBack | None = None) -> None:
        revocations = self._revocations
        await self._places.acquire()
        try:
            await self._ready(message, ready)
        except asyncio.CancelledError:
            self._places.release()
            raise
        if revocations != self._revocations:
            # It waited while partitions were revoked, and comes again, after those before it: handled now, it would be out of order.
            self._places.release()
            return
        try:
            outcome = None if self._closed else self._outcome(message, step)
        except InputError as error:
            self.fail(error)
            outcome = None
        if outcome is None:
            await asyncio.Event().wait()
            return
        entry = _UnderWay(acknowledge)
        self._under_way.append(entry)
        self._empty.clear()
        self._tally.in_flight.set(len(self._under_way))
        task = asyncio.create_task(self._deliver(entry, outcome))
        self._tasks.add(task)
        task.add_done_callback(self._delivered)

    async def _ready(self, message: Message, ready: ReadBack | None) -> None:
        """Returns once all is known that handling the message needs; ``ready`` last, see there."""
        if ready is not None or self._codec.unresolved(message.value):
            await self._schema_known(message)
        await self._senders_known()
        if ready is not None:
            await ready()

    def revoked(self) -> None:
        """Partitions were revoked or assigned again: messages in flight, and those that wait, are delivered again, here or to another process."""
        self._revocations += 1
        for entry in self._under_way:
            entry.acknowledge = None
        self._orders.forget()
        if self._migrations is not None:
            self._migrations.forget()

    def assigned(self, partitions: Iterable[int]) -> None:
        """The partitions of ``vm.events`` that are assigned to this process from now on."""
        if self._migrations is not None:
            self._migrations.forget()
            self._migrations.assign(partitions)

    def fail(self, error: BaseException) -> None:
        """Processing has to end, for this reason: no more messages are taken; those in flight may finish."""
        self._closed = True
        if not self.failure.done():
            self.failure.set_result(error)

    async def drain(self, seconds: float) -> bool:
        """Takes no more messages and waits for those in flight; whether all of them were acknowledged in time."""
        self._closed = True
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _schema_known(self, message: Message) -> None:
        """Returns once the message's schema is known, or the registry does not have it; waits while the registry is unavailable."""
        while not self._closed and self._codec.unresolved(message.value):
            try:
                await asyncio.to_thread(self._codec.resolve, message.value)
            except RegistryUnavailableError as error:
                self.waits_for = str(error)
                _LOG.warning("waiting: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                break
        self.waits_for = ""

    async def _senders_known(self) -> None:
        """Returns once it is known whether somebody sends messages that can be decoded, where that decides whether processing stops."""
        while self._senders is not None and not self._closed and self._limit.undecided(time.monotonic()):
            try:
                self._limit.found(await self._senders(), time.monotonic())
            except (EnvironmentProblemError, RegistryUnavailableError) as error:
                self.waits_for = str(error)
                _LOG.warning("waiting: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                self.waits_for = ""

    async def _migrations_known(self) -> None:
        """Returns once they are restored. Nothing is awaited between this and the event's step, so they can't be dropped meanwhile."""
        while self._migrations is not None and self._read_back is not None and not self._migrations.restored:
            await self._read_back()

    def _snapshot_outcome(self, message: Message) -> Outcome:
        return outcome_of(message, self._codec, self._orders)

    def _event_outcome(self, message: Message) -> Outcome:
        assert self._migrations is not None
        return outcome_of_event(message, self._codec, self._migrations, time.monotonic())

    def _outcome(self, message: Message, step: _Step) -> Outcome:
        self._tally.messages.inc()
        now = time.time()
        self._tally.lag_seconds.set(max(0.0, now - message.timestamp))
        try:
            outcome = step.outcome(message)
        except Exception as error:  # noqa: BLE001, the service's one place: whatever a message makes fail ends as a dead letter
            return self._refused(message, error, now, keyed_by_node=step.keyed_by_node)
        self._limit.decoded(message.key, outcome.node, time.monotonic())
        self._tally.duplicates.inc(outcome.duplicate)
        self._tally.dropped_values.inc(outcome.dropped_values)
        self._tally.dropped_vms.inc(outcome.dropped_vms)
        self._tally.events.inc(outcome.event)
        for result in outcome.ended:
            self._tally.migrations.labels(result=result).inc()
        if outcome.event and self._migrations is not None:
            self._tally.migrations_running.set(self._migrations.running)
        return outcome

    def _refused(self, message: Message, error: Exception, now: float, *, keyed_by_node: bool) -> Outcome:
        claimed = message.key.decode("utf-8", "replace") if keyed_by_node else ""
        name = self._limit.undecodable(message, claimed, time.monotonic())
        where = (message.topic, message.partition, message.offset)
        if isinstance(error, UndecodableError):
            _LOG.warning("%s[%d] offset %d goes to the dead letters: %s", *where, error)
        else:
            _LOG.error("%s[%d] offset %d caused a defect in the processors and goes to the dead letters", *where, exc_info=error)
        self._tally.undecodable.labels(node=name).inc()
        self._tally.dead_letters.labels(reason=reason_of(error)).inc()
        return Outcome([dead_letter(message, error, now)])

    async def _deliver(self, entry: _UnderWay, outcome: Outcome) -> None:
        await self._delivery.deliver(outcome.results)
        self._tally.vm_samples.inc(outcome.vm_samples)
        entry.done = True
        self._acknowledge()

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def _acknowledge(self) -> None:
        while self._under_way and self._under_way[0].done:
            entry = self._under_way.popleft()
            if entry.acknowledge is not None:
                entry.acknowledge()
            self._places.release()
        self._tally.in_flight.set(len(self._under_way))
        if not self._under_way:
            self._empty.set()
