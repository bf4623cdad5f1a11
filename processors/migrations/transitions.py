"""Building blocks of a migration's state changes: start, end, and which report may still change the result. Pure."""

from __future__ import annotations

from math import isnan
from typing import Final

from msgspec.structs import asdict, replace

from virtflow.processors.migrations.convergence import convergence
from virtflow.processors.migrations.identity import POST_COPY_FAILED, Relation, relation_of
from virtflow.schemas import jobs
from virtflow.schemas.jobs import Operation, Result
from virtflow.schemas.records import NAN, VmEvent, VmMigration

TIMED_OUT: Final = "timed out: no event was received for too long"
END_NOT_REPORTED: Final = "not completed: libvirt did not report whether it failed or was cancelled"
SUPERSEDED: Final = "superseded: another migration of the VM started"
PRE_COPY, POST_COPY = "pre_copy", "post_copy"

Changes = tuple[VmMigration, ...]


def start_migration(current: VmMigration | None, event: VmEvent, **known: str | float) -> tuple[Changes, VmMigration]:
    """A new migration, and the end of the running one that it supersedes."""
    over: Changes = ()
    if current is not None and current.result == Result.RUNNING:
        over = (end_migration(current, Result.UNKNOWN, SUPERSEDED, event.time),)
    fresh = VmMigration(
        uuid=event.uuid,
        id=f"{event.node}:{event.boot_id}:{event.sequence}",
        name=event.name,
        operation=jobs.operation_word(Operation.MIGRATION_OUT),
        kind=PRE_COPY,
        result=Result.RUNNING.value,
        seen=current.seen if current else [],
    )
    return over, replace(fresh, **known)


def migration_of(current: VmMigration | None, event: VmEvent, elapsed: float = NAN) -> tuple[Changes, VmMigration] | None:
    """The migration that an event of its source belongs to, started if necessary, and what that supersedes; None for an older migration."""
    relation = relation_of(current, event, elapsed) if current else Relation.NEWER
    if relation is Relation.OLDER:
        return None
    if current is None or relation is Relation.NEWER:
        return start_migration(current, event, source=event.node)
    return (), current


def end_migration(current: VmMigration, result: Result, reason: str, at: float) -> VmMigration:
    """The migration with its end. One that had timed out, or may be recovered, gets a new end."""
    known = NAN if current.reason in {TIMED_OUT, POST_COPY_FAILED} else current.ended_timestamp_seconds
    return replace(current, result=result.value, reason=reason, ended_timestamp_seconds=first_known(known, at))


def result_may_change(current: VmMigration) -> bool:
    """Whether a later report may still change the result: it runs, or it ended without a definite report."""
    return current.result == Result.RUNNING or current.reason in {TIMED_OUT, END_NOT_REPORTED, POST_COPY_FAILED}


def first_known(known: float, at: float) -> float:
    """A timestamp is set once: the known one, else ``at``."""
    return at if isnan(known) else known


def with_convergence(change: VmMigration) -> VmMigration:
    """The migration with the values derived from its numbers."""
    return replace(change, **asdict(convergence(change)))
