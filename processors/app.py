"""The wiring of faust, and nothing else: the one way of using it that loses no message.

Raw bytes in, decoded inside the agent's callee; acknowledged by hand after delivery (``noack``), because faust acknowledges
a message whose handling failed; one agent at a time, because two of them commit past each other; a crash of the agent crashes
the app, because every other supervisor skips the message. Results do not go through faust's producer, which costs twice.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import faust
from mode import CrashingSupervisor

from virtflow.processors.dead_letter import Message
from virtflow.runtime.kafka import faust_security, topic_name
from virtflow.runtime.settings import Settings
from virtflow.schemas.topics import SNAPSHOTS

SESSION_SECONDS: Final = 12.0
HEARTBEAT_SECONDS: Final = SESSION_SECONDS / 4
COMMIT_SECONDS: Final = 1.0
CHATTY: Final = ("faust", "mode", "aiokafka")

Take = Callable[[Message, Callable[[], object]], Awaitable[None]]
Revoked = Callable[[], None]


def build_app(settings: Settings, folder: Path, take: Take, revoked: Revoked) -> Any:  # noqa: ANN401, faust is untyped
    """The faust app that hands every message of ``vm.snapshots`` to ``take``, with the function that acknowledges it.

    ``revoked`` is called when partitions are taken away or dealt anew. ``folder`` is where faust may put its files: it has
    none to keep.
    """
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    brokers, credentials = faust_security(settings)
    app = faust.App(settings.processors.group, broker=brokers, broker_credentials=credentials, **_safe(settings, folder))
    source = app.topic(topic_name(settings, SNAPSHOTS), key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    @app.agent(source, concurrency=1, name="snapshots")
    async def snapshots(stream: Any) -> None:  # noqa: ANN401, faust is untyped
        events: AsyncIterator[Any] = stream.noack().events()
        async for event in events:
            await take(_message(event.message), event.ack)

    @app.on_partitions_revoked.connect(weak=False)
    async def on_revoked(app: Any, partitions: Any, **_: Any) -> None:  # noqa: ANN401, faust is untyped
        del app, partitions
        revoked()

    return app


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
        "consumer_group_instance_id": settings.processors.instance or socket.gethostname(),
        "datadir": str(folder),
        "key_serializer": "raw",
        "store": "memory://",
        "stream_buffer_maxsize": settings.processors.in_flight,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "value_serializer": "raw",
        "web_enabled": False,
        "worker_redirect_stdouts": False,
    }


def _message(raw: Any) -> Message:  # noqa: ANN401, faust is untyped
    return Message(raw.topic, raw.partition, raw.offset, raw.key or b"", raw.value or b"", raw.timestamp or 0.0)
