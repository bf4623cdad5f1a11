"""Fault 25: the broker is restored from a copy, and new messages take the offsets of those it has lost. Nothing is skipped, nothing stored twice.

With a single node the copy's leader epochs are counted again from where they stood, so that they tell nothing.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.figures import figure
from tests.support.history import Writer, fleet_samples, key_of, produce, stored_keys, wait_for_samples, writing
from virtflow.schemas.records import VmMetrics

SECONDS = 90.0
TOPIC = "vm.metrics"
VMS = 20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        done = virtflow("topics", "create", "--bootstrap-servers", running.address, "--partitions", "2")
        assert done.returncode == 0, done.stderr
        yield running


def copy(broker: Broker) -> Path:
    """Copies what the broker has, which is stopped for it."""
    broker.stop()
    kept = broker.folder / "copy"
    shutil.copytree(broker.folder / "storage", kept)
    broker.start()
    return kept


def restore(broker: Broker, kept: Path) -> None:
    """Gives it back what it had; it is stopped."""
    shutil.rmtree(broker.folder / "storage")
    shutil.copytree(kept, broker.folder / "storage")


def rounds(begin: int, end: int) -> list[VmMetrics]:
    return list(fleet_samples(1, VMS, range(begin, end), start=time.time() - 600))


@pytest.mark.parametrize("running", [False, True])
def test_what_comes_at_the_offsets_of_lost_messages_is_stored(broker: Broker, tmp_path: Path, *, running: bool) -> None:
    kept, lost, new = rounds(0, 5), rounds(5, 10), rounds(10, 20)
    history = tmp_path / "history"
    writer = Writer(broker.address, history, tmp_path)
    with writing(writer):
        produce(broker.address, TOPIC, kept)
        wait_for_samples(history, len(kept), SECONDS, writer)
        saved = copy(broker)
        produce(broker.address, TOPIC, lost)
        wait_for_samples(history, len(kept + lost), SECONDS, writer)
        if not running:
            assert writer.stop() == 0
        broker.stop()
        restore(broker, saved)
        # A writer that runs hangs until the new messages are there, so that it finds the old end covered by them.
        if running:
            writer.signal(signal.SIGSTOP)
        broker.start()
        produce(broker.address, TOPIC, new)
        if running:
            writer.signal(signal.SIGCONT)
        else:
            writer.start()
        stored = wait_for_samples(history, len(kept + lost + new), SECONDS, writer)
        assert stored == Counter(map(key_of, [*kept, *lost, *new]))
        writer.until(lambda: writer.value('virtflow_history_replaced_offsets_total{table="samples"}') >= len(lost))
        assert "the broker has lost its end" in writer.log.read_text()
        assert writer.stop() == 0
    assert stored_keys(history) == Counter(map(key_of, [*kept, *lost, *new]))
    figure(25, "rows around the lost end, each stored once by the history", len([*kept, *lost, *new]))
