"""The newest migration of every VM in memory: the state that ``reducer.apply_event`` changes. No I/O, no clock.

It is a copy of the compacted topic: after a start, and after a rebalance, it is restored before the first event is applied. Only the
instance that receives a VM's events may time out its migration, so the others' partitions are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from virtflow.processors.migrations.reducer import apply_event, time_out
from virtflow.schemas.jobs import Result
from virtflow.schemas.records import VmEvent, VmMigration


class Migrations:
    """The state; ``restored`` is False until it has been read from the topic."""

    def __init__(self, silence_seconds: float) -> None:
        """``silence_seconds`` is how long a running migration may go without an event."""
        self.restored = False
        self.forgotten = 0
        """How often it was dropped: what is read of the topic counts only if it was not dropped meanwhile."""
        self._silence = silence_seconds
        self._newest: dict[str, VmMigration] = {}
        self._last_event: dict[str, float] = {}
        self._partitions: dict[str, int] = {}
        self._ours: frozenset[int] = frozenset()

    @property
    def running(self) -> int:
        """The number of running migrations."""
        return len(self._last_event)

    def forget(self) -> None:
        """Drops the state after a rebalance: other instances may have changed it."""
        self.restored = False
        self.forgotten += 1
        self._newest.clear()
        self._last_event.clear()
        self._partitions.clear()

    @property
    def assigned(self) -> bool:
        """Whether this instance consumes any partition."""
        return bool(self._ours)

    def assign(self, partitions: Iterable[int]) -> None:
        """Sets the partitions of the events' topic that this instance consumes."""
        self._ours = frozenset(partitions)

    def restore(self, stored: Mapping[str, tuple[VmMigration, int]], now: float) -> None:
        """Takes each VM's newest migration and its partition from the topic. ``now`` is monotonic seconds."""
        for uuid, (migration, partition) in stored.items():
            self._note(uuid, migration, partition, now)
        self.restored = True

    def apply(self, event: VmEvent, partition: int, now: float) -> tuple[VmMigration, ...]:
        """The changes that an event makes: the migrations to store, in order."""
        current = self._newest.get(event.uuid)
        changes = apply_event(current, event)
        for change in changes:
            self._note(event.uuid, change, partition, now)
        if not changes and event.uuid in self._last_event and current is not None and event.node == current.source:
            self._last_event[event.uuid] = now
        return changes

    def newest(self, uuid: str) -> VmMigration | None:
        """The VM's newest migration."""
        return self._newest.get(uuid)

    def missing_from(self, stored: Mapping[str, tuple[VmMigration, int]]) -> list[VmMigration]:
        """What the topic does not have of the VMs whose events this instance consumes, or only in an older revision: ``stored`` is what it has."""
        ours = [migration for uuid, migration in self._newest.items() if self._partitions[uuid] in self._ours]
        return [one for one in ours if one.uuid not in stored or stored[one.uuid][0].revision < one.revision]

    def time_out(self, now: float, wall: float) -> list[VmMigration]:
        """Ends the migrations without an event for too long; ``wall`` is Unix seconds."""
        silent = {uuid: now - last for uuid, last in self._last_event.items() if self._partitions[uuid] in self._ours}
        ended = [time_out(self._newest[uuid], wall, wall - seconds) for uuid, seconds in silent.items() if seconds > self._silence]
        for migration in ended:
            self._note(migration.uuid, migration, self._partitions[migration.uuid], now)
        return ended

    def _note(self, uuid: str, migration: VmMigration, partition: int, now: float) -> None:
        self._newest[uuid] = migration
        self._partitions[uuid] = partition
        if migration.result == Result.RUNNING:
            self._last_event[uuid] = now
        else:
            self._last_event.pop(uuid, None)
