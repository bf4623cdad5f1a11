"""What a soak looks at all the time: memory, threads and descriptors of each process, and what a scrape shows."""

from __future__ import annotations

import statistics
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from bench.soak_page import SLOPE_MIB_PER_HOUR, VERDICT_HOURS
from tests.support.lab import LabError
from tests.support.lab_pipeline import Service
from tests.support.lab_scrape import DuplicateSeriesError, Scrape, scrape
from tests.support.watching import Watching

HOUR: Final = 3600.0
SHOWN_SECONDS: Final = 600.0
"""How often memory is recorded: whether it grows steadily or in steps."""
WARM_SECONDS: Final = 300.0
"""Of each process's life that no slope is made of: caches fill."""
MORE_THREADS: Final = 5
MORE_DESCRIPTORS: Final = 10
HEALTH_SECONDS: Final = 1.0
KEPT_PROBLEMS: Final = 20


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process has at a moment (monotonic seconds): resident memory, threads, descriptors."""

    time: float
    resident_mib: float
    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        """As it is now; OSError when the process is gone."""
        process = Path(f"/proc/{pid}")
        said = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
        resident, threads = int(said["VmRSS"].split()[0]) / 1024, int(said["Threads"])
        return cls(time.monotonic(), resident, threads, len(list((process / "fd").iterdir())))


def slope(lives: Iterable[Sequence[Footprint]], since: float, warm_seconds: float = WARM_SECONDS) -> tuple[float, float]:
    """MiB per hour by which memory grows, and the hours that it is taken from; one slope over all lives of a service, each from its own level.

    What is before ``since`` (monotonic seconds), and the beginning of each life, are left out. (0, 0) where nothing is left.
    """
    above, below, hours = 0.0, 0.0, 0.0
    for life in lives:
        points = [point for point in life if point.time >= max(since, life[0].time + warm_seconds)]
        if len(points) < 2:  # noqa: PLR2004, no line through less
            continue
        middle, level = statistics.fmean(point.time for point in points), statistics.fmean(point.resident_mib for point in points)
        above += sum((point.time - middle) * (point.resident_mib - level) for point in points)
        below += sum((point.time - middle) ** 2 for point in points)
        hours += (points[-1].time - points[0].time) / HOUR
    return (above / below * HOUR if below else 0.0), hours


def over_time(points: Sequence[Footprint]) -> list[float]:
    """Resident memory (MiB) every ``SHOWN_SECONDS``, from the first look on; of the newest process where there were several."""
    found: list[float] = []
    for point in sorted(points, key=lambda point: point.time):
        if point.time >= points[0].time + len(found) * SHOWN_SECONDS:
            found.append(round(point.resident_mib, 1))
    return found


@dataclass
class Processes(Watching):
    """Looks at the services' processes, and asks those that have pages for their health."""

    pause_seconds: ClassVar[float] = 10.0

    services: Sequence[Service]
    addresses: Mapping[str, str]
    """HOST:PORT by the service's name."""
    lives: dict[str, dict[int, list[Footprint]]] = field(default_factory=lambda: defaultdict(dict))
    health: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def look(self) -> None:
        """Once; what does not run at the moment is left out."""
        for service in self.services:
            try:
                pid = service.process.pid
                self.lives[service.name].setdefault(pid, []).append(Footprint.of(pid))
                if service.name in self.addresses:
                    self.health[service.name].append(_asked(f"http://{self.addresses[service.name]}/healthz"))
            except (LabError, OSError, KeyError):  # it is being killed, or has just been started
                continue

    def seen(self, since: float) -> dict[str, dict[str, Any]]:
        """By service: its lives, memory at the ends, slope, threads and descriptors."""
        return {name: self._of(list(lives.values()), self.health[name], since) for name, lives in self.lives.items()}

    @staticmethod
    def _of(lives: list[list[Footprint]], health: list[float], since: float) -> dict[str, Any]:
        growth, hours = slope(lives, since)
        points = [point for life in lives for point in life]
        warm = next((point for point in points if point.time >= since), points[0])
        return {
            "lives": len(lives),
            "resident_mib": [
                round(value, 1) for value in (points[0].resident_mib, max(p.resident_mib for p in points), points[-1].resident_mib)
            ],
            "resident_mib_over_time": over_time(points),
            "threads": [warm.threads, max(point.threads for point in points), points[-1].threads],
            "descriptors": [warm.descriptors, max(point.descriptors for point in points), points[-1].descriptors],
            "slope_mib_per_hour": round(growth, 2),
            "slope_hours": round(hours, 2),
            "health_slowest_seconds": round(max(health), 3) if health else None,
        }


