"""A topic is deleted and made again under a running writer: it is read from its beginning, and its offsets are not the old one's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.history import key_of, rows_of, stored_keys
from tests.support.memory_kafka import Cluster
from tests.support.memory_writer import PARTITIONS, put, samples, writing
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import INVENTORY_ROWS, SAMPLES
from virtflow.runtime.settings import History
from virtflow.schemas.topics import INVENTORY, METRICS, TOPICS


@pytest.fixture
def cluster() -> Cluster:
    return Cluster.with_topics(*TOPICS)


@pytest.mark.parametrize("rounds", [2, 12])
def test_fewer_or_more_records_than_the_old_one_had(cluster: Cluster, tmp_path: Path, rounds: int) -> None:
    """Where the new topic is longer, the old offset is one of its own."""
    old, new = samples(range(5)), samples(range(20, 20 + rounds))
    more = samples(range(50, 52))
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: writer.has(PARTITIONS), "the partitions")
        put(cluster, METRICS, *old)
        writer.until(lambda: stored_keys(tmp_path).total() == len(old), "the old ones")
        with cluster.changed:  # at once: no client sees the topic gone
            cluster.delete(METRICS.name)
            cluster.create(METRICS.name, 2, METRICS.config())
            put(cluster, METRICS, *new)
        writer.until(lambda: stored_keys(tmp_path).total() == len(old) + len(new), "all of the new ones")
        assert writer.counted("missing_records_total", "samples") == 0.0
    with writing(cluster, tmp_path) as writer:
        put(cluster, METRICS, *more)
        writer.until(lambda: stored_keys(tmp_path).total() == len(old) + len(new) + len(more), "what came later")
    assert stored_keys(tmp_path) == Counter(map(key_of, [*old, *new, *more]))
    opened = Store(History(path=str(tmp_path))).open(SAMPLES)
    topic = cluster.topics[METRICS.name]
    assert [opened.number(f"{METRICS.name}/{topic.id}/{number}") or 0 for number in (0, 1)] == [log.high for log in topic.logs]


def test_a_compacted_topic_made_again_tells_nothing_twice(cluster: Cluster, tmp_path: Path) -> None:
    from msgspec.structs import replace

    from tests.support.history import fleet_inventories
    from tests.support.memory_writer import NOW

    told = [
        replace(each, collected=NOW + number, project=str(number)) for number in range(6) for each in fleet_inventories(1, 2, start=NOW)
    ]
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: writer.has(PARTITIONS), "the partitions")
        put(cluster, INVENTORY, *told[:4])
        writer.until(lambda: writer.rows("inventory") == 4, "the old ones")
        with cluster.changed:
            cluster.delete(INVENTORY.name)
            cluster.create(INVENTORY.name, 2, INVENTORY.config())
            put(cluster, INVENTORY, *told)
        writer.until(lambda: writer.rows("inventory") == len(told), "the new ones")
    assert len(rows_of(tmp_path, INVENTORY_ROWS)) == len(told)
