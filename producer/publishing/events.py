"""Sends events to Kafka: each is written to the journal, then sent, and removed from the journal when the broker has it.

One thread does all of this, so that neither libvirt's event loop nor the sampling waits for a disk or a broker. Events are sent in
the order of their numbers, those of the journal first. A bounded number of them is in flight at a time, the rest waits on disk. Polls of
running jobs are not written to the journal: while the broker is unavailable only the newest one of each VM is kept.

A journal that can't be used is tried again, and takes what still waits in memory as soon as it can. While another process has its
lock, as an earlier producer that is about to end has, events wait for it at first, so that what that one left is sent before them.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from virtflow.producer.publishing.journal import Entry, Journal
from virtflow.producer.records.node_health import Outgoing, added
from virtflow.producer.records.vm_event import counted_as, vm_event
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.kafka.clients import event_producer_settings, topic_name
from virtflow.runtime.kafka.credentials import RETIRE_SECONDS, Credentials
from virtflow.runtime.kafka.librdkafka import KafkaError, KafkaException, Producer, ended, take_reports
from virtflow.runtime.settings import Settings
from virtflow.runtime.threads import Owner
from virtflow.schemas.avro.encoder import Encoder, Framed, as_it_is
from virtflow.schemas.errors import SettingError
from virtflow.schemas.jobs import Kind
from virtflow.schemas.records import NodeSnapshot, VmEvent
from virtflow.schemas.topics import EVENTS

WINDOW: Final = 500
"""Events that are in flight at a time."""
MEMORY_EVENTS: Final = 10_000
"""Events that wait in memory for the disk, or for the broker when the journal can't be written."""
POLL_SECONDS: Final = 0.05
IDLE_SECONDS: Final = 600.0
"""How long the sending thread waits for an event, which wakes it, before it closes its client: the three threads of an unused connection
cost an idle host as much CPU time as a tenth of its rounds. Not sooner: brokers keep state of every new client for a day."""
GRACE_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
SYNC_SECONDS: Final = 1.0
LOCK_SECONDS: Final = 10.0
"""How long events wait in memory for a journal that another process has locked, before they are sent without it."""
LOST: Final = "event_lost"
REFUSED: Final = "event_refused"

_LOGGER: Final = logging.getLogger(__name__)
_NEVER: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.INVALID_RECORD})


class Pauses(NamedTuple):
    """Seconds until failed events are sent again, until an unused client is closed, and until a locked journal is not waited for."""

    retry: float = RETRY_SECONDS
    idle: float = IDLE_SECONDS
    lock: float = LOCK_SECONDS


