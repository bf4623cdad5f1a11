"""The configuration of faust, and nothing else: the only way of using it that loses no message.

The agent receives raw bytes; its sink decodes them. Messages are acknowledged explicitly after delivery (``noack``), because faust
acknowledges a message whose handling failed. There is one agent for each topic, because concurrent agents commit offsets of messages that
others still handle. A crash of the agent crashes the app, because every other supervisor skips the message. Results are not sent by faust's
producer, which costs twice as much.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import faust
from mode import CrashingSupervisor

from virtflow.processors.dead_letters.dead_letter import Message
from virtflow.processors.instance_id import Fence, NameTakenError, instance_of
from virtflow.processors.lineage.consumer import MarkedConsumer
from virtflow.processors.lineage.marks import Lineage
from virtflow.runtime.kafka.clients import OAUTHBEARER, faust_security, password, tls_context, topic_name
from virtflow.runtime.settings import Kafka, Settings
from virtflow.schemas.topics import EVENTS, SNAPSHOTS

SESSION_SECONDS: Final = 12.0
HEARTBEAT_SECONDS: Final = SESSION_SECONDS / 4
COMMIT_SECONDS: Final = 1.0
METADATA_SECONDS: Final = 5.0
"""How soon a change of the topics is detected: a broker that has just restarted may report no topics to a member that joins, and the
member receives nothing until it asks again."""
CHATTY: Final = ("faust", "mode", "aiokafka", "virtflow.processors.lineage.consumer")
"""Also the classes derived from faust's: it logs by the module that a class is in."""

Take = Callable[[Message, Callable[[], object]], Awaitable[None]]


class Sink(Protocol):
    """The receiver of the messages, each with the function that acknowledges it, and of changes of the assigned partitions."""

    async def take(self, message: Message, acknowledge: Callable[[], object]) -> None:
        """Takes a message of ``vm.snapshots``."""

    async def take_event(self, message: Message, acknowledge: Callable[[], object]) -> None:
        """Takes a message of ``vm.events``."""

    def revoked(self) -> None:
        """Partitions were revoked or assigned again."""

    def assigned(self, partitions: Iterable[int]) -> None:
        """The partitions of ``vm.events`` that are assigned to this process from now on."""

    def fail(self, error: BaseException) -> None:
        """Processing has to end, for this reason."""


def build_app(settings: Settings, folder: Path, sink: Sink, fence: Fence, lineage: Lineage) -> Any:  # noqa: ANN401, faust is untyped
    """The faust app that hands every message of ``vm.snapshots`` and ``vm.events`` to ``sink``.

    ``folder`` is for faust's files, none of which has to be kept. ``fence`` detects another process with this one's name in the group,
    ``lineage`` where a partition goes on.
    """
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    brokers, credentials = credentials_of(settings)
    app = faust.App(settings.processors.group, broker=brokers, broker_credentials=credentials, **_safe(settings, folder))
    transport: Any = app.transport
    transport.Consumer = partial(MarkedConsumer, lineage)
    takers = {topic_name(settings, SNAPSHOTS): sink.take, topic_name(settings, EVENTS): sink.take_event}
    for name, taker in takers.items():
        _agent(app, name, taker, lineage)

    @app.on_partitions_revoked.connect(weak=False)
    async def on_revoked(app: Any, partitions: Any, **_: Any) -> None:  # noqa: ANN401, faust is untyped
        del app, partitions
        sink.revoked()
        try:
            await fence.check()
        except NameTakenError as error:
            sink.fail(error)
            await asyncio.Event().wait()  # returning would join the group again and take the partitions back

    @app.on_partitions_assigned.connect(weak=False)
    async def on_assigned(app: Any, partitions: Any, **_: Any) -> None:  # noqa: ANN401, faust is untyped
        del app
        fence.joined()
        lineage.keep((place.topic, place.partition) for place in partitions)
        events = topic_name(settings, EVENTS)
        sink.assigned(place.partition for place in partitions if place.topic == events)

    return app


