"""Which of a node's messages is newer: by (boot id, sequence, part), never by a clock.

A boot id is random for each run of a producer, so two of them can't be compared: the one that was seen last is current, and
those seen before it are remembered, so that a late message of an earlier run is known for what it is. An earlier run that goes on
while the current one is silent has outlived it, as when an update was taken back: it is current again after ``RETURNS`` rounds.
"""

from __future__ import annotations

from enum import Enum, auto

from msgspec import Struct

INTERVALS_ALIVE = 3
"""A sample counts for so many of its own intervals: then its VM's series vanish, and a node that sends nothing is silent."""
REMEMBERED_BOOTS = 8
RETURNS = 3
"""Rounds in a row of an earlier run, each beyond all that was seen of it, with which it is current again: one or two may have been late."""


class Freshness(Enum):
    """What a message is to the one who keeps the order."""

    NEW = auto()
    DUPLICATE = auto()
    STALE = auto()


class Position(Struct, frozen=True, gc=False):
    """Where a message stands in its node's order."""

    boot_id: str
    sequence: int
    part: int = 0


class Seen(Struct, frozen=True, gc=False):
    """The newest position of a node, and that of each run before its current one, newest run first.

    ``returning`` is the newest position of the earlier run that was heard since, in ``returns`` rounds.
    """

    newest: Position
    earlier: tuple[Position, ...] = ()
    returning: Position | None = None
    returns: int = 0


def freshness(seen: Seen | None, position: Position) -> Freshness:
    """Whether ``position`` is newer than all that was seen, the newest itself, or older."""
    if seen is None:
        return Freshness.NEW
    newest = seen.newest
    if position.boot_id != newest.boot_id:
        before = _last_of(seen, position.boot_id)
        return Freshness.NEW if before is None or _returns(seen, before, position) >= RETURNS else Freshness.STALE
    here, there = (position.sequence, position.part), (newest.sequence, newest.part)
    if here == there:
        return Freshness.DUPLICATE
    return Freshness.NEW if here > there else Freshness.STALE


def advance(seen: Seen | None, position: Position) -> Seen:
    """What is seen once a new ``position`` has been taken; the caller has asked ``freshness`` before."""
    if seen is None:
        return Seen(position)
    if position.boot_id == seen.newest.boot_id:
        return Seen(position, seen.earlier)
    others = [before for before in seen.earlier if before.boot_id != position.boot_id]
    return Seen(position, (seen.newest, *others)[:REMEMBERED_BOOTS])


def heard(seen: Seen, position: Position) -> Seen:
    """What is seen once a stale ``position`` has come: it may show that an earlier run goes on."""
    before = _last_of(seen, position.boot_id)
    if before is None or not (returns := _returns(seen, before, position)):
        return seen
    if (known := seen.returning) is not None and known.boot_id == position.boot_id and known.sequence >= position.sequence:
        return seen
    return Seen(seen.newest, seen.earlier, position, returns)


def _last_of(seen: Seen, boot_id: str) -> Position | None:
    """The newest position of an earlier run; None where it is not known."""
    return next((before for before in seen.earlier if before.boot_id == boot_id), None)


def _returns(seen: Seen, before: Position, position: Position) -> int:
    """In how many rounds in a row an earlier run has gone on, ``position`` included; 0 where that was seen already.

    ``before`` is the newest that was seen of the run while it was current.
    """
    if position.sequence <= before.sequence:
        return 0
    returning = seen.returning
    if returning is None or returning.boot_id != position.boot_id:
        return 1
    return seen.returns + (position.sequence > returning.sequence)
