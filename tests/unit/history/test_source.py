"""What the writer's client is built with."""

from __future__ import annotations

from typing import Any

from tests.support.memory_kafka import Cluster
from virtflow.history.writer.offsets import Names
from virtflow.history.writer.source import Makers, source_of
from virtflow.runtime.settings import History, Kafka, Settings
from virtflow.schemas.topics import TOPICS


def config_of(settings: Settings) -> dict[str, Any]:
    """The settings that the client which reads gets."""
    cluster = Cluster.with_topics(*TOPICS)
    given: list[dict[str, Any]] = []

    def consumer(config: dict[str, Any]) -> Any:  # noqa: ANN401, the double's class
        given.append(config)
        return cluster.consumer(config)

    source_of(settings, Names(settings, cluster.admin), Makers(consumer, cluster.admin)).consumer.close()
    return given[0]


def test_the_partitions_of_a_member_that_is_gone_are_idle_for_seconds() -> None:
    """A named one does not leave the group, and librdkafka gives a member 45 s."""
    config = config_of(Settings(history=History(instance="one")))
    assert config["group.instance.id"] == "one"
    assert config["session.timeout.ms"] == 12_000
    assert config["heartbeat.interval.ms"] == 3_000


def test_the_free_map_wins() -> None:
    config = config_of(Settings(kafka=Kafka(client={"session.timeout.ms": "6000"})))
    assert config["session.timeout.ms"] == "6000"
    assert "group.instance.id" not in config
