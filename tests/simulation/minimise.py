"""Fewer faults that still break an invariant: halves of the list first, then ever smaller parts (delta debugging)."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.faults import Fault

Breaks = Callable[[list[Fault]], bool]


def minimised(faults: list[Fault], breaks: Breaks) -> list[Fault]:
    """A part of ``faults`` that ``breaks``, of which no single fault can be left out."""
    if breaks([]):
        return []
    parts = 2
    while len(faults) > 1:
        size = max(1, len(faults) // parts)
        for begin in range(0, len(faults), size):
            fewer = faults[:begin] + faults[begin + size :]
            if breaks(fewer):
                faults, parts = fewer, max(2, parts - 1)
                break
        else:
            if size == 1:
                return faults
            parts = min(len(faults), parts * 2)
    return faults
