"""Schema ids from a registry (a stand-in that speaks Confluent's documented API): one framing a topic, and no answer is not "unknown"."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.broker import free_ports
from tests.support.processors import CODEC, eventually, snapshot
from tests.support.schema_registry import SchemaRegistry
from virtflow.runtime.registry import schema_ids as module
from virtflow.runtime.registry.client import RegistryClient
from virtflow.runtime.registry.schema_ids import SchemaIds
from virtflow.runtime.settings import Registry, Settings, Topics
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.schema import schema_of
from virtflow.schemas.errors import Reason, RegistryUnavailableError, UndecodableError
from virtflow.schemas.records import RECORDS, NodeSnapshot

CONFLUENT_MAGIC = 0
SINGLE_OBJECT_MAGIC = b"\xc3\x01"

ROUND = snapshot("node-1", 3)


def ids_of(url: str, **more: object) -> SchemaIds:
    return SchemaIds(Settings(registry=Registry(url=url, timeout_seconds=1.0, **more), topics=Topics(prefix="t.")))  # type: ignore[arg-type]


def test_without_a_url_nothing_is_connected_and_fingerprints_are_used() -> None:
    ids = ids_of("")
    ids.start()
    encoded = Codec(ids.ids, ids.fetch).encode(ROUND)
    assert encoded[:2] == SINGLE_OBJECT_MAGIC
    assert ids.framed(encoded) is encoded
    assert (ids.missing, ids.fetch(1)) == ("", None)
    ids.stop()


def test_every_schema_is_registered_under_its_topic_and_messages_carry_its_id() -> None:
    with SchemaRegistry() as registry:
        ids = ids_of(registry.url)
        ids.start()
        eventually("registration", lambda: not ids.missing, 10.0)
        encoded = ids.framed(CODEC.encode(ROUND))
        ids.stop()
    topics = {"vm.snapshots", "vm.events", "vm.metrics", "vm.inventory", "vm.migrations", "vm.nodes"}
    assert set(registry.subjects) == {f"t.{topic}-value" for topic in topics}
    assert encoded is not None
    assert encoded == Codec(ids.ids).encode(ROUND)
    assert encoded[0] == CONFLUENT_MAGIC
    written_with = json.loads(registry.by_id[int.from_bytes(encoded[1:5], "big")])
    assert written_with == schema_of(NodeSnapshot)


def test_subjects_may_be_the_records_names() -> None:
    with SchemaRegistry() as registry:
        ids = ids_of(registry.url, subjects="record")
        ids.start()
        eventually("registration", lambda: not ids.missing, 10.0)
        ids.stop()
    assert set(registry.subjects) == {f"virtflow.{record.__name__}" for record in RECORDS}


def test_a_reader_resolves_an_id_once() -> None:
    """What a registry has told once is known: a thousand messages are one request."""
    with SchemaRegistry({7: schema_of(NodeSnapshot)}) as registry:
        ids = ids_of(registry.url)
        ids.connect()
        reader, framed = Codec(fetch=ids.fetch), Codec({"NodeSnapshot": 7}).encode(ROUND)
        for _ in range(1000):
            assert CODEC.encode(reader.decode(framed, NodeSnapshot)) == CODEC.encode(ROUND)
        assert registry.asked.count("/schemas/ids/7") == 1


def test_an_id_nobody_knows_is_asked_for_once_a_minute() -> None:
    """Garbage that looks like a registry's framing must not become a storm of requests."""
    with SchemaRegistry() as registry:
        ids = ids_of(registry.url)
        ids.connect()
        for _ in range(100):
            with pytest.raises(UndecodableError) as caught:
                Codec(fetch=ids.fetch).decode(b"\x00\x00\x00\x03\xe7" + b"x" * 50, NodeSnapshot)
            assert caught.value.reason is Reason.UNKNOWN_SCHEMA
        assert registry.asked.count("/schemas/ids/999") == 1


