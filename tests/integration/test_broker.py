"""The broker that all other tests stand on does what its name says."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from scripts.embedded_kafka import fetch
from tests.support.broker import Broker, BrokerError

WITHOUT_KNOWN_HOLES: Final = {"lz4-java": (1, 11, 1), "commons-beanutils": (1, 11, 0)}
"""The lowest versions of libraries that are without the vulnerabilities of those that Kafka itself names (deploy/embedded/pom.xml)."""


def test_its_libraries_are_the_newer_ones() -> None:
    matches = (re.fullmatch(r"(.+?)-(\d[\d.]*)\.jar", jar.name) for jar in fetch().glob("*.jar"))
    found = {match[1]: tuple(int(number) for number in match[2].split(".")) for match in matches if match}
    versions = {name: found[name] for name in WITHOUT_KNOWN_HOLES}
    assert {name: version for name, version in versions.items() if version < WITHOUT_KNOWN_HOLES[name]} == {}


def test_it_compresses_as_it_did(broker: Broker) -> None:
    """The broker itself compresses where the topic says how: a newer library writes what every client reads."""
    topic, values = f"lz4-{uuid4().hex[:8]}", [b"x" * 10_000, b"", bytes(range(256)) * 100]
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(topic, 1, 1, config={"compression.type": "lz4"})])[topic].result()
    producer = Producer({"bootstrap.servers": broker.address, "compression.type": "snappy"})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30.0) == 0
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": topic, "check.crcs": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    read = [message.value() for message in consumer.consume(len(values), 30.0)]
    consumer.close()
    assert read == values


def _topics(broker: Broker, timeout: float = 5.0) -> set[str]:
    return set(AdminClient({"bootstrap.servers": broker.address, "log_level": 0}).list_topics(timeout=timeout).topics)


def test_topics_survive_stop_and_kill(tmp_path: Path) -> None:
    """The same ports and the same data after a stop, and after a kill -9."""
    with Broker(tmp_path) as broker:
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.create_topics([NewTopic("kept", 2, 1)])["kept"].result()
        first = broker.pid
        broker.restart()
        assert broker.pid != first
        assert "kept" in _topics(broker)
        broker.kill()
        with pytest.raises(BrokerError, match="not running"):
            broker.kill()
        broker.start()
        assert "kept" in _topics(broker)


def test_a_paused_broker_is_silent_until_resumed(broker: Broker) -> None:
    """SIGSTOP is a broker whose connections are open and that answers nothing."""
    broker.pause()
    with contextlib.ExitStack() as always:
        always.callback(broker.resume)
        with pytest.raises(KafkaException):
            _topics(broker, timeout=0.5)
    broker.wait_until_ready()
    assert isinstance(_topics(broker), set)


def test_no_topic_appears_by_being_asked_for(broker: Broker) -> None:
    """Topics come from `virtflow topics create` alone: a mistyped name must not make one."""
    AdminClient({"bootstrap.servers": broker.address}).list_topics("mistyped", timeout=5.0)
    assert "mistyped" not in _topics(broker)
