"""The broker that all other tests stand on does what its name says."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.broker import Broker, BrokerError


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
