"""Rounds and events on their way to a broker that goes away, refuses, and ends clients: on the in-memory one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from tests.support.lab_process import await_true
from tests.support.memory_kafka import Cluster
from virtflow.producer.publishing.events import WINDOW, EventPublisher, Pauses, WithEvents
from virtflow.producer.publishing.journal import Journal
from virtflow.producer.publishing.snapshots import Publisher
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.settings import Producer, Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.encoder import Framed, as_it_is
from virtflow.schemas.records import NodeHealth, NodeSnapshot, VmEvent, VmSnapshot
from virtflow.schemas.topics import EVENTS, SNAPSHOTS

RING = 4
SECONDS = 60.0
RETRY = 0.01
UUIDS = [f"00000000-0000-4000-8000-{number:012x}" for number in range(3)]
CODEC = Codec()


def snapshot(sequence: int, vms: int = 1) -> NodeSnapshot:
    """A round; a VM's name makes it about a kilobyte."""
    found = [VmSnapshot(uuid=f"00000000-0000-4000-8000-{number:012d}", name="n" * 1_000) for number in range(vms)]
    return NodeSnapshot(node="n", boot_id="b", sequence=sequence, collected=1.7e9, interval=1.0, health=NodeHealth(up=1), vms=found)


def happened(number: int, kind: str = "balloon_change") -> HypervisorEvent:
    details: tuple[object, ...] = ({"type": 2, "time_elapsed": number},) if kind == "job" else (number,)
    return HypervisorEvent(UUIDS[number % 3], "vm", kind, details, time.time())


def rounds(cluster: Cluster) -> list[tuple[int, int]]:
    """The sequence and part of each message that has arrived, in order."""
    found = [CODEC.decode(record.value or b"", NodeSnapshot) for record in cluster.topics[SNAPSHOTS.name].logs[0].records]
    return [(each.sequence, each.part) for each in found]


def events(cluster: Cluster) -> list[int]:
    """The numbers of the events that have arrived, in order."""
    return [CODEC.decode(record.value or b"", VmEvent).sequence for record in cluster.topics[EVENTS.name].logs[0].records]


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.create(SNAPSHOTS.name)
    cluster.create(EVENTS.name)
    return cluster


@pytest.fixture
def publish(cluster: Cluster) -> Iterator[Callable[..., Publisher]]:
    """Makes publishers of rounds, and ends them."""
    made: list[Publisher] = []

    def make(framed: Framed = as_it_is) -> Publisher:
        made.append(Publisher(Settings(producer=Producer(ring_rounds=RING, interval_seconds=1.0)), cluster.producer, framed, RETRY))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close(0.0)


@pytest.fixture
def emit(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., EventPublisher]]:
    """Makes publishers of events, and ends them."""
    made: list[EventPublisher] = []

    def make(
        folder: str = "journal", sync: str = "second", framed: Framed = as_it_is, idle: float = SECONDS, lock: float = SECONDS
    ) -> EventPublisher:
        producer = Producer(journal_folder=str(tmp_path / folder), journal_sync=sync)  # type: ignore[arg-type]  # a literal
        made.append(EventPublisher(Settings(producer=producer), "node-1", cluster.producer, framed, Pauses(RETRY, idle, lock)))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close(0.0)


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
