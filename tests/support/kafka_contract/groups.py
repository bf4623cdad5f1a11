"""Consumer groups: who has which partition, and what each member is called about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from tests.support.kafka_contract.bus import SECONDS, Bus, code, read, records, values, wait, write

TURN_SECONDS = 0.05


class Member:
    """A member of a group, which reads what it is given from the beginning, and remembers what it was called about."""

    def __init__(self, bus: Bus, group: str, topics: list[str], **settings: object) -> None:
        """Subscribes; nothing happens before the first turn."""
        self.calls: list[tuple[str, list[int]]] = []
        self.rebalances = 0
        """Calls, with those that bring nothing."""
        self.given: list[int] = []
        self.found: list[Any] = []
        self.consumer = bus.consumer(group_id=group, **settings)
        self.consumer.subscribe(topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    @property
    def mine(self) -> list[int]:
        """The partitions that are assigned."""
        return sorted(place.partition for place in self.consumer.assignment())

    def turn(self) -> None:
        """Read once."""
        self.found += self.consumer.consume(100, TURN_SECONDS)

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Read until something is true."""

        def turned() -> bool:
            self.turn()
            return true()

        wait(turned, what)

    def _assigned(self, consumer: Any, partitions: list[TopicPartition]) -> None:  # noqa: ANN401, the client's class or the double's
        self._called("assigned", partitions)
        self.given += [place.offset for place in partitions]
        consumer.incremental_assign([TopicPartition(place.topic, place.partition, 0) for place in partitions])

    def _revoked(self, consumer: Any, partitions: list[TopicPartition]) -> None:  # noqa: ANN401, as above
        self._called("revoked", partitions)
        consumer.incremental_unassign(partitions)

    def _lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:  # noqa: ANN401, as above
        self._called("lost", partitions)
        consumer.incremental_unassign(partitions)

    def _called(self, what: str, partitions: list[TopicPartition]) -> None:
        self.rebalances += 1
        if partitions:  # each rebalance ends with a call, which may bring nothing
            self.calls.append((what, sorted(place.partition for place in partitions)))


def settle(*members: Member, partitions: int = 4) -> None:
    """Turn until the members have all partitions, each at most one more than another."""

    def shared() -> bool:
        for member in members:
            member.turn()
        counts = [len(member.mine) for member in members]
        return sum(counts) == partitions and max(counts) - min(counts) <= 1

    wait(shared, "the group settles")


