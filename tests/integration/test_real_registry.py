"""The topics read by a stranger's tools: Confluent's own deserializer, a real registry, and nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from tests.support.processors import CODEC, eventually, snapshot
from tests.support.real_registry import RealRegistry
from tests.support.topic_writer import TopicWriter
from virtflow.runtime.registry import SchemaIds
from virtflow.runtime.settings import Registry
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.schema import schema_of
from virtflow.schemas.records import RECORDS, NodeSnapshot
from virtflow.schemas.topics import SNAPSHOTS

CONFLUENT_MAGIC = 0

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.broker import Broker


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """One real registry for all of them."""
    with RealRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def ids(registry: RealRegistry) -> Iterator[SchemaIds]:
    """Our schemas, registered."""
    known = SchemaIds(Registry(url=registry.url))
    known.start()
    eventually("registration", lambda: len(known.ids) == len(RECORDS), 30.0)
    yield known
    known.stop()


def test_every_schema_is_taken_and_given_back_as_it_is(ids: SchemaIds) -> None:
    for record in RECORDS:
        assert ids.fetch(ids.ids[record.__name__]) == schema_of(record)


def test_registering_again_gives_the_same_ids(ids: SchemaIds, registry: RealRegistry) -> None:
    """Every service that starts registers; the subjects do not grow."""
    second = SchemaIds(Registry(url=registry.url))
    second.start()
    eventually("registration", lambda: len(second.ids) == len(RECORDS), 30.0)
    second.stop()
    assert second.ids == ids.ids
    with SchemaRegistryClient({"url": registry.url}) as client:
        assert all(client.get_versions(f"virtflow.{record.__name__}") == [1] for record in RECORDS)


def test_an_unknown_id_is_unknown_and_no_error(ids: SchemaIds) -> None:
    assert ids.fetch(99_999) is None


def test_confluents_deserializer_reads_our_messages(broker: Broker, ids: SchemaIds, registry: RealRegistry) -> None:
    round_of_three = snapshot("node-1", 3)
    message = Codec(ids.ids).encode(round_of_three)
    assert message[0] == CONFLUENT_MAGIC
    topics = TopicWriter(broker.address, topics=[SNAPSHOTS])
    topics.write_bytes(SNAPSHOTS, b"node-1", message)
    read_back = _only_message(broker, topics.name(SNAPSHOTS))
    assert read_back == message
    with SchemaRegistryClient({"url": registry.url}) as client:
        read = AvroDeserializer(client)(read_back, SerializationContext(topics.name(SNAPSHOTS), MessageField.VALUE))
    assert isinstance(read, dict)
    assert (read["node"], read["sequence"]) == (round_of_three.node, round_of_three.sequence)
    assert [vm["uuid"] for vm in read["vms"]] == [vm.uuid for vm in round_of_three.vms]
    assert CODEC.encode(Codec(fetch=ids.fetch).decode(message, NodeSnapshot)) == CODEC.encode(round_of_three)


def _only_message(broker: Broker, topic: str) -> bytes:
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    try:
        message = consumer.poll(30.0)
        assert message is not None, "nothing arrived"
        assert message.error() is None, message.error()
        value = message.value()
        assert isinstance(value, bytes)
        return value
    finally:
        consumer.close()
