"""Schema ids from a registry (a stand-in that speaks Confluent's documented API): nobody waits for it, nothing depends on it."""

from __future__ import annotations

import json

import pytest

from tests.support.broker import free_ports
from tests.support.processors import CODEC, eventually, snapshot
from tests.support.schema_registry import SchemaRegistry
from virtflow.runtime import registry as module
from virtflow.runtime.registry import SchemaIds
from virtflow.runtime.settings import Registry
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.schema import schema_of
from virtflow.schemas.errors import Reason, UndecodableError
from virtflow.schemas.records import RECORDS, NodeSnapshot

CONFLUENT_MAGIC = 0
SINGLE_OBJECT_MAGIC = b"\xc3\x01"

ROUND = snapshot("node-1", 3)


def test_without_a_url_nothing_is_connected_and_fingerprints_are_used() -> None:
    ids = SchemaIds(Registry())
    ids.start()
    assert Codec(ids.ids, ids.fetch).encode(ROUND)[:2] == SINGLE_OBJECT_MAGIC
    assert ids.fetch(1) is None
    ids.stop()


def test_every_schema_is_registered_and_messages_carry_its_id() -> None:
    with SchemaRegistry() as registry:
        ids = SchemaIds(Registry(url=registry.url))
        ids.start()
        eventually("registration", lambda: len(ids.ids) == len(RECORDS), 10.0)
        encoded = Codec(ids.ids).encode(ROUND)
        ids.stop()
    assert set(registry.subjects) == {f"virtflow.{record.__name__}" for record in RECORDS}
    assert encoded[0] == CONFLUENT_MAGIC
    written_with = json.loads(registry.by_id[int.from_bytes(encoded[1:5], "big")])
    assert written_with == schema_of(NodeSnapshot)


def test_a_reader_resolves_an_id_once() -> None:
    """What a registry has told once is known: a thousand messages are one request."""
    with SchemaRegistry({7: schema_of(NodeSnapshot)}) as registry:
        ids = SchemaIds(Registry(url=registry.url))
        ids.start()
        reader, framed = Codec(fetch=ids.fetch), Codec({"NodeSnapshot": 7}).encode(ROUND)
        for _ in range(1000):
            assert CODEC.encode(reader.decode(framed, NodeSnapshot)) == CODEC.encode(ROUND)
        ids.stop()
        assert registry.asked.count("/schemas/ids/7") == 1


def test_an_id_nobody_knows_is_asked_for_once_a_minute() -> None:
    """Garbage that looks like a registry's framing must not become a storm of requests."""
    with SchemaRegistry() as registry:
        ids = SchemaIds(Registry(url=registry.url))
        ids.start()
        for _ in range(100):
            with pytest.raises(UndecodableError) as caught:
                Codec(fetch=ids.fetch).decode(b"\x00\x00\x00\x03\xe7" + b"x" * 50, NodeSnapshot)
            assert caught.value.reason is Reason.UNKNOWN_SCHEMA
        ids.stop()
        assert registry.asked.count("/schemas/ids/999") == 1


def test_with_the_registry_down_messages_go_out_at_once_and_ids_follow_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)
    (port,) = free_ports(1)
    ids = SchemaIds(Registry(url=f"http://127.0.0.1:{port}", timeout_seconds=1.0))
    ids.start()
    codec = Codec(ids.ids)
    assert codec.encode(ROUND)[:2] == SINGLE_OBJECT_MAGIC
    with SchemaRegistry(port=port):
        eventually("registration", lambda: len(ids.ids) == len(RECORDS), 20.0)
        assert codec.encode(ROUND)[0] == CONFLUENT_MAGIC
        ids.stop()
