"""The migrations held in memory: read back, followed, given up by the one who would have heard of them."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from tests.support.kafka_contract.bus import Reports
from tests.support.memory_kafka import Cluster
from tests.support.migration_events import BEGIN, UUID, Host, whole
from virtflow.processors.dead_letters.dead_letter import Message
from virtflow.processors.handlers import outcome_of_event
from virtflow.processors.migrations.restore import read_migrations
from virtflow.processors.migrations.state import Migrations
from virtflow.processors.migrations.stored import Stored
from virtflow.processors.migrations.transitions import TIMED_OUT
from virtflow.processors.service import Service
from virtflow.runtime.kafka.clients import probe_settings
from virtflow.runtime.kafka.lineage import Probe
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.settings import Settings
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
    assert revisions == sorted(set(revisions))
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
    revisions = [change.revision for change in (before, *after)]
    assert revisions == sorted(set(revisions))
    assert after[-1].result == "completed"


def test_revisions_never_begin_again() -> None:
    """What was read back has lost the VM's record: readers that know it still take the next migration for the newer one, from its first record."""
    source, destination = Host("a"), Host("b")
    first, second = known(), known()
    before = [change for event in whole(source, destination) for change in first.apply(event, 3, 1.0)]
    after = [change for event in whole(destination, source, 30.0) for change in second.apply(event, 3, 31.0)]
    revisions = [change.revision for change in (*before, *after)]
    assert revisions == sorted(set(revisions))


def test_revisions_never_go_back() -> None:
    """What was read back has lost the VM's newest records: readers that know them take what later events make of the older one for newer."""
    source, destination = Host("a"), Host("b")
    events = whole(source, destination)
    first, second, third = known(), known(), known()
    before = [change for event in events for change in first.apply(event, 3, 1.0)]
    second.restore({UUID: (before[0], 3)}, 31.0)
    after = [change for event in whole(destination, source, 30.0) for change in second.apply(event, 3, 31.0)]
    assert after[0].revision > before[-1].revision
    third.restore({UUID: (before[0], 3)}, 31.0)
    (given_up,) = third.time_out(31.1 + SILENCE, BEGIN + 99)
    assert given_up.revision > before[-1].revision


def test_what_was_not_heard_before_giving_up_is_newer() -> None:
    """An instance that the brokers no longer talk to gives a migration up; its successor reads what came meanwhile, and that is believed."""
    source, destination = Host("a"), Host("b")
    events = whole(source, destination)
    first, second = known(), known()
    running = [change for event in events[:4] for change in first.apply(event, 3, 1.0)][-1]
    second.restore({UUID: (running, 3)}, 31.0)
    heard = events[3].time
    (given_up,) = first.time_out(1.1 + SILENCE, heard + 0.1 + SILENCE)
    last = [change for event in events[4:] for change in second.apply(event, 3, 32.0)][-1]
    assert (given_up.result, last.result) == ("unknown", "completed")
    assert last.revision > given_up.revision


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


def test_what_was_read_before_a_rebalance_does_not_count() -> None:
    """Another instance may have stored more meanwhile."""
    found, last = Migrations(SILENCE), VmMigration(uuid=UUID, id="m", source="a", destination="b")
    service = Service(Settings(), Stop())

    def overtaken() -> dict[str, tuple[VmMigration, int]]:
        found.forget()
        return {UUID: (last, 3)}

    asyncio.run(service._read_back(found, overtaken))
    assert not found.restored
    asyncio.run(service._read_back(found, lambda: {UUID: (last, 3)}))
    assert found.restored
    asyncio.run(service._read_back(found, dict))
    assert found.newest(UUID) == last


def test_what_the_topic_has_lost_is_what_it_lacks_of_our_vms() -> None:
    """Not what another instance has made newer, nor a VM whose events another one consumes."""
    before = [change for event in whole(Host("a"), Host("b")) for change in known().apply(event, 3, 1.0)]
    ours, others = known(), known((4,))
    for found in (ours, others):
        found.restore({UUID: (before[-1], 3)}, 1.0)
    older, newer = replace(before[-1], revision=before[-1].revision - 1), replace(before[-1], revision=before[-1].revision + 1)
    assert ours.missing_from({}) == ours.missing_from({UUID: (older, 3)}) == [before[-1]]
    assert ours.missing_from({UUID: (before[-1], 3)}) == ours.missing_from({UUID: (newer, 3)}) == others.missing_from({}) == []


def reports(cluster: Cluster, stored: Stored, *values: bytes) -> None:
    """Stores records, and has the reports told."""
    producer, found = cluster.producer({}), Reports()
    for value in values:
        producer.produce(MIGRATIONS.name, value, b"k", on_delivery=found)
    assert producer.flush() == 0
    assert not any(found.codes)
    for message in found.messages:
        stored.arrived(message)


@pytest.mark.parametrize("new", [0, 1, 9])
def test_a_lost_end_of_the_topic_is_noticed(new: int) -> None:
    """Whether or not new records have covered it, and once: when the topic was read all is well."""
    cluster = Cluster()
    cluster.create(MIGRATIONS.name)
    stored = Stored(MIGRATIONS.name, lambda: Probe(lambda: cluster.consumer(probe_settings(Settings(), "g"))))
    assert stored.intact()
    reports(cluster, stored, *(b"%d" % number for number in range(5)))
    assert stored.intact()
    cluster.elect(MIGRATIONS.name, 0, 3)
    reports(cluster, stored, *(b"new %d" % number for number in range(new)))
    assert not stored.intact()
    stored.forget()
    assert read_migrations(Settings(), CODEC, cluster.consumer, stored.has) == {}
    assert stored.intact()
    cluster.elect(MIGRATIONS.name, 0, 2)
    assert not stored.intact()


def test_what_was_deleted_or_compacted_is_not_lost() -> None:
    cluster = Cluster()
    cluster.create(MIGRATIONS.name)
    stored = Stored(MIGRATIONS.name, lambda: Probe(lambda: cluster.consumer(probe_settings(Settings(), "g"))))
    reports(cluster, stored, b"1")
    cluster.write(MIGRATIONS.name, b"k", b"another's")
    cluster.compact(MIGRATIONS.name)
    assert stored.intact()
    cluster.truncate(MIGRATIONS.name, 0, -1)
    assert stored.intact()
