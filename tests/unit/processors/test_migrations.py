"""The migrations held in memory: read back, followed, given up by the one who would have heard of them."""

from __future__ import annotations

from tests.support.migration_events import BEGIN, UUID, Host, whole
from virtflow.processors.dead_letters.dead_letter import Message
from virtflow.processors.handlers import outcome_of_event
from virtflow.processors.migrations.state import Migrations
from virtflow.processors.migrations.transitions import TIMED_OUT
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import MIGRATIONS

CODEC = Codec()
SILENCE = 60.0


def known(partitions: tuple[int, ...] = (3,)) -> Migrations:
    found = Migrations(SILENCE)
    found.assign(partitions)
    found.restore({}, 0.0)
    return found


def test_an_event_becomes_a_message_keyed_by_its_uuid() -> None:
    """In, followed, out: what the topic stores is what the function said."""
    source, destination = Host("a"), Host("b")
    found, stored = known(), []
    ended: list[str] = []
    for event in whole(source, destination):
        outcome = outcome_of_event(Message("vm.events", 3, 0, UUID.encode(), CODEC.encode(event), 0.0), CODEC, found, 1.0)
        assert outcome.event
        stored += outcome.results
        ended += outcome.ended
    assert {(result.topic, result.key) for result in stored} == {(MIGRATIONS, UUID.encode())}
    last = CODEC.decode(stored[-1].value, VmMigration)
    assert (last.result, found.running) == ("completed", 0)
    revisions = [CODEC.decode(result.value, VmMigration).revision for result in stored]
    assert revisions == list(range(revisions[0], revisions[0] + len(stored)))
    assert ended == ["completed"]


def test_what_is_read_back_goes_on() -> None:
    """After a restart in the middle the rest of the events joins what the topic had: same identity, rising revisions."""
    source, destination = Host("a"), Host("b")
    events = whole(source, destination)
    first = known()
    before = [change for event in events[:4] for change in first.apply(event, 3, 1.0)][-1]
    second = known()
    second.restore({UUID: (before, 3)}, 100.0)
    assert second.running == 1
    after = [change for event in events[2:] for change in second.apply(event, 3, 101.0)]
    assert {change.id for change in after} == {before.id}
    assert [change.revision for change in after] == list(range(before.revision + 1, before.revision + 1 + len(after)))
    assert after[-1].result == "completed"


def test_revisions_never_begin_again() -> None:
    """What was read back has lost the VM's record: readers that know it still take the next migration for the newer one, from its first record."""
    source, destination = Host("a"), Host("b")
    first, second = known(), known()
    before = [change for event in whole(source, destination) for change in first.apply(event, 3, 1.0)]
    after = [change for event in whole(destination, source, 30.0) for change in second.apply(event, 3, 31.0)]
    revisions = [change.revision for change in (*before, *after)]
    assert revisions == sorted(set(revisions))


def test_the_same_event_begins_with_the_same_revision() -> None:
    """Two instances that take each other for gone write the same record, so that neither hides what the other one writes next."""
    event = Host("a").poll(1.0, 1.0)
    assert known().apply(event, 3, 1.0) == known().apply(event, 3, 500.0) != ()


def test_silence_ends_it_once_and_only_where_it_would_be_heard() -> None:
    """After the settable time the owner of the partition gives it up; a poll that changes nothing is news, too."""
    source, destination = Host("a"), Host("b")
    found, other = known(), known(partitions=(4,))
    begin = [destination.lifecycle(0.1, 2, 1), source.poll(1, 1.0)]
    for event in begin:
        found.apply(event, 3, 10.0)
        other.apply(event, 3, 10.0)
    assert found.time_out(10.0 + SILENCE, BEGIN) == []
    assert found.apply(source.poll(1, 1.0), 3, 40.0) == ()
    assert found.time_out(40.0 + SILENCE, BEGIN) == []
    (lost,) = found.time_out(40.1 + SILENCE, BEGIN + 99)
    assert (lost.result, lost.reason, lost.ended_timestamp_seconds) == ("unknown", TIMED_OUT, BEGIN + 99)
    assert found.time_out(1000.0, BEGIN) == []
    assert other.time_out(1000.0, BEGIN) == []


def test_forgetting_needs_a_new_read_back() -> None:
    found = known()
    found.apply(Host("a").poll(1, 1.0), 3, 0.0)
    found.forget()
    assert (found.restored, found.running) == (False, 0)
