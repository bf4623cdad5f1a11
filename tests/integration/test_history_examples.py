"""What docs/analytics.md shows works as it stands: SQL and Python on the tables, and consumers that know nothing but the schemas."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.embedded_kafka import data_folder
from scripts.embedded_kafka import fetch as fetch_kafka
from tests.support.broker import Broker
from tests.support.command import environment, virtflow
from tests.support.history import fleet_samples, produce
from tests.support.history_years import hours_of_vm, vm_uuid, write_years
from tests.support.schema_registry import SchemaRegistry
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.schema import schema_of
from virtflow.schemas.records import VmMetrics

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "analytics.md").read_text()
EXAMPLES = ROOT / "docs" / "examples"
AVRO = "org.apache.avro:avro:1.12.0"
DAY = 86_400


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "history"
    now = int(time.time()) // DAY * DAY
    write_years(path, {1: hours_of_vm(1, now - 5 * DAY, now), 2: hours_of_vm(2, now - 5 * DAY, now)})
    return path


def block(language: str) -> str:
    """The page's code block of a language."""
    found = re.search(rf"^```{language}\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, language
    return found[1]


def run(code: str, history: Path) -> str:
    env = environment() | {"PYTHONPATH": ""}
    command = [sys.executable, "-c", code.replace("HISTORY", str(history))]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize("tool", ["duckdb", "polars", "pandas"])
def test_python(tool: str, history: Path) -> None:
    """Each reads the tables and finds both VMs."""
    said = run(block(f"python {tool}"), history)
    for number in (1, 2):
        assert f"vm-{number}" in said or vm_uuid(number)[:8] in said, said


def test_sql(history: Path) -> None:
    done = virtflow("history", "query", "--history", str(history), "--format", "csv", block("sql"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('"month","cores_per_vm"')


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
