"""How long ago the brokers last answered: with a broker in memory, and with answers of several brokers."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from tests.support.lab_process import await_true
from tests.support.memory_kafka import Cluster
from virtflow.runtime.kafka import broker_watch
from virtflow.runtime.kafka.broker_watch import BrokerWatch
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Kafka, Settings, Topics
from virtflow.schemas.topics import EVENTS, SNAPSHOTS

AGE = "virtflow_processors_broker_answer_age_seconds"
SETTINGS = Settings(kafka=Kafka(bootstrap_servers="broker:1", silence_seconds=10.0))
SECONDS = 60.0


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        """Any moment."""
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A watch of two topics, its metric and its clock."""

    def __init__(self, make: Any, settings: Settings = SETTINGS) -> None:  # noqa: ANN401, builds a client
        """``make`` builds the client that asks."""
        self.clock = Clock()
        self.metrics = OwnMetrics("processors")
        self.watch = BrokerWatch(settings, (SNAPSHOTS, EVENTS), self.metrics.gauge(AGE), make, self.clock)

    def ages(self) -> tuple[float, float]:
        """Of snapshots, and of events."""
        return self.metrics.value(AGE, SNAPSHOTS.name), self.metrics.value(AGE, EVENTS.name)

    def later(self, seconds: float) -> None:
        """Time passes, then the brokers are asked."""
        self.clock.now += seconds
        self.watch.ask()


def test_the_age_is_zero_after_an_answer_whether_or_not_there_are_records() -> None:
    watched = Watched(Cluster.with_topics(SNAPSHOTS, EVENTS).admin)
    for _ in range(10):
        watched.later(60.0)
        assert (watched.ages(), watched.watch.problem) == ((0.0, 0.0), "")


def test_the_age_grows_while_the_broker_is_away_and_readiness_follows() -> None:
    """Between questions as well, and from the start where the broker never answered."""
    cluster = Cluster.with_topics(SNAPSHOTS, EVENTS)
    watched = Watched(cluster.admin)
    cluster.stop()
    watched.later(10.0)
    assert (watched.ages(), watched.watch.problem) == ((10.0, 10.0), "")
    watched.clock.now += 1.0
    assert watched.ages() == (11.0, 11.0)
    assert watched.watch.problem == "no answer from the brokers broker:1 about vm.snapshots, vm.events for 11 s"
    cluster.start()
    watched.later(1.0)
    assert (watched.ages(), watched.watch.problem) == ((0.0, 0.0), "")


def test_a_limit_of_zero_keeps_readiness_out_of_it() -> None:
    cluster = Cluster.with_topics(SNAPSHOTS, EVENTS)
    cluster.stop()
    watched = Watched(cluster.admin, Settings(kafka=Kafka(silence_seconds=0.0)))
    watched.later(1_000_000.0)
    assert (watched.ages()[0], watched.watch.problem) == (1_000_000.0, "")


def test_a_topic_that_is_missing_is_an_answer() -> None:
    """What is missing is told elsewhere; the broker is there."""
    watched = Watched(Cluster.with_topics(SNAPSHOTS).admin)
    watched.later(60.0)
    assert watched.ages() == (0.0, 0.0)


def test_topics_are_asked_for_with_their_prefix_and_shown_without() -> None:
    cluster = Cluster()
    for topic in (SNAPSHOTS, EVENTS):
        cluster.create(f"p.{topic.name}")
    watched = Watched(cluster.admin, Settings(kafka=Kafka(silence_seconds=10.0), topics=Topics(prefix="p.")))
    cluster.stop()
    watched.later(11.0)
    assert watched.ages() == (11.0, 11.0)
    assert "about p.vm.snapshots, p.vm.events for" in watched.watch.problem


def test_a_client_that_can_not_be_made_is_made_later() -> None:
    cluster = Cluster.with_topics(SNAPSHOTS, EVENTS)
    cluster.refuse_clients(KafkaError._FS)
    watched = Watched(cluster.admin)
    watched.later(60.0)
    assert watched.ages() == (60.0, 60.0)
    watched.later(1.0)
    assert watched.ages() == (0.0, 0.0)


