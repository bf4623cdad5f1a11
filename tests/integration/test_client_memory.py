"""What a service asks the broker again and again for as long as it runs, it keeps no object of."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.broker import Broker
from virtflow.exporter.assignment import Clients, Partitions
from virtflow.history.writer.offsets import Names
from virtflow.runtime.kafka.broker_watch import BrokerWatch
from virtflow.runtime.kafka.clients import LIVE, client_settings, consumer_settings
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Kafka, Settings, Topics
from virtflow.schemas.topics import EVENTS, INVENTORY, METRICS, MIGRATIONS

ASKED = 100
KEPT = 30
"""Objects more that may be there afterwards: what threads of the client are just doing."""
TOPICS = (METRICS, INVENTORY, MIGRATIONS, EVENTS)


@pytest.fixture(scope="module")
def settings(broker: Broker) -> Settings:
    """Of a service whose topics are there."""
    prefix = f"m{uuid4().hex[:8]}."
    admin = AdminClient({"bootstrap.servers": broker.address})
    for future in admin.create_topics([NewTopic(prefix + topic.name, 2, 1) for topic in TOPICS]).values():
        future.result()
    return Settings(kafka=Kafka(bootstrap_servers=broker.address), topics=Topics(prefix=prefix))


def watching(settings: Settings) -> Callable[[], object]:
    """Whether the brokers answer: processors, exporter and history writer, every two seconds."""
    return BrokerWatch(settings, TOPICS, OwnMetrics("exporter").gauge("virtflow_exporter_broker_answer_age_seconds")).ask


def looking(settings: Settings) -> Callable[[], object]:
    """Which partitions there are: exporter, every five seconds."""
    clients = Clients(consumer_settings(settings, "g", LIVE), client_settings(settings))
    return Partitions(clients, dict.fromkeys([settings.topics.prefix + topic.name for topic in TOPICS]), lambda: 0.0).look


def naming(settings: Settings) -> Callable[[], object]:
    """Which ids the topics have: history writer."""
    return Names(settings).learn


def objects() -> Counter[str]:
    """How many objects there are of each type."""
    gc.collect()
    return Counter(f"{type(one)}" for one in gc.get_objects())


@pytest.mark.parametrize("asking", [watching, looking, naming])
def test_asking_keeps_nothing(asking: Callable[[Settings], Callable[[], object]], settings: Settings) -> None:
    ask = asking(settings)
    for _ in range(5):
        ask()
    before = objects()
    for _ in range(ASKED):
        ask()
    more = objects() - before
    assert more.total() < KEPT, more
