"""VMs that hang now and then: half of the time their monitor does not answer, and a round has only what libvirt knows without it."""

from __future__ import annotations

import re
from typing import Final

from virtflow.producer.records.merge import PROBED, RESPONSIVE
from virtflow.producer.simulator.fleet import Stats

HUNG_SECONDS: Final = 60.0
"""How long it hangs, and then how long it does not."""
_KNOWN: Final = re.compile(r"state\.|net\.|cpu\.time$|balloon\.(maximum|current)$|vcpu\.(current$|\d+\.(state|time)$)")
"""What a round of the producer has of a VM that hangs: libvirt's own state, its interfaces, and what ``info`` and ``vcpus`` tell."""


def hangs(seconds: float) -> bool:
    """Whether the VMs that hang now and then do so at a time (Unix seconds)."""
    return seconds % (2 * HUNG_SECONDS) >= HUNG_SECONDS


def as_hung(stats: Stats) -> Stats:
    """What is left of a VM's statistics while it hangs."""
    return {key: value for key, value in stats.items() if _KNOWN.match(key)} | {PROBED: 0, RESPONSIVE: 0}
