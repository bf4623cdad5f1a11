"""``virtflow forget-node`` on a real broker: what it takes out of the compacted topics, and what it leaves."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest

from tests.support.broker import Broker
from tests.support.command import one_line_error, virtflow
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import WALL, inventory, status, uuid
from virtflow.cli.output.record_text import clock
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import INVENTORY, MIGRATIONS, NODES, Topic

GONE, OTHER = "node-1", "node-2"


@pytest.fixture
def writer(broker: Broker) -> TopicWriter:
    """VM 1 was on the node to the end, VM 2 moved away from it, VM 3 was never there; 1 and 2 have migrated at some time."""
    writer = TopicWriter(broker.address, topics=(INVENTORY, MIGRATIONS, NODES))
    writer.write(NODES, status(node=GONE), status(node=OTHER))
    writer.write(INVENTORY, inventory(1, node=GONE), inventory(2, node=GONE), inventory(3, node=OTHER))
    writer.write(INVENTORY, inventory(2, sequence=1, node=OTHER))
    arrived = VmMigration(uuid=uuid(1), source=OTHER, destination=GONE, result="succeeded", revision=1)
    writer.write(MIGRATIONS, arrived, VmMigration(uuid=uuid(2), source=GONE, destination=OTHER, result="succeeded", revision=1))
    return writer


def run(broker: Broker, writer: TopicWriter, *words: str) -> subprocess.CompletedProcess[str]:
    return virtflow(*words, "--bootstrap-servers", broker.address, "--topic-prefix", writer.prefix)


def kept(broker: Broker, writer: TopicWriter, topic: Topic) -> set[str]:
    """The keys whose newest message has a value."""
    newest: dict[str, bool] = {}
    messages = sum(writer.ends(topic))
    done = run(broker, writer, "tap", topic.name, "--from", "beginning", "--count", str(messages), "--json")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        told: dict[str, Any] = json.loads(line)
        newest[told["key"]] = "deleted" not in told
    return {key for key, there in newest.items() if there}


def test_a_host_goes_with_the_vms_it_had_to_the_end(broker: Broker, writer: TopicWriter) -> None:
    done = run(broker, writer, "forget-node", GONE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"Forgot {GONE}, which reported last at {clock(WALL)}, and 1 VM.",
        f"  {uuid(1)}  vm-1",
    ]
    assert kept(broker, writer, NODES) == {OTHER}
    assert kept(broker, writer, INVENTORY) == {uuid(2), uuid(3)}
    assert kept(broker, writer, MIGRATIONS) == {uuid(2)}
    again = run(broker, writer, "forget-node", GONE, "--json")
    assert (again.returncode, json.loads(again.stdout)) == (
        1,
        {"node": GONE, "known": False, "vms": [], "migrations": [], "forgotten": True},
    )


def test_a_dry_run_writes_nothing(broker: Broker, writer: TopicWriter) -> None:
    before = [writer.ends(topic) for topic in (NODES, INVENTORY, MIGRATIONS)]
    done = run(broker, writer, "forget-node", GONE, "--dry-run", "--json")
    assert json.loads(done.stdout) == {"node": GONE, "known": True, "vms": [uuid(1)], "migrations": [uuid(1)], "forgotten": False}
    assert [writer.ends(topic) for topic in (NODES, INVENTORY, MIGRATIONS)] == before


def test_a_host_that_reports_is_refused(broker: Broker, writer: TopicWriter) -> None:
    writer.write(NODES, status(node=GONE, sequence=1, collected=time.time()))
    line = one_line_error(run(broker, writer, "forget-node", GONE), 1)
    assert GONE in line
    assert "stop its producer, and wait for 30 s" in line
    assert kept(broker, writer, NODES) == {GONE, OTHER}


def test_an_unknown_host(broker: Broker, writer: TopicWriter) -> None:
    done = run(broker, writer, "forget-node", "node-9")
    assert (done.returncode, done.stdout) == (1, "Nothing is known of a node node-9.\n")
