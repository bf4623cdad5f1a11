"""The newest migration of every VM, held in memory: what ``migration.follow`` is applied to. No I/O, no clock.

The memory is a copy of the compacted topic: after a start, and after a rebalance, it is read back before the first event is taken.
Whoever gives up a migration in silence must be the one who would have heard of it: only those of our own partitions are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from virtflow.processors.migrations.reducer import follow, given_up
from virtflow.schemas.jobs import Result
from virtflow.schemas.records import VmEvent, VmMigration


class Migrations:
    """What is known; ``known`` is False until it has been read back."""

    def __init__(self, silence_seconds: float) -> None:
        """``silence_seconds`` is how long a running migration may go unheard of."""
        self.known = False
        self._silence = silence_seconds
        self._newest: dict[str, VmMigration] = {}
        self._heard: dict[str, float] = {}
        self._partitions: dict[str, int] = {}
        self._ours: frozenset[int] = frozenset()

    @property
    def running(self) -> int:
        """Migrations that run, as far as is known."""
        return len(self._heard)

    def forget(self) -> None:
        """Partitions were taken away or dealt anew: others may know more now."""
        self.known = False
        self._newest.clear()
        self._heard.clear()
        self._partitions.clear()

    def assigned(self, partitions: Iterable[int]) -> None:
        """The partitions of the events' topic whose events come to us."""
        self._ours = frozenset(partitions)

    def learn(self, stored: Mapping[str, tuple[VmMigration, int]], now: float) -> None:
        """What was read back: each VM's newest migration, and its partition. ``now`` is monotonic seconds."""
        for uuid, (migration, partition) in stored.items():
            self._note(uuid, migration, partition, now)
        self.known = True

    def take(self, event: VmEvent, partition: int, now: float) -> tuple[VmMigration, ...]:
        """What an event changes: the migrations to store, in their order."""
        current = self._newest.get(event.uuid)
        changes = follow(current, event)
        for change in changes:
            self._note(event.uuid, change, partition, now)
        if not changes and event.uuid in self._heard and current is not None and event.node == current.source:
            self._heard[event.uuid] = now
        return changes

    def of(self, uuid: str) -> VmMigration | None:
        """The VM's newest migration."""
        return self._newest.get(uuid)

    def overdue(self, now: float, wall: float) -> list[VmMigration]:
        """Gives up what nobody has spoken of for too long; ``wall`` is Unix seconds."""
        lost = [uuid for uuid, heard in self._heard.items() if now - heard > self._silence and self._partitions[uuid] in self._ours]
        ended = [given_up(self._newest[uuid], wall) for uuid in lost]
        for migration in ended:
            self._note(migration.uuid, migration, self._partitions[migration.uuid], now)
        return ended

    def _note(self, uuid: str, migration: VmMigration, partition: int, now: float) -> None:
        self._newest[uuid] = migration
        self._partitions[uuid] = partition
        if migration.result == Result.RUNNING:
            self._heard[uuid] = now
        else:
            self._heard.pop(uuid, None)
