"""Fault 10: poison messages crash nobody, and end in the dead letters with their place and reason; too many of them stop processing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]
from msgspec.structs import replace

from tests.support.broker import Broker
from tests.support.figures import figure
from tests.support.migration_events import Host, whole
from tests.support.processors import CODEC, Bus, Processors, eventually, snapshot, vm_uuid
from tests.support.schema_registry import SchemaRegistry
from virtflow.schemas.avro.codec import CONFLUENT_HEADER, Codec
from virtflow.schemas.avro.schema import Schema, schema_of
from virtflow.schemas.errors import UndecodableError
from virtflow.schemas.records import NodeSnapshot, NodeStatus, VmEvent, VmMetrics, VmMigration
from virtflow.schemas.topics import DEAD_LETTERS, EVENTS, METRICS, MIGRATIONS, NODES, SNAPSHOTS, Topic

SINGLE_OBJECT_MAGIC = b"\xc3\x01"

Pairs = list[tuple[str, bytes]]
"""Keys and values."""

GOOD = CODEC.encode(snapshot("good", 1))
GOOD_EVENT = CODEC.encode(whole(Host("node-1"), Host("node-2"))[0])
NEWER_ID = 77


def flipped(good: bytes, record: type[NodeSnapshot | VmEvent]) -> bytes:
    """A message with one bit flipped so that Avro notices nothing and only the ranges do."""
    for bit in range(10 * 8, len(good) * 8):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << (bit % 8)
        try:
            CODEC.decode(bytes(damaged), record)
        except UndecodableError as error:
            if error.reason.value == "out_of_range":
                return bytes(damaged)
    raise AssertionError("no such bit")


def newer_schema() -> Schema:
    """Our schema as a later release might have it: one field more, with a default."""
    schema = schema_of(NodeSnapshot)
    schema["fields"].append({"name": "weather", "type": "string", "default": ""})
    return schema


def newer_message(sequence: int) -> bytes:
    """A snapshot of the later release, framed with the registry's id: the old body and the new field's value behind it."""
    body = CODEC.encode(snapshot("newer", sequence))[10:]
    return CONFLUENT_HEADER.pack(0, NEWER_ID) + body + b"\x0arainy"


def poison(good: bytes, record: type[NodeSnapshot | VmEvent]) -> dict[str, tuple[bytes, str]]:
    """Every kind of poison in a topic of that record, of which ``good`` is a message, and the reason that the dead letters tell."""
    return {
        "empty": (b"", "empty"),
        "random": (b"\x42" + bytes(range(200)), "unknown_magic"),
        "wrong magic": (b"\xc3\x02" + good[2:], "unknown_magic"),
        "unknown fingerprint": (SINGLE_OBJECT_MAGIC + b"\x01" * 8 + good[10:], "unknown_schema"),
        "unknown id": (CONFLUENT_HEADER.pack(0, 4_000_000) + good[10:], "unknown_schema"),
        "another record": (CODEC.encode(NodeStatus(node="good", boot_id="b", sequence=1)), "wrong_record"),
        "truncated": (good[:-1], "truncated"),
        "trailing bytes": (good + b"\x00\x01", "trailing_bytes"),
        "bit flip": (flipped(good, record), "out_of_range"),
        "10 MB": (SINGLE_OBJECT_MAGIC + b"\x00" * 10_000_000, "too_large"),
    }


POISON = poison(GOOD, NodeSnapshot)
RARE = 1_000
"""Good messages for each of poison, where that is rare."""
SECONDS = 180.0
"""For as many messages as that makes."""


@pytest.fixture(scope="module")
def large_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def bus(large_broker: Broker) -> Bus:
    """Topics of which those that the processors take from allow messages of 10 MB, as badly configured ones would."""
    bus = Bus(large_broker)
    bus.create_topics()
    entry = ConfigEntry("max.message.bytes", "20000000", incremental_operation=AlterConfigOpType.SET)
    topics = [ConfigResource(ConfigResource.Type.TOPIC, bus.prefix + one.name, incremental_configs=[entry]) for one in (SNAPSHOTS, EVENTS)]
    admin = AdminClient({"bootstrap.servers": large_broker.address})
    for future in admin.incremental_alter_configs(topics).values():
        future.result()
    return bus


def headers_of(letter: Message) -> dict[str, str]:
    pairs: list[tuple[str, bytes]] = list(letter.headers() or [])  # type: ignore[arg-type]
    return {name: value.decode() for name, value in pairs}


def among(good: Pairs, kinds: dict[str, tuple[bytes, str]]) -> Pairs:
    """Every kind of poison once, spread evenly among the good messages."""
    messages = list(good)
    for number, (kind, (value, _)) in enumerate(kinds.items()):
        messages.insert((number + 1) * len(good) // (len(kinds) + 1), (kind, value))
    return messages


def assert_set_aside(bus: Bus, topic: Topic, kinds: dict[str, tuple[bytes, str]]) -> None:
    """Each is in the dead letters with its place, reason and value; nothing else is."""
    originals = {(m.partition(), m.offset()): m for m in bus.read(topic)}
    read = bus.read(DEAD_LETTERS)
    letters = {(letter.key() or b"").decode(): letter for letter in read}
    assert set(letters) == set(kinds)
    assert len(read) == len(kinds)
    for kind, (value, reason) in kinds.items():
        headers = headers_of(letters[kind])
        assert (headers["topic"], headers["reason"], headers["size"]) == (bus.prefix + topic.name, reason, str(len(value)))
        assert originals[int(headers["partition"]), int(headers["offset"])].key() == kind.encode()
        assert letters[kind].value() == value[:900_000]
        assert headers["detail"]


def dead_letters_of(processors: Processors, kinds: dict[str, tuple[bytes, str]]) -> dict[str, float]:
    """How many the processors have counted, by reason."""
    return {reason: processors.value(f'virtflow_processors_dead_letters_total{{reason="{reason}"}}') for _, reason in kinds.values()}


def test_rare_poison_is_set_aside_with_its_place_and_reason_and_the_rest_goes_on(bus: Bus, tmp_path: Path) -> None:
    """One message of a thousand, in a node's rounds: all other rounds are processed, in their order."""
    rounds = len(POISON) * RARE
    with Processors(bus, tmp_path) as processors:
        bus.produce(among([("good", CODEC.encode(snapshot("good", sequence, 1))) for sequence in range(rounds)], POISON))
        bus.wait_until_committed(SECONDS)
        counted = dead_letters_of(processors, POISON)
        assert processors.terminate() == 0
    assert_set_aside(bus, SNAPSHOTS, POISON)
    assert counted == Counter(reason for _, reason in POISON.values())
    assert [m.sequence for m in bus.records(METRICS, VmMetrics)] == list(range(rounds))
    assert [s.sequence for s in bus.records(NODES, NodeStatus)] == list(range(rounds))
    figure(10, "kinds of poison, each in the dead letters with its place and reason", len(POISON))
    figure(10, "good rounds around them, all processed", rounds)


