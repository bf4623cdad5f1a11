"""Where the processors go on: marks in commits, ends that the broker has lost, and what it deleted ahead of them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.support.memory_kafka import Cluster
from virtflow.processors.dead_letters.dead_letter import Message
from virtflow.processors.lineage.marks import Lineage, decoded, encoded, thinned
from virtflow.processors.metrics import Tally
from virtflow.runtime.kafka.clients import probe_settings
from virtflow.runtime.kafka.lineage import Mark, Probe
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Settings

TOPIC = "vm.snapshots"


class Processed:
    """A partition, and what is processed of it."""

    def __init__(self) -> None:
        """With nothing in it."""
        self.cluster = Cluster()
        self.cluster.create(TOPIC)
        self.metrics = OwnMetrics("processors")
        self.lineage = self.again()
        self.lineage.begin(TOPIC, 0, -1, "")

    def again(self) -> Lineage:
        """A process of its own."""
        return Lineage(lambda: Probe(lambda: self.cluster.consumer(probe_settings(Settings(), "g"))), Tally(self.metrics))

    def write(self, *values: bytes) -> None:
        """Messages that come in."""
        for value in values:
            self.cluster.write(TOPIC, b"k", value, timestamp=1_700_000_000.25)

    def acknowledge(self, begin: int, end: int) -> str:
        """Processes messages; what is committed with their offset."""
        for stored in self.cluster.topics[TOPIC].logs[0].records:
            if begin <= stored.offset < end:
                message = Message(TOPIC, 0, stored.offset, stored.key or b"", stored.value or b"", stored.timestamp_ms / 1000)
                self.lineage.taken(message)
                self.lineage.acknowledged(message)
        return self.lineage.committing(TOPIC, 0, end)

    def counted(self, name: str) -> float:
        """What is counted of the topic."""
        return self.metrics.value(f"virtflow_processors_{name}", TOPIC)


@pytest.fixture
def processed() -> Processed:
    return Processed()


def test_a_partition_that_is_whole_goes_on_where_it_was(processed: Processed) -> None:
    processed.write(*(b"%d" % number for number in range(9)))
    metadata = processed.acknowledge(0, 7)
    assert processed.lineage.intact()
    assert processed.again().begin(TOPIC, 0, 7, metadata) == 7
    assert processed.counted("replaced_offsets_total") == processed.counted("missing_records_total") == 0


@pytest.mark.parametrize("new", [0, 1, 50])
def test_a_lost_end_is_gone_back_to(processed: Processed, new: int) -> None:
    """Whether or not new messages have covered it: from the newest of the commits that are still there."""
    processed.write(*(b"%d" % number for number in range(30)))
    processed.acknowledge(0, 10)
    processed.acknowledge(10, 20)
    metadata = processed.acknowledge(20, 30)
    processed.cluster.restore(TOPIC, 0, 15)
    processed.write(*(b"new %d" % number for number in range(new)))
    assert not processed.lineage.intact()
    again = processed.again()
    assert again.begin(TOPIC, 0, 30, metadata) == 10
    assert processed.counted("replaced_offsets_total") == 20
    again.begin(TOPIC, 0, 30, metadata)
    assert processed.counted("replaced_offsets_total") == 20  # the same loss, looked at again
    assert again.intact()


def test_without_a_mark_that_is_left_all_is_read_again(processed: Processed) -> None:
    processed.write(*(b"%d" % number for number in range(30)))
    metadata = processed.acknowledge(0, 30)
    processed.cluster.restore(TOPIC, 0, 15)
    processed.write(*(b"new %d" % number for number in range(40)))
    assert processed.again().begin(TOPIC, 0, 30, metadata) == 0


def test_what_was_deleted_while_they_were_away_is_counted(processed: Processed) -> None:
    processed.write(*(b"%d" % number for number in range(9)))
    metadata = processed.acknowledge(0, 3)
    processed.cluster.truncate(TOPIC, 0, 8)
    assert processed.again().begin(TOPIC, 0, 3, metadata) == 8
    assert processed.counted("missing_records_total") == 5


def test_of_gaps_only_what_was_deleted_is_counted(processed: Processed) -> None:
    """Marks of transactions leave gaps as well."""
    processed.write(*(b"%d" % number for number in range(20)))
    processed.acknowledge(0, 3)
    processed.cluster.truncate(TOPIC, 0, 8)
    processed.acknowledge(8, 10)
    processed.acknowledge(12, 14)
    processed.lineage.count_missing()
    processed.lineage.count_missing()
    assert processed.counted("missing_records_total") == 5


def test_metadata_of_somebody_else_is_no_mark(processed: Processed) -> None:
    processed.write(b"a", b"b")
    assert decoded("") == decoded("another") == []
    assert processed.again().begin(TOPIC, 0, 1, "another") == 1


def test_marks_survive_and_thin_out_with_age() -> None:
    marks: list[Mark] = []
    for number in range(20_000):
        marks = thinned([Mark(number * 7, number), *marks])
    assert decoded(encoded(marks)) == marks
    assert len(marks) <= 64
    assert len(encoded(marks)) < 4_096
    assert marks[-1] == Mark(0, 0)
    ages = [marks[0].offset - mark.offset for mark in marks]
    assert all(older <= 4 * newer + 28 for newer, older in pairwise(ages))
