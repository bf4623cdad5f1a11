"""From a migration's record to a row of the API, and the columns by which migrations are sorted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from virtflow.exporter.views.rows import MigrationRow
from virtflow.schemas.jobs import Result
from virtflow.schemas.records import VmMigration


class MigrationColumn(NamedTuple):
    """A name to sort by, what it stands for, and the value; NaN is unknown and comes last."""

    name: str
    about: str
    value: Callable[[VmMigration], float | str]


MIGRATION_COLUMNS: Final = (
    MigrationColumn("started", "when it started", lambda one: one.started_timestamp_seconds),
    MigrationColumn("ended", "when it ended", lambda one: one.ended_timestamp_seconds),
    MigrationColumn("name", "the VM's name", lambda one: one.name),
    MigrationColumn("source", "the node it comes from", lambda one: one.source),
    MigrationColumn("destination", "the node it goes to", lambda one: one.destination),
    MigrationColumn("result", "result", lambda one: one.result),
    MigrationColumn("progress", "how much of it is done", lambda one: one.progress_ratio),
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
        progress_ratio=_known(one.progress_ratio),
        remaining_bytes=_count(one.data_remaining_bytes),
        total_bytes=_count(one.data_total_bytes),
        memory_bytes_per_second=_count(one.memory_bytes_per_second),
        converging=bool(one.converging) if running and one.converging >= 0 else None,
        expected_remaining_seconds=_known(one.expected_remaining_seconds) if running else None,
        elapsed_seconds=_elapsed(one, wall),
        downtime_seconds=_known(one.downtime_seconds),
        started=_known(one.started_timestamp_seconds),
        ended=_known(one.ended_timestamp_seconds),
    )


def _elapsed(one: VmMigration, wall: float) -> float | None:
    """What libvirt says it took; else the time since its start as far as that is known."""
    if one.elapsed_seconds >= 0:
        return one.elapsed_seconds
    end = wall if one.result == Result.RUNNING else one.ended_timestamp_seconds
    return _known(round(end - one.started_timestamp_seconds, 3))


def _known(value: float) -> float | None:
    return value if value >= 0 else None


def _count(value: int) -> int | None:
    return value if value >= 0 else None