def test_rare_poison_among_events_costs_no_migration(bus: Bus, tmp_path: Path) -> None:
    """One message of a thousand: every VM's migration is followed to its end."""
    kinds = poison(GOOD_EVENT, VmEvent)
    per_vm = len(whole(Host("node-1"), Host("node-2")))
    vms = [vm_uuid(number) for number in range(len(kinds) * RARE // per_vm)]
    source, destination = Host("node-1"), Host("node-2")
    events = [(uuid, replace(event, uuid=uuid)) for uuid in vms for event in whole(source, destination)]
    with Processors(bus, tmp_path) as processors:
        bus.produce(among([(uuid, CODEC.encode(event)) for uuid, event in events], kinds), EVENTS)
        bus.wait_until_committed(SECONDS, EVENTS)
        counted = dead_letters_of(processors, kinds)
        assert processors.terminate() == 0
    assert_set_aside(bus, EVENTS, kinds)
    assert counted == Counter(reason for _, reason in kinds.values())
    newest = {record.uuid: record for record in bus.records(MIGRATIONS, VmMigration)}
    assert {(uuid, record.result, record.source, record.destination) for uuid, record in newest.items()} == {
        (uuid, "completed", "node-1", "node-2") for uuid in vms
    }
    figure(10, "events with as rare poison among them, every migration followed to its end", len(events))


def test_a_newer_compatible_schema_is_read_through_the_registry(bus: Bus, tmp_path: Path) -> None:
    """A producer of the next release is no poison: its schema is fetched once and its messages are read."""
    with SchemaRegistry({NEWER_ID: newer_schema()}) as registry, Processors(bus, tmp_path, registry_url=registry.url) as processors:
        bus.produce(("newer", newer_message(sequence)) for sequence in range(3))
        bus.wait_until_committed()
        assert processors.terminate() == 0
    assert bus.read(DEAD_LETTERS) == []
    reader = Codec(fetch=lambda number: json.loads(registry.by_id[number]))
    assert {(m.node, m.sequence) for m in bus.records(METRICS, VmMetrics, reader)} == {("newer", 0), ("newer", 1), ("newer", 2)}


def test_when_everything_is_poison_it_stops_and_says_so(bus: Bus, tmp_path: Path) -> None:
    """At 100 % for 1,000 messages: exit 3, so that no unit starts it again, one clear line, and nothing acknowledged that was not quarantined."""
    kinds = [kind for kind in POISON if kind != "10 MB"]
    with Processors(bus, tmp_path) as processors:
        bus.produce((kinds[number % len(kinds)], POISON[kinds[number % len(kinds)]][0]) for number in range(1000))
        assert processors.wait(30.0) == 3
    letters = bus.read(DEAD_LETTERS)
    assert len(letters) == 499
    assert 1000 - bus.lag() <= len(letters)
    figure(10, "undecodable messages of 1,000 that are quarantined before it stops", len(letters))
    lines = [line for line in processors.log.read_text().splitlines() if "can't be decoded (limit" in line]
    assert len(lines) == 1
    assert lines[0].startswith("virtflow: 500 of the last 500 messages can't be decoded (limit: 50% of 1000); stopped before ")


def test_after_the_stop_the_rest_is_handled_once_the_cause_is_gone(bus: Bus, tmp_path: Path) -> None:
    """Restarted with a rule that lets it pass, it goes on where it stopped: every poison is quarantined, none lost."""
    with Processors(bus, tmp_path) as processors:
        bus.produce((f"node-{number % 9}", POISON["random"][0]) for number in range(600))
        assert processors.wait(30.0) == 3
    with Processors(bus, tmp_path, processors_dead_letter_window="100000") as processors:
        bus.wait_until_committed()
        assert processors.terminate() == 0
    places = {(headers_of(letter)["partition"], headers_of(letter)["offset"]) for letter in bus.read(DEAD_LETTERS)}
    assert len(places) == 600


def test_one_nodes_poison_never_stops_the_others(bus: Bus, tmp_path: Path) -> None:
    """2,000 undecodable messages of one node, before and after a start: all are quarantined, and the good nodes' rounds come through."""
    flood = [("bad", POISON["random"][0])] * 1000
    bus.produce(flood)
    with Processors(bus, tmp_path) as processors:
        bus.produce(("good", CODEC.encode(snapshot("good", sequence))) for sequence in range(3))
        bus.wait_until_committed()
        bus.produce(flood)
        bus.produce([("good", CODEC.encode(snapshot("good", 3)))])
        bus.wait_until_committed()
        assert processors.value('virtflow_processors_node_undecodable_total{node="bad"}') == 2000
        assert processors.value('virtflow_processors_node_undecodable_total{node="good"}') == 0
        assert processors.terminate() == 0
    assert len(bus.read(DEAD_LETTERS)) == 2000
    figure(10, "undecodable messages of one node that cost the others nothing", 2000)
    assert [s.sequence for s in bus.records(NODES, NodeStatus)] == [0, 1, 2, 3]
    lines = [line for line in processors.log.read_text().splitlines() if "of its last 20 messages can't be decoded" in line]
    assert len(lines) == 1


@pytest.mark.parametrize("keys", [["a", "b", "c"], [""]], ids=["several keys", "no key"])
def test_one_sender_before_everybody_else_stops_nobody(bus: Bus, tmp_path: Path, keys: list[str]) -> None:
    """Nothing was decoded yet, and 1,200 messages of a sender with several keys, or with none, come before the first good one."""
    bus.produce((keys[number % len(keys)], POISON["random"][0]) for number in range(1200))
    bus.produce(("good", CODEC.encode(snapshot("good", sequence))) for sequence in range(3))
    with Processors(bus, tmp_path) as processors:
        bus.wait_until_committed()
        assert processors.terminate() == 0
    assert len(bus.read(DEAD_LETTERS)) == 1200
    assert [s.sequence for s in bus.records(NODES, NodeStatus)] == [0, 1, 2]


def test_poison_in_the_other_topics_is_no_business_of_the_processors(bus: Bus, tmp_path: Path) -> None:
    """Foreign bytes among the metrics stop nobody who writes there."""
    with Processors(bus, tmp_path) as processors:
        for topic in (METRICS, NODES):
            bus.produce([("k", b"garbage")], topic)
        bus.produce([("good", Codec().encode(snapshot("good", 1)))])
        bus.wait_until_committed()
        eventually("health", lambda: processors.page("/healthz")[0] == 200)
        assert processors.terminate() == 0
