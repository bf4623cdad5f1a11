"""Lifecycle events of both ends of a migration: suspended, started, resumed, stopped, and states that a producer finds. Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Final

from msgspec.structs import replace

from virtflow.processors.migrations.identity import POST_COPY_FAILED, Relation, is_late, is_running, relation_of
from virtflow.processors.migrations.transitions import (
    END_NOT_REPORTED,
    POST_COPY,
    Changes,
    end_migration,
    first_known,
    migration_of,
    result_may_change,
    start_migration,
)
from virtflow.schemas import jobs, states
from virtflow.schemas.jobs import Lifecycle, Result
from virtflow.schemas.records import NAN, VmEvent, VmMigration

SKEW_SECONDS: Final = 7_200.0
"""How far two hosts' clocks may differ for an incoming VM to be joined to a migration that has already ended."""


def lifecycle(current: VmMigration | None, event: VmEvent) -> Changes:
    """A lifecycle event of either end."""
    handle = _TRANSITIONS.get((event.event, event.detail)) or (_stopped if event.event == Lifecycle.STOPPED else None)
    return handle(current, event) if handle else ()


def _suspended(current: VmMigration | None, event: VmEvent) -> Changes:
    """The source pauses the VM for the switch-over."""
    if current is None or current.source != event.node or relation_of(current, event, NAN) is not Relation.SAME:
        return ()
    kind = POST_COPY if event.detail == jobs.SUSPENDED_POSTCOPY else current.kind
    return (replace(current, kind=kind, paused_timestamp_seconds=first_known(current.paused_timestamp_seconds, event.time)),)


def _post_copy_failed(current: VmMigration | None, event: VmEvent) -> Changes:
    """Post-copy lost its connection: neither end has the whole VM until the migration is recovered."""
    if current is None or not is_running(current) or is_late(current, event) or event.node not in {current.source, current.destination}:
        return ()
    return (end_migration(replace(current, kind=POST_COPY), Result.FAILED, POST_COPY_FAILED, event.time),)


def _left_source(current: VmMigration | None, event: VmEvent) -> Changes:
    """The VM has left its source: completed, whatever other event is missing."""
    about = migration_of(current, event)
    if about is None:
        return ()
    over, current = about
    if not result_may_change(current):
        return over
    return *over, end_migration(replace(current, source=event.node), Result.COMPLETED, "", event.time)


def _stopped(current: VmMigration | None, event: VmEvent) -> Changes:
    """The VM stopped at one of the ends, but not because it was migrated."""
    if current is None or not is_running(current) or is_late(current, event):
        return ()
    handed_over = not isnan(current.resumed_timestamp_seconds)
    word = jobs.detail_word(event.event, event.detail)
    if event.node == current.source and not handed_over:
        return (end_migration(current, Result.FAILED, f"the VM stopped at the source: {word}", event.time),)
    if event.node != current.destination:
        return ()
    reason = f"the VM stopped at the destination: {word}"
    if handed_over or current.source == "":
        return (end_migration(current, Result.FAILED, reason, event.time),)
    # The source reports whether it failed or was cancelled.
    return (replace(current, reason=reason),)


def _incoming(current: VmMigration | None, event: VmEvent) -> Changes:
    """The VM was started at a destination, where it waits for its memory."""
    if is_late(current, event):
        return ()
    if current is not None and _awaits_destination(current, event):
        return (replace(current, destination=event.node),)
    over, fresh = start_migration(current, event, destination=event.node)
    return *over, fresh


def _awaits_destination(current: VmMigration, event: VmEvent) -> bool:
    """Whether the destination of the known migration is not known yet."""
    if current.source == event.node:
        return False
    if is_running(current):
        return current.destination == "" or (current.destination == event.node and not current.reason)
    apart = current.ended_timestamp_seconds - event.time
    if current.destination or current.source == "" or abs(apart) > SKEW_SECONDS:
        return False
    return current.result == Result.COMPLETED or apart >= 0


def _resumed(current: VmMigration | None, event: VmEvent) -> Changes:
    """The VM was resumed: at the destination that is the hand-over, at the source the end of a failed attempt."""
    if is_late(current, event):
        return ()
    if current is not None and event.node == current.source:
        running = is_running(current) and event.detail == jobs.RESUMED_MIGRATED
        return (end_migration(current, Result.INCOMPLETE, END_NOT_REPORTED, event.time),) if running else ()
    if current is None or not (is_running(current) or _awaits_destination(current, event) or current.destination == event.node):
        over, current = start_migration(current, event, destination=event.node)
    else:
        over = ()
    kind = POST_COPY if event.detail == jobs.RESUMED_POSTCOPY else current.kind
    at = first_known(current.resumed_timestamp_seconds, event.time)
    # Only the source reports job completion. If it stays silent, the timeout marks the migration completed.
    return *over, replace(current, destination=event.node, kind=kind, resumed_timestamp_seconds=at)


def state_found(current: VmMigration | None, event: VmEvent) -> Changes:
    """A state that a producer found when it connected: it replaces events that were missed."""
    if current is None or not is_running(current):
        return ()
    if event.node == current.source:
        return _found_at_source(current, event)
    if current.destination not in {"", event.node}:
        return ()
    incoming = event.state == states.PAUSED and event.reason in {states.PAUSED_MIGRATION, states.PAUSED_STARTING_UP}
    if incoming:
        return (replace(current, destination=event.node),)
    if event.state != states.RUNNING or event.reason != states.RUNNING_MIGRATED:
        return ()
    return (replace(current, destination=event.node, resumed_timestamp_seconds=first_known(current.resumed_timestamp_seconds, event.time)),)


def _found_at_source(current: VmMigration, event: VmEvent) -> Changes:
    left = (event.state, event.reason) == (states.SHUT_OFF, states.SHUT_OFF_MIGRATED)
    if not left or relation_of(current, event, NAN) is not Relation.SAME:
        return ()
    return (end_migration(current, Result.COMPLETED, "", event.time),)


Handle = Callable[[VmMigration | None, VmEvent], Changes]

_TRANSITIONS: Final[dict[tuple[int, int], Handle]] = {
    (Lifecycle.STARTED, jobs.STARTED_MIGRATED): _incoming,
    (Lifecycle.SUSPENDED, jobs.SUSPENDED_MIGRATED): _suspended,
    (Lifecycle.SUSPENDED, jobs.SUSPENDED_POSTCOPY): _suspended,
    (Lifecycle.SUSPENDED, jobs.SUSPENDED_POSTCOPY_FAILED): _post_copy_failed,
    (Lifecycle.RESUMED, jobs.RESUMED_MIGRATED): _resumed,
    (Lifecycle.RESUMED, jobs.RESUMED_POSTCOPY): _resumed,
    (Lifecycle.RESUMED, jobs.RESUMED_POSTCOPY_FAILED): _post_copy_failed,
    (Lifecycle.STOPPED, jobs.STOPPED_MIGRATED): _left_source,
}
"""Handlers by lifecycle event and detail; any other stop has nothing to do with a migration."""
