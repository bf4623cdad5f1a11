"""Partitions come and go while the storage or the broker does not answer: the writer goes on, and finds their places when it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.history import key_of, stored_keys
from tests.support.memory_kafka import Cluster
from tests.support.memory_writer import CODEC, PARTITIONS, Writer, put, samples, writing
from virtflow.schemas.topics import METRICS, TOPICS

Rebalance = Callable[[Cluster, Writer], None]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster.with_topics(*TOPICS)


def grow(cluster: Cluster, writer: Writer) -> None:
    """A partition more."""
    del writer
    cluster.grow(METRICS.name, 3)


def lose(cluster: Cluster, writer: Writer) -> None:
    """All partitions are taken away, and given back."""
    cluster.lose(writer.consumer)


@pytest.mark.parametrize(("rebalance", "partitions"), [(grow, PARTITIONS + 1), (lose, PARTITIONS)])
def test_a_rebalance_while_the_storage_is_away(cluster: Cluster, tmp_path: Path, rebalance: Rebalance, partitions: int) -> None:
    given, path, away = samples(range(6)), tmp_path / "history", tmp_path / "away"
    with writing(cluster, path) as writer:
        put(cluster, METRICS, *given[:8])
        writer.until(lambda: stored_keys(path).total() == 8, "the first ones")
        path.rename(away)
        path.write_text("no folder")
        put(cluster, METRICS, *given[8:16])
        writer.until(lambda: bool(writer.consume.failing), "the failure is named")
        calls = writer.counted("commit_failures_total")
        rebalance(cluster, writer)
        writer.until(lambda: writer.counted("commit_failures_total") > calls + 1, "it is tried again")
        assert writer.error is None
        path.unlink()
        away.rename(path)
        writer.until(lambda: writer.has(partitions), "all partitions")
        put(cluster, METRICS, *given[16:])
        if partitions > PARTITIONS:
            late = samples(range(50, 51), vms=1)
            cluster.write(METRICS.name, b"k", CODEC.encode(late[0]), 2)
            given = [*given, *late]
        writer.until(lambda: stored_keys(path).total() == len(given), "all of them")
        writer.until(lambda: not writer.consume.failing, "the failure is over")
    assert writer.error is None
    assert stored_keys(path) == Counter(map(key_of, given))


def test_a_group_that_is_lost_while_the_broker_is_away(cluster: Cluster, tmp_path: Path) -> None:
    """The partitions' places were asked for in vain before the group gave them up: what comes afterwards is read all the same."""
    given = samples(range(4))
    with writing(cluster, tmp_path) as writer:
        put(cluster, METRICS, *given[:8])
        writer.until(lambda: stored_keys(tmp_path).total() == 8, "the first ones")
        cluster.stop()
        writer.until(lambda: bool(writer.consume.failing), "the failure is named")
        cluster.lose(writer.consumer)
        cluster.start()
        put(cluster, METRICS, *given[8:])
        writer.until(lambda: stored_keys(tmp_path).total() == len(given), "all of them")
        writer.until(lambda: not writer.consume.failing and writer.has(PARTITIONS), "the failure is over")
    assert stored_keys(tmp_path) == Counter(map(key_of, given))
