"""Events on their way to a broker that goes away, refuses, and ends clients: on the in-memory one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from tests.support.lab_process import await_true
from tests.support.memory_kafka import Cluster
from tests.support.publishing import (
    CODEC,
    SECONDS,
    UUIDS,
    cluster_of_producers,
    event_publishers,
    events,
    happened,
    publishers,
    snapshot,
)
from virtflow.producer.publishing.events import WINDOW, EventPublisher, WithEvents
from virtflow.producer.publishing.journal import Journal
from virtflow.producer.publishing.snapshots import Publisher
from virtflow.runtime.settings import Producer, Settings
from virtflow.schemas.records import VmEvent
from virtflow.schemas.topics import EVENTS


@pytest.fixture
def cluster() -> Cluster:
    return cluster_of_producers()


@pytest.fixture
def publish(cluster: Cluster) -> Iterator[Callable[..., Publisher]]:
    """Makes publishers of rounds."""
    yield from publishers(cluster)


@pytest.fixture
def emit(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., EventPublisher]]:
    """Makes publishers of events."""
    yield from event_publishers(cluster, tmp_path)


class TestEvents:
    def test_events_arrive_in_order(self, cluster: Cluster, emit: Callable[..., EventPublisher]) -> None:
        publisher = emit()
        for number in range(3 * WINDOW):
            publisher.offer(happened(number))
        assert publisher.close(SECONDS) == 0
        assert events(cluster) == list(range(3 * WINDOW))
        assert publisher.outgoing().events == {"balloon_change": 3 * WINDOW}
        assert publisher.outgoing().drops == {}

    def test_what_a_run_left_goes_first(self, cluster: Cluster, emit: Callable[..., EventPublisher]) -> None:
        cluster.stop()
        first = emit()
        for number in range(20):
            first.offer(happened(number))
        await_true(lambda: first.outgoing().journal_bytes > 20 * 50, SECONDS, "all are written")
        assert first.close(0.05) == 20
        cluster.start()
        second = emit()
        second.offer(happened(0))
        assert second.close(SECONDS) == 0
        assert events(cluster) == [*range(20), 0]

    def test_what_failed_is_sent_again_before_what_came_after_it(self, cluster: Cluster, emit: Callable[..., EventPublisher]) -> None:
        cluster.refuse(EVENTS.name, *[KafkaError.NOT_ENOUGH_REPLICAS] * 3)
        publisher = emit()
        publisher.offer(happened(0))
        await_true(lambda: events(cluster) == [0], SECONDS, "the event")
        publisher.offer(happened(1))
        assert publisher.close(SECONDS) == 0
        assert events(cluster) == [0, 1]
        assert publisher.outgoing().drops == {}

    def test_an_event_that_no_broker_takes_is_counted_and_never_comes_again(
        self, cluster: Cluster, emit: Callable[..., EventPublisher]
    ) -> None:
        cluster.refuse(EVENTS.name, KafkaError.INVALID_RECORD)
        publisher = emit()
        publisher.offer(happened(0))
        publisher.offer(happened(1))
        assert publisher.close(SECONDS) == 0
        assert events(cluster) == [1]
        assert publisher.outgoing().drops == {"event_refused": 1}
        assert emit().close(SECONDS) == 0
        assert events(cluster) == [1]

    def test_a_topic_that_is_missing_keeps_them_in_the_journal(
        self, cluster: Cluster, emit: Callable[..., EventPublisher], caplog: pytest.LogCaptureFixture
    ) -> None:
        cluster.delete(EVENTS.name)
        publisher = emit()
        publisher.offer(happened(0))
        await_true(lambda: caplog.text.count("does not take events") >= 3, SECONDS, "the log names the topic")
        assert publisher.outgoing().journal_events == 1
        cluster.create(EVENTS.name)
        assert publisher.close(SECONDS) == 0
        assert events(cluster) == [0]

    def test_a_full_queue_is_waited_for(self, cluster: Cluster, tmp_path: Path) -> None:
        settings = Settings(producer=Producer(journal_folder=str(tmp_path / "journal")))

        def narrow(config: dict[str, Any]) -> Any:  # noqa: ANN401, the double's class
            return cluster.producer({**config, "queue.buffering.max.messages": 2})

        publisher = EventPublisher(settings, "node-1", narrow)
        for number in range(20):
            publisher.offer(happened(number))
        assert publisher.close(SECONDS) == 0
        assert events(cluster) == list(range(20))

    def test_a_client_that_a_fatal_error_has_ended_is_replaced(self, cluster: Cluster, emit: Callable[..., EventPublisher]) -> None:
        cluster.stop()
        publisher = emit()
        publisher.offer(happened(0))
        publisher.offer(happened(1))
        await_true(lambda: bool(cluster.producers) and len(cluster.producers[0]) == 2, SECONDS, "both are in flight")
        cluster.end_producers(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
        await_true(lambda: len(cluster.producers) == 2, SECONDS, "another client")
        cluster.start()
        assert publisher.close(SECONDS) == 0
        assert events(cluster) == [0, 1]

    def test_a_client_that_ended_unnoticed_is_replaced_when_it_takes_nothing(
        self, cluster: Cluster, emit: Callable[..., EventPublisher]
    ) -> None:
        publisher = emit()
        publisher.offer(happened(0))
        await_true(lambda: publisher.outgoing().journal_events == 0 and events(cluster) == [0], SECONDS, "the first event")
        cluster.end_producers(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
        cluster.refuse_clients(KafkaError._FS)
        publisher.offer(happened(1))
        assert publisher.close(SECONDS) == 0
        assert events(cluster) == [0, 1]
        assert len(cluster.producers) == 2

    def test_an_idle_client_is_let_go_and_made_again(self, cluster: Cluster, emit: Callable[..., EventPublisher]) -> None:
        publisher = emit(idle=0.02)
        for number in range(3):
            publisher.offer(happened(number))
            await_true(lambda: publisher._client is None and len(events(cluster)) == number + 1, SECONDS, "it is let go")  # noqa: B023, awaited before the next one
        assert len(cluster.producers) == 3

    def test_events_wait_for_the_ids_of_the_registry(
        self, cluster: Cluster, emit: Callable[..., EventPublisher], caplog: pytest.LogCaptureFixture
    ) -> None:
        known = threading.Event()
        publisher = emit(framed=lambda message: message if known.is_set() else None)
        publisher.offer(happened(0))
        await_true(lambda: "wait for the schema registry's ids" in caplog.text, SECONDS, "the log names the registry")
        known.set()
        assert publisher.close(SECONDS) == 0
        assert events(cluster) == [0]

    def test_the_newest_poll_of_each_vm_waits_and_overtakes_nothing(self, cluster: Cluster, emit: Callable[..., EventPublisher]) -> None:
        cluster.stop()
        publisher = emit(sync="always")
        for number in range(WINDOW):
            publisher.offer(happened(number))
        await_true(lambda: bool(cluster.producers) and len(cluster.producers[0]) == WINDOW, SECONDS, "the window is full")
        for number in range(WINDOW, WINDOW + 9):
            publisher.offer(happened(number, "job"))
        publisher.offer(happened(WINDOW + 9))
        await_true(lambda: publisher.outgoing().journal_events == WINDOW + 2, SECONDS, "a poll before the event")
        cluster.start()
        await_true(lambda: len(events(cluster)) == WINDOW + 4, SECONDS, "the polls of the other VMs, which come last")
        found = events(cluster)
        vm = (WINDOW + 9) % 3
        poll = max(number for number in range(WINDOW, WINDOW + 9) if number % 3 == vm)
        assert found[: WINDOW + 2] == [*range(WINDOW), poll, WINDOW + 9]
        assert sorted(found[WINDOW + 2 :]) == [number for number in range(WINDOW + 6, WINDOW + 9) if number % 3 != vm]

    def test_without_a_journal_events_go_all_the_same(self, cluster: Cluster, emit: Callable[..., EventPublisher], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        publisher = emit("file/journal")
        for number in range(5):
            publisher.offer(happened(number))
        assert publisher.close(SECONDS) == 0
        assert events(cluster) == list(range(5))
        assert publisher.outgoing().drops == {"journal_broken": 6}

    def test_events_wait_in_memory_for_a_journal_that_is_locked(
        self, cluster: Cluster, emit: Callable[..., EventPublisher], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A former producer is about to end: what it left goes first, then what happened meanwhile, and the log says it once."""
        former = Journal(tmp_path / "journal", 1 << 20)
        former.open()
        former.append(
            UUIDS[0].encode(),
            CODEC.encode(VmEvent(uuid=UUIDS[0], node="node-1", boot_id="former", sequence=77, kind="lifecycle", time=1.7e9)),
        )
        publisher = emit()
        for number in range(3):
            publisher.offer(happened(number))
        await_true(lambda: "another process has its lock" in caplog.text, SECONDS, "the log names the lock")
        assert (events(cluster), publisher.outgoing().journal_events) == ([], 3)
        former.close()
        await_true(lambda: len(events(cluster)) == 4, SECONDS, "the events")
        assert events(cluster) == [77, 0, 1, 2]
        assert publisher.outgoing().drops == {}
        assert caplog.text.count("another process has its lock") == 1

    def test_a_journal_that_stays_locked_holds_nothing_up_and_is_used_when_it_is_free(
        self, cluster: Cluster, emit: Callable[..., EventPublisher], tmp_path: Path
    ) -> None:
        """Events are sent without it after a while, and counted; those that wait for the broker then are written once it is free."""
        other = Journal(tmp_path / "journal", 1 << 20)
        other.open()
        publisher = emit(lock=0.0)
        publisher.offer(happened(0))
        await_true(lambda: events(cluster) == [0], SECONDS, "the first event")
        cluster.delete(EVENTS.name)
        publisher.offer(happened(1))
        await_true(lambda: publisher.outgoing().drops == {"journal_broken": 2}, SECONDS, "both are counted")
        assert publisher.outgoing().journal_bytes == 0
        other.close()
        await_true(lambda: publisher.outgoing().journal_bytes > 0, SECONDS, "the second event is written")
        assert publisher.close(0.0) == 1
        cluster.create(EVENTS.name)
        second = emit()
        second.offer(happened(2))
        assert second.close(SECONDS) == 0
        assert events(cluster) == [1, 0]

    def test_one_sink_reports_rounds_and_events(
        self, cluster: Cluster, publish: Callable[..., Publisher], emit: Callable[..., EventPublisher]
    ) -> None:
        cluster.stop()
        sink = WithEvents(publish(), emit())
        sink.offer(snapshot(0))
        sink.events.offer(happened(0))
        await_true(lambda: sink.outgoing().journal_events == 1, SECONDS, "the event waits")
        assert (sink.outgoing().spooled_rounds, sink.outgoing().events) == (1, {"balloon_change": 1})
