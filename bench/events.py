"""From what happens at libvirt to ``/metrics``: live migrations between two real hypervisors, through broker, processors and exporter.

Sampling is slow on purpose: what is shown within a second came by events and polls, not by a round. A moment is libvirt's, as the record
tells it; it is shown with the end of the first scrape that has it. Needs root and the lab's packages.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Final

from bench.part import Asked, origin, quiet
from tests.support.lab import Guest, GuestSpec, Lab, await_true
from tests.support.lab_migration import Migrating
from tests.support.lab_pipeline import Pipeline
from tests.support.lab_scrape import fetch
from tests.support.record_tap import RecordTap
from tests.support.watching import Watching
from tools.documents import table
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import MIGRATIONS

INTERVAL_SECONDS: Final = 10.0
MBPS: Final = 10
LONGEST_SECONDS: Final = 90.0
UPDATED: Final = "updated_timestamp_seconds"
ENDED: Final = "ended_timestamp_seconds"


@dataclass
class FirstShown(Watching):
    """Scrapes all the time, and keeps of each moment when the first scrape had it."""

    pause_seconds: ClassVar[float] = 0.01

    address: str
    moments: dict[str, dict[float, float]] = field(default_factory=lambda: {UPDATED: {}, ENDED: {}})

    def look(self) -> None:
        """Scrape once."""
        text = fetch(f"http://{self.address}/metrics")
        now = time.time()
        for name, seen in self.moments.items():
            for value in re.findall(rf"^vm_migration_{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE):
                seen.setdefault(float(value), now)


def run(asked: Asked) -> dict[str, Any]:
    """There and back until the time is over."""
    settings = {"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": str(INTERVAL_SECONDS)}
    with quiet(), Lab(nodes=2) as lab:
        guest = lab.nodes[0].start_guest(GuestSpec("web-1"))
        with (
            Pipeline(lab, asked.folder, settings) as pipeline,
            RecordTap(pipeline.broker.address, MIGRATIONS, VmMigration) as tap,
            FirstShown(pipeline.address) as shown,
        ):
            trips = _trips(lab, guest, tap, min(asked.seconds, LONGEST_SECONDS))
            last = max(one.ended_timestamp_seconds for one in tap.records() if one.result == "completed")
            shown.await_seen(lambda: last in shown.moments[ENDED], 60.0, "the last end is shown")
            on_topic: dict[float, float] = {}
            for at, one in tap.arrivals:
                on_topic.setdefault(one.updated_timestamp_seconds, at)
            ends = {one.ended_timestamp_seconds for one in tap.records() if one.result == "completed"}
    ways = [
        (
            "numbers of a running migration, to the topic vm.migrations",
            {m: at for m, at in on_topic.items() if m in shown.moments[UPDATED]},
        ),
        ("numbers of a running migration, to /metrics", {m: at for m, at in shown.moments[UPDATED].items() if m not in ends}),
        ("the end of a migration, to /metrics", {m: at for m, at in shown.moments[ENDED].items() if m in ends}),
    ]
    return {"trips": trips, "interval_seconds": INTERVAL_SECONDS, "ways": [_way(name, seen) for name, seen in ways]}


def _trips(lab: Lab, guest: Guest, tap: RecordTap[VmMigration], seconds: float) -> int:
    here, there = lab.nodes
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        count += 1
        Migrating.begin(guest, here, there, MBPS).succeed()
        await_true(partial(_have_ended, tap, count), 60.0, "the migration's end")
        here, there = there, here
    return count


def _have_ended(tap: RecordTap[VmMigration], count: int) -> bool:
    """Whether so many migrations are told with their final numbers."""
    return len({one.id for one in tap.records() if one.result == "completed" and one.type == "completed"}) >= count


def _way(name: str, seen: dict[float, float]) -> dict[str, Any]:
    delays = sorted(at - moment for moment, at in seen.items() if moment == moment)  # noqa: PLR0124, not NaN
    return {
        "name": name,
        "count": len(delays),
        "p50_seconds": delays[len(delays) // 2],
        "p99_seconds": delays[min(len(delays) - 1, int(len(delays) * 0.99))],
        "longest_seconds": delays[-1],
    }


def section(found: dict[str, Any]) -> list[str]:
    """Its part of the page."""
    return [
        "## From an event to /metrics",
        origin(found, "scripts/bench events"),
        (
            f"{found['trips']} live migrations of one VM between two real hypervisors, sampled every {found['interval_seconds']:g} s; the running job is "
            "polled every second. The exporter is scraped all the time; a delay ends with the end of the first scrape that shows what happened."
        ),
        table(
            ("what", "count", "p50", "p99", "longest"),
            [
                (way["name"], str(way["count"]), *(f"{way[key]:.2f} s" for key in ("p50_seconds", "p99_seconds", "longest_seconds")))
                for way in found["ways"]
            ],
        ),
    ]
