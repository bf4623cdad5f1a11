"""Memory is short: the writer stores what waits, reads nothing more, and goes on once there is room. Nothing is lost, nothing twice."""

from __future__ import annotations

from collections import Counter
from math import inf
from pathlib import Path

import pytest

from tests.support.history import key_of, stored_keys
from tests.support.memory_kafka import Cluster
from tests.support.memory_writer import PARTITIONS, put, samples, writing
from virtflow.history.writer.batch_limit import EXPANSION, LEAST_BYTES
from virtflow.runtime.memory import RESERVE_BYTES
from virtflow.schemas.topics import METRICS, TOPICS


@pytest.fixture
def cluster() -> Cluster:
    return Cluster.with_topics(*TOPICS)


def test_nothing_more_is_read_until_there_is_room(cluster: Cluster, tmp_path: Path) -> None:
    given, path = samples(range(6)), tmp_path / "history"
    with writing(cluster, path) as writer:
        put(cluster, METRICS, *given[:8])
        writer.until(lambda: stored_keys(path).total() == 8, "the first ones")
        writer.room_bytes = RESERVE_BYTES / 2
        writer.until(lambda: writer.counted("memory_pauses_total") == 1, "the pause")
        put(cluster, METRICS, *given[8:])
        assert "memory is short, 4 MiB are left" in writer.consume.failing
        cluster.lose(writer.consumer)
        writer.until(lambda: writer.has(PARTITIONS), "all partitions again")
        assert writer.counted("records_total", "samples") == 8
        writer.room_bytes = inf
        writer.until(lambda: stored_keys(path).total() == len(given), "all of them")
        assert not writer.consume.failing
    assert writer.error is None
    assert stored_keys(path) == Counter(map(key_of, given))


def test_a_batch_is_as_large_as_there_is_room_for_its_rows(cluster: Cluster, tmp_path: Path) -> None:
    """By size alone: neither time nor count makes a commit here."""
    given, path = samples(range(500), vms=8), tmp_path / "history"
    with writing(cluster, path, commit_seconds=3600.0, commit_rows=1_000_000) as writer:
        writer.room_bytes = RESERVE_BYTES + 8 * LEAST_BYTES * EXPANSION
        put(cluster, METRICS, *given)
        writer.until(lambda: writer.counted("commits_total", "samples") >= 1, "a commit")
        writer.until(lambda: writer.counted("records_total", "samples") == len(given), "all of them")
    assert stored_keys(path) == Counter(map(key_of, given))


def test_a_batch_has_as_many_bytes_as_are_set(cluster: Cluster, tmp_path: Path) -> None:
    given, path = samples(range(60), vms=8), tmp_path / "history"
    with writing(cluster, path, commit_seconds=3600.0, commit_rows=1_000_000, batch_bytes=65_536) as writer:
        put(cluster, METRICS, *given)
        writer.until(lambda: writer.counted("commits_total", "samples") >= 1, "a commit")
        writer.until(lambda: writer.counted("records_total", "samples") == len(given), "all of them")
    assert stored_keys(path) == Counter(map(key_of, given))
