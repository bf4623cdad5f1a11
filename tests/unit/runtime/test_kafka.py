"""The clients' settings: the defaults that lose data are changed, secrets come from files, the free map wins."""

from __future__ import annotations

from pathlib import Path

import confluent_kafka
import pytest
from msgspec.structs import replace

from virtflow.runtime.kafka.clients import (
    Gather,
    acknowledged_producer_settings,
    client_settings,
    consumer_settings,
    snapshot_producer_settings,
    topic_name,
)
from virtflow.runtime.settings import Kafka, Producer, Settings, Topics
from virtflow.schemas.errors import SettingError
from virtflow.schemas.topics import SNAPSHOTS


def test_librdkafka_takes_every_setting() -> None:
    """The real client refuses unknown keys and bad values."""
    settings = Settings()
    for producer in (snapshot_producer_settings(settings), acknowledged_producer_settings(settings)):
        assert confluent_kafka.Producer(producer) is not None
    consumer = confluent_kafka.Consumer(consumer_settings(settings, "group"))
    consumer.close()


@pytest.mark.parametrize("make", [snapshot_producer_settings, acknowledged_producer_settings])
def test_producers_are_idempotent_and_partition_like_java(make: object) -> None:
    config = make(Settings())  # type: ignore[operator]
    assert config["enable.idempotence"] is True
    assert config["acks"] == "all"
    assert config["partitioner"] == "murmur2_random"


def test_a_round_is_given_up_after_two_intervals() -> None:
    """Old rounds must not crowd out new ones."""
    settings = Settings(producer=Producer(interval_seconds=5.0))
    assert snapshot_producer_settings(settings)["message.timeout.ms"] == 10_000


def test_an_acknowledged_message_is_never_given_up() -> None:
    assert acknowledged_producer_settings(Settings())["message.timeout.ms"] == 0


def test_consumers_store_no_offset_by_themselves() -> None:
    config = consumer_settings(Settings(), "group")
    assert config["enable.auto.offset.store"] is False
    assert config["enable.auto.commit"] is False


def test_a_full_queue_is_looked_at_again_soon() -> None:
    """A backlog is read as fast as it is taken: the client's own pause of a second would be most of the time."""
    assert consumer_settings(Settings(), "group")["fetch.queue.backoff.ms"] <= 50


def test_what_the_broker_gathers() -> None:
    assert consumer_settings(Settings(), "group")["fetch.min.bytes"] == 1
    gathering = consumer_settings(Settings(), "group", Gather(1_000, 70))
    assert (gathering["fetch.min.bytes"], gathering["fetch.wait.max.ms"]) == (1_000, 70)
    free = Settings(kafka=Kafka(client={"fetch.min.bytes": "7"}))
    assert consumer_settings(free, "group", Gather(1_000, 70))["fetch.min.bytes"] == "7"


def test_a_round_waits_for_no_other() -> None:
    """It is alone in flight, so that there is nothing to gather."""
    assert snapshot_producer_settings(Settings())["linger.ms"] == 0


def test_the_free_map_wins_everywhere() -> None:
    settings = Settings(kafka=Kafka(client={"linger.ms": "7"}))
    for config in (client_settings(settings), snapshot_producer_settings(settings), acknowledged_producer_settings(settings)):
        assert config["linger.ms"] == "7"


def test_password_comes_from_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    kafka = Kafka(security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="u", sasl_password_file=str(secret))
    assert client_settings(Settings(kafka=kafka))["sasl.password"] == "hush"
    missing = replace(kafka, sasl_password_file=str(tmp_path / "none"))
    with pytest.raises(SettingError, match=r"kafka\.sasl_password_file"):
        client_settings(Settings(kafka=missing))


def test_topics_carry_the_prefix() -> None:
    assert topic_name(Settings(topics=Topics(prefix="lab.")), SNAPSHOTS) == "lab.vm.snapshots"
