"""The migration reducer: the events of both hosts of a VM, in any order and number, become one ``VmMigration``.

Theory of operation. ``apply_event`` is pure: it takes the VM's newest migration and an event and returns the changed migration. The
events of the two hosts come through two producers, so they interleave in any way; each host's clock may be wrong; any event may be
missing, late or duplicated. So two hosts' clocks are compared only where nothing else decides, and every step is idempotent:

- a migration starts with the first event that can't be anything else: a job with the operation migration-out, a VM that is started at
  a destination, or, when these were missed, the completion itself;
- timestamps are set once, iterations only rise, a poll counts if its job has run for longer than in the previous poll;
- the end, from the most to the least reliable report: libvirt's completed statistics; the source's VM stopped with reason migrated;
  the job's type or QEMU's status; the VM resumed at the source; a job that vanished; a timeout.

An event belongs to another migration than the known one if its job started after the known one ended, or if its elapsed time is
lower; it is skipped if the sequence of its node shows that it is older than an event that was applied already.
Source of the events and their order: libvirt's reference, and recordings of real migrations.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Final

import msgspec
from msgspec.structs import replace

from virtflow.processors.migrations.identity import position_of
from virtflow.processors.migrations.lifecycle_events import lifecycle, state_found
from virtflow.processors.migrations.source_events import iteration_reported, job_completed, job_polled, job_vanished, status_reported
from virtflow.processors.migrations.transitions import TIMED_OUT, Changes, end_migration, with_convergence
from virtflow.schemas.jobs import Kind, Result
from virtflow.schemas.records import EventPosition, VmEvent, VmMigration

NODES_REMEMBERED: Final = 6


def apply_event(current: VmMigration | None, event: VmEvent) -> Changes:
    """The changes that ``event`` makes: none, the next state of the VM's newest migration, or its end and the start of another one.

    The last change is the VM's newest migration from now on.
    """
    handle = _HANDLERS.get(event.kind)
    changes = handle(current, event) if handle else ()
    revision = revision_before(current, event.time)
    recorded = tuple(_recorded(change, event, revision + number) for number, change in enumerate(changes, 1))
    if len(recorded) == 1 and current and _same_record(recorded[0], current):
        return ()
    return recorded


def revision_before(current: VmMigration | None, moment: float) -> int:
    """What the revisions of changes at a moment (Unix seconds) count from: the newest known one, or the moment in milliseconds.

    The topic may have lost the VM's newest records, or all of them, and readers may still have them. A VM's record never changes a thousand
    times a second, so what comes later is above all that went before, as long as the clocks of the VM's hosts agree about which is later.
    Of an event it is its own time and not the present, so that two instances that handle the same event write the same record.
    """
    of_moment = int(moment * 1000)
    return of_moment if current is None else max(current.revision, of_moment)


def time_out(current: VmMigration, now: float, heard: float) -> VmMigration:
    """The end of a running migration without events since ``heard``, for too long; both are Unix seconds. One that was handed over has completed.

    Whoever takes the VM over may still have to read events that came since then: what those say is newer.
    """
    result = Result.UNKNOWN if isnan(current.resumed_timestamp_seconds) else Result.COMPLETED
    return with_convergence(replace(end_migration(current, result, TIMED_OUT, now), revision=revision_before(current, heard) + 1))


def _recorded(change: VmMigration, event: VmEvent, revision: int) -> VmMigration:
    """The change as it is published: with the position of its event, and the values derived from its numbers."""
    position = EventPosition(node=event.node, boot_id=event.boot_id, sequence=event.sequence)
    before = position_of(change, event.node)
    if before is not None and before.boot_id == event.boot_id:
        position = max(position, before, key=lambda one: one.sequence)
    others = [one for one in change.seen if one.node != event.node]
    seen = [position, *others][:NODES_REMEMBERED]
    return with_convergence(replace(change, name=event.name or change.name, seen=seen, revision=revision))


def _same_record(one: VmMigration, other: VmMigration) -> bool:
    """Whether nothing but positions and revision differs; NaN equals NaN here."""
    return msgspec.msgpack.encode(replace(one, seen=other.seen, revision=other.revision)) == msgspec.msgpack.encode(other)


_HANDLERS: Final[dict[str, Callable[[VmMigration | None, VmEvent], Changes]]] = {
    Kind.LIFECYCLE: lifecycle,
    Kind.ITERATION: iteration_reported,
    Kind.COMPLETED: job_completed,
    Kind.JOB: job_polled,
    Kind.JOB_GONE: job_vanished,
    Kind.STATE: state_found,
    Kind.STATUS: status_reported,
}
