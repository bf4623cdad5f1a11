"""Events on their way to a real broker: in order, through outages, with and without a journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer as Client

from tests.support.broker import Broker
from tests.support.lab_process import await_true
from tests.support.record_tap import RecordTap
from tests.support.topic_writer import TopicWriter
from virtflow.producer.publishing.events import MEMORY_EVENTS, PAUSES, WINDOW, EventPublisher, Pauses
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.settings import Kafka, Producer, Settings, Topics
from virtflow.schemas.records import VmEvent
from virtflow.schemas.topics import EVENTS, Cleanup, Topic

UUIDS = [f"00000000-0000-4000-8000-{number:012x}" for number in range(3)]
SECONDS = 30.0
LATENCY_SECONDS = 0.5

Make = Callable[..., EventPublisher]


def happened(number: int, kind: str = "balloon_change") -> HypervisorEvent:
    details: tuple[object, ...] = ({"type": 2, "time_elapsed": number},) if kind == "job" else (number,)
    return HypervisorEvent(UUIDS[number % 3], "vm", kind, details, time.time())


def topic_of(writer: TopicWriter) -> Topic:
    """vm.events under the writer's prefix."""
    return Topic(writer.name(EVENTS), "VM uuid", "VmEvent", Cleanup.DELETE, "", 1)


@pytest.fixture
def writer(broker: Broker) -> TopicWriter:
    return TopicWriter(broker.address, topics=(EVENTS,))


@pytest.fixture
def make(tmp_path: Path, writer: TopicWriter) -> Make:
    def publisher(
        address: str, folder: Path | None = None, size: int = 1 << 24, client: Callable[..., Any] = Client, pauses: Pauses = PAUSES
    ) -> EventPublisher:
        producer = Producer(journal_folder=str(folder or tmp_path / "journal"), journal_bytes=size)
        settings = Settings(kafka=Kafka(bootstrap_servers=address), topics=Topics(prefix=writer.prefix), producer=producer)
        return EventPublisher(settings, "node-1", make=client, pauses=pauses)

    return publisher


def numbers(tap: RecordTap[VmEvent]) -> dict[str, list[int]]:
    """The sequence numbers that have come, by VM, in the order of their arrival."""
    found: dict[str, list[int]] = {}
    for event in tap.records():
        found.setdefault(event.uuid, []).append(event.sequence)
    return found


def expected(count: int) -> dict[str, list[int]]:
    return {UUIDS[place]: list(range(place, count, 3)) for place in range(3)}


def seconds_to_arrive(publisher: EventPublisher, tap: RecordTap[VmEvent], number: int) -> float:
    """How long an event takes that nothing is in the way of."""
    began = time.time()
    publisher.offer(happened(number))
    tap.await_record(lambda event: event.sequence == number, f"event {number}")
    return time.time() - began


def test_events_arrive_at_once_and_in_order(broker: Broker, writer: TopicWriter, make: Make) -> None:
    """Each VM's in the order of their numbers, soon; the journal is empty afterwards."""
    publisher = make(broker.address)
    with RecordTap(broker.address, topic_of(writer), VmEvent) as tap:
        publisher.offer(happened(0))
        tap.await_record(lambda event: event.sequence == 0, "the first one")
        for number in range(1, 600):
            publisher.offer(happened(number))
        await_true(lambda: numbers(tap) == expected(600), SECONDS, "all of them")
        assert min(seconds_to_arrive(publisher, tap, number) for number in range(600, 605)) < LATENCY_SECONDS
        await_true(lambda: publisher.outgoing().journal_events == 0, SECONDS, "all are acknowledged")
        assert publisher.outgoing().events == {"balloon_change": 605}
        assert publisher.outgoing().drops == {}
    assert publisher.close(5.0) == 0


def test_nobody_waits_for_an_idle_connection(broker: Broker, writer: TopicWriter, make: Make) -> None:
    """After a while without events the client is let go; the next event has a client made for it."""
    made, ended = list[int](), list[int]()

    class Seen(Client):
        def __init__(self, config: dict[str, Any]) -> None:
            super().__init__(config)
            made.append(len(made))

        def __del__(self) -> None:
            ended.append(len(ended))

    publisher = make(broker.address, client=Seen, pauses=Pauses(idle=0.2))
    with RecordTap(broker.address, topic_of(writer), VmEvent) as tap:
        for number in range(3):
            publisher.offer(happened(number))
            await_true(lambda: len(tap.records()) > number, SECONDS, f"event {number}")  # noqa: B023, awaited before the next one
            await_true(lambda: len(ended) > number, SECONDS, f"the client is let go: {publisher.outgoing()}")  # noqa: B023, as above
            assert len(made) == len(ended) == number + 1
    assert publisher.close(5.0) == 0


