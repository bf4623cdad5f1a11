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
from msgspec.structs import asdict, replace

from virtflow.processors.convergence import convergence, with_pass
from virtflow.processors.job_numbers import job_numbers
from virtflow.processors.migration_relation import BROKEN_OFF, Relation, is_late, is_running, position_of, relation_of
from virtflow.schemas import jobs, states
from virtflow.schemas.jobs import JobType, Kind, Lifecycle, Operation, Result
from virtflow.schemas.records import NAN, EventPosition, VmEvent, VmMigration

NODES_REMEMBERED: Final = 6
SKEW_SECONDS: Final = 7_200.0
"""How far two hosts' clocks may be apart for an arrival to be joined to a migration that has ended already."""

NO_NEWS: Final = "nothing was heard of it for too long"
UNTOLD: Final = "it ended without completion, and libvirt did not say why"
SUPERSEDED: Final = "another migration of the VM began"
PRE_COPY, POST_COPY = "pre_copy", "post_copy"

Changes = tuple[VmMigration, ...]


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
    return _judged(replace(_ended(current, result, NO_NEWS, now), revision=current.revision + 1))


# -- what is common to all events


def _booked(change: VmMigration, event: VmEvent, revision: int) -> VmMigration:
    """The change as it goes out: which event made it, what its numbers promise."""
    position = EventPosition(node=event.node, boot_id=event.boot_id, sequence=event.sequence)
    before = position_of(change, event.node)
    if before is not None and before.boot_id == event.boot_id:
        position = max(position, before, key=lambda one: one.sequence)
    others = [one for one in change.seen if one.node != event.node]
    seen = [position, *others][:NODES_REMEMBERED]
    return _judged(replace(change, name=event.name or change.name, seen=seen, revision=revision))


def _judged(change: VmMigration) -> VmMigration:
    return replace(change, **asdict(convergence(change)))


def _same(one: VmMigration, other: VmMigration) -> bool:
    """Whether nothing but the book-keeping differs; NaN equals NaN here."""
    return msgspec.msgpack.encode(replace(one, seen=other.seen, revision=other.revision)) == msgspec.msgpack.encode(other)


def _begun(current: VmMigration | None, event: VmEvent, **known: str | float) -> tuple[Changes, VmMigration]:
    """What ends with the begin of a new migration, and the new one."""
    ended: Changes = ()
    if current is not None and current.result == Result.RUNNING:
        ended = (_ended(current, Result.UNKNOWN, SUPERSEDED, event.time),)
    fresh = VmMigration(
        uuid=event.uuid,
        id=f"{event.node}:{event.boot_id}:{event.sequence}",
        name=event.name,
        operation=jobs.operation_word(Operation.MIGRATION_OUT),
        kind=PRE_COPY,
        result=Result.RUNNING.value,
        seen=current.seen if current else [],
    )
    return ended, replace(fresh, **known)


def _ended(current: VmMigration, result: Result, reason: str, at: float) -> VmMigration:
    ended = NAN if current.reason in {NO_NEWS, BROKEN_OFF} else current.ended_timestamp_seconds
    return replace(current, result=result.value, reason=reason, ended_timestamp_seconds=_first(ended, at))


def _open(current: VmMigration) -> bool:
    """Whether a stronger word may still change the result: it runs, or ended only for want of one."""
    return current.result == Result.RUNNING or current.reason in {NO_NEWS, UNTOLD, BROKEN_OFF}


def _first(known: float, at: float) -> float:
    return at if isnan(known) else known


# -- events of the source


def _polled(current: VmMigration | None, event: VmEvent) -> Changes:
    """A poll of a running job."""
    if event.job.get("operation") != Operation.MIGRATION_OUT:
        return ()
    numbers = job_numbers(event.job, completed=False)
    elapsed = float(numbers.get("elapsed_seconds", NAN))
    relation = relation_of(current, event, elapsed) if current else Relation.NEWER
    if relation is Relation.OLDER:
        return ()
    ended: Changes = ()
    if current is None or relation is Relation.NEWER:
        ended, current = _begun(current, event, source=event.node)
    kind = event.job.get("type", JobType.UNBOUNDED)
    if kind in {JobType.FAILED, JobType.CANCELLED} and _open(current):
        result = Result.FAILED if kind == JobType.FAILED else Result.CANCELLED
        return *ended, _ended(replace(current, source=event.node, type=jobs.job_type_word(kind)), result, "", event.time)
    if current.result != Result.COMPLETED and current.reason in {NO_NEWS, BROKEN_OFF}:
        current = replace(current, result=Result.RUNNING.value, reason="", ended_timestamp_seconds=NAN)
    if not is_running(current):
        return (*ended, replace(current, source=event.node)) if current.source == "" else ended
    return *ended, _advanced(current, event, numbers, elapsed)


