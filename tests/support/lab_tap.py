"""Listens to what producers send: every snapshot on the topic, with the time of its arrival."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Consumer

from tests.support.lab_process import LabError, await_true
from tests.support.record_tap import RecordTap
from virtflow.schemas.records import NodeSnapshot
from virtflow.schemas.topics import SNAPSHOTS

AWAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A snapshot, and when it came (Unix seconds)."""

    time: float
    snapshot: NodeSnapshot


class Tap(RecordTap[NodeSnapshot]):
    """Reads vm.snapshots of a broker from its beginning."""

    def __init__(self, bootstrap_servers: str) -> None:
        """``bootstrap_servers`` as clients call it; the topic must be there."""
        super().__init__(bootstrap_servers, SNAPSHOTS, NodeSnapshot)

    def of(self, node: str, since: float = 0.0) -> list[Arrival]:
        """What a node sent of rounds that began after ``since`` (Unix seconds), in the order of arrival."""
        return [Arrival(at, one) for at, one in list(self.arrivals) if one.node == node and one.collected > since]

    def await_rounds(self, node: str, condition: Callable[[NodeSnapshot], bool], since: float) -> int:
        """How many rounds that began after ``since`` it takes until ``condition`` holds for one, that one included."""
        self.await_snapshot(node, condition, since)
        return next(count for count, one in enumerate(self.of(node, since), 1) if condition(one.snapshot))

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
        asking = Consumer(self.settings)
        try:
            return sum(asking.get_watermark_offsets(partition, timeout=10)[1] for partition in self.partitions)
        finally:
            asking.close()
