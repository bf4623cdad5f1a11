"""A broker that lost a partition's end, and gives its offsets to other messages: nothing is skipped, and nothing stored twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.history import key_of, stored_keys
from tests.support.memory_kafka import Cluster
from tests.support.memory_writer import PARTITIONS, put, samples, writing
from virtflow.runtime.kafka.lineage import Found, Mark, common
from virtflow.schemas.topics import METRICS, TOPICS

Lose = Callable[[str, int, int], None]
FIRST, LOST, NEW, LAST = (samples(range(begin, end)) for begin, end in ((0, 10), (10, 20), (20, 40), (40, 42)))


@pytest.fixture
def cluster() -> Cluster:
    return Cluster.with_topics(*TOPICS)


@pytest.fixture(params=["restore", "elect"])
def lose(request: pytest.FixtureRequest, cluster: Cluster) -> Lose:
    """A copy is restored, or a replica that was behind becomes leader."""
    found: Lose = getattr(cluster, request.param)
    return found


def lose_half(cluster: Cluster, lose: Lose) -> None:
    """Half of each partition is lost, and more than that comes new, before anybody can look."""
    with cluster.changed:
        for number, log in enumerate(cluster.topics[METRICS.name].logs):
            lose(METRICS.name, number, log.high // 2)
        put(cluster, METRICS, *NEW)


ALL = [*FIRST, *LOST, *NEW, *LAST]


def test_a_running_writer_goes_back_to_where_they_part(cluster: Cluster, tmp_path: Path, lose: Lose) -> None:
    with writing(cluster, tmp_path) as writer:
        for given in (FIRST, LOST):
            put(cluster, METRICS, *given)
            writer.until(lambda given=given: stored_keys(tmp_path).total() == (given[-1].sequence + 1) * 4, "they are stored")  # type: ignore[misc]  # bound now
        writer.until(lambda: writer.counted("waiting_records") == 0.0, "all of them")
        lose_half(cluster, lose)
        writer.until(lambda: stored_keys(tmp_path).total() == len(ALL) - len(LAST), "the new ones")
        put(cluster, METRICS, *LAST)
        writer.until(lambda: stored_keys(tmp_path).total() == len(ALL), "what came later")
        assert len(LOST) <= writer.counted("replaced_offsets_total", "samples") <= len(FIRST) + len(LOST)
        assert writer.counted("missing_records_total", "samples") == 0.0
        assert writer.counted("skipped_records_total", "samples", "repeated") <= len(FIRST)
    assert stored_keys(tmp_path) == Counter(map(key_of, ALL))


def test_a_writer_that_was_away_goes_back_to_where_they_part(cluster: Cluster, tmp_path: Path, lose: Lose) -> None:
    for given in (FIRST, LOST):
        put(cluster, METRICS, *given)
        with writing(cluster, tmp_path) as writer:
            writer.until(lambda given=given: stored_keys(tmp_path).total() == (given[-1].sequence + 1) * 4, "they are stored")  # type: ignore[misc]  # bound now
    lose_half(cluster, lose)
    with writing(cluster, tmp_path) as writer:
        put(cluster, METRICS, *LAST)
        writer.until(lambda: stored_keys(tmp_path).total() == len(ALL), "all that came")
        assert writer.counted("replaced_offsets_total", "samples") == len(LOST)
        assert writer.counted("missing_records_total", "samples") == 0.0
    assert stored_keys(tmp_path) == Counter(map(key_of, ALL))


def test_a_broker_that_only_restarts_costs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: writer.has(PARTITIONS), "the partitions")
        put(cluster, METRICS, *FIRST)
        writer.until(lambda: stored_keys(tmp_path).total() == len(FIRST), "the first ones")
        cluster.stop()
        cluster.start()
        put(cluster, METRICS, *LOST)
        writer.until(lambda: stored_keys(tmp_path).total() == len(FIRST + LOST), "the others")
        writer.until(lambda: writer.has(PARTITIONS), "the partitions")
        assert writer.counted("replaced_offsets_total", "samples") == 0.0
    assert writer.error is None
    assert stored_keys(tmp_path) == Counter(map(key_of, [*FIRST, *LOST]))


@pytest.mark.parametrize("count", [0, 1, 2, 5, 40])
def test_the_newest_common_mark_is_found_with_few_questions(count: int) -> None:
    marks = [Mark(offset, 0) for offset in reversed(range(count))]
    for kept in range(count + 1):
        asked: list[Mark] = []

        def find(mark: Mark, kept: int = kept, asked: list[Mark] = asked) -> Found:
            asked.append(mark)
            return Found.SAME if mark.offset < kept else Found.OTHER

        assert common(marks, find) == (marks[count - kept] if kept else None)
        assert len(asked) <= 12