def _advanced(current: VmMigration, event: VmEvent, numbers: dict[str, int | float], elapsed: float) -> VmMigration:
    """A running migration with a poll's numbers, unless it has newer ones."""
    known = current.elapsed_seconds
    if not isnan(known) and not elapsed >= known:
        return current
    kind = event.job.get("type", JobType.UNBOUNDED)
    if kind == JobType.COMPLETED:
        numbers.pop("expected_downtime_seconds", None)
    numbers["memory_iteration"] = max(int(numbers.get("memory_iteration", -1)), current.memory_iteration)
    started = event.time - elapsed if not isnan(elapsed) else event.time
    return replace(
        current,
        source=event.node,
        type=jobs.job_type_word(kind),
        started_timestamp_seconds=_first(current.started_timestamp_seconds, started),
        updated_timestamp_seconds=event.time,
        passes=with_pass(current.passes, event.job.get("memory_iteration", -1), event.job.get("memory_remaining", -1)),
        **numbers,
    )


def _completed(current: VmMigration | None, event: VmEvent) -> Changes:
    """The completed statistics: the last word."""
    if event.job.get("operation") != Operation.MIGRATION_OUT:
        return ()
    succeeded = event.job.get("success", 1) != 0
    numbers = job_numbers(event.job, completed=succeeded)
    elapsed = float(numbers.get("elapsed_seconds", NAN))
    relation = relation_of(current, event, elapsed) if current else Relation.NEWER
    if relation is Relation.OLDER:
        return ()
    ended: Changes = ()
    if current is None or relation is Relation.NEWER:
        ended, current = _begun(current, event, source=event.node)
    if current.type == jobs.job_type_word(JobType.COMPLETED) and not is_running(current):
        return ended
    result = Result.COMPLETED if succeeded else Result.FAILED
    done = replace(
        current,
        source=event.node,
        type=jobs.job_type_word(JobType.COMPLETED if succeeded else JobType.FAILED),
        started_timestamp_seconds=_first(current.started_timestamp_seconds, event.time - elapsed),
        updated_timestamp_seconds=event.time,
        **numbers,
    )
    return *ended, _ended(done, result, "" if succeeded else event.text, event.time)


def _iterated(current: VmMigration | None, event: VmEvent) -> Changes:
    """A new pass over the memory: the earliest sign on the source, but a save has passes too, so it begins nothing."""
    if current is None or not is_running(current) or current.source != event.node or relation_of(current, event, NAN) is not Relation.SAME:
        return ()
    return (replace(current, memory_iteration=max(current.memory_iteration, event.iteration)),)


def _gone(current: VmMigration | None, event: VmEvent) -> Changes:
    """A polled job is no more, and no event said how it ended."""
    if current is None or not is_running(current) or current.source != event.node or is_late(current, event):
        return ()
    if event.text in {Result.CANCELLED, Result.FAILED}:
        return (_ended(current, Result(event.text), "", event.time),)
    if not isnan(current.resumed_timestamp_seconds):
        return (_ended(current, Result.COMPLETED, UNTOLD, event.time),)
    if event.state in {-1, states.SHUT_OFF}:
        return (_ended(current, Result.UNKNOWN, UNTOLD, event.time),)
    return (_ended(current, Result.FAILED, UNTOLD, event.time),)


def _told(current: VmMigration | None, event: VmEvent) -> Changes:
    """QEMU's own status of its migration, at the source."""
    if current is None or current.source != event.node or not _open(current) or event.text not in {Result.CANCELLED, Result.FAILED}:
        return ()
    if relation_of(current, event, NAN) is not Relation.SAME and not is_running(current):
        return ()
    return (_ended(current, Result(event.text), "", event.time),)


# -- the life cycle of either side


def _lifecycle(current: VmMigration | None, event: VmEvent) -> Changes:
    handle = _TURNS.get((event.event, event.detail)) or (_stopped if event.event == Lifecycle.STOPPED else None)
    return handle(current, event) if handle else ()


def _suspended(current: VmMigration | None, event: VmEvent) -> Changes:
    """The source stops the VM for the switch-over."""
    if current is None or current.source != event.node or relation_of(current, event, NAN) is not Relation.SAME:
        return ()
    kind = POST_COPY if event.detail == jobs.SUSPENDED_POSTCOPY else current.kind
    return (replace(current, kind=kind, paused_timestamp_seconds=_first(current.paused_timestamp_seconds, event.time)),)


def _broken_off(current: VmMigration | None, event: VmEvent) -> Changes:
    """Post-copy has lost its connection: the VM is at neither end as a whole, until the migration is recovered and completes after all."""
    if current is None or not is_running(current) or is_late(current, event) or event.node not in {current.source, current.destination}:
        return ()
    return (_ended(replace(current, kind=POST_COPY), Result.FAILED, BROKEN_OFF, event.time),)


