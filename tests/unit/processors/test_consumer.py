"""faust's consumer as it is set up: what it asks of the broker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from virtflow.processors.lineage.consumer import MarkedThread
from virtflow.runtime.kafka.clients import LIVE, Gather


def asked(consumer: AIOKafkaConsumer) -> Gather:
    found = Gather(consumer._fetch_min_bytes, consumer._fetch_max_wait_ms)
    consumer._closed = True  # it was never started, and has nothing to end
    return found


def test_the_broker_gathers_for_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer for many small messages, not one each; the names are those by which aiokafka keeps its own options."""

    async def scenario() -> None:
        assert asked(AIOKafkaConsumer(fetch_min_bytes=7, fetch_max_wait_ms=9)) == Gather(7, 9)
        monkeypatch.setattr(AIOKafkaConsumerThread, "_create_worker_consumer", lambda *_: AIOKafkaConsumer())
        thread = object.__new__(MarkedThread)
        assert asked(thread._create_worker_consumer(None)) == LIVE

    asyncio.run(scenario())


def test_the_process_does_not_wait_for_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework may leave it running where the service is stopped while it starts: the process was ended after its time, as one that failed."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(AIOKafkaConsumerThread, "__init__", lambda _self, _consumer, **options: made.append(options))
    consumer: Any = SimpleNamespace()
    MarkedThread(consumer, consumer)
    (options,) = made
    assert options["Worker"](consumer).daemon
