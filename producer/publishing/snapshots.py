"""Sends a node's snapshots to Kafka: a ring buffer of the newest rounds, and one round in flight.

When librdkafka's own queue is full it rejects the newest message, but a monitoring pipeline needs the newest. Therefore rounds wait in
a ring buffer here: while the broker is unavailable the oldest rounds are dropped and counted. One round is in flight at a time, which keeps
the order over every retry; a message has arrived when its delivery report confirms it, and not before.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from virtflow.producer.publishing.split import messages
from virtflow.producer.records.node_health import Outgoing
from virtflow.runtime.kafka.clients import ClientSettings, snapshot_producer_settings, topic_name
from virtflow.runtime.kafka.credentials import RETIRE_SECONDS, Credentials
from virtflow.runtime.kafka.librdkafka import KafkaError, KafkaException, Producer, ended, take_reports
from virtflow.runtime.settings import Settings
from virtflow.schemas.avro.encoder import Encoder, Framed, as_it_is
from virtflow.schemas.errors import SettingError
from virtflow.schemas.records import NodeSnapshot
from virtflow.schemas.topics import SNAPSHOTS

POLL_SECONDS: Final = 0.1
IDLE_SECONDS: Final = 2.0
"""How long the sending thread waits for a round before it polls the client; a round wakes it."""
GRACE_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0

_LOGGER: Final = logging.getLogger(__name__)

_TOPIC_MISSING: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})  # noqa: SLF001, librdkafka's local codes
_REFUSED: Final = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.POLICY_VIOLATION, KafkaError.INVALID_RECORD}
)
_NEVER: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})


@dataclass(slots=True, eq=False)
class _Round:
    """The messages of a round that have not arrived yet, by their part; ``open`` counts missing delivery reports."""

    messages: dict[int, bytes]
    open: int = 0
    errors: list[KafkaError] = field(default_factory=list)
    unframed: bool = False
    """Whether sending was postponed because the schema registry's ids are not known yet."""


