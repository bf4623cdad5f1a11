"""Who sends messages that can be decoded: as the topics show it, on the in-memory broker."""

from __future__ import annotations

import pytest

from tests.support.memory_kafka import Cluster
from tests.support.processors import CODEC, snapshot
from virtflow.processors.dead_letters.limit import NODE_SECONDS
from virtflow.processors.dead_letters.senders import senders
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.records import NodeHealth, NodeStatus
from virtflow.schemas.topics import NODES, SNAPSHOTS

NOW = 1_795_476_243.0
GARBAGE = b"\x42garbage"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster.with_topics(NODES, SNAPSHOTS)


def found(cluster: Cluster) -> frozenset[str]:
    return senders(Settings(), CODEC, NOW, cluster.consumer)


def status(cluster: Cluster, node: str, age: float) -> None:
    value = CODEC.encode(NodeStatus(node=node, boot_id="b", sequence=1, collected=NOW - age, interval=10.0, health=NodeHealth(up=1)))
    cluster.write(NODES.name, node.encode(), value, timestamp=NOW - age)


def test_where_nothing_can_be_decoded_there_is_nobody(cluster: Cluster) -> None:
    assert found(cluster) == frozenset()
    for partition in range(2):
        cluster.write(SNAPSHOTS.name, b"k", GARBAGE, partition, timestamp=NOW)
    assert found(cluster) == frozenset()
    assert cluster.consumers == []


def test_nodes_that_were_decoded_lately_are_found_behind_any_flood(cluster: Cluster) -> None:
    status(cluster, "gone", NODE_SECONDS + 1)
    status(cluster, "b", NODE_SECONDS - 1)
    status(cluster, "a", 5.0)
    for number in range(5_000):
        cluster.write(SNAPSHOTS.name, b"%d" % number, GARBAGE, number % 2, timestamp=NOW)
    assert found(cluster) == {"a", "b"}


def test_a_node_that_sends_for_the_first_time_is_found(cluster: Cluster) -> None:
    for number in range(1_000):
        cluster.write(SNAPSHOTS.name, b"%d" % number, GARBAGE, number % 2, timestamp=NOW)
    cluster.write(SNAPSHOTS.name, b"new", CODEC.encode(snapshot("new", 1)), 1, timestamp=NOW)
    assert found(cluster) == {"new"}


def test_a_broker_that_is_away_is_named(cluster: Cluster) -> None:
    cluster.stop()
    with pytest.raises(EnvironmentProblemError, match="does not answer"):
        found(cluster)
