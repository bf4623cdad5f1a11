"""The recipes of docs/analytics.md for stream engines, as they stand there: each engine itself, a real broker and a real registry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support import flink
from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.doc_blocks import block
from tests.support.history import fleet_samples, produce
from tests.support.kafka_connect import FileSink
from tests.support.processors import eventually
from tests.support.real_registry import RealRegistry
from virtflow.runtime.registry.client import RegistryClient
from virtflow.runtime.registry.schema_ids import SchemaIds
from virtflow.runtime.settings import Registry, Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.schema import schema_of
from virtflow.schemas.records import RECORDS, VmMetrics
from virtflow.schemas.topics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REGISTRY_ON_THE_PAGE = "http://registry:8081"
APICURIO_ON_THE_PAGE = "http://registry:8080"
BROKER_ON_THE_PAGE = "kafka:9092"


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The recipes name the topic as it is without a prefix: nobody else writes to it here."""
    with Broker(tmp_path_factory.mktemp("own-broker")) as running:
        yield running


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with RealRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def samples(own_broker: Broker, registry: RealRegistry) -> list[VmMetrics]:
    """What is on the topic, in the registry's framing, its schemas registered as our services do."""
    known = SchemaIds(Settings(registry=Registry(url=registry.url)))
    known.start()
    eventually("registration", lambda: len(known.ids) == len(RECORDS), 90.0)
    known.stop()
    assert virtflow("topics", "create", "--bootstrap-servers", own_broker.address).returncode == 0
    found = list(fleet_samples(2, 3, range(5)))
    produce(own_broker.address, METRICS.name, found, Codec(known.ids))
    return found


def test_flink_sql(own_broker: Broker, registry: RealRegistry, samples: list[VmMetrics]) -> None:
    """The page's table gives every sample; asked from the first to the last one there is, so that the query ends."""
    table = block("flink").replace(BROKER_ON_THE_PAGE, own_broker.address).replace(REGISTRY_ON_THE_PAGE, registry.url)
    whole = "/*+ OPTIONS('scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset') */"
    names = ("uuid", "name", "node", "collected", "cpu_seconds_total", "memory_rss_bytes")
    found = flink.rows(table, f"SELECT {', '.join(names)} FROM vm_metrics {whole}")  # noqa: S608, our own words
    expected = sorted((s.uuid, s.name, s.node, s.collected, s.cpu_seconds_total, s.memory_rss_bytes) for s in samples)
    assert sorted((*row[:3], float(row[3]), float(row[4]), int(row[5])) for row in found) == expected


def test_why_connect_is_told_to_use_ids_of_contents(registry: RealRegistry) -> None:
    """The id that a message carries is the content's: two subjects with one schema have the same, though their versions differ."""
    client = RegistryClient(Registry(url=registry.url))
    assert len({client.register(f"theirs-{number}", schema_of(VmMetrics)) for number in range(2)}) == 1
    assert "use-id=contentId" in block("properties apicurio")


def test_kafka_connect(own_broker: Broker, registry: RealRegistry, samples: list[VmMetrics], tmp_path: Path) -> None:
    """Any sink gets structures with a sample's fields; this one writes each as a line."""
    properties = block("properties apicurio").replace(APICURIO_ON_THE_PAGE, registry.url.partition("/apis")[0])
    with FileSink(own_broker.address, properties, tmp_path) as sink:
        eventually("all samples in the file", lambda: len(sink.lines()) >= len(samples), 90.0)
        lines = sink.lines()
    found = [dict(re.findall(r"(\w+)=([^,{}\[\]]*)", line)) for line in lines]
    told = sorted((row["uuid"], float(row["collected"]), float(row["cpu_seconds_total"]), int(row["memory_rss_bytes"])) for row in found)
    assert told == sorted((s.uuid, s.collected, s.cpu_seconds_total, s.memory_rss_bytes) for s in samples)