class Brokers:
    """Several brokers: which of them leads each partition, and what each one answers."""

    def __init__(self, leaders: dict[str, list[int | None]], errors: dict[int, int]) -> None:
        """``leaders`` by topic and partition, None without one; ``errors`` by broker, of those that give no end."""
        self.leaders = leaders
        self.errors = errors
        self.asked: list[tuple[str, int]] = []

    def __call__(self, config: dict[str, Any]) -> Brokers:
        del config
        return self

    def describe_topics(self, topics: TopicCollection, request_timeout: float) -> dict[str, Future[Any]]:
        assert request_timeout == broker_watch.ANSWER_SECONDS
        return {name: self._told(name) for name in topics.topic_names}

    def list_offsets(self, wanted: dict[TopicPartition, OffsetSpec], request_timeout: float) -> dict[TopicPartition, Future[Any]]:
        assert request_timeout == broker_watch.ANSWER_SECONDS
        return {place: self._end(place) for place in wanted}

    def _told(self, name: str) -> Future[Any]:
        future: Future[Any] = Future()
        leaders = [None if leader is None else SimpleNamespace(id=leader) for leader in self.leaders[name]]
        future.set_result(SimpleNamespace(partitions=[SimpleNamespace(id=number, leader=leader) for number, leader in enumerate(leaders)]))
        return future

    def _end(self, place: TopicPartition) -> Future[Any]:
        self.asked.append((place.topic, place.partition))
        future: Future[Any] = Future()
        error = self.errors.get(self.leaders[place.topic][place.partition] or 0)
        if error is None:
            future.set_result(SimpleNamespace(offset=0))
        else:
            future.set_exception(KafkaException(KafkaError(error)))
        return future


def test_each_broker_is_asked_once_however_many_partitions_it_leads() -> None:
    brokers = Brokers({"vm.snapshots": [1, 2, 1, 2, 1, 2], "vm.events": [1, 2, 2, 1]}, {})
    watched = Watched(brokers)
    watched.later(60.0)
    assert (watched.ages(), len(brokers.asked)) == ((0.0, 0.0), 2)


def test_a_topic_with_one_partition_on_a_silent_broker_is_not_heard_of() -> None:
    watched = Watched(Brokers({"vm.snapshots": [1, 1, 2], "vm.events": [1, 1]}, {2: KafkaError._TIMED_OUT}))
    watched.later(60.0)
    assert watched.ages() == (60.0, 0.0)
    assert "about vm.snapshots for 60 s" in watched.watch.problem


def test_a_partition_without_a_leader_is_not_heard_of() -> None:
    watched = Watched(Brokers({"vm.snapshots": [1, 1], "vm.events": [1, None]}, {}))
    watched.later(60.0)
    assert watched.ages() == (0.0, 60.0)


@pytest.mark.parametrize(
    ("error", "age"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, 0.0),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, 0.0),
        (KafkaError._UNKNOWN_PARTITION, 0.0),
        (KafkaError.NOT_LEADER_FOR_PARTITION, 60.0),
        (KafkaError.LEADER_NOT_AVAILABLE, 60.0),
        (KafkaError._TRANSPORT, 60.0),
    ],
)
def test_a_refusal_is_an_answer_and_a_broker_that_does_not_lead_is_none(error: int, age: float) -> None:
    watched = Watched(Brokers({"vm.snapshots": [1], "vm.events": [1]}, {1: error}))
    watched.later(60.0)
    assert watched.ages() == (age, age)


def test_it_asks_again_and_again_and_logs_silence_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(broker_watch, "PAUSE_SECONDS", 0.001)
    cluster = Cluster.with_topics(SNAPSHOTS, EVENTS)
    watched = Watched(cluster.admin)
    with watched.watch:
        cluster.stop()
        watched.clock.now += 11.0
        await_true(lambda: "no answer from the brokers" in caplog.text, SECONDS, "the silence")
        cluster.start()
        await_true(lambda: "answer again" in caplog.text, SECONDS, "the answer")
    words = [record.getMessage() for record in caplog.records if record.name == "virtflow.kafka"]
    assert words == [
        "not ready: no answer from the brokers broker:1 about vm.snapshots, vm.events for 11 s",
        "the brokers broker:1 answer again",
    ]
