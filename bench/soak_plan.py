"""What happens to the pipeline during a soak, and when: chosen at random by a seed. Pure.

A round has every kind of fault once, in an order of its own; between two of them the pipeline is left alone for a while.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: its row in tests/faults/rows.py, what it is called, and how many seconds it lasts, from and to."""

    row: int
    name: str
    least_seconds: float = 0.0
    most_seconds: float = 0.0


LIBVIRTD_RESTARTS: Final = Kind(1, "libvirtd restarts")
LIBVIRTD_HANGS: Final = Kind(2, "libvirtd hangs", 15.0, 60.0)
VM_STUCK: Final = Kind(3, "one VM is stuck", 30.0, 120.0)
VMS_STUCK: Final = Kind(4, "eight VMs are stuck", 30.0, 120.0)
BROKER_DOWN: Final = Kind(5, "the broker is down", 10.0, 90.0)
BROKER_KILLED: Final = Kind(7, "the broker is killed")
WRITER_KILLED: Final = Kind(8, "the history writer is killed")
REBALANCES: Final = Kind(9, "a second processors process joins and leaves", 20.0, 60.0)
KINDS: Final = (LIBVIRTD_RESTARTS, LIBVIRTD_HANGS, VM_STUCK, VMS_STUCK, BROKER_DOWN, BROKER_KILLED, WRITER_KILLED, REBALANCES)
NOT_CAUSED: Final = "Row 6 (the broker's disk is full) is not among them: the broker of a soak has the machine's disk."
REST_SECONDS: Final = (10.0, 40.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault: how long it lasts, how long the pipeline is left alone before it (seconds), and a number that chooses what it happens to."""

    kind: Kind
    seconds: float
    rest_seconds: float
    target: int


def plan(seed: int) -> Iterator[Planned]:
    """The faults in their order, without end; the same ones for the same seed."""
    dice = random.Random(seed)  # noqa: S311, a choice that can be repeated, no secret
    while True:
        for kind in dice.sample(KINDS, len(KINDS)):
            seconds = dice.uniform(kind.least_seconds, kind.most_seconds)
            yield Planned(kind, seconds, dice.uniform(*REST_SECONDS), dice.randrange(1 << 30))
