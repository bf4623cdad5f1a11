"""The consumers that docs/analytics.md shows work as they stand: they know nothing but the schemas."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.embedded_kafka import data_folder
from scripts.embedded_kafka import fetch as fetch_kafka
from tests.support.broker import Broker
from tests.support.command import environment, virtflow
from tests.support.history import fleet_samples, produce
from tests.support.schema_registry import SchemaRegistry
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.schema import schema_of
from virtflow.schemas.records import VmMetrics

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
AVRO = "org.apache.avro:avro:1.12.0"


@pytest.fixture(scope="module")
def registry() -> Iterator[SchemaRegistry]:
    with SchemaRegistry({77: schema_of(VmMetrics)}) as running:
        yield running


@pytest.fixture(scope="module")
def produced(broker: Broker) -> list[str]:
    """UUIDs of samples on vm.metrics, half of them in each framing."""
    assert virtflow("topics", "create", "--bootstrap-servers", broker.address).returncode == 0
    samples = list(fleet_samples(1, 5, range(2)))
    produce(broker.address, "vm.metrics", samples[::2])
    produce(broker.address, "vm.metrics", samples[1::2], Codec({"VmMetrics": 77}))
    return sorted(sample.uuid for sample in samples)


def consume(command: list[str], broker: Broker, registry: SchemaRegistry, produced: list[str]) -> None:
    """The consumer sees each sample once, whatever its framing."""
    words = [*command, broker.address, str(ROOT / "schemas"), str(len(produced))]
    env = environment({"SCHEMA_REGISTRY_URL": registry.url})
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(line.split()[0] for line in done.stdout.splitlines() if "-" in line.split()[0]) == produced


def test_a_consumer_in_python(broker: Broker, registry: SchemaRegistry, produced: list[str]) -> None:
    consume([sys.executable, str(EXAMPLES / "vm_metrics.py")], broker, registry, produced)


def test_a_consumer_in_java(broker: Broker, registry: SchemaRegistry, produced: list[str]) -> None:
    """On the embedded broker's own jars and Apache Avro."""
    jars = data_folder() / "avro"
    if not list(jars.glob("avro-*.jar")):
        fetch = ["mvn", "-q", "dependency:copy", f"-Dartifact={AVRO}", f"-DoutputDirectory={jars}"]
        subprocess.run(fetch, check=True, capture_output=True, timeout=300)
    consume(["java", "-cp", f"{fetch_kafka()}/*:{jars}/*", str(EXAMPLES / "VmMetrics.java")], broker, registry, produced)
