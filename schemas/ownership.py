"""Which node speaks for a VM: one rule, used wherever two nodes report the same UUID.

A VM that migrates is for a moment known to both hosts: the destination lists it as paused while it arrives. The node where it
runs speaks; between equals the newer collection does.
"""

from __future__ import annotations

from msgspec import Struct

from virtflow.schemas import states

_RUNNING = frozenset({states.RUNNING, states.BLOCKED, states.SHUTTING_DOWN})


class Claim(Struct, frozen=True, gc=False):
    """What one node says of a VM: its state, and when that was collected (Unix seconds of that node's clock)."""

    node: str
    state: int
    collected: float


def speaks(current: Claim, other: Claim) -> Claim:
    """The claim that counts of two nodes' newest ones.

    Running beats not running; then the newer collection; then, so that everyone decides alike, the node's name.
    """
    return max(current, other, key=_weight)


def _weight(claim: Claim) -> tuple[bool, float, str]:
    return claim.state in _RUNNING, claim.collected, claim.node
