"""Topics: made, described, grown, deleted."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import ConfigResource, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from tests.support.kafka_contract.bus import Bus, code, wait, write

ANSWER_SECONDS = 10.0
LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class Administration:
    def test_a_topic_is_made_once(self, bus: Bus) -> None:
        admin, name = bus.admin(), bus.topic(3)
        assert len(admin.list_topics(timeout=ANSWER_SECONDS).topics[name].partitions) == 3
        [future] = admin.create_topics([NewTopic(name, 1, 1)], request_timeout=ANSWER_SECONDS).values()
        with pytest.raises(KafkaException) as refused:
            future.result(ANSWER_SECONDS)
        assert code(refused.value) == KafkaError.TOPIC_ALREADY_EXISTS

    def test_a_topic_that_is_only_validated_is_not_made(self, bus: Bus) -> None:
        admin, name = bus.admin(), bus.topic() + "-more"
        [future] = admin.create_topics([NewTopic(name, 1, 1)], request_timeout=ANSWER_SECONDS, validate_only=True).values()
        future.result(ANSWER_SECONDS)
        assert name not in admin.list_topics(timeout=ANSWER_SECONDS).topics

    def test_a_topic_with_more_replicas_than_brokers_is_refused(self, bus: Bus) -> None:
        admin, name = bus.admin(), bus.topic() + "-more"
        [future] = admin.create_topics([NewTopic(name, 1, 3)], request_timeout=ANSWER_SECONDS).values()
        with pytest.raises(KafkaException) as refused:
            future.result(ANSWER_SECONDS)
        assert code(refused.value) == KafkaError.INVALID_REPLICATION_FACTOR

    def test_the_settings_of_a_topic_are_described(self, bus: Bus) -> None:
        admin, name = bus.admin(), bus.topic(cleanup_policy="compact", max_message_bytes="1234")
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        [future] = admin.describe_configs([resource], request_timeout=ANSWER_SECONDS).values()
        entries = future.result(ANSWER_SECONDS)
        assert (entries["cleanup.policy"].value, entries["max.message.bytes"].value) == ("compact", "1234")

    def test_defaults_are_described_as_well(self, bus: Bus) -> None:
        admin, name = bus.admin(), bus.topic()
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        [future] = admin.describe_configs([resource], request_timeout=ANSWER_SECONDS).values()
        entries = future.result(ANSWER_SECONDS)
        assert (entries["cleanup.policy"].value, entries["max.message.bytes"].value) == ("delete", "1048588")

    def test_a_topic_made_again_has_another_id(self, bus: Bus) -> None:
        admin, name = bus.admin(), bus.topic()

        def described() -> str:
            [future] = admin.describe_topics(TopicCollection([name]), request_timeout=ANSWER_SECONDS).values()
            return str(future.result(ANSWER_SECONDS).topic_id)

        before = described()
        assert described() == before
        bus.delete(name)
        bus.remake(name)
        assert described() != before

    def test_one_topic_that_is_missing_spoils_no_other_answer(self, bus: Bus) -> None:
        admin, name = bus.admin(), bus.topic(2)
        asked = admin.describe_topics(TopicCollection([name, "nosuch"]), request_timeout=ANSWER_SECONDS)
        assert [partition.id for partition in asked[name].result(ANSWER_SECONDS).partitions] == [0, 1]
        with pytest.raises(KafkaException) as missing:
            asked["nosuch"].result(ANSWER_SECONDS)
        assert code(missing.value) == KafkaError.UNKNOWN_TOPIC_OR_PART

    def test_partitions_have_a_leader_that_gives_their_ends(self, bus: Bus) -> None:
        """Also of partitions without a record; a partition that there is not spoils no other answer."""
        admin, name = bus.admin(), bus.topic(2)
        write(bus, name, b"a", b"b", partition=1)
        [described] = admin.describe_topics(TopicCollection([name]), request_timeout=ANSWER_SECONDS).values()
        leaders = {partition.id: partition.leader.id for partition in described.result(ANSWER_SECONDS).partitions}
        assert leaders == {0: 1, 1: 1}
        wanted = {TopicPartition(name, number): LATEST for number in (*leaders, 7)}
        asked = {place.partition: future for place, future in admin.list_offsets(wanted, request_timeout=ANSWER_SECONDS).items()}
        assert {number: asked[number].result(ANSWER_SECONDS).offset for number in leaders} == {0: 0, 1: 2}
        with pytest.raises(KafkaException) as missing:
            asked[7].result(ANSWER_SECONDS)
        assert code(missing.value) == KafkaError._UNKNOWN_PARTITION, missing.value

    def test_partitions_that_are_added_are_empty(self, bus: Bus) -> None:
        admin, consumer, name = bus.admin(), bus.consumer(), bus.topic(1)
        write(bus, name, b"a")
        bus.grow(name, 3)
        wait(lambda: len(admin.list_topics(timeout=ANSWER_SECONDS).topics[name].partitions) == 3, "three partitions")
        consumer.list_topics(name, ANSWER_SECONDS)
        marks: list[object] = []

        def led() -> bool:
            """A real broker lists a new partition a moment before it leads it."""
            try:
                marks[:] = [consumer.get_watermark_offsets(TopicPartition(name, number), timeout=ANSWER_SECONDS) for number in range(3)]
            except KafkaException as error:
                if code(error) == KafkaError.NOT_LEADER_FOR_PARTITION:
                    return False
                raise
            return True

        wait(led, "the partitions are led")
        assert marks == [(0, 1), (0, 0), (0, 0)]
        consumer.close()

    def test_a_broker_that_is_away_answers_nothing(self, bus: Bus) -> None:
        admin = bus.admin()
        bus.stop()
        [described] = admin.describe_topics(TopicCollection(["any"]), request_timeout=1.0).values()
        [made] = admin.create_topics([NewTopic("any", 1, 1)], request_timeout=1.0).values()
        [listed] = admin.list_offsets({TopicPartition("any", 0): LATEST}, request_timeout=1.0).values()
        for future in (described, made, listed):
            with pytest.raises(KafkaException) as failed:
                future.result(ANSWER_SECONDS)
            assert code(failed.value) in {KafkaError._TIMED_OUT, KafkaError._TRANSPORT}
        bus.start()

    def test_the_members_of_a_group_are_described(self, bus: Bus) -> None:
        """With the id that the broker gave each; a group that nobody is in has none."""
        admin, topic = bus.admin(), bus.topic()
        [future] = admin.describe_consumer_groups([topic], request_timeout=ANSWER_SECONDS).values()
        assert future.result(ANSWER_SECONDS).members == []
        consumer = bus.consumer(group_id=topic, group_instance_id="name")
        consumer.subscribe([topic], on_assign=lambda *_: None, on_revoke=lambda *_: None, on_lost=lambda *_: None)

        def members() -> list[object]:
            consumer.consume(1, 0.05)
            [future] = admin.describe_consumer_groups([topic], request_timeout=ANSWER_SECONDS).values()
            return [(one.group_instance_id, bool(one.member_id)) for one in future.result(ANSWER_SECONDS).members]

        wait(lambda: members() == [("name", True)], "one member")
        consumer.close()
