"""The history's writer in a thread, on the in-memory broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final

from tests.support.history import fleet_samples
from tests.support.lab_process import await_true
from tests.support.memory_kafka import Cluster
from tests.support.memory_kafka.consumer import MemoryConsumer
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import WRITTEN
from virtflow.history.writer.consumer import Consume
from virtflow.history.writer.offsets import Names
from virtflow.history.writer.pace import Pace
from virtflow.history.writer.source import Makers, source_of
from virtflow.history.writer.validation import Intake
from virtflow.runtime.memory import Pressure
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History, Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import InputError
from virtflow.schemas.records import Record, VmMetrics
from virtflow.schemas.topics import Topic

SECONDS: Final = 60.0
PACE: Final = Pace(read=0.02, measure=0.05, retry=(0.05, 1.0))
"""Everything that the writer does by the clock comes soon."""
NOW: Final = float(int(time.time()) // 10 * 10)
CODEC: Final = Codec()


class Writer:
    """A writer in a thread of its own, which commits at once."""

    def __init__(self, cluster: Cluster, path: Path, codec: Codec, **history: object) -> None:
        """Starts; ``history`` are settings."""
        self.room_bytes = inf
        """The memory that it is told is left."""
        values: dict[str, Any] = {"path": str(path), "commit_seconds": 0.05, "raw_days": 3_650, "sync": "never", **history}
        settings = Settings(history=History(**values))
        self.metrics = OwnMetrics("history")
        self.store = Store(settings.history)
        self._make = partial(self._made, cluster, settings, codec)
        self._make()
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer")
        self._thread.start()

    def _made(self, cluster: Cluster, settings: Settings, codec: Codec) -> None:
        names = Names(settings, cluster.admin)
        names.learn()
        source = source_of(settings, names, Makers(cluster.consumer, cluster.admin))
        self.consumer: MemoryConsumer = source.consumer
        intake = Intake(codec, settings.history, self.metrics)
        memory = Pressure(lambda: self.room_bytes)
        self.consume = Consume(source, self.store, intake, settings.history, pace=PACE, memory=memory)
        self.consume.count_into(self.metrics)

    def _run(self) -> None:
        try:
            while self.consume.run(self._stop.is_set):
                self._make()  # as the service does
        except InputError as error:
            self.error = error

    def stop(self) -> None:
        """Until it has ended."""
        self._stop.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Waits until something is true."""
        await_true(true, SECONDS, f"{what}; {self.consume.failing or self.consume.left}", pause_seconds=0.01)

    def counted(self, name: str, *labels: str) -> float:
        """One of its own metrics."""
        return self.metrics.value(f"virtflow_history_{name}", *labels)

    def rows(self, table: str = "samples") -> float:
        """Rows stored."""
        return self.counted("rows_total", table)

    def has(self, partitions: int) -> bool:
        """Whether it has so many partitions."""
        return self.counted("partitions") == partitions


PARTITIONS: Final = 2 * len(WRITTEN)
"""Of all topics in the broker."""


@contextmanager
def writing(cluster: Cluster, path: Path, codec: Codec = CODEC, **history: object) -> Iterator[Writer]:
    """A writer that has its partitions, and is stopped however the test ends."""
    writer = Writer(cluster, path, codec, **history)
    try:
        yield writer
    finally:
        writer.stop()


def put(cluster: Cluster, topic: Topic, *records: Record | bytes) -> None:
    """Into the partition of each VM's number."""
    for record in records:
        key = b"x" if isinstance(record, bytes) else str(getattr(record, "uuid", "")).encode()
        cluster.write(topic.name, key, record if isinstance(record, bytes) else CODEC.encode(record), sum(key) % 2)


def samples(rounds: range, vms: int = 4) -> list[VmMetrics]:
    """Rounds of one node's VMs."""
    return list(fleet_samples(1, vms, rounds, start=NOW - 1_000))