def _left(current: VmMigration | None, event: VmEvent) -> Changes:
    """The VM has left its source: completed, whatever else is missing."""
    relation = relation_of(current, event, NAN) if current else Relation.NEWER
    if relation is Relation.OLDER:
        return ()
    ended: Changes = ()
    if current is None or relation is Relation.NEWER:
        ended, current = _begun(current, event, source=event.node)
    if not _open(current):
        return ended
    return *ended, _ended(replace(current, source=event.node), Result.COMPLETED, "", event.time)


def _stopped(current: VmMigration | None, event: VmEvent) -> Changes:
    """The VM has stopped at one of the ends, but not because it was migrated."""
    if current is None or not is_running(current) or is_late(current, event):
        return ()
    handed_over = not isnan(current.resumed_timestamp_seconds)
    word = jobs.detail_word(event.event, event.detail)
    if event.node == current.source and not handed_over:
        return (_ended(current, Result.FAILED, f"the VM stopped at the source: {word}", event.time),)
    if event.node != current.destination:
        return ()
    reason = f"the VM stopped at the destination: {word}"
    if handed_over or current.source == "":
        return (_ended(current, Result.FAILED, reason, event.time),)
    # Whether it failed or was cancelled, the source will tell.
    return (replace(current, reason=reason),)


def _arrived(current: VmMigration | None, event: VmEvent) -> Changes:
    """The VM has been started at a destination, to wait there for its memory."""
    if is_late(current, event):
        return ()
    if current is not None and _awaits(current, event):
        return (replace(current, destination=event.node),)
    ended, fresh = _begun(current, event, destination=event.node)
    return *ended, fresh


def _awaits(current: VmMigration, event: VmEvent) -> bool:
    """Whether the known migration is one whose destination has not been heard of yet."""
    if current.source == event.node:
        return False
    if is_running(current):
        return current.destination == "" or (current.destination == event.node and not current.reason)
    apart = current.ended_timestamp_seconds - event.time
    if current.destination or current.source == "" or abs(apart) > SKEW_SECONDS:
        return False
    return current.result == Result.COMPLETED or apart >= 0


def _resumed(current: VmMigration | None, event: VmEvent) -> Changes:
    """The VM goes on: at the destination that is the hand-over, at the source the end of an attempt."""
    if is_late(current, event):
        return ()
    if current is not None and event.node == current.source:
        running = is_running(current) and event.detail == jobs.RESUMED_MIGRATED
        return (_ended(current, Result.FAILED, UNTOLD, event.time),) if running else ()
    if current is None or not (is_running(current) or _awaits(current, event) or current.destination == event.node):
        ended, current = _begun(current, event, destination=event.node)
    else:
        ended = ()
    kind = POST_COPY if event.detail == jobs.RESUMED_POSTCOPY else current.kind
    at = _first(current.resumed_timestamp_seconds, event.time)
    # That the job has ended only the source says; where it says nothing, the silence ends it, as completed.
    return *ended, replace(current, destination=event.node, kind=kind, resumed_timestamp_seconds=at)


def _found(current: VmMigration | None, event: VmEvent) -> Changes:
    """What a producer found when it started: it makes up for events that nobody heard."""
    if current is None or not is_running(current) or event.node == current.source or current.destination not in {"", event.node}:
        return ()
    arriving = event.state == states.PAUSED and event.reason in {states.PAUSED_MIGRATION, states.PAUSED_STARTING_UP}
    if arriving:
        return (replace(current, destination=event.node),)
    if event.state != states.RUNNING or event.reason != states.RUNNING_MIGRATED:
        return ()
    return (replace(current, destination=event.node, resumed_timestamp_seconds=_first(current.resumed_timestamp_seconds, event.time)),)


Handle = Callable[[VmMigration | None, VmEvent], Changes]

_TURNS: Final[dict[tuple[int, int], Handle]] = {
    (Lifecycle.STARTED, jobs.STARTED_MIGRATED): _arrived,
    (Lifecycle.SUSPENDED, jobs.SUSPENDED_MIGRATED): _suspended,
    (Lifecycle.SUSPENDED, jobs.SUSPENDED_POSTCOPY): _suspended,
    (Lifecycle.SUSPENDED, jobs.SUSPENDED_POSTCOPY_FAILED): _broken_off,
    (Lifecycle.RESUMED, jobs.RESUMED_MIGRATED): _resumed,
    (Lifecycle.RESUMED, jobs.RESUMED_POSTCOPY): _resumed,
    (Lifecycle.RESUMED, jobs.RESUMED_POSTCOPY_FAILED): _broken_off,
    (Lifecycle.STOPPED, jobs.STOPPED_MIGRATED): _left,
}
"""Life-cycle events, with their details, that a migration is made of; any other stop is the VM's own."""

_HANDLERS: Final[dict[str, Handle]] = {
    Kind.LIFECYCLE: _lifecycle,
    Kind.ITERATION: _iterated,
    Kind.COMPLETED: _completed,
    Kind.JOB: _polled,
    Kind.JOB_GONE: _gone,
    Kind.STATE: _found,
    Kind.STATUS: _told,
}
