"""Following migrations: both hosts' events of a VM, in whatever order and number they come, make one ``VmMigration``.

Theory of operation. ``follow`` is pure: the VM's newest migration and an event in, what it has become out. The two hosts' events
come through two producers, so they interleave in any way; each host's clock may be wrong; any event may be missing, late or come
twice. So nothing is decided by comparing two hosts' clocks where anything else tells, and every step can be repeated:

- a migration begins with the first sign that can't be anything else: a job with the operation migration-out, a VM that starts at a
  destination, or, when all that was missed, the completion itself;
- moments are set once, iterations only rise, a poll counts if its job has run for longer than the last one's;
- what ends it, from the strongest word to the weakest: libvirt's completed statistics; the source's VM stopped with reason migrated;
  the job's own type or QEMU's status; the VM going on at the source; a job that is gone; the silence of everybody.

An event belongs to another migration than the known one if its job has begun after the known one ended, or runs for less long
than the known one does; it is passed by if its node's sequence says that it is older than what was taken already.
Source of the events and their order: libvirt's reference, and recordings of real migrations.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Final

import msgspec
from msgspec.structs import replace

from virtflow.processors.migrations.identity import position_of
from virtflow.processors.migrations.lifecycle_events import found_in_transit, lifecycle
from virtflow.processors.migrations.source_events import completed, gone, iterated, polled, told
from virtflow.processors.migrations.transitions import NO_NEWS, Changes, ended, judged
from virtflow.schemas.jobs import Kind, Result
from virtflow.schemas.records import EventPosition, VmEvent, VmMigration

NODES_REMEMBERED: Final = 6


def follow(current: VmMigration | None, event: VmEvent) -> Changes:
    """What ``event`` makes of a VM's newest migration: nothing, its next state, or its end and another one's begin.

    The last one is the VM's newest from now on.
    """
    handle = _HANDLERS.get(event.kind)
    changes = handle(current, event) if handle else ()
    revision = current.revision if current else 0
    booked = tuple(_booked(change, event, revision + number) for number, change in enumerate(changes, 1))
    if len(booked) == 1 and current and _same(booked[0], current):
        return ()
    return booked


def given_up(current: VmMigration, now: float) -> VmMigration:
    """A running migration of which nothing has been heard for too long; ``now`` is Unix seconds. One handed over has completed."""
    result = Result.UNKNOWN if isnan(current.resumed_timestamp_seconds) else Result.COMPLETED
    return judged(replace(ended(current, result, NO_NEWS, now), revision=current.revision + 1))


def _booked(change: VmMigration, event: VmEvent, revision: int) -> VmMigration:
    """The change as it goes out: which event made it, what its numbers promise."""
    position = EventPosition(node=event.node, boot_id=event.boot_id, sequence=event.sequence)
    before = position_of(change, event.node)
    if before is not None and before.boot_id == event.boot_id:
        position = max(position, before, key=lambda one: one.sequence)
    others = [one for one in change.seen if one.node != event.node]
    seen = [position, *others][:NODES_REMEMBERED]
    return judged(replace(change, name=event.name or change.name, seen=seen, revision=revision))


def _same(one: VmMigration, other: VmMigration) -> bool:
    """Whether nothing but the book-keeping differs; NaN equals NaN here."""
    return msgspec.msgpack.encode(replace(one, seen=other.seen, revision=other.revision)) == msgspec.msgpack.encode(other)


_HANDLERS: Final[dict[str, Callable[[VmMigration | None, VmEvent], Changes]]] = {
    Kind.LIFECYCLE: lifecycle,
    Kind.ITERATION: iterated,
    Kind.COMPLETED: completed,
    Kind.JOB: polled,
    Kind.JOB_GONE: gone,
    Kind.STATE: found_in_transit,
    Kind.STATUS: told,
}