class NewestContext(ssl.SSLContext):
    """The context that aiokafka is given once and for all: each connection is made with the ``newest`` one, because none can forget an authority."""

    newest: ssl.SSLContext

    @classmethod
    def of(cls, context: ssl.SSLContext) -> NewestContext:
        """One that begins with ``context``."""
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made.newest = context
        return made

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:  # noqa: ANN401, as it is
        """What asyncio calls for each connection."""
        return self.newest.wrap_bio(*given, **named)


def credentials_of(settings: Settings) -> tuple[list[str], Any]:
    """The brokers' URLs and the credentials for a faust app (None for plain text), of which ``use_credentials`` makes others."""
    context = NewestContext.of(tls_context(settings.kafka)) if settings.kafka.security_protocol.endswith("SSL") else None
    return faust_security(settings, context)


def use_credentials(app: Any, kafka: Kafka) -> None:  # noqa: ANN401, faust is untyped
    """Has the app's connections from now on use the credentials as their files have them now; raises ``SettingError`` where they can't be used.

    What they no longer hold, as an authority that was trusted, counts no more.
    """
    credentials = app.conf.broker_credentials
    if kafka.security_protocol.endswith("SSL"):
        context: NewestContext = credentials.context if kafka.security_protocol == "SSL" else credentials.ssl_context
        context.newest = tls_context(kafka)
    if not kafka.security_protocol.startswith("SASL") or kafka.sasl_mechanism == OAUTHBEARER:
        return  # tokens are asked for at each connection, with the secret as it is then
    credentials.password = password(kafka)  # for clients that are still to be made
    consumer, producer = app.consumer._thread._consumer, app.producer._producer  # noqa: SLF001, there is no public way
    for client in (consumer and consumer._client, producer and producer.client):  # noqa: SLF001, as above
        if client is not None:
            client._sasl_plain_password = credentials.password  # noqa: SLF001, as above


def _agent(app: Any, topic: str, take: Take, lineage: Lineage) -> None:  # noqa: ANN401, faust is untyped
    source = app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    async def agent(stream: Any) -> None:  # noqa: ANN401, faust is untyped
        events: AsyncIterator[Any] = stream.noack().events()
        async for event in events:
            message = _message(event.message)
            lineage.taken(message)
            await take(message, partial(_acknowledge, event, message, lineage))

    app.agent(source, concurrency=1, name=topic)(agent)


def _acknowledge(event: Any, message: Message, lineage: Lineage) -> None:  # noqa: ANN401, faust is untyped
    lineage.acknowledged(message)
    event.ack()


def _safe(settings: Settings, folder: Path) -> dict[str, Any]:
    """The settings of faust. Where one differs from its default, the default loses data, opens a port or creates topics."""
    return {
        "agent_supervisor": CrashingSupervisor,
        "autodiscover": False,
        "broker_client_id": "virtflow-processors",
        "broker_commit_interval": COMMIT_SECONDS,
        "broker_heartbeat_interval": HEARTBEAT_SECONDS,
        "broker_max_poll_records": settings.processors.in_flight,
        "broker_session_timeout": SESSION_SECONDS,
        "consumer_auto_offset_reset": "earliest",
        # A member that restarts with the same name within the session timeout keeps its partitions without a rebalance.
        "consumer_group_instance_id": instance_of(settings),
        "consumer_metadata_max_age_ms": int(METADATA_SECONDS * 1000),
        "datadir": str(folder),
        "key_serializer": "raw",
        "store": "memory://",
        "stream_buffer_maxsize": settings.processors.in_flight,
        # Unacknowledged messages are delivered again. Waiting for them would never end if their handling has stopped.
        "stream_wait_empty": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "value_serializer": "raw",
        "web_enabled": False,
        "worker_redirect_stdouts": False,
    }


def _message(raw: Any) -> Message:  # noqa: ANN401, faust is untyped
    return Message(raw.topic, raw.partition, raw.offset, raw.key or b"", raw.value or b"", raw.timestamp or 0.0)
