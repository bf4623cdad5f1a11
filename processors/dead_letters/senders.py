"""Which nodes send messages that can be decoded, read from the topics. Blocks; call it in a thread of its own.

It is asked when nothing was decoded since the start and so many messages were undecodable that processing would stop: then one sender
with several keys, or with none, looks like all of them. ``vm.nodes`` shows whose messages were decoded lately, by this process' predecessor or by another
one, however many undecodable messages lie on ``vm.snapshots`` since; where it has none, a node may send for the first time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from confluent_kafka import Consumer

from virtflow.processors.dead_letters.limit import NODE_SECONDS
from virtflow.runtime.kafka.clients import ClientSettings
from virtflow.runtime.kafka.topic_reader import TopicReader
from virtflow.runtime.settings import Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import UndecodableError
from virtflow.schemas.records import NodeSnapshot, NodeStatus
from virtflow.schemas.topics import NODES, SNAPSHOTS

MOST_SECONDS: Final = 10.0
"""How long each topic is read at most."""
READ_SECONDS: Final = 0.2


def senders(settings: Settings, codec: Codec, now: float, make: Callable[[ClientSettings], Any] = Consumer) -> frozenset[str]:
    """The nodes that are found in what came since ``NODE_SECONDS`` before ``now`` (Unix seconds), none where none of it can be decoded.

    All those of ``vm.nodes``, else the first one of ``vm.snapshots``. ``make`` builds the client. Raises ``EnvironmentProblemError`` when the broker
    does not answer, and ``RegistryUnavailableError``.
    """
    start = now - NODE_SECONDS
    with TopicReader(settings, NODES, start, make) as reader:
        known = frozenset(_nodes(reader, codec, NodeStatus))
    if known:
        return known
    with TopicReader(settings, SNAPSHOTS, start, make) as reader:
        first = next(_nodes(reader, codec, NodeSnapshot), None)
    return frozenset() if first is None else frozenset({first})


def _nodes(reader: TopicReader, codec: Codec, record: type[NodeStatus | NodeSnapshot]) -> Iterator[str]:
    """The nodes of a topic's messages up to its end, those that can't be decoded left out."""
    deadline = time.monotonic() + MOST_SECONDS
    while not reader.caught_up and time.monotonic() < deadline:
        for message in reader.read(READ_SECONDS):
            try:
                yield codec.decode(message.value(), record).node
            except UndecodableError:
                continue