def _asked(url: str) -> float:
    began = time.monotonic()
    with urllib.request.urlopen(url, timeout=10.0) as answer:  # noqa: S310, a loopback address of our own
        answer.read()
    return time.monotonic() - began


def process_problems(seen: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What may not be, in words."""
    problems = []
    for name, one in seen.items():
        if one["slope_hours"] >= VERDICT_HOURS and one["slope_mib_per_hour"] >= SLOPE_MIB_PER_HOUR:
            problems.append(f"{name}: memory grows by {one['slope_mib_per_hour']} MiB an hour")
        problems += [
            f"{name}: {one[what][0]} {what} at the begin, {one[what][2]} at the end"
            for what, more in (("threads", MORE_THREADS), ("descriptors", MORE_DESCRIPTORS))
            if one["lives"] == 1 and one[what][2] > one[what][0] + more
        ]
        if (one["health_slowest_seconds"] or 0.0) >= HEALTH_SECONDS:
            problems.append(f"{name}: health took {one['health_slowest_seconds']} s")
    return problems


@dataclass
class Scrapes(Watching):
    """Scrapes as Prometheus does; each series of a VM has to be there once, whatever the VM's name."""

    pause_seconds: ClassVar[float] = 10.0

    address: str
    expected: int
    """VMs."""
    count: int = 0
    failed: int = 0
    whole: int = 0
    """Scrapes that showed every VM."""
    longest_seconds: float = 0.0
    ages: list[float] = field(default_factory=list)
    """The 99th percentile of the VMs' ages at each scrape."""
    problems: list[str] = field(default_factory=list)

    def look(self) -> None:
        """Once."""
        began = time.monotonic()
        try:
            seen = scrape(self.address)
        except DuplicateSeriesError as error:
            self._note(f"a series is there twice: {error}")
            return
        except OSError:
            self.failed += 1
            return
        self.count += 1
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
        self.whole += len(seen.uuids()) == self.expected
        self.ages += age_of(seen)
        for problem in twice(seen):
            self._note(problem)

    def _note(self, problem: str) -> None:
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(problem)

    def seen(self) -> dict[str, Any]:
        """What the scrapes showed."""
        ages = sorted(self.ages)
        return {
            "count": self.count,
            "failed": self.failed,
            "with_every_vm": self.whole,
            "longest_seconds": round(self.longest_seconds, 2),
            "age_median_seconds": round(statistics.median(ages), 1) if ages else None,
            "age_worst_seconds": round(ages[-1], 1) if ages else None,
            "twice": len(self.problems),
        }


def twice(seen: Scrape) -> list[str]:
    """Series that a VM has twice under two names, and VMs with two nodes."""
    counts = Counter(
        (name, frozenset(pair for pair in labels if pair[0] != "name"))
        for name, labels in seen.series
        if any(key == "uuid" for key, _ in labels)
    )
    infos = Counter(dict(labels)["uuid"] for name, labels in seen.series if name == "vm_info")
    return [f"{name}{dict(labels)} is there {count} times" for (name, labels), count in counts.items() if count > 1] + [
        f"{uuid} has {count} nodes" for uuid, count in infos.items() if count > 1
    ]


def age_of(seen: Scrape) -> list[float]:
    """The 99th percentile of the VMs' samples' ages, nothing where no VM is shown."""
    ages = sorted(value for (name, _), value in seen.series.items() if name == "vm_sample_age_seconds")
    return [ages[min(len(ages) - 1, round(0.99 * len(ages)))]] if ages else []


def await_recovered(look: Callable[[], bool], seconds: float) -> float | None:
    """How many seconds it takes until ``look`` holds; None where it does not in time."""
    began = time.monotonic()
    while not look():
        if time.monotonic() - began > seconds:
            return None
        time.sleep(1.0)
    return time.monotonic() - began
