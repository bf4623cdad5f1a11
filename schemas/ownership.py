"""Which node is authoritative for a VM: one rule, used wherever two nodes report the same UUID.

During a live migration both hosts report the VM: the destination lists it as paused while its memory arrives, and a source that
keeps the definition lists it as shut off afterwards. The newest known migration decides: its source is authoritative until the
hand-over, its destination from then on. Without a migration, or when the node that it names no longer has the VM, the node where
the VM runs is authoritative; between equals the newer sample wins.

Some reports are no sample of the VM at all, because its process is elsewhere: an incoming VM (``is_incoming``) and a VM that has
left (``has_left``). They never become the authoritative one as long as the VM itself was reported.

Two nodes that both report a running VM are normal during a hand-over, because each reports what it saw last. When it lasts, it is a
split-brain: two hosts run one VM, or one of them reports something that is not true.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from virtflow.schemas import states
from virtflow.schemas.jobs import Result
from virtflow.schemas.records import NAN, VmMigration

HANDOVER_INTERVALS: Final = 2.0
"""For how many sampling intervals two nodes may report a running VM before it is a split-brain."""

POST_COPY: Final = "post_copy"
LEFT_STATES: Final = (
    (states.SHUT_OFF, states.SHUT_OFF_MIGRATED),
    (states.PAUSED, states.PAUSED_POSTCOPY),
)
"""States, each with its reason, in which only the source of a migration that was handed over reports a VM."""

_RUNNING = frozenset({states.RUNNING, states.BLOCKED, states.SHUTTING_DOWN})
_GONE = frozenset({states.NO_STATE, states.SHUT_OFF, states.CRASHED})
_INCOMING = frozenset({states.PAUSED_MIGRATION, states.PAUSED_STARTING_UP})
_LEFT_REASONS = {
    True: frozenset({states.SHUT_OFF_UNKNOWN}),
    False: frozenset({states.SHUT_OFF_UNKNOWN, states.SHUT_OFF_CRASHED, states.SHUT_OFF_FAILED}),
}
"""Reasons of a shut-off definition that need not mean that the VM ended, by whether the migration was handed over: libvirtd forgets the
reason when it restarts, and a destination reports crashed when the migration is cancelled or fails (measured on libvirt 9.0)."""


class Report(Struct, frozen=True, gc=False):
    """What one node says about a VM: its state and reason, the time of collection (Unix seconds of that node's clock), the interval.

    ``arrived`` is the time of arrival on the observer's clock; NaN means that the report is always considered fresh.
    """

    node: str
    state: int
    collected: float
    reason: int = -1
    interval: float = NAN
    arrived: float = NAN


class SplitBrain(Struct, frozen=True, gc=False):
    """Since when (seconds of the observer's clock) two nodes have reported a running VM without a break; NaN when they do not.

    ``stage`` names the migration, and whether it was handed over, at the time of the reports.
    """

    since: float = NAN
    stage: str = ""


def authoritative(reports: Iterable[Report], migration: VmMigration | None = None) -> Report:
    """The report that counts among the newest one of each node; there is at least one.

    The node that ``migration`` names; then running before paused before incoming before shut off before left; then the newer
    collection; then the node's name, so that every observer decides alike.
    """
    known = tuple(reports)
    named = _named(known, migration)
    return max(known, key=lambda report: (report.node == named, *_rank(report, migration)))


def _named(reports: tuple[Report, ...], migration: VmMigration | None) -> str:
    """The node that the newest migration names as the VM's; "" when it names none, or one that no longer has the VM."""
    if migration is None or migration.result == Result.UNKNOWN:
        return ""
    ends = {report.node: report for report in reports if report.state not in _GONE and not has_left(report, migration)}
    source, destination = ends.get(migration.source), ends.get(migration.destination)
    if handed_over(migration):
        return migration.destination if destination else ""
    if source is None:
        return ""
    if destination and is_running(destination) and migration.result == Result.RUNNING:
        # The samples are ahead of the events: a destination runs only after its source has stopped. What the source reported before
        # that may arrive later, so of two that run the newer one counts.
        return "" if is_running(source) else migration.destination
    return migration.source


def handed_over(migration: VmMigration) -> bool:
    """Whether the VM belongs to the destination. A post-copy migration that fails after the hand-over leaves it there."""
    if migration.result == Result.COMPLETED:
        return True
    resumed = not math.isnan(migration.resumed_timestamp_seconds)
    return resumed and (migration.result == Result.RUNNING or migration.kind == POST_COPY)


def not_before(known: Mapping[str, float], migration: VmMigration) -> dict[str, float]:
    """From when on (each node's own clock) reports are current, once ``migration`` is known.

    After a hand-over, samples that the source collected before it stopped, and samples that the destination collected before it
    resumed, belong to processes that have ended. They may still be exported for a while, but never again after newer ones.
    """
    if not handed_over(migration):
        return dict(known)
    paused, ended = migration.paused_timestamp_seconds, migration.ended_timestamp_seconds
    over = {migration.source: ended if math.isnan(paused) else paused, migration.destination: migration.resumed_timestamp_seconds}
    ends = {node: known.get(node, -math.inf) if math.isnan(at) else at for node, at in over.items() if node}
    return {**known, **ends}


def current_reports(
    reports: Sequence[Report],
    known: Mapping[str, float],
    migration: VmMigration | None = None,
    since: float = -math.inf,
    exported: str = "",
) -> Sequence[Report]:
    """The reports that are current: samples of the VM's process, collected not before ``known``.

    ``since`` is when (on the observer's clock) the newest hand-over became known. A node that is neither end of it, and of which an
    observer that has just started has no entry in ``known``, had the VM on an earlier hop; its reports from before are over as well.
    When no report is current, that of the source stays until a newer one comes where it is ``exported``; else the one that was collected
    last before the end of its process is exported.
    """

    def beyond(report: Report) -> float:
        if report.node in known:
            return report.collected - known[report.node]
        return math.inf if math.isnan(report.arrived) else report.arrived - since

    samples = [report for report in reports if not is_incoming(report, migration) and not has_left(report, migration)] or reports
    # As long as the destination has not told when it resumed the VM, the end of an earlier stay there is the newest that is known of it. What
    # was collected shortly before that may be closer to it than the source's last report is to the end of its own stay.
    stays = exported if migration is not None and exported == migration.source else None
    return [report for report in samples if not beyond(report) < 0] or [max(samples, key=lambda one: (one.node == stays, beyond(one)))]


def is_incoming(report: Report, migration: VmMigration | None) -> bool:
    """Whether the VM only waits at a destination for its memory: no sample of the VM, whose process is elsewhere.

    The source of a running migration pauses the VM for the same reason; the migration tells the two apart.
    """
    if report.state != states.PAUSED or report.reason not in _INCOMING:
        return False
    leaves = migration is not None and migration.source == report.node and not handed_over(migration)
    return report.reason == states.PAUSED_STARTING_UP or not leaves


def has_left(report: Report, migration: VmMigration | None, *, ran_since: bool = False) -> bool:
    """Whether the node reports only what a migration left behind: no sample of the VM, whose process is elsewhere.

    That is a source whose VM is shut off (migrated) or paused (postcopy), whatever is known of the migration. It is also a definition at
    the end of the newest migration that does not have the VM, when the reason does not tell that a process ended there; ``ran_since``
    says that one did run there after that migration. A VM that was shut down, destroyed or saved has not left.
    """
    if (report.state, report.reason) in LEFT_STATES:
        return True
    if migration is None or migration.result == Result.UNKNOWN or report.state != states.SHUT_OFF or ran_since:
        return False
    over = handed_over(migration)
    return report.node == (migration.source if over else migration.destination) and report.reason in _LEFT_REASONS[over]


def is_running(report: Report) -> bool:
    """Whether the node reports that the VM runs there."""
    return report.state in _RUNNING


def track_split_brain(before: SplitBrain, reports: Iterable[Report], now: float, migration: VmMigration | None = None) -> SplitBrain:
    """Since when two nodes have reported the running VM; call it whenever a report changes or expires. ``now``: the observer's clock.

    A hand-over restarts it: both ends of a VM that goes there and back quickly report it in turn.
    """
    if sum(map(is_running, reports)) < 2:  # noqa: PLR2004, a split-brain has two sides
        return SplitBrain()
    stage = f"{migration.id} {handed_over(migration)}" if migration else ""
    return SplitBrain(now, stage) if math.isnan(before.since) or before.stage != stage else before


def is_split_brain(tracked: SplitBrain, reports: Iterable[Report], now: float) -> bool:
    """Whether it has lasted for longer than a hand-over takes with the intervals of these reports.

    Only reports that were repeated since count: a node that has let the VM go no longer reports it, and its last report stays until
    it expires.
    """
    known = tuple(reports)
    longest = max((report.interval for report in known if not math.isnan(report.interval)), default=0.0)
    if not now - tracked.since > HANDOVER_INTERVALS * longest:
        return False
    return sum(is_running(report) and not report.arrived <= tracked.since + longest for report in known) > 1


def _rank(report: Report, migration: VmMigration | None) -> tuple[int, float, str]:
    if is_running(report):
        rank = 4
    elif has_left(report, migration):
        rank = 0
    elif report.state in _GONE:
        rank = 1
    elif report.state == states.PAUSED and report.reason in _INCOMING:
        rank = 2
    else:
        rank = 3
    return rank, report.collected, report.node
