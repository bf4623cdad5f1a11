"""What a number of worlds came to."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.world import Outcome


class Totals:
    """Of the worlds so far."""

    def __init__(self, first: int = 0) -> None:
        """None yet; ``first`` is the first one's seed."""
        self.first = first
        self.worlds = 0
        self.broken: list[int] = []
        self.seconds = 0.0
        self.faults: Counter[str] = Counter()
        self.checked: Counter[str] = Counter()
        self._began = time.process_time()

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.worlds += 1
        self.broken += [outcome.seed] if outcome.problems else []
        self.seconds += outcome.seconds
        self.faults += outcome.injected
        self.checked += outcome.checked

    @property
    def pace(self) -> float:
        """Worlds a minute of CPU time."""
        took = time.process_time() - self._began
        return self.worlds / took * 60 if took else 0.0

    def figures(self) -> dict[str, Any]:
        """All of it, for the page."""
        return {
            "first": self.first,
            "seeds": self.worlds,
            "broken": self.broken,
            "seconds": round(self.seconds),
            "seeds_a_minute": round(self.pace),
            "faults": dict(sorted(self.faults.items())),
            "looked_at": dict(sorted(self.checked.items())),
        }

    def __str__(self) -> str:
        """All of it, in a few lines."""
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        checked = ", ".join(f"{kind} {count}" for kind, count in sorted(self.checked.items()))
        return (
            f"{self.worlds} seeds, {len(self.broken)} broken; {self.seconds / 3_600:.2f} simulated hours, {self.pace:.0f} seeds a CPU minute\n"
            f"faults ({self.faults.total()}): {faults}\nlooked at: {checked}"
        )