class Publisher:
    """The sink of a producer's snapshots: takes them without waiting and sends them in a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        make: Callable[[dict[str, Any]], Any] = Producer,
        framed: Framed = as_it_is,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """``make`` builds the client from librdkafka's settings; no broker is needed yet. ``framed`` adds the registry's id.

        A round that failed is sent again after ``retry_seconds``.
        """
        self._settings = settings
        self._credentials = Credentials(settings.kafka)
        self._make = make
        self._topic = topic_name(settings, SNAPSHOTS)
        self._brokers = settings.kafka.bootstrap_servers
        self._size = settings.producer.ring_rounds
        self._codec = Encoder()
        self._framed = framed
        self._changed = threading.Condition()
        self._ring: deque[tuple[str, _Round]] = deque()
        self._current: tuple[str, _Round] | None = None
        self._drops: Counter[str] = Counter()
        self._trouble = ""
        self._retry_seconds = retry_seconds
        self._ended = False
        self._purges_at = math.inf
        self._until: float | None = None
        self._config = _client_settings(settings)
        self._producer = make(self._config)
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)
        self._thread.start()

    # -- the sampling thread

    def offer(self, snapshot: NodeSnapshot) -> None:
        """Encode the round and put it into the ring; when that is full, the oldest round is dropped."""
        encoded = messages(snapshot, self._codec.encode)
        with self._changed:
            if len(self._ring) >= self._size:
                self._ring.popleft()
                self._drop()
            self._ring.append((snapshot.node, _Round(dict(enumerate(encoded)))))
            self._changed.notify()

    def outgoing(self) -> Outgoing:
        """The number of waiting rounds, and of dropped ones by reason."""
        with self._changed:
            return Outgoing(len(self._ring) + (self._current is not None), dict(self._drops))

    def close(self, seconds: float) -> int:
        """Send the waiting rounds for at most ``seconds``; how many were not sent."""
        with self._changed:
            self._until = time.monotonic() + seconds
            self._changed.notify()
        self._thread.join(seconds + GRACE_SECONDS)
        with self._changed:
            return len(self._ring) + (self._current is not None)

    # -- the sending thread

    def _run(self) -> None:
        while self._awaited():
            if self._credentials.renewed():
                self._ended, self._purges_at = True, time.monotonic() + RETIRE_SECONDS
            self._replace()
            if self._current is not None and self._current[1].open == 0:
                self._send(*self._current)
            if not take_reports(self._producer, POLL_SECONDS if self._current is not None else 0):
                self._ended = True
            if self._current is not None and self._current[1].open == 0:
                self._settle(*self._current)

    def _replace(self) -> None:
        """Replaces a client that an error has ended, or whose credentials were changed, once it has reported all messages in flight."""
        if not self._ended:
            return
        if self._current is not None and self._current[1].open:
            if time.monotonic() >= self._purges_at:
                self._producer.purge()  # they are sent again by the next client
            return
        try:
            with suppress(SettingError):  # a file of the credentials is away: those before stay
                self._config = _client_settings(self._settings)
            self._producer = self._make(self._config)
        except KafkaException as error:
            _LOGGER.warning("the Kafka client can't be made, it is tried again: %s", error.args[0].str())
        else:
            self._ended, self._purges_at = False, math.inf

    def _awaited(self) -> bool:
        """Waits for a round to send and takes it; False when the thread has to end."""
        with self._changed:
            if self._current is None and not self._ring and self._until is None:
                self._changed.wait(IDLE_SECONDS)
            if self._until is not None and (time.monotonic() >= self._until or not (self._current or self._ring)):
                return False
            if self._current is None and self._ring:
                self._current = self._ring.popleft()
            return True

    def _send(self, node: str, sending: _Round) -> None:
        def delivered(error: KafkaError | None, part: int) -> None:
            sending.open -= 1
            if error is None:
                sending.messages.pop(part, None)
            else:
                sending.errors.append(error)

        for part, message in list(sending.messages.items()):
            framed = self._framed(message)
            if framed is None:
                sending.unframed = True
                break
            try:
                self._producer.produce(
                    self._topic, key=node, value=framed, on_delivery=lambda error, _message, part=part: delivered(error, part)
                )
            except KafkaException as error:
                sending.errors.append(error.args[0])
            except BufferError:  # this round fills librdkafka's queue: the rest follows when there is room
                break
            else:
                sending.open += 1

    def _settle(self, node: str, sent: _Round) -> None:
        """All delivery reports have arrived: the round is done, or its failed messages are sent again unless newer rounds fill the ring."""
        errors, sent.errors = sent.errors, []
        waits, sent.unframed = sent.unframed, False
        if waits:
            self._trouble = "registry_unavailable"
            _LOGGER.warning("rounds wait for the schema registry's ids; the newest %d are kept", self._size)
        elif errors:
            self._note(errors[0])
            if errors[0].code() in _NEVER:
                sent.messages.clear()
                self._count()
        else:
            self._trouble = ""
        with self._changed:
            if sent.messages and len(self._ring) >= self._size:
                self._drop()
            elif sent.messages:
                self._ring.appendleft((node, sent))
            self._current = None
            if (errors or waits) and self._until is None:
                self._changed.wait_for(lambda: self._until is not None, self._retry_seconds)

    def _count(self) -> None:
        with self._changed:
            self._drop()

    def _drop(self) -> None:
        """Count a dropped round by the reason why it was not delivered."""
        self._drops[self._trouble or "ring_full"] += 1

    def _note(self, error: KafkaError) -> None:
        """Log the problem and how to fix it; the log shows each problem once a minute."""
        code = error.code()
        if code in _TOPIC_MISSING:
            self._trouble = "topic_missing"
            _LOGGER.error("topic %s is not there: run `virtflow topics create`; rounds wait meanwhile", self._topic)
        elif code in _REFUSED:
            self._trouble = "refused"
            _LOGGER.error("broker %s refuses messages for topic %s: %s", self._brokers, self._topic, error.str())
        elif code in _NEVER:
            self._trouble = "too_large"
            _LOGGER.error("broker %s takes no message that large in topic %s: %s", self._brokers, self._topic, error.str())
        else:
            self._trouble = "broker_unreachable"
            _LOGGER.warning("broker %s does not take rounds: %s; the newest %d are kept", self._brokers, error.str(), self._size)
        self._ended = self._ended or ended(error)


def _client_settings(settings: Settings) -> ClientSettings:
    """The client's settings, with the credentials as they are now; raises ``SettingError`` where their files can't be read."""
    config = snapshot_producer_settings(settings)
    config.setdefault("topic.metadata.propagation.max.ms", max(500, config["message.timeout.ms"] // 2))
    return config
