"""faust's consumer as it is set up: what it asks of the broker."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher as AIOKafkaFetcher
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from virtflow.processors.lineage import consumer as consumer_module
from virtflow.processors.lineage.consumer import MarkedThread, Traffic
from virtflow.runtime.kafka.clients import AT_ONCE, LIVE, Gather


class Fetcher:
    """What aiokafka's fetcher puts into its next request; the names are its own."""

    _fetch_min_bytes, _fetch_max_wait_ms = 7, 9

    @property
    def asks(self) -> Gather:
        return Gather(self._fetch_min_bytes, self._fetch_max_wait_ms)


def test_aiokafka_s_fetcher_has_these_options() -> None:
    """Read for each request, so that a change is obeyed by the next one."""
    request = inspect.getsource(AIOKafkaFetcher._get_actions_per_node)
    assert "self._fetch_max_wait_ms" in request
    assert "self._fetch_min_bytes" in request


@pytest.mark.parametrize(("a_second", "answered"), [(0, AT_ONCE), (99, AT_ONCE), (100, LIVE), (5_000, LIVE)])
def test_the_broker_gathers_where_much_arrives(a_second: int, answered: Gather, monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer for many small messages, not one each; where there are few, none waits."""

    async def fetched(*_: object, **__: object) -> dict[str, list[int]]:
        return {"a": [0] * (a_second - a_second // 2), "b": [0] * (a_second // 2)}

    async def scenario() -> list[Gather]:
        monkeypatch.setattr(AIOKafkaConsumerThread, "_fetch_records", fetched)
        monkeypatch.setattr(consumer_module, "time", SimpleNamespace(monotonic=iter((50.0, 51.0, 52.0)).__next__))
        thread = object.__new__(MarkedThread)
        thread._traffic = Traffic()
        fetcher = Fetcher()
        consumer: Any = SimpleNamespace(_fetcher=fetcher)
        seen = []
        for _ in range(3):
            await thread._fetch_records(consumer, set(), timeout=1.0)
            seen.append(fetcher.asks)
        return seen

    assert asyncio.run(scenario()) == [AT_ONCE, answered, answered]


def test_it_stops_gathering_where_less_arrives() -> None:
    traffic = Traffic()
    assert [traffic.gather(messages, now) for messages, now in ((0, 0.0), (200, 1.0), (50, 1.5), (49, 2.0), (1, 2.5))] == [
        AT_ONCE,
        LIVE,
        LIVE,
        AT_ONCE,
        AT_ONCE,
    ]


def test_the_process_does_not_wait_for_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework may leave it running where the service is stopped while it starts: the process was ended after its time, as one that failed."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(AIOKafkaConsumerThread, "__init__", lambda _self, _consumer, **options: made.append(options))
    consumer: Any = SimpleNamespace()
    MarkedThread(consumer, consumer)
    (options,) = made
    assert options["Worker"](consumer).daemon