@pytest.mark.parametrize("how", ["away", "broken", "slow"])
def test_a_registry_that_gives_no_answer_makes_no_schema_unknown(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader is told that it is not known yet, and knows as soon as the registry answers."""
    monkeypatch.setattr(module, "AWAY_SECONDS", 0.0)
    (port,) = free_ports(1)
    ids = ids_of(f"http://127.0.0.1:{port}")
    ids.connect()
    reader, framed = Codec(fetch=ids.fetch), Codec({"NodeSnapshot": 7}).encode(ROUND)
    if how == "away":
        with pytest.raises(RegistryUnavailableError, match="does not answer"):
            reader.decode(framed, NodeSnapshot)
    with SchemaRegistry({7: schema_of(NodeSnapshot)}, port) as registry:
        if how == "broken":
            registry.failing = 500
        if how == "slow":
            registry.slow.set()
        if how != "away":
            with pytest.raises(RegistryUnavailableError):
                reader.resolve(framed)
            assert reader.unresolved(framed)
        registry.failing = 0
        registry.slow.clear()
        reader.resolve(framed)
        assert not reader.unresolved(framed)
        assert CODEC.encode(reader.decode(framed, NodeSnapshot)) == CODEC.encode(ROUND)


def test_a_writer_has_one_framing_and_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a fingerprint first and an id later: a stock consumer stops at the first message that it can't read."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)
    (port,) = free_ports(1)
    ids = ids_of(f"http://127.0.0.1:{port}")
    ids.start()
    assert ids.framed(CODEC.encode(ROUND)) is None
    eventually("a word of what is missing", lambda: "does not answer" in ids.missing, 10.0)
    with SchemaRegistry(port=port):
        eventually("registration", lambda: not ids.missing, 20.0)
        framed = ids.framed(CODEC.encode(ROUND))
        ids.stop()
    assert framed is not None
    assert framed[0] == CONFLUENT_MAGIC


def test_ids_and_schemas_told_once_are_there_at_a_start_without_the_registry(tmp_path: Path) -> None:
    """Writers go on at once and readers know what they knew; another registry's ids are not taken."""
    file = str(tmp_path / "state" / "registry.json")
    with SchemaRegistry({77: schema_of(NodeSnapshot) | {"doc": "newer"}}) as registry:
        first = ids_of(registry.url, cache_file=file)
        first.start()
        eventually("registration", lambda: not first.missing and Path(file).exists(), 10.0)
        assert first.fetch(77) is not None
        first.stop()
    second = ids_of(registry.url, cache_file=file)
    second.connect()
    assert second.ids == first.ids
    assert not second.missing
    assert second.fetch(77) == schema_of(NodeSnapshot) | {"doc": "newer"}
    assert second.fetch(second.ids["NodeSnapshot"]) == schema_of(NodeSnapshot)
    with pytest.raises(RegistryUnavailableError):
        second.fetch(4_711)
    other = ids_of("http://127.0.0.1:9", cache_file=file)
    other.connect()
    assert not other.ids
    Path(file).write_text("{")
    damaged = ids_of(registry.url, cache_file=file)
    damaged.connect()
    assert damaged.missing


def test_ids_of_another_schema_are_not_taken_from_the_file(tmp_path: Path) -> None:
    """After an upgrade that changed a schema its old id would be wrong."""
    file = tmp_path / "registry.json"
    with SchemaRegistry() as registry:
        first = ids_of(registry.url, cache_file=str(file))
        first.start()
        eventually("registration", file.exists, 10.0)
        first.stop()
    kept = json.loads(file.read_text())
    kept["ids"]["VmEvent"][1] = "0" * 16
    file.write_text(json.dumps(kept))
    second = ids_of(registry.url, cache_file=str(file))
    second.connect()
    assert second.missing


def test_user_and_password_are_sent(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    with SchemaRegistry({7: schema_of(NodeSnapshot)}) as registry:
        registry.password = "user:hunter2"  # noqa: S105, the test's own
        stranger = ids_of(registry.url)
        stranger.connect()
        with pytest.raises(RegistryUnavailableError, match="401"):
            stranger.fetch(7)
        known = ids_of(registry.url, username="user", password_file=str(tmp_path / "password"))
        known.connect()
        assert known.fetch(7) == schema_of(NodeSnapshot)


def test_a_redirect_is_told_and_not_followed(tmp_path: Path) -> None:
    """It would carry the password to another server."""
    (tmp_path / "password").write_text("secret\n")
    with SchemaRegistry({7: schema_of(NodeSnapshot)}) as other, SchemaRegistry() as registry:
        registry.elsewhere = other.url
        client = RegistryClient(Registry(url=registry.url, username="user", password_file=str(tmp_path / "password")))
        with pytest.raises(RegistryUnavailableError, match=rf"307 Temporary Redirect: set registry.url to where it leads, {other.url}"):
            client.schema(7)
        assert registry.asked
        assert not other.asked