PAUSES: Final = Pauses()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What waits in the sending thread, and the problems of its journal."""

    events: int = 0
    journal_bytes: int = 0
    drops: dict[str, int] = field(default_factory=dict)


class EventPublisher:
    """Publishes one node's events; ``offer`` may be called from one thread and never waits."""

    def __init__(
        self,
        settings: Settings,
        node: str,
        make: Callable[[dict[str, Any]], Any] = Producer,
        framed: Framed = as_it_is,
        pauses: Pauses = PAUSES,
    ) -> None:
        """``node`` is its name in the records; ``make`` builds the client from librdkafka's settings, no broker is needed yet.

        ``framed`` adds the schema registry's id to a message; the journal has fingerprints, which need no registry.
        """
        self._settings = settings
        self._credentials = Credentials(settings.kafka)
        self._config = event_producer_settings(settings)
        self._topic = topic_name(settings, EVENTS)
        self._make = make
        self._client: Any = None
        self._ended, self._purges_at = False, math.inf
        self._pauses = pauses
        self._journal = Journal(Path(settings.producer.journal_folder), settings.producer.journal_bytes)
        self._sync = settings.producer.journal_sync
        self._synced = time.monotonic()
        self._opens_again = 0.0
        self._waits_for_lock = False
        self._codec = Encoder()
        self._framed = framed
        self._unframed = False
        self._owner = Owner("the numbering of events")
        self._node = node
        self._boot_id = os.urandom(8).hex()
        self._sequence = 0
        self._taken: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._offered: deque[VmEvent] = deque()
        self._until: float | None = None
        self._ready: deque[Entry] = deque()
        self._polls: dict[bytes, Entry] = {}
        self._window: dict[int, Entry] = {}
        self._failed: list[Entry] = []
        self._number = 0
        self._waiting = _Waiting()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    # -- the sampling thread

    def offer(self, happened: HypervisorEvent) -> None:
        """Number the event and pass it to the sending thread; beyond a limit the newest is dropped and counted."""
        self._owner.check()
        event = vm_event(happened, self._node, self._boot_id, self._sequence)
        self._sequence += 1
        with self._changed:
            self._taken[counted_as(event)] += 1
            if len(self._offered) >= MEMORY_EVENTS:
                self._drops[LOST] += 1
                return
            self._offered.append(event)
            self._changed.notify()

    def outgoing(self) -> Outgoing:
        """How many events were taken, were lost, and wait now."""
        with self._changed:
            waiting = self._waiting
            events = waiting.events + len(self._offered)
            return Outgoing(0, added(self._drops, waiting.drops), dict(self._taken), events, waiting.journal_bytes)

    def close(self, seconds: float) -> int:
        """Send the waiting events for at most ``seconds``; how many remain in the journal for the next run."""
        with self._changed:
            self._until = time.monotonic() + seconds
            self._changed.notify()
        self._thread.join(seconds + GRACE_SECONDS)
        return self.outgoing().journal_events

    # -- the sending thread

    def _run(self) -> None:
        gives_up = time.monotonic() + self._pauses.lock
        while not self._over():
            if not self._journal.usable:
                self._open_journal_again(gives_up)
            if not self._ready and not self._window:
                # What an earlier run left goes first, a segment at a time; what happens meanwhile is only written down.
                self._ready.extend(self._journal.left_behind())
            fresh = self._take()
            for event in fresh:
                self._keep(event)
            self._bring_to_disk(written=bool(fresh))
            self._renew()
            self._send()
            if self._client is not None:
                self._poll(POLL_SECONDS if self._window and not fresh else 0)
            self._settle()
            self._tell()
        if self._client is not None:
            self._client.purge()
            self._poll(0)
        self._journal.close()
        self._tell()

    def _open_journal_again(self, gives_up: float) -> None:
        """Tries to open a journal that can't be used, at most once in a pause; it then takes what waits in memory.

        ``gives_up`` is when events are sent without a journal that is still locked, in monotonic seconds.
        """
        now = time.monotonic()
        if now < self._opens_again:
            return
        self._opens_again = now + self._pauses.retry
        self._journal.open()
        self._waits_for_lock = self._journal.locked and now < gives_up
        if self._journal.usable:
            self._window = {number: self._written(entry) for number, entry in self._window.items()}
            self._failed = [self._written(entry) for entry in self._failed]
            self._ready = deque(self._written(entry) for entry in self._ready)

    def _written(self, entry: Entry) -> Entry:
        return self._journal.append(entry.key, entry.message) or entry

    def _renew(self) -> None:
        """Replaces a client whose credentials were changed: it is given nothing more, and what it can't deliver is sent by the next one."""
        if self._client is None:
            return
        if self._credentials.renewed():
            self._ended, self._purges_at = True, time.monotonic() + RETIRE_SECONDS
        if self._window and time.monotonic() >= self._purges_at:
            self._client.purge()

    def _poll(self, seconds: float) -> None:
        """Takes delivery reports. A client that an error has ended is replaced once it has reported all events in flight."""
        if not take_reports(self._client, seconds):
            self._ended = True
        if self._ended and not self._window:
            self._ended, self._client, self._purges_at = False, None, math.inf

    def _over(self) -> bool:
        with self._changed:
            if self._until is None:
                return False
            waits = self._offered or self._ready or self._window or self._failed
            return time.monotonic() >= self._until or not waits

    def _take(self) -> list[VmEvent]:
        with self._changed:
            if self._waits_for_lock and self._until is None:
                self._changed.wait(self._pauses.retry)
                return []
            waits = self._offered or self._window or self._ready or self._polls or self._until is not None
            usable = self._journal.usable
            woken = waits or self._changed.wait(self._pauses.idle if usable else self._pauses.retry)
            unused = usable and not woken and not self._offered
            fresh = list(self._offered)
            self._offered.clear()
        if unused:  # without the lock: closing the client waits for its threads, and the sampling must not wait
            self._client = None
        return fresh

    def _keep(self, event: VmEvent) -> None:
        """Writes the event to the journal; keeps it in memory only when the journal can't be written."""
        key, message = event.uuid.encode(), self._codec.encode(event)
        if event.kind == Kind.JOB:
            self._polls[key] = Entry(0, key, message)
            return
        poll = self._polls.pop(key, None)
        if poll is not None:
            self._ready.append(poll)  # the next event must not overtake it
        entry = self._journal.append(key, message) or Entry(0, key, message)
        if len(self._ready) >= MEMORY_EVENTS and entry.segment == 0:
            self._drop(LOST)
            return
        self._ready.append(entry)

    def _bring_to_disk(self, *, written: bool) -> None:
        now = time.monotonic()
        if (self._sync == "always" and written) or (self._sync == "second" and now - self._synced >= SYNC_SECONDS):
            self._journal.sync()
            self._synced = now

    def _send(self) -> None:
        self._unframed = False
        if self._failed or self._ended:
            return
        if not self._ready:
            self._ready.extend(self._polls.values())
            self._polls.clear()
        while self._ready and len(self._window) < WINDOW:
            entry = self._ready[0]
            message = self._framed(entry.message)
            self._unframed = message is None
            if message is None:
                return
            number = self._number = self._number + 1
            try:
                if self._client is None:
                    self._client = self._made()
                self._client.produce(
                    self._topic, key=entry.key, value=message, on_delivery=lambda error, _, n=number: self._delivered(error, n)
                )
            except BufferError:
                return
            except KafkaException as error:
                self._note(error.args[0])
                self._ready.popleft()
                self._refuse(entry, error.args[0])
                return
            self._ready.popleft()
            self._window[number] = entry

    def _made(self) -> Any:  # noqa: ANN401, the client's class or a double's
        """A client with the credentials as they are now."""
        with suppress(SettingError):  # a file of the credentials is away: those before stay
            self._config = event_producer_settings(self._settings)
        return self._make(self._config)

    def _delivered(self, error: KafkaError | None, number: int) -> None:
        """Handles a delivery report; called in the sending thread, by ``poll``."""
        entry = self._window.pop(number)
        if error is None:
            self._journal.delivered(entry)
        else:
            self._note(error)
            self._refuse(entry, error)

    def _refuse(self, entry: Entry, error: KafkaError) -> None:
        """Drops an event that the broker refuses permanently; any other is sent again."""
        if error.code() in _NEVER:
            self._drop(REFUSED)
            self._journal.delivered(entry)
        else:
            self._failed.append(entry)

    def _settle(self) -> None:
        """Once all reports have arrived, failed events are sent again, before later ones; events without a schema id wait."""
        if self._window or not (self._failed or self._unframed):
            return
        if self._unframed:
            _LOGGER.warning("events wait for the schema registry's ids; they are kept in %s", self._journal.folder)
        self._ready.extendleft(reversed(self._failed))
        self._failed.clear()
        with self._changed:
            if self._until is None:
                self._changed.wait(self._pauses.retry)

    def _note(self, error: KafkaError) -> None:
        _LOGGER.warning("topic %s does not take events: %s; they wait in %s", self._topic, error.str(), self._journal.folder)
        self._ended = self._ended or ended(error)

    def _drop(self, reason: str) -> None:
        with self._changed:
            self._drops[reason] += 1

    def _tell(self) -> None:
        events = len(self._ready) + len(self._window) + len(self._failed)
        waiting = _Waiting(events, self._journal.size_bytes, dict(self._journal.problems))
        with self._changed:
            self._waiting = waiting


class Snapshots(Protocol):
    """The publisher of the rounds."""

    def offer(self, snapshot: NodeSnapshot) -> None:
        """Take a round's snapshot; never waits."""

    def outgoing(self) -> Outgoing:
        """What waits, and what was dropped since the start."""


@dataclass(frozen=True, slots=True)
class WithEvents:
    """A sink for rounds whose health includes the events."""

    snapshots: Snapshots
    events: EventPublisher

    def offer(self, snapshot: NodeSnapshot) -> None:
        """Pass the round on."""
        self.snapshots.offer(snapshot)

    def outgoing(self) -> Outgoing:
        """The numbers of both publishers together."""
        rounds, events = self.snapshots.outgoing(), self.events.outgoing()
        return replace(events, spooled_rounds=rounds.spooled_rounds, drops=added(rounds.drops, events.drops))
