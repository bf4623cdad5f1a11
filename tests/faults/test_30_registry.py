"""The schema registry is away at a start, answers with errors, or not at all: one framing a topic, readers wait, nothing is skipped."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import DIES_WITH_US, Broker, free_ports
from tests.support.command import PROGRAM, environment
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.history import Writer, fleet_samples, key_of, stored_keys
from tests.support.processors import Bus, Processors, eventually, snapshot
from tests.support.schema_registry import SchemaRegistry
from tests.support.started import Started
from virtflow.schemas.avro.codec import CONFLUENT_MAGIC, Codec
from virtflow.schemas.avro.schema import schema_of
from virtflow.schemas.records import NodeHealth, NodeSnapshot, NodeStatus, VmMetrics
from virtflow.schemas.topics import DEAD_LETTERS, METRICS, NODES, SNAPSHOTS

IDS = {"NodeSnapshot": 7, "VmMetrics": 8, "NodeStatus": 9}
KNOWN = {7: schema_of(NodeSnapshot), 8: schema_of(VmMetrics), 9: schema_of(NodeStatus)}
WRITER = Codec(IDS)
SECONDS = 60.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def bus(broker: Broker) -> Bus:
    bus = Bus(broker)
    bus.create_topics()
    return bus


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


class Service(Started):
    """A command that publishes, with a registry at ``port``; its state is kept in ``folder``."""

    def __init__(self, bus: Bus, folder: Path, port: int, *words: str) -> None:
        """Nothing runs before ``start``."""
        more = {
            "VIRTFLOW_REGISTRY_URL": f"http://127.0.0.1:{port}",
            "VIRTFLOW_REGISTRY_TIMEOUT_SECONDS": "1",
            "VIRTFLOW_PRODUCER_INTERVAL_SECONDS": "1",
            "VIRTFLOW_PRODUCER_JOURNAL_FOLDER": str(folder / "journal"),
            "STATE_DIRECTORY": str(folder),
        }
        self.log = folder / "service.log"
        self._command = [*DIES_WITH_US, str(PROGRAM), *words]
        self._environment = environment(bus.environment() | more)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; whether it publishes is seen in its topic."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)

    def says(self, words: str) -> bool:
        return words in self.log.read_text()

    def close(self) -> None:
        """Ends it with TERM; fails where it does not end well."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(20.0) == 0


PRODUCERS = {"producer": ("producer", "--connect", "test:///default"), "simulate": ("simulate", "--nodes", "1", "--vms", "2")}


@pytest.mark.parametrize("words", PRODUCERS.values(), ids=PRODUCERS)
def test_writers_start_and_wait_and_every_message_has_the_registrys_framing(
    bus: Bus, tmp_path: Path, port: int, words: tuple[str, ...]
) -> None:
    with Service(bus, tmp_path, port, *words) as service:
        eventually("a word of the wait", lambda: service.says("does not answer"), SECONDS)
        eventually("a word of what waits", lambda: service.says("wait"), SECONDS)
        assert not bus.read(SNAPSHOTS)
        with SchemaRegistry(port=port):
            eventually("rounds", lambda: len(bus.read(SNAPSHOTS)) >= 3, SECONDS)
    first = bus.read(SNAPSHOTS)
    assert {(message.value() or b" ")[0] for message in first} == {CONFLUENT_MAGIC}
    # Once its ids are known from an earlier start, nobody waits for the registry.
    with Service(bus, tmp_path, port, *words):
        eventually("rounds of the second start", lambda: len(bus.read(SNAPSHOTS)) >= len(first) + 3, SECONDS)
    assert {(message.value() or b" ")[0] for message in bus.read(SNAPSHOTS)} == {CONFLUENT_MAGIC}


