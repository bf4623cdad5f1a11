"""The life cycle of a migration's two ends: stopped, arrived, gone on, and what a producer found when it started. Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Final

from msgspec.structs import replace

from virtflow.processors.migrations.identity import BROKEN_OFF, Relation, is_late, is_running, relation_of
from virtflow.processors.migrations.transitions import POST_COPY, UNTOLD, Changes, begun, ended, first, may_change, meant
from virtflow.schemas import jobs, states
from virtflow.schemas.jobs import Lifecycle, Result
from virtflow.schemas.records import NAN, VmEvent, VmMigration

SKEW_SECONDS: Final = 7_200.0
"""How far two hosts' clocks may be apart for an arrival to be joined to a migration that has ended already."""


def lifecycle(current: VmMigration | None, event: VmEvent) -> Changes:
    """A life-cycle event of either side."""
    handle = _TURNS.get((event.event, event.detail)) or (_stopped if event.event == Lifecycle.STOPPED else None)
    return handle(current, event) if handle else ()


def _suspended(current: VmMigration | None, event: VmEvent) -> Changes:
    """The source stops the VM for the switch-over."""
    if current is None or current.source != event.node or relation_of(current, event, NAN) is not Relation.SAME:
        return ()
    kind = POST_COPY if event.detail == jobs.SUSPENDED_POSTCOPY else current.kind
    return (replace(current, kind=kind, paused_timestamp_seconds=first(current.paused_timestamp_seconds, event.time)),)


def _broken_off(current: VmMigration | None, event: VmEvent) -> Changes:
    """Post-copy has lost its connection: the VM is at neither end as a whole, until the migration is recovered and completes after all."""
    if current is None or not is_running(current) or is_late(current, event) or event.node not in {current.source, current.destination}:
        return ()
    return (ended(replace(current, kind=POST_COPY), Result.FAILED, BROKEN_OFF, event.time),)


def _left(current: VmMigration | None, event: VmEvent) -> Changes:
    """The VM has left its source: completed, whatever else is missing."""
    about = meant(current, event)
    if about is None:
        return ()
    over, current = about
    if not may_change(current):
        return over
    return *over, ended(replace(current, source=event.node), Result.COMPLETED, "", event.time)


def _stopped(current: VmMigration | None, event: VmEvent) -> Changes:
    """The VM has stopped at one of the ends, but not because it was migrated."""
    if current is None or not is_running(current) or is_late(current, event):
        return ()
    handed_over = not isnan(current.resumed_timestamp_seconds)
    word = jobs.detail_word(event.event, event.detail)
    if event.node == current.source and not handed_over:
        return (ended(current, Result.FAILED, f"the VM stopped at the source: {word}", event.time),)
    if event.node != current.destination:
        return ()
    reason = f"the VM stopped at the destination: {word}"
    if handed_over or current.source == "":
        return (ended(current, Result.FAILED, reason, event.time),)
    # Whether it failed or was cancelled, the source will tell.
    return (replace(current, reason=reason),)


def _arrived(current: VmMigration | None, event: VmEvent) -> Changes:
    """The VM has been started at a destination, to wait there for its memory."""
    if is_late(current, event):
        return ()
    if current is not None and _awaits(current, event):
        return (replace(current, destination=event.node),)
    over, fresh = begun(current, event, destination=event.node)
    return *over, fresh


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
        return (ended(current, Result.INCOMPLETE, UNTOLD, event.time),) if running else ()
    if current is None or not (is_running(current) or _awaits(current, event) or current.destination == event.node):
        over, current = begun(current, event, destination=event.node)
    else:
        over = ()
    kind = POST_COPY if event.detail == jobs.RESUMED_POSTCOPY else current.kind
    at = first(current.resumed_timestamp_seconds, event.time)
    # That the job has ended only the source says; where it says nothing, the silence ends it, as completed.
    return *over, replace(current, destination=event.node, kind=kind, resumed_timestamp_seconds=at)


def found_in_transit(current: VmMigration | None, event: VmEvent) -> Changes:
    """What a producer found when it started: it makes up for events that nobody heard."""
    if current is None or not is_running(current) or event.node == current.source or current.destination not in {"", event.node}:
        return ()
    arriving = event.state == states.PAUSED and event.reason in {states.PAUSED_MIGRATION, states.PAUSED_STARTING_UP}
    if arriving:
        return (replace(current, destination=event.node),)
    if event.state != states.RUNNING or event.reason != states.RUNNING_MIGRATED:
        return ()
    return (replace(current, destination=event.node, resumed_timestamp_seconds=first(current.resumed_timestamp_seconds, event.time)),)


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
