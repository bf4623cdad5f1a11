"""The newest position of each node's snapshots, in memory: duplicates and older snapshots are skipped.

Nothing is stored: after a crash, and after a rebalance that revoked partitions, snapshots that were handled but not committed
are delivered and handled again. Every sink identifies them by (node, boot id, sequence, part) and keeps the newest.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from virtflow.schemas.order import Freshness, Position, Seen, advance, freshness, heard
from virtflow.schemas.records import NodeSnapshot

NODES: Final = 100_000
"""Nodes that are remembered; beyond that the oldest entry is removed, so that forged names can't fill the memory."""


class Taken(Struct, frozen=True, gc=False):
    """A snapshot compared with the newest of its node: how fresh it is, and whether it is the first message of its round."""

    freshness: Freshness
    opens_round: bool


class Orders:
    """The newest position of every node."""

    def __init__(self, nodes: int = NODES) -> None:
        """Nothing has been seen; at most ``nodes`` are remembered."""
        self._nodes = nodes
        self._seen: dict[str, Seen] = {}

    def take(self, snapshot: NodeSnapshot) -> Taken:
        """Compares ``snapshot`` with the newest of its node; a new one replaces it."""
        seen = self._seen.get(snapshot.node)
        position = Position(snapshot.boot_id, snapshot.sequence, snapshot.part)
        fresh = freshness(seen, position)
        if fresh is not Freshness.NEW:
            if seen is not None and fresh is Freshness.STALE:
                self._seen[snapshot.node] = heard(seen, position)
            return Taken(fresh, opens_round=False)
        self._seen[snapshot.node] = advance(seen, position)
        if len(self._seen) > self._nodes:
            del self._seen[next(iter(self._seen))]
        return Taken(fresh, opens_round=seen is None or _round(seen.newest) != _round(position))

    def forget(self) -> None:
        """Forgets all positions: snapshots that are delivered again are handled again."""
        self._seen.clear()


def _round(position: Position) -> tuple[str, int]:
    return position.boot_id, position.sequence
