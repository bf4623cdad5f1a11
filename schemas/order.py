"""Which of a node's messages is newer: by (boot id, sequence, part), never by a clock.

A boot id is random for each run of a producer, so two of them can't be compared: the one that was seen last is current, and
those seen before it are remembered, so that a late message of an earlier run is known for what it is.
"""

from __future__ import annotations

from enum import Enum, auto

from msgspec import Struct

REMEMBERED_BOOTS = 8


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
    """The newest position of a node, and the boot ids that came before its current one, newest first."""

    newest: Position
    earlier_boots: tuple[str, ...] = ()


def freshness(seen: Seen | None, position: Position) -> Freshness:
    """Whether ``position`` is newer than all that was seen, the newest itself, or older."""
    if seen is None:
        return Freshness.NEW
    newest = seen.newest
    if position.boot_id != newest.boot_id:
        return Freshness.STALE if position.boot_id in seen.earlier_boots else Freshness.NEW
    here, there = (position.sequence, position.part), (newest.sequence, newest.part)
    if here == there:
        return Freshness.DUPLICATE
    return Freshness.NEW if here > there else Freshness.STALE


def advance(seen: Seen | None, position: Position) -> Seen:
    """What is seen once a new ``position`` has been taken; the caller has asked ``freshness`` before."""
    if seen is None:
        return Seen(position)
    if position.boot_id == seen.newest.boot_id:
        return Seen(position, seen.earlier_boots)
    return Seen(position, (seen.newest.boot_id, *seen.earlier_boots)[:REMEMBERED_BOOTS])
