"""Restores the state from the compacted topic: the newest record of every key. Blocks; call it in a thread of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from virtflow.runtime.kafka.acls import READ_BACK_GROUP
from virtflow.runtime.kafka.clients import ClientSettings, consumer_settings, topic_name
from virtflow.runtime.settings import Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import EnvironmentProblemError, UndecodableError
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import MIGRATIONS

ANSWER_SECONDS: Final = 5.0
READ_SECONDS: Final = 0.2
SILENCE_SECONDS: Final = 30.0
"""How long the broker may return no message while some are left to read."""
BATCH: Final = 1_000

_LOG: Final = logging.getLogger("virtflow.processors")


def read_migrations(
    settings: Settings,
    codec: Codec,
    make: Callable[[ClientSettings], Any] = Consumer,
    note: Callable[[Message], object] | None = None,
) -> dict[str, tuple[VmMigration, int]]:
    """Every VM's newest migration with its partition; ``make`` builds the client, and ``note`` is told of every message.

    Raises ``EnvironmentProblemError`` when the broker does not return it.
    """
    name = topic_name(settings, MIGRATIONS)
    config = consumer_settings(settings, settings.processors.group + READ_BACK_GROUP)
    consumer = make({**config, "auto.offset.reset": "earliest", "enable.partition.eof": True})
    try:
        return _read(consumer, name, codec, note)
    except KafkaException as error:
        why = error.args[0].str() if error.args else str(error)
        raise EnvironmentProblemError(thing="topic", value=name, why=f"can't be read back: {why}", fix="is the broker healthy?") from error
    finally:
        consumer.close()


def _read(consumer: Consumer, name: str, codec: Codec, note: Callable[[Message], object] | None) -> dict[str, tuple[VmMigration, int]]:
    found: dict[str, tuple[VmMigration, int]] = {}
    partitions = [TopicPartition(name, number) for number in consumer.list_topics(name, ANSWER_SECONDS).topics[name].partitions]
    bounds = {p.partition: consumer.get_watermark_offsets(p, ANSWER_SECONDS, cached=False) for p in partitions}
    left = {number: high for number, (low, high) in bounds.items() if low < high}
    consumer.assign([TopicPartition(name, number, bounds[number][0]) for number in left])
    received = time.monotonic()
    while left:
        messages = consumer.consume(BATCH, READ_SECONDS)
        if messages:
            received = time.monotonic()
        elif time.monotonic() - received > SILENCE_SECONDS:
            raise EnvironmentProblemError(thing="topic", value=name, why="returns no more messages", fix="is the broker healthy?")
        for message in messages:
            problem = message.error()
            if problem is not None and problem.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001, the client's own name
                # The last offsets may hold no record: gaps of compaction, marks of transactions.
                left.pop(message.partition() or 0, None)
                continue
            if problem is not None:
                raise KafkaException(problem)
            if note is not None:
                note(message)
            _take(found, message.key() or b"", message.value(), message.partition() or 0, codec)
        _drop_finished(consumer, left, name)
    return found


def _take(found: dict[str, tuple[VmMigration, int]], key: bytes, value: bytes | None, partition: int, codec: Codec) -> None:
    uuid = key.decode("utf-8", "replace")
    if value is None:
        found.pop(uuid, None)
        return
    try:
        found[uuid] = codec.decode(value, VmMigration), partition
    except UndecodableError as error:
        _LOG.warning("a migration of %s can't be restored and is skipped: %s", uuid, error)


def _drop_finished(consumer: Consumer, left: dict[int, int], name: str) -> None:
    """Drops the partitions that have been read to their end; the last offsets may be gaps left by compaction."""
    for place in consumer.position([TopicPartition(name, number) for number in left]):
        if place.offset >= left[place.partition]:
            del left[place.partition]