class Groups:
    def test_a_lone_member_is_given_all_partitions(self, bus: Bus) -> None:
        """Without an offset, since none was committed; it may choose where each begins."""
        topic = bus.topic(4)
        write(bus, topic, b"a", partition=2)
        member = Member(bus, topic, [topic])
        settle(member)
        assert member.calls == [("assigned", [0, 1, 2, 3])]
        assert set(member.given) == {OFFSET_INVALID}
        member.until(lambda: values(member.found) == [b"a"], "the record")
        member.consumer.close()
        assert member.calls == [("assigned", [0, 1, 2, 3]), ("revoked", [0, 1, 2, 3])]

    def test_partitions_move_to_a_second_member_and_the_rest_stays(self, bus: Bus) -> None:
        """Cooperative: the first is asked to give up what the second one gets, and keeps the others all the time."""
        topic = bus.topic(4)
        first = Member(bus, topic, [topic])
        settle(first)
        second = Member(bus, topic, [topic])
        settle(first, second)
        assert [what for what, _ in first.calls] == ["assigned", "revoked"]
        [_, (_, moved)] = first.calls
        assert len(moved) == 2
        assert (first.mine, second.mine) == (sorted({0, 1, 2, 3} - set(moved)), moved)
        second.consumer.close()
        settle(first)
        assert first.calls[2:] == [("assigned", moved)]
        assert second.calls[-1] == ("revoked", moved)
        first.consumer.close()

    def test_each_record_comes_to_the_member_that_has_its_partition(self, bus: Bus) -> None:
        topic = bus.topic(4)
        members = [Member(bus, topic, [topic]), Member(bus, topic, [topic])]
        settle(*members)
        for partition in range(4):
            write(bus, topic, b"%d" % partition, partition=partition)

        def complete() -> bool:
            for member in members:
                member.turn()
            return sum(len(records(member.found)) for member in members) >= 4

        wait(complete, "four records")
        for member in members:
            assert sorted({message.partition() or 0 for message in records(member.found)}) == member.mine
            member.consumer.close()

    def test_members_of_a_group_may_read_several_topics(self, bus: Bus) -> None:
        one, other = bus.topic(1), bus.topic(2)
        member = Member(bus, one, [one, other])
        settle(member, partitions=3)
        assert sorted((place.topic, place.partition) for place in member.consumer.assignment()) == sorted(
            [(one, 0), (other, 0), (other, 1)]
        )
        member.consumer.close()

    def test_a_second_member_of_the_same_name_ends_the_first(self, bus: Bus) -> None:
        """The error comes in the place of a message. Its code says that it is fatal, ``fatal()`` does not; no callback is called."""
        topic = bus.topic(4)
        first = Member(bus, topic, [topic], group_instance_id="name")
        settle(first)
        second = Member(bus, topic, [topic], group_instance_id="name")
        errors: list[KafkaError] = []

        def ended() -> bool:
            second.turn()
            first.turn()
            errors[:] = [error for m in first.found if (error := m.error()) is not None and error.code() == KafkaError._FATAL]
            return bool(errors) and len(second.mine) == 4

        wait(ended, "the first one is told")
        assert not errors[0].fatal()
        assert [what for what, _ in first.calls] == ["assigned"]
        second.consumer.close()
        first.consumer.close()

    def test_a_member_without_partitions_is_ended_by_one_of_its_name_as_well(self, bus: Bus) -> None:
        topic = bus.topic(1)
        owner = Member(bus, topic, [topic])
        settle(owner, partitions=1)
        first = Member(bus, topic, [topic], group_instance_id="name")

        def joined() -> bool:
            owner.turn()
            first.turn()
            return first.rebalances > 0 and len(owner.mine) + len(first.mine) == 1

        wait(joined, "the first one has joined")
        assert not first.mine
        second = Member(bus, topic, [topic], group_instance_id="name")

        def ended() -> bool:
            for member in (owner, second, first):
                member.turn()
            return KafkaError._FATAL in [error.code() for m in first.found if (error := m.error()) is not None]

        wait(ended, "the first one is told")
        for member in (second, first, owner):
            member.consumer.close()

    def test_a_member_has_an_id_while_it_is_one(self, bus: Bus) -> None:
        """It has none before the group has taken it, nor while it reads too late, and another one once it is back."""
        topic = bus.topic(2)
        member = Member(bus, topic, [topic], max_poll_interval_ms=6_000)
        assert not member.consumer.memberid()
        settle(member, partitions=2)
        first = member.consumer.memberid()
        assert first
        bus.lose(member.consumer, topic)
        wait(lambda: not member.consumer.memberid(), "it is no member any more")
        member.until(lambda: len(member.calls) == 3, "it has joined again")
        assert member.consumer.memberid() not in {"", None, first}
        member.consumer.close()

    def test_a_member_that_reads_too_late_has_lost_its_partitions(self, bus: Bus) -> None:
        """It is told so instead of asked, and joins again by itself."""
        topic = bus.topic(2)
        member = Member(bus, topic, [topic], max_poll_interval_ms=6_000)
        settle(member, partitions=2)
        bus.lose(member.consumer, topic)
        member.until(lambda: len(member.calls) == 3, "it has joined again")
        assert member.calls == [("assigned", [0, 1]), ("lost", [0, 1]), ("assigned", [0, 1])]
        assert KafkaError._MAX_POLL_EXCEEDED in [error.code() for m in member.found if (error := m.error()) is not None]
        member.consumer.close()

    def test_what_a_member_has_lost_is_given_to_others_at_once(self, bus: Bus) -> None:
        """Before it hears of it."""
        topic = bus.topic(2)
        first = Member(bus, topic, [topic], max_poll_interval_ms=6_000)
        settle(first, partitions=2)
        bus.lose(first.consumer, topic)
        second = Member(bus, topic, [topic])
        settle(second, partitions=2)
        assert first.mine == [0, 1]
        assert [what for what, _ in first.calls] == ["assigned"]
        first.turn()
        second.consumer.close()
        first.consumer.close()

    def test_a_commit_is_there_for_the_next_member_with_its_metadata(self, bus: Bus) -> None:
        topic = bus.topic(2)
        member = Member(bus, topic, [topic])
        settle(member, partitions=2)
        assert [place.offset for place in member.consumer.committed([TopicPartition(topic, 0)], timeout=SECONDS)] == [OFFSET_INVALID]
        member.consumer.commit(offsets=[TopicPartition(topic, 0, 7, metadata="read so far")], asynchronous=False)
        member.consumer.close()
        another = bus.consumer(group_id=topic)
        found = another.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], timeout=SECONDS)
        assert [(place.offset, place.metadata or "") for place in found] == [(7, "read so far"), (OFFSET_INVALID, "")]
        another.close()

    def test_a_member_that_was_given_up_commits_nothing(self, bus: Bus) -> None:
        topic = bus.topic(2)
        member = Member(bus, topic, [topic], max_poll_interval_ms=6_000)
        settle(member, partitions=2)
        bus.lose(member.consumer, topic)
        with pytest.raises(KafkaException) as raised:
            member.consumer.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
        assert code(raised.value) == KafkaError.UNKNOWN_MEMBER_ID
        another = bus.consumer(group_id=topic)
        assert [place.offset for place in another.committed([TopicPartition(topic, 0)], timeout=SECONDS)] == [OFFSET_INVALID]
        another.close()
        member.turn()
        member.consumer.close()

    def test_a_call_that_raises_ends_the_reading_that_made_it(self, bus: Bus) -> None:
        """What the callback raises is raised by ``consume``."""
        topic, consumer = bus.topic(), bus.consumer(group_id="raises")

        def assigned(consumer: object, partitions: object) -> None:
            del consumer, partitions
            raise LookupError("of our own")

        consumer.subscribe([topic], on_assign=assigned, on_revoke=lambda *_: None, on_lost=lambda *_: None)
        with pytest.raises(LookupError, match="of our own"):
            read(consumer, records)
        consumer.close()
