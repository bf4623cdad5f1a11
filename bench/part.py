"""What a part of the benchmarks is given, and how its section of the page begins.

A part is a module ``bench/NAME.py`` that ``bench/benchmarks.py`` lists. It has

    def run(asked: Asked) -> dict[str, Any]:         # measures; plain data for docs/benchmarks.json
    def section(found: dict[str, Any]) -> list[str]: # that data as Markdown, title first
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from scripts.embedded_kafka import one_at_a_time
from virtflow.runtime.version import version

SPREAD_BOUND: Final = 0.10
"""From this spread on a figure is marked: half of the distance between its least and its largest round, as a part of the median."""
NOISE: Final = (
    f"A figure with ± had a spread above {SPREAD_BOUND:.0%} between its rounds (half of the distance between least and most, as a part of "
    "the median): the machine was too noisy for more than its order of magnitude."
)

LOCK_VARIABLE: Final = "VIRTFLOW_BENCH_LOCK"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for; each part takes what concerns it. ``folder`` is the part's own, and temporary."""

    folder: Path
    seconds: float
    nodes: int
    vms: int
    interval_seconds: float


def where() -> dict[str, str]:
    """What the numbers are measured on; to be asked before a part begins, so that the load is that of other work."""
    busy = os.getloadavg()[0]
    machine = (
        f"{os.cpu_count()} CPUs, {platform.machine()}, Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    )
    return {
        "machine": f"{machine}, load average {busy:.1f} in the minute before, nice {os.nice(0)}",
        "version": version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def origin(found: dict[str, Any], command: str) -> str:
    """The line under a section's title: how to measure it again, and where this was measured."""
    return f"`{command}`, virtflow {found['version']}, {found['date']}; {found['machine']}."


def spread(rounds: list[float]) -> float:
    """Half of the distance between the least and the largest of some rounds, as a part of their median."""
    middle = median(rounds)
    return (max(rounds) - min(rounds)) / 2 / abs(middle) if middle else 0.0


def figure(rounds: list[float], digits: int = 0) -> str:
    """The median of some rounds as text, with its spread where that is above the bound."""
    text, wide = f"{median(rounds):.{digits}f}", spread(rounds)
    return f"{text} ± {wide:.0%}" if wide > SPREAD_BOUND else text


@contextmanager
def quiet() -> Iterator[None]:
    """Holds the file that ``VIRTFLOW_BENCH_LOCK`` names, if any, so that several measurements on one machine take turns."""
    path = os.environ.get(LOCK_VARIABLE)
    if path is None:
        yield
        return
    with one_at_a_time(Path(path)):
        yield