def test_a_client_that_ends_slowly_holds_nobody_up(broker: Broker, writer: TopicWriter, make: Make) -> None:
    """The sampling asks what waits in every round; it is told while the sending thread waits for its client's end."""
    ends, may_end, in_time = threading.Event(), threading.Event(), list[bool]()

    class Slow(Client):
        def __del__(self) -> None:
            ends.set()
            in_time.append(may_end.wait(SECONDS))

    publisher = make(broker.address, client=Slow, pauses=Pauses(idle=0.2))
    with RecordTap(broker.address, topic_of(writer), VmEvent) as tap:
        publisher.offer(happened(0))
        assert ends.wait(SECONDS)
        publisher.offer(happened(1))
        assert publisher.outgoing().journal_events == 1
        may_end.set()
        await_true(lambda: len(tap.records()) == 2, SECONDS, "both")
    assert publisher.close(5.0) == 0
    assert in_time[0]


def test_a_client_that_can_not_be_made_is_tried_again(broker: Broker, writer: TopicWriter, make: Make) -> None:
    """A file with certificates may be missing for the moment in which it is replaced."""
    tries: list[int] = []

    def client(config: dict[str, Any]) -> Client:
        tries.append(len(tries))
        return Client(config | ({"ssl.ca.location": "/nowhere", "security.protocol": "SSL"} if len(tries) == 1 else {}))

    publisher = make(broker.address, client=client)
    with RecordTap(broker.address, topic_of(writer), VmEvent) as tap:
        publisher.offer(happened(0))
        await_true(lambda: len(tap.records()) == 1, SECONDS, "the event")
    assert tries == [0, 1]
    assert publisher.close(5.0) == 0


def test_what_a_run_left_goes_first(broker: Broker, writer: TopicWriter, make: Make) -> None:
    """Without a broker all is on disk; the next run sends it with its own identity before anything new."""
    first = make("127.0.0.1:1")
    for number in range(300):
        first.offer(happened(number))
    await_true(lambda: first.outgoing().journal_bytes > 300 * 50, SECONDS, "all are written")
    assert first.close(0.2) == 300
    second = make(broker.address)
    for number in range(3):
        second.offer(happened(number))
    with RecordTap(broker.address, topic_of(writer), VmEvent) as tap:
        await_true(lambda: len(tap.records()) >= 303, SECONDS, "both runs' events")
        assert numbers(tap) == {uuid: [*left, place] for place, (uuid, left) in enumerate(expected(300).items())}
        assert len({event.boot_id for event in tap.records()}) == 2
    assert second.close(5.0) == 0


def test_without_a_journal_events_go_all_the_same(broker: Broker, writer: TopicWriter, make: Make, tmp_path: Path) -> None:
    """A folder that can't be one: counted, said, and every event arrives."""
    (tmp_path / "file").write_text("")
    publisher = make(broker.address, tmp_path / "file" / "journal")
    with RecordTap(broker.address, topic_of(writer), VmEvent) as tap:
        for number in range(30):
            publisher.offer(happened(number))
        await_true(lambda: numbers(tap) == expected(30), SECONDS, "all of them")
    assert publisher.outgoing().drops == {"journal_broken": 31}
    assert publisher.close(5.0) == 0


def test_full_without_a_broker_memory_is_bounded(make: Make) -> None:
    """What fits neither on disk nor in memory is lost, and counted to the last one."""
    publisher = make("127.0.0.1:1", size=65_536)
    total = 3 * MEMORY_EVENTS
    for number in range(total):
        publisher.offer(happened(number))

    def dealt_with() -> bool:
        told = publisher.outgoing()
        return told.journal_events <= MEMORY_EVENTS + WINDOW and told.drops.get("event_lost") == total - told.journal_events

    await_true(dealt_with, SECONDS, "all of them wait or are lost")
    told = publisher.outgoing()
    assert told.drops["journal_full"] > 0
    assert 0 < told.journal_bytes <= 65_536
    publisher.close(0.2)


def test_polls_wait_in_memory_the_newest_of_each_vm(broker: Broker, writer: TopicWriter, make: Make) -> None:
    """They are not journalled, and never overtake an event that came before them."""
    publisher = make(broker.address)
    with RecordTap(broker.address, topic_of(writer), VmEvent) as tap:
        for number in range(300):
            publisher.offer(happened(number, "job" if number % 2 else "balloon_change"))
        await_true(lambda: len(tap.records()) >= 150, SECONDS, "the events")
        tap.await_record(lambda event: event.sequence == 299, "the last poll")
        for received in numbers(tap).values():
            assert received == sorted(received)
        events = {event.sequence for event in tap.records() if event.kind == "balloon_change"}
        assert events == set(range(0, 300, 2))
    assert publisher.close(5.0) == 0
