"""The wiring of faust, and nothing else: the one way of using it that loses no message.

Raw bytes in, decoded inside the agent's callee; acknowledged by hand after delivery (``noack``), because faust acknowledges
a message whose handling failed; one agent at a time, because two of them commit past each other; a crash of the agent crashes
the app, because every other supervisor skips the message. Results do not go through faust's producer, which costs twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import faust
from mode import CrashingSupervisor

from virtflow.processors.dead_letter import Message
from virtflow.processors.instance_id import Fence, NameTakenError, instance_of
from virtflow.processors.lineage.consumer import marked_consumer
from virtflow.processors.lineage.marks import Lineage
from virtflow.runtime.kafka import faust_security, topic_name
from virtflow.runtime.settings import Settings
from virtflow.schemas.topics import EVENTS, SNAPSHOTS

SESSION_SECONDS: Final = 12.0
HEARTBEAT_SECONDS: Final = SESSION_SECONDS / 4
COMMIT_SECONDS: Final = 1.0
METADATA_SECONDS: Final = 5.0
"""How soon a change of the topics is seen: a member that joins a broker which has just come back may be told of no topics at
all, and would idle until it asks again."""
CHATTY: Final = ("faust", "mode", "aiokafka", "virtflow.processors.lineage.consumer")
"""Also our classes of faust's: it logs by the module that a class is in."""

Take = Callable[[Message, Callable[[], object]], Awaitable[None]]


class Sink(Protocol):
    """Who takes the messages, each with the function that acknowledges it, and hears of the partitions."""

    async def take(self, message: Message, acknowledge: Callable[[], object]) -> None:
        """Takes a message of ``vm.snapshots``."""

    async def take_event(self, message: Message, acknowledge: Callable[[], object]) -> None:
        """Takes a message of ``vm.events``."""

    def revoked(self) -> None:
        """Partitions were taken away or dealt again."""

    def assigned(self, partitions: Iterable[int]) -> None:
        """The partitions of ``vm.events`` that are ours from now on."""

    def fail(self, error: BaseException) -> None:
        """Nothing can go on, for this reason."""


def build_app(settings: Settings, folder: Path, sink: Sink, fence: Fence, lineage: Lineage) -> Any:  # noqa: ANN401, faust is untyped
    """The faust app that hands every message of ``vm.snapshots`` and ``vm.events`` to ``sink``.

    ``folder`` is where faust may put its files: it has none to keep. ``fence`` tells whether our name in the group is still ours,
    ``lineage`` where a partition goes on.
    """
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    brokers, credentials = faust_security(settings)
    app = faust.App(settings.processors.group, broker=brokers, broker_credentials=credentials, **_safe(settings, folder))
    transport: Any = app.transport
    transport.Consumer = marked_consumer(lineage)
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
            await asyncio.Event().wait()  # whoever goes on from here joins again, and takes the partitions back

    @app.on_partitions_assigned.connect(weak=False)
    async def on_assigned(app: Any, partitions: Any, **_: Any) -> None:  # noqa: ANN401, faust is untyped
        del app
        fence.joined()
        lineage.keep((place.topic, place.partition) for place in partitions)
        events = topic_name(settings, EVENTS)
        sink.assigned(place.partition for place in partitions if place.topic == events)

    return app


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
    """The settings of faust; each one that is not its default loses data, opens a port or makes topics if left alone."""
    return {
        "agent_supervisor": CrashingSupervisor,
        "autodiscover": False,
        "broker_client_id": "virtflow-processors",
        "broker_commit_interval": COMMIT_SECONDS,
        "broker_heartbeat_interval": HEARTBEAT_SECONDS,
        "broker_max_poll_records": settings.processors.in_flight,
        "broker_session_timeout": SESSION_SECONDS,
        "consumer_auto_offset_reset": "earliest",
        # A member that comes back under its name within the session gets its partitions back without a rebalance.
        "consumer_group_instance_id": instance_of(settings),
        "consumer_metadata_max_age_ms": int(METADATA_SECONDS * 1000),
        "datadir": str(folder),
        "key_serializer": "raw",
        "store": "memory://",
        "stream_buffer_maxsize": settings.processors.in_flight,
        # What is not acknowledged comes again; waiting for it would never end where its handling has.
        "stream_wait_empty": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "value_serializer": "raw",
        "web_enabled": False,
        "worker_redirect_stdouts": False,
    }


def _message(raw: Any) -> Message:  # noqa: ANN401, faust is untyped
    return Message(raw.topic, raw.partition, raw.offset, raw.key or b"", raw.value or b"", raw.timestamp or 0.0)
