"""Whether an event belongs to the known migration. Pure; two hosts' clocks are compared only where nothing else decides."""

from __future__ import annotations

from enum import Enum, auto
from math import isnan
from typing import Final

from virtflow.schemas.jobs import Result
from virtflow.schemas.records import EventPosition, VmEvent, VmMigration

RESTART_SECONDS: Final = 0.5
"""A job whose elapsed time is lower than the known one by more than this is another job."""
LONGER_SECONDS: Final = 10.0
"""A job that started this much later than the known one is another job. A clock that is set by more splits the migration in two."""
POST_COPY_FAILED: Final = "post-copy failed: the VM is paused until the migration is recovered"
"""The reason of a failed post-copy migration that may still be recovered."""


class Relation(Enum):
    """How an event of a source relates to the known migration."""

    SAME = auto()
    NEWER = auto()
    OLDER = auto()


def position_of(current: VmMigration, node: str) -> EventPosition | None:
    """The newest event of a node that changed this migration or an earlier one of the VM."""
    return next((one for one in current.seen if one.node == node), None)


def is_late(current: VmMigration | None, event: VmEvent) -> bool:
    """Whether this event, or a later one of the same run of the node's producer, was applied already."""
    seen = position_of(current, event.node) if current else None
    return seen is not None and seen.boot_id == event.boot_id and event.sequence <= seen.sequence


def is_running(current: VmMigration | None) -> bool:
    """Whether a migration is known and has not ended."""
    return current is not None and current.result == Result.RUNNING


def relation_of(current: VmMigration, event: VmEvent, elapsed: float) -> Relation:
    """Whether an event of a source belongs to the known migration; ``elapsed`` is the job's elapsed time, NaN when not reported."""
    began = event.time - (0.0 if isnan(elapsed) else elapsed)
    later = not is_late(current, event)
    if is_running(current):
        return _relation_to_running(current, event, elapsed) if later else _relation_of_late(current, event)
    if current.source not in {"", event.node}:
        newer = later and (isnan(current.started_timestamp_seconds) or event.time > current.started_timestamp_seconds)
        return Relation.NEWER if newer else Relation.OLDER
    if current.source == "" and event.node == current.destination:
        return Relation.NEWER if later else Relation.OLDER
    if later and began > current.ended_timestamp_seconds and current.reason != POST_COPY_FAILED:
        return Relation.NEWER
    return _relation_of_late(current, event)


def _relation_to_running(current: VmMigration, event: VmEvent, elapsed: float) -> Relation:
    if current.source == "":
        # The destination was seen first: any other node that reports a migration is its source.
        return Relation.NEWER if event.node == current.destination else Relation.SAME
    started = current.started_timestamp_seconds
    if current.source != event.node:
        return Relation.NEWER if isnan(started) or event.time > started else Relation.OLDER
    if elapsed + RESTART_SECONDS < current.elapsed_seconds or event.time - elapsed > started + LONGER_SECONDS:
        return Relation.NEWER
    return Relation.SAME


def _relation_of_late(current: VmMigration, event: VmEvent) -> Relation:
    """A late event still belongs to the migration during which it happened."""
    started = current.started_timestamp_seconds
    within = current.source in {"", event.node} and (isnan(started) or event.time >= started)
    return Relation.SAME if within else Relation.OLDER
