"""What sources of rounds on virtual time share: rounds on the grid as the service runs them, and what there is to be seen in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.support.memory_libvirt import VirtualClock
from virtflow.producer.source import Round, Source

INTERVAL_SECONDS = 2.0
LAG_SECONDS = 1e-6
"""By which a thread wakes too late: without it a deadline in floating point may never quite be reached."""


class SimulatedRounds:
    """``with`` it a test has its rounds, once ``sampler`` and ``_next``, the time of the next one, are set."""

    sampler: Source

    def __init__(self) -> None:
        """The clock stands."""
        self.clock = VirtualClock(lag=LAG_SECONDS)
        self._interval = INTERVAL_SECONDS
        self._next = 0.0

    def rounds(self, count: int) -> list[Round]:
        """So many rounds on the grid, as the service runs them."""
        found = []
        for _ in range(count):
            self.sampler.wait(self._next)
            found.append(self.sampler.round())
            self._next = max(self._next + self._interval, self.clock.now)
        return found

    def round(self) -> Round:
        """The next round."""
        return self.rounds(1)[0]

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End every thread."""
        self.clock.close()


Simulated = TypeVar("Simulated", bound=SimulatedRounds)


def each_made(kind: Callable[..., Simulated], *given: object) -> Iterator[Callable[..., Simulated]]:
    """For a fixture: what makes one of a kind from what is ``given`` and options, and ends all that were made."""
    made: list[Simulated] = []

    def make(**options: Any) -> Simulated:  # noqa: ANN401, options of the kind
        made.append(kind(*given, **options))
        return made[-1]

    yield make
    for one in made:
        one.clock.close()


def whole(found: Round) -> set[str]:
    """The VMs with a monitor answer in the round."""
    return {reading.uuid for reading in found.readings if "block.0.rd.reqs" in reading.data}


def flagged(found: Round) -> set[str]:
    """The VMs that are said not to respond."""
    return {reading.uuid for reading in found.readings if reading.data.get("monitor.responsive") == 0}
