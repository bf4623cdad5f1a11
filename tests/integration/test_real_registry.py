"""The topics read by a stranger's tools: Confluent's own deserializer, a real registry, and nothing of ours."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

import pytest
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.command import PROGRAM, environment
from tests.support.exporter_process import ExporterProcess
from tests.support.history import Writer, wait_for_samples, writing
from tests.support.kubernetes.certificates import Authority
from tests.support.processors import CODEC, Bus, Processors, eventually, snapshot
from tests.support.real_registry import RealRegistry
from tests.support.started import Started
from tests.support.topic_writer import TopicWriter
from virtflow.runtime.registry.schema_ids import SchemaIds
from virtflow.runtime.settings import Registry, Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.schema import schema_of
from virtflow.schemas.records import RECORDS, NodeSnapshot
from virtflow.schemas.topics import EVENTS, INVENTORY, METRICS, NODES, SNAPSHOTS, TOPICS

CONFLUENT_MAGIC = 0

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.broker import Broker


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """One real registry for all of them."""
    with RealRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def ids(registry: RealRegistry) -> Iterator[SchemaIds]:
    """Our schemas, registered."""
    known = SchemaIds(Settings(registry=Registry(url=registry.url)))
    known.start()
    eventually("registration", lambda: len(known.ids) == len(RECORDS), 30.0)
    yield known
    known.stop()


def test_every_schema_is_taken_and_given_back_as_it_is(ids: SchemaIds) -> None:
    for record in RECORDS:
        assert ids.fetch(ids.ids[record.__name__]) == schema_of(record)


def test_registering_again_gives_the_same_ids(ids: SchemaIds, registry: RealRegistry) -> None:
    """Every service that starts registers; the subjects do not grow."""
    second = SchemaIds(Settings(registry=Registry(url=registry.url)))
    second.start()
    eventually("registration", lambda: len(second.ids) == len(RECORDS), 30.0)
    second.stop()
    assert second.ids == ids.ids
    with SchemaRegistryClient({"url": registry.url}) as client:
        assert all(client.get_versions(f"{topic.name}-value") == [1] for topic in TOPICS if topic.record)


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


def test_every_service_runs_with_it_and_stock_tools_read_every_topic(broker: Broker, registry: RealRegistry, tmp_path: Path) -> None:
    """Producer, simulated fleet, processors, exporter, adapter and history, each started with the registry; its own subjects name each topic."""
    bus = Bus(broker)
    bus.create_topics()
    url = {"VIRTFLOW_REGISTRY_URL": registry.url}
    more = url | {"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": "1", "VIRTFLOW_PRODUCER_JOURNAL_FOLDER": str(tmp_path / "journal")}
    of_writer = url | {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_HISTORY_GROUP": bus.prefix}
    history = Writer(broker.address, tmp_path / "history", tmp_path, of_writer)
    publishing = [
        Running(command, environment(bus.environment() | more), tmp_path)
        for command in (["producer", "--connect", "test:///default"], ["simulate", "--nodes", "2", "--vms", "2"])
    ]
    with ExitStack() as stack:
        for each in publishing:
            stack.enter_context(each)
        stack.enter_context(Processors(bus, tmp_path, registry_url=registry.url))
        stack.enter_context(writing(history))
        exporter = stack.enter_context(ExporterProcess(tmp_path, broker.address, bus.prefix, {"REGISTRY_URL": registry.url}))
        exporter.wait_until(lambda: exporter.value("virtflow_exporter_vms") == 7, 60.0, "shows the VMs, those that migrate included")
        exporter.wait_until(lambda: exporter.value("virtflow_exporter_nodes") == 3, 60.0, "shows all nodes")
        adapter = stack.enter_context(Adapter(tmp_path, broker.address, bus.prefix, of_adapter(tmp_path, registry)))
        adapter.wait_until(lambda: (adapter.value("virtflow_adapter_vms") or 0) >= 4, 60.0, "knows the simulated VMs, which have projects")
        assert all(adapter.value("virtflow_adapter_records_total", topic=topic.name) for topic in (METRICS, INVENTORY))
        assert not any(value for (name, _), value in adapter.series().items() if name == "virtflow_adapter_undecodable_total")
        assert adapter.stop() == 0
        wait_for_samples(tmp_path / "history", 8, 60.0, history)
        eventually("events", lambda: bool(bus.read(EVENTS)), 60.0)
    with SchemaRegistryClient({"url": registry.url}) as client:
        for topic in (SNAPSHOTS, EVENTS, METRICS, INVENTORY, NODES):
            read = AvroDeserializer(client)
            context = SerializationContext(bus.prefix + topic.name, MessageField.VALUE)
            records = [read(message.value(), context) for message in bus.read(topic)]
            assert records
            assert all(isinstance(record, dict) for record in records)
            latest = client.get_latest_version(f"{bus.prefix}{topic.name}-value")
            assert json.loads(latest.schema.schema_str or "")["name"] == topic.record


class Adapter(ExporterProcess):
    """The adapter for Kubernetes; its values come from the topics, whether its cluster answers or not."""

    command: ClassVar[str] = "adapter"


def of_adapter(folder: Path, registry: RealRegistry) -> dict[str, object]:
    """Its settings: a certificate, a cluster that does not answer, and VMs' projects in place of namespaces."""
    own = Authority(folder, "adapters").signed("adapter", hosts=("IP:127.0.0.1",))
    (api, nobody) = free_ports(2)
    return {
        "REGISTRY_URL": registry.url,
        "ADAPTER_API_LISTEN": f"127.0.0.1:{api}",
        "ADAPTER_TLS_CERTIFICATE_FILE": own.certificate,
        "ADAPTER_TLS_KEY_FILE": own.key,
        "ADAPTER_KUBERNETES_URL": f"http://127.0.0.1:{nobody}",
        "ADAPTER_KUBERNETES_CA_FILE": "",
        "ADAPTER_KUBERNETES_TOKEN_FILE": "",
        "ADAPTER_NAMESPACE_FIELD": "project",
        "ADAPTER_DRAIN_SECONDS": 0,
    }


class Running(Started):
    """A command of ours that publishes, until the test is over."""

    def __init__(self, words: list[str], env: dict[str, str], folder: Path) -> None:
        """Nothing runs before ``start``."""
        self._words, self._env, self._log = words, env, folder / f"{words[0]}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; whether it publishes is seen in its topic."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*DIES_WITH_US, str(PROGRAM), *self._words], env=self._env, stdout=log, stderr=log)

    def close(self) -> None:
        """Ends it, as an operator would; fails where it has ended by itself."""
        if self._process is not None:
            self._process.terminate()
            assert self._process.wait(20.0) == 0, self._log.read_text()[-3000:]


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
