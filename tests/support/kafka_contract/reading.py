"""Consumers that choose their partitions themselves: where they begin, what comes, and what is no record."""

from __future__ import annotations

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from tests.support.kafka_contract.bus import Bus, Reports, code, ends, offsets, read, records, to_the_end, values, write

ANSWER_SECONDS = 10.0
TIMES = [1_700_000_001_000, 1_700_000_002_000, 1_700_000_003_000]
AWAY = {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}


class Reading:
    def test_records_come_in_order_and_then_the_end_of_the_partition(self, bus: Bus) -> None:
        topic, consumer = bus.topic(), bus.consumer()
        write(bus, topic, b"a", b"b", b"c")
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        found = read(consumer, ends)
        assert [(m.topic(), m.partition(), m.offset(), m.value()) for m in records(found)] == [
            (topic, 0, 0, b"a"),
            (topic, 0, 1, b"b"),
            (topic, 0, 2, b"c"),
        ]
        assert ends(found) == {0: 3}
        assert found[-1].error() is not None
        consumer.close()

    def test_the_end_is_reported_again_behind_what_comes_later(self, bus: Bus) -> None:
        topic, consumer = bus.topic(), bus.consumer()
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        assert ends(read(consumer, ends)) == {0: 0}
        write(bus, topic, b"a")
        found = read(consumer, ends)
        assert (values(found), ends(found)) == ([b"a"], {0: 1})
        consumer.close()

    def test_a_record_keeps_its_key_time_and_headers(self, bus: Bus) -> None:
        """No value (a tombstone) is no empty value; no headers are None."""
        topic, consumer, producer, reports = bus.topic(), bus.consumer(), bus.producer(), Reports()
        producer.produce(topic, b"v", "key", timestamp=TIMES[0], headers=[("name", b"1"), ("name", None)], on_delivery=reports)
        producer.produce(topic, None, b"key", on_delivery=reports)
        producer.produce(topic, b"", None, on_delivery=reports)
        reports.of(producer, 3)
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        first, tombstone, empty = to_the_end(consumer)
        assert (first.key(), first.headers(), first.timestamp()) == (b"key", [("name", b"1"), ("name", None)], (1, TIMES[0]))
        assert (tombstone.key(), tombstone.value(), tombstone.headers()) == (b"key", None, None)
        assert (empty.key(), empty.value()) == (None, b"")
        consumer.close()

    @pytest.mark.parametrize(("start", "found"), [(OFFSET_BEGINNING, [0, 1, 2]), (1, [1, 2]), (3, []), (OFFSET_END, [])])
    def test_a_reader_begins_where_it_was_told(self, bus: Bus, start: int, found: list[int]) -> None:
        topic, consumer = bus.topic(), bus.consumer()
        write(bus, topic, b"a", b"b", b"c")
        consumer.assign([TopicPartition(topic, 0, start)])
        assert offsets(to_the_end(consumer)) == found
        consumer.close()

    @pytest.mark.parametrize(("reset", "found"), [("earliest", [3, 4]), ("latest", [])])
    @pytest.mark.parametrize("start", [1, 99])
    def test_an_offset_that_is_not_there_begins_where_the_settings_say(self, bus: Bus, reset: str, found: list[int], start: int) -> None:
        """Deleted by retention, or beyond the end."""
        topic, consumer = bus.topic(), bus.consumer(auto_offset_reset=reset)
        write(bus, topic, *(b"x" for _ in range(5)))
        bus.truncate(topic, 3)
        consumer.assign([TopicPartition(topic, 0, start)])
        assert offsets(to_the_end(consumer)) == found
        consumer.close()

    def test_without_an_offset_a_reader_begins_where_the_settings_say(self, bus: Bus) -> None:
        topic, consumer = bus.topic(), bus.consumer(auto_offset_reset="latest")
        write(bus, topic, b"a")
        consumer.assign([TopicPartition(topic, 0)])
        assert offsets(to_the_end(consumer)) == []
        consumer.close()

    def test_watermarks_follow_retention_and_what_is_written(self, bus: Bus) -> None:
        topic, consumer = bus.topic(), bus.consumer()
        place = TopicPartition(topic, 0)
        assert consumer.get_watermark_offsets(place, ANSWER_SECONDS, cached=False) == (0, 0)
        write(bus, topic, b"a", b"b", b"c")
        bus.truncate(topic, 2)
        assert consumer.get_watermark_offsets(place, timeout=ANSWER_SECONDS) == (2, 3)
        bus.truncate(topic, -1)
        assert consumer.get_watermark_offsets(place, timeout=ANSWER_SECONDS) == (3, 3)
        consumer.close()

    def test_cached_watermarks_are_known_once_something_was_fetched(self, bus: Bus) -> None:
        topic, consumer = bus.topic(), bus.consumer()
        write(bus, topic, b"a", b"b")
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), cached=True) == (OFFSET_INVALID, OFFSET_INVALID)
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        to_the_end(consumer)
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), cached=True)[1] == 2
        consumer.close()

    def test_offsets_are_found_by_time(self, bus: Bus) -> None:
        """The first record at or after it; the end, as -1, where there is none."""
        topic, consumer = bus.topic(), bus.consumer()
        write(bus, topic, b"a", b"b", b"c", timestamps=TIMES)
        found = []
        for time_ms in (0, TIMES[1] - 1, TIMES[1], TIMES[1] + 1, TIMES[2] + 1):
            [answer] = consumer.offsets_for_times([TopicPartition(topic, 0, time_ms)], ANSWER_SECONDS)
            assert answer.error is None
            found.append(answer.offset)
        assert found == [0, 1, 1, 2, OFFSET_END]
        consumer.close()

    def test_a_topic_that_is_missing_is_an_error_of_what_is_asked(self, bus: Bus) -> None:
        consumer, missing = bus.consumer(), TopicPartition("nosuch", 0)
        listed = consumer.list_topics("nosuch", ANSWER_SECONDS).topics["nosuch"]
        assert (listed.error.code(), listed.partitions) == (KafkaError.UNKNOWN_TOPIC_OR_PART, {})
        with pytest.raises(KafkaException) as low:
            consumer.get_watermark_offsets(missing, timeout=ANSWER_SECONDS)
        with pytest.raises(KafkaException) as by_time:
            consumer.offsets_for_times([missing], ANSWER_SECONDS)
        assert (code(low.value), code(by_time.value)) == (KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_PARTITION)
        consumer.close()

    def test_partitions_are_listed(self, bus: Bus) -> None:
        consumer, topic = bus.consumer(), bus.topic(3)
        listed = consumer.list_topics(topic, ANSWER_SECONDS).topics[topic]
        assert (listed.error, sorted(listed.partitions)) == (None, [0, 1, 2])
        consumer.close()

    def test_marks_of_transactions_take_offsets_and_are_no_records(self, bus: Bus) -> None:
        """Nor are the records of a transaction that was aborted; the end lies behind them."""
        topic, consumer = bus.topic(), bus.consumer()
        bus.transaction(topic, [b"a", b"b"], commit=True)
        bus.transaction(topic, [b"c"], commit=False)
        bus.transaction(topic, [b"d"], commit=True)
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        found = read(consumer, lambda found: 7 in ends(found).values())
        assert list(zip(offsets(found), values(found), strict=True)) == [(0, b"a"), (1, b"b"), (5, b"d")]
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=ANSWER_SECONDS) == (0, 7)
        consumer.close()

    def test_compaction_leaves_gaps_and_the_newest_record_of_a_key(self, bus: Bus) -> None:
        topic = bus.topic(cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.01")
        write(bus, topic, b"1", b"2", b"3", key=b"a")
        write(bus, topic, b"4", key=b"b")
        bus.compact(topic)
        write(bus, topic, b"9", key=b"c")
        consumer = bus.consumer()
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        found = [(m.offset(), m.key(), m.value()) for m in to_the_end(consumer) if m.key() != b"roll"]
        assert found[:2] == [(2, b"a", b"3"), (3, b"b", b"4")]
        assert found[-1][1:] == (b"c", b"9")
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=ANSWER_SECONDS)[0] == 0
        consumer.close()

    def test_partitions_are_added_and_taken_away_one_by_one(self, bus: Bus) -> None:
        """What is taken away returns nothing more, what stays goes on where it was."""
        topic, consumer = bus.topic(2), bus.consumer()
        write(bus, topic, b"a")
        consumer.incremental_assign([TopicPartition(topic, 0, 0)])
        to_the_end(consumer)
        consumer.incremental_assign([TopicPartition(topic, 1, 0)])
        assert ends(read(consumer, ends)) == {1: 0}
        consumer.incremental_unassign([TopicPartition(topic, 0)])
        assert [(place.topic, place.partition) for place in consumer.assignment()] == [(topic, 1)]
        write(bus, topic, b"b")
        write(bus, topic, b"c", partition=1)
        assert values(read(consumer, ends)) == [b"c"]
        consumer.close()

    def test_an_assignment_replaces_the_one_before(self, bus: Bus) -> None:
        topic, consumer = bus.topic(2), bus.consumer()
        consumer.assign([TopicPartition(topic, 0, 0)])
        consumer.assign([TopicPartition(topic, 1, 0)])
        assert [place.partition for place in consumer.assignment()] == [1]
        assert ends(read(consumer, ends)) == {1: 0}
        consumer.close()

    def test_a_paused_partition_waits_and_goes_on_where_it_was(self, bus: Bus) -> None:
        topic, consumer = bus.topic(2), bus.consumer()
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(2)])
        to_the_end(consumer, 2)
        consumer.pause([TopicPartition(topic, 0)])
        write(bus, topic, b"a")
        write(bus, topic, b"b", partition=1)
        assert values(read(consumer, ends)) == [b"b"]
        consumer.resume([TopicPartition(topic, 0)])
        assert values(read(consumer, records)) == [b"a"]
        consumer.close()

    def test_a_sought_offset_is_read_next(self, bus: Bus) -> None:
        topic, consumer = bus.topic(), bus.consumer()
        write(bus, topic, b"a", b"b", b"c")
        consumer.assign([TopicPartition(topic, 0, 0)])
        to_the_end(consumer)
        consumer.seek(TopicPartition(topic, 0, 1))
        assert offsets(to_the_end(consumer)) == [1, 2]
        consumer.close()

    def test_a_partition_that_is_not_assigned_can_not_be_sought(self, bus: Bus) -> None:
        topic, consumer = bus.topic(), bus.consumer()
        with pytest.raises(KafkaException) as refused:
            consumer.seek(TopicPartition(topic, 0, 1))
        assert code(refused.value) in {KafkaError._STATE, KafkaError._UNKNOWN_PARTITION}
        consumer.close()

    def test_the_position_follows_what_was_returned(self, bus: Bus) -> None:
        topic, consumer = bus.topic(2), bus.consumer()
        write(bus, topic, b"a", b"b")
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(2)])
        to_the_end(consumer, 2)
        places = consumer.position([TopicPartition(topic, partition) for partition in range(2)])
        assert {place.partition: place.offset for place in places} == {0: 2, 1: OFFSET_INVALID}
        consumer.close()

    def test_a_topic_that_was_made_again_has_offsets_of_its_own(self, bus: Bus) -> None:
        topic, consumer = bus.topic(), bus.consumer()
        write(bus, topic, b"a", b"b")
        consumer.incremental_assign([TopicPartition(topic, 0, 0)])
        to_the_end(consumer)
        bus.delete(topic)
        bus.remake(topic)
        write(bus, topic, b"c")
        consumer.incremental_unassign([TopicPartition(topic, 0)])
        consumer.list_topics(topic, ANSWER_SECONDS)
        consumer.incremental_assign([TopicPartition(topic, 0, 0)])
        assert [(m.offset(), m.value()) for m in records(read(consumer, records))] == [(0, b"c")]
        consumer.close()

    def test_a_reader_waits_for_a_broker_that_is_away_and_goes_on(self, bus: Bus) -> None:
        """Questions fail meanwhile; what was written before and after comes once, in order."""
        topic, consumer, admin = bus.topic(), bus.consumer(), bus.admin()
        write(bus, topic, b"a")
        consumer.assign([TopicPartition(topic, 0, 0)])
        to_the_end(consumer)
        bus.stop()
        with pytest.raises(KafkaException) as listed:
            consumer.list_topics(topic, 1.0)
        with pytest.raises(KafkaException) as watermarks:
            consumer.get_watermark_offsets(TopicPartition(topic, 0), 1.0, cached=False)
        with pytest.raises(KafkaException) as times:
            consumer.offsets_for_times([TopicPartition(topic, 0, 1)], 1.0)
        with pytest.raises(KafkaException) as asked:
            admin.list_topics(timeout=1.0)
        assert {code(failed.value) for failed in (listed, asked)} <= AWAY
        assert {code(failed.value) for failed in (watermarks, times)} <= AWAY | {KafkaError._UNKNOWN_PARTITION}
        assert not records(consumer.consume(10, 0.1))
        bus.start()
        write(bus, topic, b"b")
        assert values(read(consumer, records)) == [b"b"]
        consumer.close()

    def test_nothing_is_read_after_the_end(self, bus: Bus) -> None:
        consumer = bus.consumer()
        consumer.close()
        with pytest.raises(RuntimeError, match="closed"):
            consumer.consume(1, 0.1)
