"""Rounds on their way to a broker that goes away, refuses, and ends clients: on the in-memory one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError

from tests.support.lab_process import await_true
from tests.support.memory_kafka import Cluster
from tests.support.publishing import (
    RING,
    SECONDS,
    cluster_of_producers,
    publishers,
    rounds,
    snapshot,
)
from virtflow.producer.publishing.snapshots import Publisher
from virtflow.runtime.settings import Producer, Settings
from virtflow.schemas.topics import SNAPSHOTS


@pytest.fixture
def cluster() -> Cluster:
    return cluster_of_producers()


@pytest.fixture
def publish(cluster: Cluster) -> Iterator[Callable[..., Publisher]]:
    """Makes publishers of rounds."""
    yield from publishers(cluster)


class TestRounds:
    def test_rounds_arrive_in_order_and_large_ones_in_parts(self, cluster: Cluster, publish: Callable[..., Publisher]) -> None:
        publisher = publish()
        for sequence in range(2):
            publisher.offer(snapshot(sequence))
        publisher.offer(snapshot(2, vms=1_600))
        assert publisher.close(SECONDS) == 0
        found = rounds(cluster)
        assert found[:2] == [(0, 0), (1, 0)]
        assert found[2:] == [(2, part) for part in range(len(found) - 2)]
        assert len(found) > 3
        assert (publisher.outgoing().drops, publisher.outgoing().spooled_rounds) == ({}, 0)

    def test_a_broker_that_is_away_costs_the_oldest_rounds(self, cluster: Cluster, publish: Callable[..., Publisher]) -> None:
        cluster.stop()
        publisher = publish()
        publisher.offer(snapshot(0))
        await_true(lambda: bool(cluster.producers) and len(cluster.producers[0]) == 1, SECONDS, "the first round is in flight")
        for sequence in range(1, 10):
            publisher.offer(snapshot(sequence))
        assert publisher.outgoing().spooled_rounds == RING + 1
        assert publisher.outgoing().drops == {"ring_full": 5}
        cluster.start()
        await_true(lambda: publisher.outgoing().spooled_rounds == 0, SECONDS, "nothing waits any more")
        assert rounds(cluster) == [(0, 0), (6, 0), (7, 0), (8, 0), (9, 0)]

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            (KafkaError.TOPIC_AUTHORIZATION_FAILED, "refused"),
            (KafkaError.NOT_ENOUGH_REPLICAS, "broker_unreachable"),
            (KafkaError.UNKNOWN_TOPIC_OR_PART, "topic_missing"),
        ],
    )
    def test_a_round_that_failed_is_sent_again_and_what_it_costs_has_its_reason(
        self, cluster: Cluster, publish: Callable[..., Publisher], code: int, reason: str
    ) -> None:
        cluster.refuse(SNAPSHOTS.name, *[code] * 2)
        publisher = publish()
        publisher.offer(snapshot(0))
        await_true(lambda: rounds(cluster) == [(0, 0)], SECONDS, "the round")
        cluster.refuse(SNAPSHOTS.name, *[code] * 100_000)
        for sequence in range(1, RING + 4):
            publisher.offer(snapshot(sequence))

        def dropped() -> bool:
            publisher.offer(snapshot(99))
            return reason in publisher.outgoing().drops

        await_true(dropped, SECONDS, "a round is dropped for it")

    def test_a_message_that_no_broker_takes_is_given_up(
        self, cluster: Cluster, publish: Callable[..., Publisher], caplog: pytest.LogCaptureFixture
    ) -> None:
        cluster.refuse(SNAPSHOTS.name, KafkaError.MSG_SIZE_TOO_LARGE)
        publisher = publish()
        publisher.offer(snapshot(0))
        publisher.offer(snapshot(1))
        assert publisher.close(SECONDS) == 0
        assert rounds(cluster) == [(1, 0)]
        assert publisher.outgoing().drops == {"too_large": 1}
        assert "takes no message that large" in caplog.text

    def test_a_topic_that_is_missing_is_named_and_waited_for(
        self, cluster: Cluster, publish: Callable[..., Publisher], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Refused by the broker first, then by the client itself."""
        cluster.delete(SNAPSHOTS.name)
        publisher = publish()
        publisher.offer(snapshot(0))
        await_true(lambda: caplog.text.count("topic vm.snapshots is not there") >= 3, SECONDS, "the log names the topic")
        cluster.create(SNAPSHOTS.name)
        assert publisher.close(SECONDS) == 0
        assert rounds(cluster) == [(0, 0)]

    def test_only_the_parts_that_failed_are_sent_again(self, cluster: Cluster, publish: Callable[..., Publisher]) -> None:
        cluster.refuse(SNAPSHOTS.name, KafkaError.NOT_ENOUGH_REPLICAS)
        publisher = publish()
        publisher.offer(snapshot(0, vms=1_600))
        assert publisher.close(SECONDS) == 0
        found = rounds(cluster)
        assert found == [*((0, part) for part in range(1, len(found))), (0, 0)]

    def test_a_round_larger_than_the_queue_of_the_client_is_sent_in_turns(self, cluster: Cluster) -> None:
        settings = Settings(producer=Producer(ring_rounds=RING))
        publisher = Publisher(settings, lambda config: cluster.producer({**config, "queue.buffering.max.messages": 2}))
        publisher.offer(snapshot(0, vms=3_000))
        assert publisher.close(SECONDS) == 0
        assert len(rounds(cluster)) > 4
        assert rounds(cluster) == [(0, part) for part in range(len(rounds(cluster)))]

    def test_a_client_that_a_fatal_error_has_ended_is_replaced(self, cluster: Cluster, publish: Callable[..., Publisher]) -> None:
        """The round in flight and those after it arrive by the new one."""
        cluster.stop()
        publisher = publish()
        publisher.offer(snapshot(0))
        await_true(lambda: len(cluster.producers[0]) == 1, SECONDS, "the round is in flight")
        cluster.end_producers(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
        await_true(lambda: len(cluster.producers) == 2, SECONDS, "another client")
        cluster.start()
        publisher.offer(snapshot(1))
        assert publisher.close(SECONDS) == 0
        assert rounds(cluster) == [(0, 0), (1, 0)]

    def test_a_client_that_ended_unnoticed_is_replaced_when_it_takes_nothing(
        self, cluster: Cluster, publish: Callable[..., Publisher]
    ) -> None:
        publisher = publish()
        publisher.offer(snapshot(0))
        await_true(lambda: rounds(cluster) == [(0, 0)], SECONDS, "the first round")
        cluster.refuse_clients(KafkaError._FS)
        cluster.end_producers(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
        publisher.offer(snapshot(1))
        assert publisher.close(SECONDS) == 0
        assert rounds(cluster) == [(0, 0), (1, 0)]
        assert len(cluster.producers) == 2

    def test_rounds_wait_for_the_ids_of_the_registry(
        self, cluster: Cluster, publish: Callable[..., Publisher], caplog: pytest.LogCaptureFixture
    ) -> None:
        known = threading.Event()
        publisher = publish(lambda message: message if known.is_set() else None)
        for sequence in range(RING + 3):
            publisher.offer(snapshot(sequence))
        await_true(lambda: "wait for the schema registry's ids" in caplog.text, SECONDS, "the log names the registry")
        assert rounds(cluster) == []
        known.set()
        assert publisher.close(SECONDS) == 0
        assert rounds(cluster)[-1] == (RING + 2, 0)

    def test_what_is_left_at_the_end_is_counted(self, cluster: Cluster, publish: Callable[..., Publisher]) -> None:
        cluster.stop()
        publisher = publish()
        publisher.offer(snapshot(0))
        publisher.offer(snapshot(1))
        assert publisher.close(0.05) == 2
