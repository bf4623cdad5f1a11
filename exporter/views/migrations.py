"""From a migration's record to a row of the API, and the columns by which migrations are sorted."""

from __future__ import annotations

from typing import Final

from virtflow.exporter.views.rows import MigrationRow
from virtflow.exporter.views.values import Column, known
from virtflow.schemas.jobs import Result
from virtflow.schemas.records import VmMigration

MIGRATION_COLUMNS: Final[tuple[Column[VmMigration], ...]] = (
    Column("started", "when it started", lambda one: one.started_timestamp_seconds),
    Column("ended", "when it ended", lambda one: one.ended_timestamp_seconds),
    Column("name", "the VM's name", lambda one: one.name),
    Column("source", "the node it comes from", lambda one: one.source),
    Column("destination", "the node it goes to", lambda one: one.destination),
    Column("result", "result", lambda one: one.result),
    Column("progress", "how much of it is done", lambda one: one.progress_ratio),
)


def migration_row(one: VmMigration, wall: float) -> MigrationRow:
    """The row; ``wall`` is now in Unix seconds, for the time that a running one has taken."""
    running = one.result == Result.RUNNING
    return MigrationRow(
        id=one.id,
        uuid=one.uuid,
        name=one.name,
        source=one.source,
        destination=one.destination,
        result=one.result,
        reason=one.reason,
        type=one.type,
        kind=one.kind,
        progress_ratio=known(one.progress_ratio),
        remaining_bytes=known(one.data_remaining_bytes),
        total_bytes=known(one.data_total_bytes),
        memory_bytes_per_second=known(one.memory_bytes_per_second),
        converging=bool(one.converging) if running and one.converging >= 0 else None,
        expected_remaining_seconds=known(one.expected_remaining_seconds) if running else None,
        elapsed_seconds=_elapsed(one, wall),
        downtime_seconds=known(one.downtime_seconds),
        started=known(one.started_timestamp_seconds),
        ended=known(one.ended_timestamp_seconds),
    )


def _elapsed(one: VmMigration, wall: float) -> float | None:
    """What libvirt says it took; else the time since its start as far as that is known."""
    if one.elapsed_seconds >= 0:
        return one.elapsed_seconds
    end = wall if one.result == Result.RUNNING else one.ended_timestamp_seconds
    return known(round(end - one.started_timestamp_seconds, 3))
