"""The last hour of a VM in memory: a point a minute, a fixed number of bytes for each VM.

60 points of 8 columns of 4 bytes are 1,920 bytes, 2 KiB with what Python adds.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import isnan, nan
from typing import Final

POINTS: Final = 60
POINT_SECONDS: Final = 60
COLUMNS: Final = ("cpu_cores", "steal_cores", "memory_used", "read_bytes", "write_bytes", "receive_bytes", "transmit_bytes", "latency")
"""What a point has; per second as in ``Totals``, ``memory_used`` in bytes, ``latency`` the mean seconds of a read or write."""
_EMPTY: Final = array("f", [nan] * (POINTS * len(COLUMNS)))


class Ring:
    """Points by the number of their minute; a minute without a point is unknown."""

    __slots__ = ("newest", "values")

    def __init__(self) -> None:
        """Empty."""
        self.newest = -1
        self.values = array("f", _EMPTY)

    def put(self, minute: int, point: Sequence[float] | bytes) -> None:
        """Sets the point of a minute that is not before the newest one, as numbers or packed; what lies between becomes unknown."""
        width = len(COLUMNS)
        for between in range(max(self.newest + 1, minute - POINTS + 1), minute):
            at = between % POINTS * width
            self.values[at : at + width] = _EMPTY[:width]
        at = minute % POINTS * width
        self.values[at : at + width] = array("f", point)
        self.newest = minute

    def put_again(self, minute: int) -> None:
        """Sets the point of a minute to the newest one: no newer sample came; nothing where there is none."""
        if 0 <= self.newest < minute:
            at = self.newest % POINTS * len(COLUMNS)
            self.put(minute, self.values[at : at + len(COLUMNS)])

    def column(self, name: str, minute: int) -> list[float | None]:
        """``POINTS`` values up to ``minute``, the oldest first; None where unknown."""
        place, width = COLUMNS.index(name), len(COLUMNS)
        return [self._value(number, place, width) for number in range(minute - POINTS + 1, minute + 1)]

    def _value(self, minute: int, place: int, width: int) -> float | None:
        if not self.newest - POINTS < minute <= self.newest:
            return None
        value = self.values[minute % POINTS * width + place]
        return None if isnan(value) else value
