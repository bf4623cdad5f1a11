"""How long the writer waits, and what it knows of a failure. Pure: the clock's reading is handed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the writer waits, in seconds. Tests wait for less."""

    read: float = 0.25
    """For messages, at most."""
    measure: float = 1.0
    """Between two measurements of how far behind it is; topics that were made again are looked for as often."""
    stranded: float = 30.0
    """Out of the group while the brokers answer; then another client joins."""
    retry: tuple[float, float] = (0.5, 30.0)
    """After a failure: the first pause, and the longest. Each is twice as long as the one before."""


PACE: Final = Pace()


class Failure:
    """Why nothing can be stored or read at the moment, and when that is tried again."""

    def __init__(self, pace: Pace) -> None:
        """Nothing has failed."""
        self._pace = pace
        self._pause = 0.0
        self._retry_at = 0.0
        self.why = ""
        """The reason; "" while nothing fails."""

    def __bool__(self) -> bool:
        """Whether something fails."""
        return bool(self.why)

    def note(self, why: str, now: float) -> None:
        """Something has failed, at ``now``: the pause before the next try grows."""
        shortest, longest = self._pace.retry
        self._pause = min(max(shortest, 2 * self._pause), longest)
        self._retry_at = now + self._pause
        self.why = why

    def over(self) -> None:
        """It works again: the next failure begins with the shortest pause."""
        self.why, self._pause, self._retry_at = "", 0.0, 0.0

    def pauses(self, now: float) -> bool:
        """Whether it is too early for another try."""
        return now < self._retry_at
