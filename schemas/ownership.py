"""Which node speaks for a VM: one rule, used wherever two nodes report the same UUID.

A VM that migrates is known to both hosts for a while: the destination lists it as paused while it arrives. The newest migration
known decides: until the hand-over its source speaks, afterwards its destination. Where no migration is known, or the node it
names does not have the VM any more, the node where it runs speaks; between equals the newer collection does.

Two nodes that both say it runs are normal for the moment of a hand-over, since each tells what it last saw. When it lasts, it is
a conflict: two hosts run one VM, or one of them reports what is not true.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from virtflow.schemas import states
from virtflow.schemas.records import NAN, VmMigration

HANDOVER_INTERVALS: Final = 2.0
"""For how many sampling intervals two nodes may claim a running VM before it is a conflict."""

_RUNNING = frozenset({states.RUNNING, states.BLOCKED, states.SHUTTING_DOWN})
_GONE = frozenset({states.NO_STATE, states.SHUT_OFF, states.CRASHED})
_INCOMING = frozenset({states.PAUSED_MIGRATION, states.PAUSED_STARTING_UP})


class Claim(Struct, frozen=True, gc=False):
    """What one node says of a VM: its state and reason, when that was collected (Unix seconds of that node's clock), and how often.

    ``arrived`` is when whoever watches heard it, on the watcher's clock; NaN says that it is always heard anew.
    """

    node: str
    state: int
    collected: float
    reason: int = -1
    interval: float = NAN
    arrived: float = NAN


class Contest(Struct, frozen=True, gc=False):
    """Since when (seconds of whoever watches) two nodes have claimed to run a VM without a break; NaN when they do not.

    ``stage`` is the migration, and how far it was, that the claims were made under.
    """

    since: float = NAN
    stage: str = ""


def speaks(current: Claim, other: Claim, migration: VmMigration | None = None) -> Claim:
    """The claim that counts of two nodes' newest ones."""
    return speaker((current, other), migration)


def speaker(claims: Iterable[Claim], migration: VmMigration | None = None) -> Claim:
    """The claim that counts of all nodes' newest ones, of which there is at least one.

    The node that ``migration`` names; then running before paused before arriving or gone; then the newer collection; then, so
    that everyone decides alike, the node's name.
    """
    known = tuple(claims)
    named = _named(known, migration)
    return max(known, key=lambda claim: (claim.node == named, *_weight(claim)))


def _named(claims: tuple[Claim, ...], migration: VmMigration | None) -> str:
    """The node that the newest migration says has the VM; "" where it says nothing that still holds."""
    if migration is None or migration.result == "unknown":
        return ""
    ends = {claim.node: claim for claim in claims if claim.state not in _GONE}
    source, destination = ends.get(migration.source), ends.get(migration.destination)
    if handed_over(migration):
        return migration.destination if destination else ""
    if source is None:
        return ""
    if destination and runs(destination) and not runs(source):
        # The samples are ahead of the events: a destination runs only once the source has let go.
        return migration.destination
    return migration.source


def handed_over(migration: VmMigration) -> bool:
    """Whether the VM is the destination's."""
    if migration.result == "running":
        return not math.isnan(migration.resumed_timestamp_seconds)
    return migration.result == "completed"


def floors(known: Mapping[str, float], migration: VmMigration) -> dict[str, float]:
    """From when on (each node's own clock) a node's claims are current, once ``migration`` is known.

    After a hand-over what the source collected before it stopped, and what the destination collected before it went on, is of
    processes that are over: it stays known for a while, but must not speak again.
    """
    if not handed_over(migration):
        return dict(known)
    paused, ended = migration.paused_timestamp_seconds, migration.ended_timestamp_seconds
    over = {migration.source: ended if math.isnan(paused) else paused, migration.destination: migration.resumed_timestamp_seconds}
    ends = {node: known.get(node, -math.inf) if math.isnan(at) else at for node, at in over.items() if node}
    return {**known, **ends}


def current(claims: Sequence[Claim], known: Mapping[str, float], since: float = -math.inf) -> Sequence[Claim]:
    """The claims that are current.

    ``since`` is when (on the watcher's clock) the newest word of a hand-over arrived: a node that is neither of its ends, of which a
    watcher that has just started knows no floor, had the VM on an earlier trip; its claims from before are over as well. When none
    is current, the one that was made last before its node's process was over: it is shown until something newer comes.
    """

    def beyond(claim: Claim) -> float:
        if claim.node in known:
            return claim.collected - known[claim.node]
        return math.inf if math.isnan(claim.arrived) else claim.arrived - since

    return [claim for claim in claims if not beyond(claim) < 0] or [max(claims, key=beyond)]


def arrives(claim: Claim, migration: VmMigration | None) -> bool:
    """Whether the claim is of a VM that only waits at a destination for its memory: no sample of the VM, which is elsewhere.

    The source of a running migration stops the VM for the same reason, so it is told apart by the migration.
    """
    if claim.state != states.PAUSED or claim.reason not in _INCOMING:
        return False
    leaves = migration is not None and migration.source == claim.node and not handed_over(migration)
    return claim.reason == states.PAUSED_STARTING_UP or not leaves


def runs(claim: Claim) -> bool:
    """Whether the node says that the VM runs there."""
    return claim.state in _RUNNING


def contest(before: Contest, claims: Iterable[Claim], now: float, migration: VmMigration | None = None) -> Contest:
    """How long two nodes have claimed the running VM: to be asked whenever a claim changes or goes. ``now`` is the watcher's clock.

    A hand-over begins it anew: a VM that goes there and back quickly is claimed by both ends in turn.
    """
    if sum(map(runs, claims)) < 2:  # noqa: PLR2004, two make a contest
        return Contest()
    stage = f"{migration.id} {handed_over(migration)}" if migration else ""
    return Contest(now, stage) if math.isnan(before.since) or before.stage != stage else before


def conflict(contested: Contest, claims: Iterable[Claim], now: float) -> bool:
    """Whether the contest has lasted for longer than a hand-over takes with these claims' intervals.

    Only claims that were made again since count: a node that let the VM go says nothing of it any more, and what it said last
    stays until it expires.
    """
    known = tuple(claims)
    longest = max((claim.interval for claim in known if not math.isnan(claim.interval)), default=0.0)
    if not now - contested.since > HANDOVER_INTERVALS * longest:
        return False
    return sum(runs(claim) and not claim.arrived <= contested.since + longest for claim in known) > 1


def _weight(claim: Claim) -> tuple[int, float, str]:
    if runs(claim):
        rank = 2
    elif claim.state in _GONE or (claim.state == states.PAUSED and claim.reason in _INCOMING):
        rank = 0
    else:
        rank = 1
    return rank, claim.collected, claim.node
