"""Producers: delivery reports, messages that are refused, queues that are full, brokers that are away, and errors that end the client."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from tests.support.kafka_contract.bus import Bus, Reports, code, records, to_the_end, wait
from virtflow.runtime.kafka.lineage import mark_of

PARTITIONS_OF_KEYS = {b"": 1, b"a": 4, b"k": 0, b"node-1": 2, b"00000000-0000-4000-8000-000000000001": 6, b"\xff\xfe\x80": 3}
"""Of eight, as Kafka's Java client chooses them (murmur2)."""


def attempt(producer: Any, topic: str, reports: Reports, partition: int = 0) -> int:  # noqa: ANN401, the client's class or the double's
    """Hand a message over; the error that it is refused with, 0 where it is taken."""
    try:
        producer.produce(topic, b"v", b"k", partition=partition, on_delivery=reports)
    except KafkaException as error:
        return code(error)
    return 0


class Writing:
    def test_a_report_comes_when_the_client_is_polled_and_names_the_place(self, bus: Bus) -> None:
        topic, producer, reports = bus.topic(), bus.producer(), Reports()
        producer.produce(topic, b"v", b"k", on_delivery=reports)
        assert reports.codes == []
        assert reports.of(producer) == [0]
        [message] = reports.messages
        assert (message.topic(), message.partition(), message.offset(), message.key()) == (topic, 0, 0, b"k")

    def test_a_report_has_the_digest_of_what_a_reader_gets(self, bus: Bus) -> None:
        topic, producer, reports, consumer = bus.topic(), bus.producer(), Reports(), bus.consumer()
        producer.produce(topic, b"v", b"k", on_delivery=reports)
        assert reports.of(producer) == [0]
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        assert [mark_of(message) for message in records(to_the_end(consumer))] == [mark_of(reports.messages[0])]
        consumer.close()

    def test_poll_returns_how_many_reports_it_brought(self, bus: Bus) -> None:
        topic, producer, reports = bus.topic(), bus.producer(), Reports()
        producer.produce(topic, b"v", b"k", on_delivery=reports)
        polled = 0
        while not reports.codes:
            polled += producer.poll(0.05)
        assert polled == 1

    def test_a_key_chooses_its_partition(self, bus: Bus) -> None:
        topic, producer = bus.topic(8), bus.producer()
        reports = Reports()
        for key in PARTITIONS_OF_KEYS:
            producer.produce(topic, b"v", key, on_delivery=reports)
        reports.of(producer, len(PARTITIONS_OF_KEYS))
        assert {message.key() or b"": message.partition() for message in reports.messages} == PARTITIONS_OF_KEYS

    def test_a_topic_that_is_missing_is_reported(self, bus: Bus) -> None:
        """First by the broker; once the client knows, when the message is handed over."""
        producer, reports = bus.producer(), Reports()
        producer.produce("nosuch", b"v", b"k", on_delivery=reports)
        assert reports.of(producer) == [KafkaError.UNKNOWN_TOPIC_OR_PART]
        with pytest.raises(KafkaException) as refused:
            producer.produce("nosuch", b"v", b"k", on_delivery=reports)
        assert code(refused.value) == KafkaError._UNKNOWN_TOPIC

    def test_a_topic_that_was_missing_is_taken_once_it_is_made(self, bus: Bus) -> None:
        topic, producer, reports = bus.topic(), bus.producer(), Reports()
        bus.delete(topic)
        producer.produce(topic, b"v", b"k", on_delivery=reports)
        assert reports.of(producer) == [KafkaError.UNKNOWN_TOPIC_OR_PART]
        bus.remake(topic)
        found: list[int] = []
        while 0 not in found:
            again = Reports()
            refused = attempt(producer, topic, again)
            assert refused in {0, KafkaError._UNKNOWN_TOPIC}
            found = [] if refused else again.of(producer)
            producer.poll(0.05)

    def test_a_partition_that_is_missing_is_reported(self, bus: Bus) -> None:
        topic, producer, reports = bus.topic(), bus.producer(), Reports()
        producer.produce(topic, b"v", b"k", on_delivery=reports)
        reports.of(producer)
        refused = attempt(producer, topic, reports, partition=7)
        assert (refused or reports.of(producer, 2)[1]) == KafkaError._UNKNOWN_PARTITION

    def test_a_message_that_is_too_large_for_the_client_is_refused_at_once(self, bus: Bus) -> None:
        topic, producer = bus.topic(), bus.producer()
        with pytest.raises(KafkaException) as refused:
            producer.produce(topic, b"x" * 1_100_000, b"k")
        assert code(refused.value) == KafkaError.MSG_SIZE_TOO_LARGE

    def test_a_message_that_is_too_large_for_its_topic_costs_nobody_else(self, bus: Bus) -> None:
        topic, producer, reports = bus.topic(max_message_bytes="1000"), bus.producer(compression_type="none"), Reports()
        for size in (10, 3_000, 20):
            producer.produce(topic, b"x" * size, b"k", on_delivery=reports)
            reports.of(producer, len(reports.codes) + 1)
        assert reports.codes == [0, KafkaError.MSG_SIZE_TOO_LARGE, 0]

    def test_a_compacted_topic_takes_no_message_without_a_key(self, bus: Bus) -> None:
        topic, producer, reports = bus.topic(cleanup_policy="compact"), bus.producer(), Reports()
        producer.produce(topic, b"v", None, on_delivery=reports)
        assert reports.of(producer) == [KafkaError.INVALID_RECORD]

    def test_a_full_queue_takes_no_more_until_reports_are_polled(self, bus: Bus) -> None:
        topic, producer, reports = bus.topic(), bus.producer(queue_buffering_max_messages=2), Reports()
        producer.produce(topic, b"1", b"k", on_delivery=reports)
        producer.produce(topic, b"2", b"k", on_delivery=reports)
        with pytest.raises(BufferError):
            producer.produce(topic, b"3", b"k", on_delivery=reports)
        assert reports.of(producer, 2) == [0, 0]
        producer.produce(topic, b"3", b"k", on_delivery=reports)
        assert reports.of(producer, 3) == [0, 0, 0]

    def test_a_message_that_was_not_sent_in_time_is_reported(self, bus: Bus) -> None:
        topic, producer, reports = bus.topic(), bus.producer(message_timeout_ms=1_000, request_timeout_ms=1_000), Reports()
        bus.stop()
        producer.produce(topic, b"1", b"k", on_delivery=reports)
        assert reports.of(producer) == [KafkaError._MSG_TIMED_OUT]
        bus.start()
        producer.produce(topic, b"2", b"k", on_delivery=reports)
        while reports.of(producer, len(reports.codes))[-1] != 0:
            producer.produce(topic, b"2", b"k", on_delivery=reports)
            reports.of(producer, len(reports.codes) + 1)

    def test_what_waits_for_the_broker_is_purged_or_arrives_in_order(self, bus: Bus) -> None:
        """Without a time limit nothing is reported before one of the two happens."""
        topic, producer, purged, reports = bus.topic(), bus.producer(message_timeout_ms=0), Reports(), Reports()
        bus.stop()
        producer.produce(topic, b"0", b"k", on_delivery=purged)
        assert producer.flush(0.1) > 0
        assert purged.codes == []
        producer.purge()
        assert purged.of(producer) == [KafkaError._PURGE_QUEUE]
        for value in (b"1", b"2", b"3"):
            producer.produce(topic, value, b"k", on_delivery=reports)
        producer.poll(0)
        assert reports.codes == []
        bus.start()
        assert reports.of(producer, 3) == [0, 0, 0]
        consumer = bus.consumer()
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        assert [message.value() for message in to_the_end(consumer)] == [b"1", b"2", b"3"]
        consumer.close()

    def test_a_fatal_error_is_raised_by_poll_once_and_ends_the_client(self, bus: Bus) -> None:
        """No delivery report says that it is fatal, nor does what ``produce`` raises from then on: its code does."""
        topic = bus.topic()
        producer, reports = bus.doomed_producer(topic), Reports()
        producer.produce(topic, b"v", b"k", on_delivery=reports)
        with pytest.raises(KafkaException) as raised:
            wait(lambda: producer.poll(0.05) < 0, "it is raised")
        assert raised.value.args[0].fatal()
        reports.of(producer)
        assert reports.codes[0] != 0
        assert reports.errors[0] is not None
        assert not reports.errors[0].fatal()
        for _ in range(2):
            with pytest.raises(KafkaException) as refused:
                producer.produce(topic, b"v", b"k")
            assert code(refused.value) == KafkaError._FATAL
            assert not refused.value.args[0].fatal()
        producer.poll(0)
