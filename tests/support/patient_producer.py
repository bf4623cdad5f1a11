"""Producing faster than a broker takes it, without losing anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

ROOM_SECONDS = 0.1


def produce_patiently(
    producer: Producer, topic: str, value: bytes, key: bytes | None, on_delivery: Callable[[Any, Any], None] | None = None
) -> None:
    """Produces a message; where the client's queue is full, as soon as it has room again."""
    while True:
        try:
            producer.produce(topic, value, key, on_delivery=on_delivery)
        except BufferError:
            producer.poll(ROOM_SECONDS)
        else:
            return
