"""Backoff for restarts of the helper process. Pure."""

from __future__ import annotations

import random
from typing import Final

FIRST_SECONDS: Final = 1.0
STEADY: Final = 2
"""A process that lived for so many of the longest pauses was well: the pauses begin again."""


class Restarts:
    """Pauses that double from one second to ``longest``, each shortened at random so that hosts do not restart in step."""

    def __init__(self, longest: float, rng: random.Random) -> None:
        """``longest`` in seconds."""
        self._longest = longest
        self._rng = rng
        self._pause = min(FIRST_SECONDS, longest)

    def pause(self, lived: float) -> float:
        """Seconds to wait after a process that ran for ``lived`` seconds."""
        if lived >= STEADY * self._longest:
            self._pause = min(FIRST_SECONDS, self._longest)
        pause, self._pause = self._pause, min(2 * self._pause, self._longest)
        return pause * self._rng.uniform(0.75, 1.0)
