"""Delivery to a real broker: done means there, what can't be taken is left out and counted, what fails is produced again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

from tests.support.broker import Broker
from tests.support.processors import Bus, eventually
from virtflow.processors.dead_letters.dead_letter import Result
from virtflow.processors.delivery import Delivery
from virtflow.processors.metrics import Tally
from virtflow.runtime.kafka.clients import acknowledged_producer_settings, topic_name
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.schemas.topics import DEAD_LETTERS, METRICS


@pytest.fixture
def bus(broker: Broker) -> Bus:
    bus = Bus(broker)
    bus.create_topics()
    return bus


@contextmanager
def delivery(bus: Bus, metrics: OwnMetrics, **config: object) -> Iterator[Delivery]:
    made = Delivery({**acknowledged_producer_settings(bus.settings), **config}, partial(topic_name, bus.settings), Tally(metrics))
    made.start()
    try:
        yield made
    finally:
        made.close()


def test_done_means_that_the_broker_has_it(bus: Bus) -> None:
    results = [Result(METRICS, f"{n}".encode(), b"x" * n, (("name", b"value"),) if n % 2 else ()) for n in range(200)]
    with delivery(bus, OwnMetrics("processors")) as made:
        asyncio.run(made.deliver(results))
        found = {(m.key(), m.value()): m.headers() for m in bus.read(METRICS)}
    assert found == {(r.key, r.value): list(r.headers) or None for r in results}


def test_nothing_to_deliver_is_delivered(bus: Bus) -> None:
    with delivery(bus, OwnMetrics("processors")) as made:
        asyncio.run(made.deliver([]))


def test_what_no_broker_will_take_is_left_out_and_counted(bus: Bus) -> None:
    """One result that is too large for its topic costs nobody else's."""
    metrics = OwnMetrics("processors")
    results = [Result(METRICS, b"a", b"fine"), Result(METRICS, b"b", b"x" * 3_000_000), Result(DEAD_LETTERS, b"c", b"fine too")]
    with delivery(bus, metrics) as made:
        asyncio.run(made.deliver(results))
    assert [m.key() for topic in (METRICS, DEAD_LETTERS) for m in bus.read(topic)] == [b"a", b"c"]
    assert metrics.value("virtflow_processors_refused_messages_total") == 1


def test_what_fails_is_produced_again_until_the_broker_is_back(tmp_path: Path) -> None:
    """With a deadline on messages, as an operator may set one, failures are reported: none of them is given up."""
    metrics = OwnMetrics("processors")
    with Broker(tmp_path / "broker") as broker:
        bus = Bus(broker)
        bus.create_topics()
        results = [Result(METRICS, f"{n}".encode(), b"x") for n in range(50)]
        with delivery(bus, metrics, **{"message.timeout.ms": 500, "request.timeout.ms": 500}) as made:
            asyncio.run(made.deliver(results))
            broker.stop()
            delivering = Thread(target=lambda: asyncio.run(made.deliver(results)))
            delivering.start()
            eventually("a retry", lambda: metrics.value("virtflow_processors_delivery_retries_total") > 0)
            broker.start()
            delivering.join(60.0)
            assert not delivering.is_alive()
        found = Counter(m.key() for m in bus.read(METRICS))
    assert set(found) == {result.key for result in results}
    assert min(found.values()) >= 2
