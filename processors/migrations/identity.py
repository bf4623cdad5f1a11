"""Whether an event is about the migration that is known: pure, and without comparing two hosts' clocks where anything else tells."""

from __future__ import annotations

from enum import Enum, auto
from math import isnan
from typing import Final

from virtflow.schemas.jobs import Result
from virtflow.schemas.records import EventPosition, VmEvent, VmMigration

RESTART_SECONDS: Final = 0.5
"""A job that has run for so much less than the known one is another."""
LONGER_SECONDS: Final = 10.0
"""A job that began so much later than the known one is another: a clock that is set moves less, or it splits the migration."""
BROKEN_OFF: Final = "post-copy broke off: the VM stands still until the migration is recovered"
"""The reason of a post-copy migration that may yet be recovered."""


class Relation(Enum):
    """What an event of a source is to the known migration."""

    SAME = auto()
    NEWER = auto()
    OLDER = auto()


def position_of(current: VmMigration, node: str) -> EventPosition | None:
    """The newest event of a node that changed the migration or one before it."""
    return next((one for one in current.seen if one.node == node), None)


def is_late(current: VmMigration | None, event: VmEvent) -> bool:
    """Whether a later event of the same run of the node's producer was taken already, or this one."""
    seen = position_of(current, event.node) if current else None
    return seen is not None and seen.boot_id == event.boot_id and event.sequence <= seen.sequence


def is_running(current: VmMigration | None) -> bool:
    """Whether a migration is known and has not ended."""
    return current is not None and current.result == Result.RUNNING


def relation_of(current: VmMigration, event: VmEvent, elapsed: float) -> Relation:
    """Whether an event of a source is about the known migration; ``elapsed`` is its job's, NaN where it does not say."""
    began = event.time - (0.0 if isnan(elapsed) else elapsed)
    later = not is_late(current, event)
    if is_running(current):
        return _to_running(current, event, elapsed) if later else _late(current, event)
    if current.source not in {"", event.node}:
        newer = later and (isnan(current.started_timestamp_seconds) or event.time > current.started_timestamp_seconds)
        return Relation.NEWER if newer else Relation.OLDER
    if current.source == "" and event.node == current.destination:
        return Relation.NEWER if later else Relation.OLDER
    if later and began > current.ended_timestamp_seconds and current.reason != BROKEN_OFF:
        return Relation.NEWER
    return _late(current, event)


def _to_running(current: VmMigration, event: VmEvent, elapsed: float) -> Relation:
    if current.source == "":
        # The destination was seen first: whoever else speaks of a migration is its source.
        return Relation.NEWER if event.node == current.destination else Relation.SAME
    started = current.started_timestamp_seconds
    if current.source != event.node:
        return Relation.NEWER if isnan(started) or event.time > started else Relation.OLDER
    if elapsed + RESTART_SECONDS < current.elapsed_seconds or event.time - elapsed > started + LONGER_SECONDS:
        return Relation.NEWER
    return Relation.SAME


def _late(current: VmMigration, event: VmEvent) -> Relation:
    """A late event still counts for the migration that it falls into."""
    started = current.started_timestamp_seconds
    within = current.source in {"", event.node} and (isnan(started) or event.time >= started)
    return Relation.SAME if within else Relation.OLDER
