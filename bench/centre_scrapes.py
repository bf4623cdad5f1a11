"""Scrapes as Prometheus makes them: how long they took, how large they were, how old what they showed."""

from __future__ import annotations

import gzip
import re
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

AGE: Final = re.compile(rb"^vm_sample_age_seconds\{[^\n]*\} ([0-9.e+-]+)$", re.MULTILINE)
INTERVALS_SHOWN: Final = 3
"""An older sample is not shown."""
ARRIVE_SECONDS: Final = 180.0
SCRAPE_SECONDS: Final = 60.0


@dataclass(slots=True)
class Scrape:
    """One scrape: how long it took, its sizes, and the ages of the VMs' samples."""

    seconds: float
    wire_bytes: int
    text_bytes: int
    series: int
    ages: list[float] = field(repr=False)


def fetched(url: str, *, packed: bool = True) -> tuple[float, bytes]:
    """The body of a page as it came over the wire, and how many seconds it took."""
    began = time.monotonic()
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"} if packed else {})  # noqa: S310, our own loopback
    with urllib.request.urlopen(request, timeout=SCRAPE_SECONDS) as answer:  # noqa: S310, our own loopback
        wire = answer.read()
    return time.monotonic() - began, wire


def scrape(url: str) -> Scrape:
    """One scrape, gzipped."""
    seconds, wire = fetched(url)
    text = gzip.decompress(wire)
    return Scrape(seconds, len(wire), len(text), series_in(text), [float(age) for age in AGE.findall(text)])


def series_in(text: bytes) -> int:
    """How many series a text exposition has."""
    return text.count(b"\n") - text.count(b"\n#") - text.startswith(b"#")


def wait_for_vms(urls: Sequence[str], vms: float) -> None:
    """Returns once the exporters together show so many VMs; raises ``TimeoutError``."""
    deadline = time.monotonic() + ARRIVE_SECONDS
    while time.monotonic() < deadline:
        try:
            if sum(len(scrape(url).ages) for url in urls) > 0.9 * vms:
                return
        except OSError:
            pass
        time.sleep(1.0)
    raise TimeoutError("the simulated VMs did not arrive at the exporter")


def watched(urls: Sequence[str], seconds: float, every: float, look: Callable[[], None]) -> list[list[Scrape]]:
    """Scrapes all exporters every so often for so long; the rounds of scrapes. ``look`` is called after each."""
    began = time.monotonic()
    rounds = []
    while (now := time.monotonic()) < began + seconds:
        rounds.append([scrape(url) for url in urls])
        look()
        print(f"\r{now - began:5.0f} s  {_line(rounds[-1])}", end="", file=sys.stderr, flush=True)
        time.sleep(max(0.0, min(every - (time.monotonic() - now), began + seconds - time.monotonic())))
    print(file=sys.stderr)
    return rounds


def lag(rounds: Sequence[Sequence[Scrape]], interval: float) -> dict[str, float]:
    """How far the exporters are behind the hypervisors: a sample's age at the scrape less the interval within which it is normal.

    Of each round of scrapes the 99th percentile of its VMs counts, because the last percent are VMs that were just deleted; of all
    rounds the median, the 95th percentile and the worst. Where no VM is shown, all are three intervals old at least.
    """
    ages = [[age for one in each for age in one.ages] or [INTERVALS_SHOWN * interval] for each in rounds]
    late = sorted(max(0.0, _percentile(each, 0.99) - interval) for each in ages)
    found = {"median": late[len(late) // 2], "p95": late[int(len(late) * 0.95)], "worst": late[-1]}
    return {name: round(seconds, 3) for name, seconds in found.items()}


def times(rounds: Sequence[Sequence[Scrape]]) -> dict[str, Any]:
    """How long the scrapes took, and the size of the last round."""
    each = [one for scrapes in rounds for one in scrapes]
    return {
        "series": sum(one.series for one in rounds[-1]),
        "median_seconds": round(statistics.median(one.seconds for one in each), 3),
        "longest_seconds": round(max(one.seconds for one in each), 3),
        "gzip_bytes": sum(one.wire_bytes for one in rounds[-1]),
        "text_bytes": sum(one.text_bytes for one in rounds[-1]),
    }


def _percentile(ages: list[float], share: float) -> float:
    return sorted(ages)[int(len(ages) * share)]


def _line(scrapes: Sequence[Scrape]) -> str:
    ages = [age for one in scrapes for age in one.ages]
    longest = max(one.seconds for one in scrapes)
    if not ages:
        return f"no VM is shown, scrape {longest:.3f} s"
    return f"{len(ages)} VMs, scrape {longest:.3f} s, age p50 {_percentile(ages, 0.5):.2f} s p99 {_percentile(ages, 0.99):.2f} s"
