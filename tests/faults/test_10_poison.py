"""Fault 10: poison messages crash nobody, and end in the dead letters with their place and reason; too many of them stop processing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from tests.support.broker import Broker
from tests.support.figures import figure
from tests.support.processors import CODEC, Bus, Processors, eventually, snapshot
from tests.support.schema_registry import SchemaRegistry
from virtflow.schemas.avro.codec import CONFLUENT_HEADER, Codec
from virtflow.schemas.avro.schema import Schema, schema_of
from virtflow.schemas.errors import UndecodableError
from virtflow.schemas.records import NodeSnapshot, NodeStatus, VmMetrics
from virtflow.schemas.topics import DEAD_LETTERS, METRICS, NODES, SNAPSHOTS

SINGLE_OBJECT_MAGIC = b"\xc3\x01"

GOOD = CODEC.encode(snapshot("good", 1))
NEWER_ID = 77


def flipped() -> bytes:
    """A message with one bit flipped so that Avro notices nothing and only the ranges do."""
    for bit in range(10 * 8, len(GOOD) * 8):
        damaged = bytearray(GOOD)
        damaged[bit // 8] ^= 1 << (bit % 8)
        try:
            CODEC.decode(bytes(damaged), NodeSnapshot)
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


POISON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "random": (b"\x42" + bytes(range(200)), "unknown_magic"),
    "wrong magic": (b"\xc3\x02" + GOOD[2:], "unknown_magic"),
    "unknown fingerprint": (SINGLE_OBJECT_MAGIC + b"\x01" * 8 + GOOD[10:], "unknown_schema"),
    "unknown id": (CONFLUENT_HEADER.pack(0, 4_000_000) + GOOD[10:], "unknown_schema"),
    "another record": (CODEC.encode(NodeStatus(node="good", boot_id="b", sequence=1)), "wrong_record"),
    "truncated": (GOOD[:-1], "truncated"),
    "trailing bytes": (GOOD + b"\x00\x01", "trailing_bytes"),
    "bit flip": (flipped(), "out_of_range"),
    "10 MB": (SINGLE_OBJECT_MAGIC + b"\x00" * 10_000_000, "too_large"),
}


@pytest.fixture(scope="module")
def large_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def bus(large_broker: Broker) -> Bus:
    """Topics of which the snapshots' takes messages of 10 MB, as a badly configured one would."""
    bus = Bus(large_broker)
    bus.create_topics()
    entry = ConfigEntry("max.message.bytes", "20000000", incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ConfigResource.Type.TOPIC, bus.prefix + SNAPSHOTS.name, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": large_broker.address})
    for future in admin.incremental_alter_configs([topic]).values():
        future.result()
    return bus


def headers_of(letter: Message) -> dict[str, str]:
    pairs: list[tuple[str, bytes]] = list(letter.headers() or [])  # type: ignore[arg-type]
    return {name: value.decode() for name, value in pairs}


def poisoned(good: int) -> list[tuple[str, bytes]]:
    """Every kind of poison once, spread evenly among ``good`` good rounds of one node."""
    messages = [("good", CODEC.encode(snapshot("good", sequence))) for sequence in range(good)]
    for number, kind in enumerate(POISON):
        messages.insert((number + 1) * good // (len(POISON) + 1), (kind, POISON[kind][0]))
    return messages


def test_each_poison_is_set_aside_with_its_place_and_reason_and_the_rest_goes_on(bus: Bus, tmp_path: Path) -> None:
    with Processors(bus, tmp_path) as processors:
        bus.produce(poisoned(1000))
        bus.wait_until_committed()
        counted = {
            reason: processors.value(f'virtflow_processors_dead_letters_total{{reason="{reason}"}}') for _, reason in POISON.values()
        }
        assert processors.terminate() == 0
    originals = {(m.partition(), m.offset()): m for m in bus.read(SNAPSHOTS)}
    letters = {(letter.key() or b"").decode(): letter for letter in bus.read(DEAD_LETTERS)}
    assert set(letters) == set(POISON)
    for kind, (value, reason) in POISON.items():
        headers = headers_of(letters[kind])
        assert (headers["topic"], headers["reason"], headers["size"]) == (bus.prefix + SNAPSHOTS.name, reason, str(len(value)))
        assert originals[int(headers["partition"]), int(headers["offset"])].key() == kind.encode()
        assert letters[kind].value() == value[:900_000]
        assert headers["detail"]
    assert counted == {reason: sum(other == reason for _, other in POISON.values()) for _, reason in POISON.values()}
    assert {m.sequence for m in bus.records(METRICS, VmMetrics)} == set(range(1000))
    assert [s.sequence for s in bus.records(NODES, NodeStatus)] == list(range(1000))
    figure(10, "kinds of poison, each in the dead letters with its place and reason", len(letters))
    figure(10, "good rounds around them, all processed", 1000)


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
