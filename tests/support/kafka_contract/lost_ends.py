"""Leaders' epochs, an end that the broker loses, and what a client hears when no broker is connected.

A broker that is restored from a copy is what a single one can show of a lost end: an election of a replica that was behind needs several.
"""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition

from tests.support.kafka_contract.bus import Bus, Reports, ends, offsets, read, records, to_the_end, values, wait, write

ANSWER_SECONDS = 10.0
DOWN = KafkaError._ALL_BROKERS_DOWN
HEARD = {DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT}


def epochs(messages: list[Message]) -> list[int | None]:
    """Of the records' leaders."""
    return [message.leader_epoch() for message in records(messages)]


def whole(bus: Bus, topic: str) -> list[Message]:
    """All records of a topic's partition."""
    consumer = bus.consumer()
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found = to_the_end(consumer)
    consumer.close()
    return found


class LostEnds:
    def test_a_record_names_the_epoch_of_its_leader(self, bus: Bus) -> None:
        """The same one as long as the leader is the same; a broker that was started again is another leader, whose epoch is larger."""
        topic = bus.topic()
        write(bus, topic, b"a", b"b")
        bus.stop()
        bus.start()
        write(bus, topic, b"c")
        first, second, third = epochs(whole(bus, topic))
        assert first == second
        assert first is not None
        assert third is not None
        assert third > first >= 0

    @pytest.mark.parametrize(("policy", "found"), [("earliest", [0, 1, 2]), ("latest", [3])])
    def test_a_new_reader_that_begins_beyond_an_end_that_was_lost_begins_by_its_policy(
        self, bus: Bus, policy: str, found: list[int]
    ) -> None:
        """Without a word: no error, and what is at the lost offsets now is read only where it begins at the beginning."""
        topic = bus.topic()
        write(bus, topic, b"a", b"b")
        bus.save()
        write(bus, topic, b"lost", b"lost", b"lost")
        bus.restore()
        write(bus, topic, b"c")
        consumer = bus.consumer(auto_offset_reset=policy)
        consumer.assign([TopicPartition(topic, 0, 5)])
        if policy == "latest":
            wait(lambda: 3 in ends(consumer.consume(10, 0.1)).values(), "the end is reported")
            write(bus, topic, b"d")
        assert offsets(read(consumer, lambda seen: len(records(seen)) >= len(found))) == found
        consumer.close()

    def test_the_watermarks_are_those_of_what_is_left(self, bus: Bus) -> None:
        topic, consumer = bus.topic(), bus.consumer()
        write(bus, topic, b"a", b"b")
        bus.save()
        write(bus, topic, b"lost")
        place = TopicPartition(topic, 0)
        assert consumer.get_watermark_offsets(place, ANSWER_SECONDS, cached=False) == (0, 3)
        bus.restore()
        assert consumer.get_watermark_offsets(place, ANSWER_SECONDS, cached=False) == (0, 2)
        consumer.close()


class Heard:
    """A client's ``error_cb``: the numbers of the errors that it was called with."""

    def __init__(self) -> None:
        """None yet."""
        self.codes: list[int] = []

    def __call__(self, error: KafkaError) -> None:
        """One more."""
        self.codes.append(error.code())


def times_down(consumer: Any, heard: Heard) -> int:  # noqa: ANN401, the client's class or the double's
    """How often a reader has heard that no broker is connected, once it has read on for a moment."""
    assert not records(consumer.consume(1, 0.05))
    return heard.codes.count(DOWN)


class Alarms:
    def test_a_reader_hears_that_no_broker_is_connected(self, bus: Bus) -> None:
        """By a call that is made while it reads, each time that the broker goes away; never while one is there."""
        topic, heard = bus.topic(), Heard()
        consumer = bus.consumer(error_cb=heard)
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        write(bus, topic, b"a")
        assert values(to_the_end(consumer)) == [b"a"]
        assert heard.codes == []
        for _ in range(2):
            before = times_down(consumer, heard)
            bus.stop()
            wait(lambda before=before: times_down(consumer, heard) > before, "it hears of it")  # type: ignore[misc]
            bus.start()
            write(bus, topic, b"b")
            assert values(read(consumer, records)) == [b"b"]
        assert set(heard.codes) <= HEARD
        consumer.close()

    def test_a_writer_hears_that_no_broker_is_connected(self, bus: Bus) -> None:
        topic, heard, reports = bus.topic(), Heard(), Reports()
        producer = bus.producer(error_cb=heard)
        producer.produce(topic, b"a", b"k", on_delivery=reports)
        assert reports.of(producer) == [0]
        assert heard.codes == []
        bus.stop()
        wait(lambda: producer.poll(0.05) >= 0 and DOWN in heard.codes, "it hears of it")
        bus.start()
        producer.produce(topic, b"b", b"k", on_delivery=reports)
        assert reports.of(producer, 2) == [0, 0]
        assert set(heard.codes) <= HEARD