@pytest.mark.parametrize("how", ["away", "broken", "slow"])
def test_the_history_waits_says_so_and_stores_everything(bus: Bus, tmp_path: Path, port: int, how: str) -> None:
    samples = list(fleet_samples(1, 20, range(10)))
    bus.produce([(sample.uuid, WRITER.encode(sample)) for sample in samples], METRICS)
    more = {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_REGISTRY_URL": f"http://127.0.0.1:{port}", "VIRTFLOW_HISTORY_GROUP": bus.prefix}
    writer = Writer(bus.broker.address, tmp_path / "history", tmp_path, more | {"VIRTFLOW_REGISTRY_TIMEOUT_SECONDS": "1"})
    if how == "away":
        writer.start()
        eventually("a word of the wait", lambda: "does not answer" in writer.ready(), SECONDS)
    with SchemaRegistry(KNOWN, port) as registry:
        if how != "away":
            registry.failing = 500 if how == "broken" else 0
            if how == "slow":
                registry.slow.set()
            writer.start()
            eventually("a word of the wait", lambda: "schema registry" in writer.ready(), SECONDS)
            registry.failing = 0
            registry.slow.clear()
        eventually("all rows", lambda: sum(stored_keys(tmp_path / "history").values()) >= len(samples), SECONDS)
        eventually("readiness", lambda: writer.ready() == "ready", SECONDS)
        writer.stop()
    assert set(stored_keys(tmp_path / "history")) == {key_of(sample) for sample in samples}
    figure(30, f"rows stored by the history, all of them, with a registry that is {how}", len(samples))
    assert "unknown_schema" not in writer.tail


def test_the_exporter_waits_says_so_and_shows_everything(bus: Bus, tmp_path: Path, port: int) -> None:
    status = NodeStatus(node="node-1", boot_id="b", sequence=1, collected=time.time(), interval=60.0, health=NodeHealth(up=1))
    bus.produce([("node-1", WRITER.encode(status))], NODES)
    settings = {"REGISTRY_URL": f"http://127.0.0.1:{port}", "REGISTRY_TIMEOUT_SECONDS": "1"}
    with ExporterProcess(tmp_path, bus.broker.address, bus.prefix, settings) as exporter:
        exporter.wait_until(lambda: "does not answer" in exporter.reason(), SECONDS, "says what it waits for")
        assert exporter.status("/healthz") == 200
        with SchemaRegistry(KNOWN, port):
            eventually("readiness", lambda: exporter.status("/readyz") == 200, SECONDS)
            assert 'virtflow_node_up{node="node-1"}' in exporter.get()


def test_the_processors_wait_say_so_and_put_nothing_aside(bus: Bus, tmp_path: Path, port: int) -> None:
    """Also when the registry goes away later, and a message of a schema comes that only it knows."""
    bus.produce([("node-1", WRITER.encode(snapshot("node-1", sequence))) for sequence in range(5)])
    url = f"http://127.0.0.1:{port}"
    processors = Processors(bus, tmp_path, registry_url=url, registry_timeout_seconds="1", registry_cache_file=str(tmp_path / "r.json"))
    try:
        processors.start(ready=False)
        eventually("a word of the wait", lambda: "does not answer" in processors.page("/readyz")[1], SECONDS)
        with SchemaRegistry(KNOWN, port) as registry:
            processors.wait_until_ready()
            bus.wait_until_committed()
            assert set(registry.by_id) >= set(KNOWN)
        assert {(m.value() or b" ")[0] for m in bus.read(METRICS)} == {CONFLUENT_MAGIC}
        bus.produce([("node-1", Codec({"NodeSnapshot": 70}).encode(snapshot("node-1", 5)))])
        eventually("a word of the wait", lambda: "does not answer" in processors.page("/readyz")[1], SECONDS)
        with SchemaRegistry(KNOWN | {70: KNOWN[7] | {"doc": "newer"}}, port) as registry:
            bus.wait_until_committed()
            assert "/schemas/ids/70" in registry.asked
        assert processors.terminate() == 0
    finally:
        processors.close()
    reader = Codec(fetch=KNOWN.get)
    assert [status.sequence for status in bus.records(NODES, NodeStatus, reader)] == list(range(6))
    assert not bus.read(DEAD_LETTERS)
