"""Listens to what producers send: every snapshot on the topic, with the time of its arrival."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, TopicPartition

from tests.support.lab_process import LabError, await_true
from virtflow.schemas.codec import Codec
from virtflow.schemas.records import NodeSnapshot
from virtflow.schemas.topics import SNAPSHOTS

AWAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A snapshot, and when it came (Unix seconds)."""

    time: float
    snapshot: NodeSnapshot


class Tap:
    """Reads vm.snapshots of a broker from its beginning, in a thread of its own."""

    def __init__(self, bootstrap_servers: str) -> None:
        """``bootstrap_servers`` as clients call it; the topic must be there."""
        self.arrivals: list[Arrival] = []
        self._settings = {"bootstrap.servers": bootstrap_servers, "group.id": "tap", "enable.auto.commit": "false"}
        self._consumer = Consumer(self._settings)
        partitions = self._consumer.list_topics(SNAPSHOTS.name, timeout=10).topics[SNAPSHOTS.name].partitions
        self._partitions = list(partitions)
        self._consumer.assign([TopicPartition(SNAPSHOTS.name, number, 0) for number in partitions])
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        codec = Codec()
        while not self._stop.is_set():
            message = self._consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            self.arrivals.append(Arrival(time.time(), codec.decode(message.value(), NodeSnapshot)))

    def of(self, node: str, since: float = 0.0) -> list[Arrival]:
        """What a node sent of rounds that began after ``since`` (Unix seconds), in the order of arrival."""
        return [one for one in list(self.arrivals) if one.snapshot.node == node and one.snapshot.collected > since]

    def await_snapshot(
        self, node: str, condition: Callable[[NodeSnapshot], bool], since: float, timeout_seconds: float = AWAIT_SECONDS
    ) -> Arrival:
        """The first snapshot of a round after ``since`` for which ``condition`` holds; LabError when none comes in time."""
        found: list[Arrival] = []

        def there() -> bool:
            found.extend(one for one in self.of(node, since) if condition(one.snapshot))
            return bool(found)

        try:
            await_true(there, timeout_seconds, f"a snapshot of {node} as the test wants it")
        except LabError as error:
            newest = [
                (round(one.snapshot.collected - since, 2), one.snapshot.health.up, len(one.snapshot.vms)) for one in self.of(node)[-5:]
            ]
            raise LabError(f"{error}; the newest (seconds, up, VMs): {newest}") from error
        return found[0]

    def missing_rounds(self, node: str) -> int:
        """How many rounds of the node's newest producer run never came, once all that the topic holds now is read."""
        total = self._stored()
        await_true(lambda: len(self.arrivals) >= total, AWAIT_SECONDS, f"{total} snapshots are read")
        arrivals = self.of(node)
        newest = arrivals[-1].snapshot.boot_id
        seen = {one.snapshot.sequence for one in arrivals if one.snapshot.boot_id == newest}
        return max(seen) + 1 - len(seen)

    def _stored(self) -> int:
        """How many messages the topic holds; asked by a client of its own, because the reading one is in use."""
        asking = Consumer(self._settings)
        try:
            return sum(asking.get_watermark_offsets(TopicPartition(SNAPSHOTS.name, number), timeout=10)[1] for number in self._partitions)
        finally:
            asking.close()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def __enter__(self) -> Self:
        """Nothing more: it reads since it was made."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the thread."""
        self.close()
