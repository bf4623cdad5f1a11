"""Messages that wait for a commit: counted and known once they are stored, however often that is tried, and by one writer only."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.history import fleet_samples, key_of, stored_keys
from virtflow.history.storage.delta import Store
from virtflow.history.storage.errors import FencedError, StorageError
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.sample_batch import RawSamples
from virtflow.history.writer.table_writer import TableWriter
from virtflow.history.writer.validation import Intake
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History
from virtflow.schemas.avro.codec import Codec

NOW = float(int(time.time()))
SAMPLED = list(fleet_samples(1, 6, range(4), start=NOW - 60))
MESSAGES = [Codec().encode(sample) for sample in SAMPLED]


class Writing:
    """A writer of samples with its own metrics."""

    def __init__(self, path: Path) -> None:
        """Begins with what is stored."""
        settings = History(path=str(path))
        self.metrics = OwnMetrics("history")
        raw = RawSamples(Intake(Codec(), settings, self.metrics), Sequences())
        self.writer = TableWriter(Store(settings).make(SAMPLES), raw, raw.rows)
        self.next = self.writer.begin(["p"])["p"] or 0

    def take(self, messages: list[bytes]) -> None:
        """Takes messages from where the table stands."""
        for offset, message in enumerate(messages, self.next):
            self.writer.take("p", offset, (message, NOW))
        self.next += len(messages)

    def left_out(self, reason: str) -> float:
        """How many were left out for a reason."""
        lines = self.metrics.render().decode().splitlines()
        found = [line for line in lines if line.startswith("virtflow_history_skipped_records_total") and f'reason="{reason}"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in found)


def test_a_commit_that_fails_counts_nothing_and_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "history"
    one = Writing(path)
    one.take([*MESSAGES, b"poison", MESSAGES[0]])
    path.rename(tmp_path / "aside")
    path.write_text("the mount point's own file")
    for _ in range(3):
        with pytest.raises(StorageError):
            one.writer.commit()
    assert one.left_out("unknown_magic") == 0
    assert one.writer.waiting == len(MESSAGES) + 2
    path.unlink()
    (tmp_path / "aside").rename(path)
    one.writer.commit()
    assert stored_keys(path) == {key_of(sample): 1 for sample in SAMPLED}
    assert (one.left_out("unknown_magic"), one.left_out("repeated"), one.writer.waiting) == (1, 1, 0)


def test_of_two_writers_one_gives_way(tmp_path: Path) -> None:
    """The same partition, taken by both: what the second has is void, and it goes on where the first one stands."""
    first, second = Writing(tmp_path / "history"), Writing(tmp_path / "history")
    first.take(MESSAGES[:12])
    second.take(MESSAGES[:13])
    first.writer.commit()
    with pytest.raises(FencedError):
        second.writer.commit()
    assert second.writer.moved() == ["p"]
    second.next = second.writer.begin(["p"])["p"] or 0
    assert second.next == 12
    second.take([*MESSAGES[6:12], *MESSAGES[12:]])  # some that a producer repeats
    second.writer.commit()
    assert stored_keys(tmp_path / "history") == {key_of(sample): 1 for sample in SAMPLED}
    assert second.left_out("repeated") == 6


def test_what_another_writer_has_stored_alike_is_known(tmp_path: Path) -> None:
    """Both come to the same offset with the same messages: the second gives way, and knows them when they are repeated later."""
    first, second = Writing(tmp_path / "history"), Writing(tmp_path / "history")
    for each in (first, second):
        each.take(MESSAGES[:12])
    first.writer.commit()
    with pytest.raises(FencedError):
        second.writer.commit()
    assert second.writer.begin(["p"]) == {"p": 12}
    second.take(MESSAGES)
    second.writer.commit()
    assert stored_keys(tmp_path / "history") == {key_of(sample): 1 for sample in SAMPLED}
