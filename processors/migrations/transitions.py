"""What the steps of a migration are made of: how it begins and ends, which word still counts, and what its numbers promise. Pure."""

from __future__ import annotations

from math import isnan
from typing import Final

from msgspec.structs import asdict, replace

from virtflow.processors.migrations.convergence import convergence
from virtflow.processors.migrations.identity import BROKEN_OFF, Relation, relation_of
from virtflow.schemas import jobs
from virtflow.schemas.jobs import Operation, Result
from virtflow.schemas.records import NAN, VmEvent, VmMigration

NO_NEWS: Final = "nothing was heard of it for too long"
UNTOLD: Final = "it ended without completion: failed or cancelled, libvirt did not say which"
SUPERSEDED: Final = "another migration of the VM began"
PRE_COPY, POST_COPY = "pre_copy", "post_copy"

Changes = tuple[VmMigration, ...]


def begun(current: VmMigration | None, event: VmEvent, **known: str | float) -> tuple[Changes, VmMigration]:
    """What ends with the begin of a new migration, and the new one."""
    over: Changes = ()
    if current is not None and current.result == Result.RUNNING:
        over = (ended(current, Result.UNKNOWN, SUPERSEDED, event.time),)
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


def meant(current: VmMigration | None, event: VmEvent, elapsed: float = NAN) -> tuple[Changes, VmMigration] | None:
    """The migration that a word of its source is about, begun with it where need be, and what ends with that; None for an older one."""
    relation = relation_of(current, event, elapsed) if current else Relation.NEWER
    if relation is Relation.OLDER:
        return None
    if current is None or relation is Relation.NEWER:
        return begun(current, event, source=event.node)
    return (), current


def ended(current: VmMigration, result: Result, reason: str, at: float) -> VmMigration:
    """The migration with its end; one that was given up before, or may be recovered, ends anew."""
    known = NAN if current.reason in {NO_NEWS, BROKEN_OFF} else current.ended_timestamp_seconds
    return replace(current, result=result.value, reason=reason, ended_timestamp_seconds=first(known, at))


def may_change(current: VmMigration) -> bool:
    """Whether a stronger word may still change the result: it runs, or ended only for want of one."""
    return current.result == Result.RUNNING or current.reason in {NO_NEWS, UNTOLD, BROKEN_OFF}


def first(known: float, at: float) -> float:
    """A moment is set once: the known one, or ``at`` where there is none."""
    return at if isnan(known) else known


def judged(change: VmMigration) -> VmMigration:
    """The migration with what its numbers promise."""
    return replace(change, **asdict(convergence(change)))
