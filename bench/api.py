"""The fleet page and its API over 10,000 VMs: answers, the first paint, open pages, and what they cost a fleet that nobody looks at.

The first part is in this process and without HTTP (``bench.fleet_api``), the others are an exporter's own process, a real broker and Debian's
Chromium. Needs Playwright and Chromium (``scripts/prepare test``).
"""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import ExitStack
from statistics import median
from typing import Any, Final

from bench import fleet_api
from bench.centre_processes import Centre, Load, Part
from bench.part import Asked, figure, origin
from bench.scrape import Samples, started, timed
from tests.support.broker import Broker
from tests.support.browser import chromium, visit
from tests.support.fleet_samples import seen_twice
from tests.support.vm_samples import fleet
from tools.documents import table
from virtflow.exporter.api.answers import Answers

NODES, VMS = 200, 50
PAGES: Final = ("/", "/vms?sort=-cpu", "/nodes")
OPEN_PAGES: Final = 10
PAINTS: Final = 7
ROUNDS: Final = 3
PER_SECOND: Final = 1_000
"""Samples that arrive meanwhile: of 10,000 VMs every ten seconds."""
WATCHED_SECONDS: Final = 20.0
SCRAPES: Final = 5
GOALS: Final = {"sort_milliseconds": fleet_api.GOAL_MILLISECONDS, "unused_share": 0.03}
_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    found: dict[str, Any] = {"vms": NODES * VMS, "goals": GOALS, "answers": answers()}
    with Broker(asked.folder / "broker") as broker:
        centre = Centre(asked.folder, broker, Load(NODES, VMS, 10.0, 0.0))
        samples = Samples(broker.address, NODES, VMS)
        samples.send_round()
        found["unused"] = unused(centre, samples)
        found |= opened(centre, samples)
    return found


def answers() -> dict[str, float]:
    """Milliseconds of CPU for each answer, by its address."""
    tell = Answers(seen_twice(fleet(), fleet_api.VMS), "run", "bench", lambda: "")
    return fleet_api.pages(tell)


def unused(centre: Centre, samples: Samples) -> dict[str, dict[str, list[float]]]:
    """CPU with the page and API, which nobody asks, and without them, in turn: microseconds a sample, seconds a scrape, bytes of memory."""
    found: dict[str, dict[str, list[float]]] = {way: {"ingest": [], "scrape": [], "memory": []} for way in ("with", "without")}
    for _ in range(ROUNDS):
        for way, seen in found.items():
            with started(centre, EXPORTER_FLEET_PAGE=str(way == "with").lower()) as (part, _):
                timed(part, packed=True, repeats=1)
                seen["ingest"].append(1e6 * while_arriving(part, samples) / PER_SECOND)
                seen["scrape"].append(median(timed(part, packed=True, repeats=SCRAPES)[1]))
                seen["memory"].append(float(part.resident_bytes()))
    return found


def while_arriving(part: Part, samples: Samples, seconds: float = WATCHED_SECONDS) -> float:
    """CPU seconds of a process by the second, while samples arrive."""
    with samples.arriving(PER_SECOND):
        time.sleep(1.0)
        began, before = time.monotonic(), part.cpu_seconds()
        time.sleep(min(seconds, NODES * VMS / PER_SECOND - 2.0))
        return (part.cpu_seconds() - before) / (time.monotonic() - began)


def opened(centre: Centre, samples: Samples) -> dict[str, Any]:
    """Milliseconds to the first paint of each page, and the exporter's CPU while no page and while ten pages are open, in cores."""
    with started(centre) as (part, _), chromium() as browser:
        base = part.url.removesuffix("/metrics")
        vm = f"/vms/{_some_vm(base)}"
        paints = {("/vms/UUID" if page == vm else page): [painted(browser, base, page) for _ in range(PAINTS)] for page in (*PAGES, vm)}
        closed, live = [], []
        for _ in range(ROUNDS):
            closed.append(while_arriving(part, samples))
            with ExitStack() as stack:
                for number in range(OPEN_PAGES):
                    stack.enter_context(visit(browser, base)).lively((*PAGES, vm)[number % (len(PAGES) + 1)])
                live.append(while_arriving(part, samples))
    return {"paints": paints, "open": {"pages": OPEN_PAGES, "closed": closed, "live": live}}


def painted(browser: Any, base: str, page: str) -> float:  # noqa: ANN401, Playwright's browser
    """Milliseconds from asking for a page to its first content on the screen, in a browser that has nothing of it."""
    with visit(browser, base) as visited:
        shown = visited.lively(page)
        return float(shown.evaluate(_PAINT))


def _some_vm(base: str) -> str:
    with urllib.request.urlopen(f"{base}/api/v1/vms?limit=1", timeout=60) as reply:  # noqa: S310, our own loopback
        return str(json.load(reply)["items"][0]["uuid"])


def section(found: dict[str, Any]) -> list[str]:
    """See ``bench.part``."""
    spent, goals, unasked = found["answers"], found["goals"], found["unused"]
    slowest = max((name for name in spent if name.startswith("/vms?sort")), key=lambda name: float(spent[name]))
    others = [name for name in spent if not name.startswith("/vms?sort")]
    more = {name: median(unasked["with"][name]) / median(unasked["without"][name]) - 1 for name in ("ingest", "scrape", "memory")}
    return [
        "## The fleet page and its API",
        origin(found, "scripts/bench api"),
        (
            f"{found['vms']:,} VMs. Answers: median milliseconds of CPU, in one process, without HTTP. The slowest order of all: `{slowest}`, "
            f"{spent[slowest]:.1f} ms (goal: {goals['sort_milliseconds']:.0f} ms)."
        ),
        table(("answer", "ms"), [(f"`{name}`", f"{spent[name]:.1f}") for name in (slowest, *others)]),
        "From asking for a page to its first content on the screen, Debian's Chromium on the same machine:",
        table(("page", "ms"), [(f"`{page}`", figure(rounds)) for page, rounds in found["paints"].items()]),
        (
            f"While {PER_SECOND} samples arrive every second the exporter takes {figure(found['open']['closed'], 3)} cores, with "
            f"{found['open']['pages']} pages open that are kept current {figure(found['open']['live'], 3)}."
        ),
        "**A page that nobody opens**: the same exporter with page and API, and without (`exporter.fleet_page = false`), in turn.",
        table(
            ("", "with", "without", "more"),
            [
                _row("CPU of a sample, µs", unasked, "ingest", 1.0, more),
                _row("CPU of a scrape, ms", unasked, "scrape", 1e3, more),
                _row("memory, MiB", unasked, "memory", 2**-20, more),
            ],
        ),
    ]


def _row(title: str, unasked: dict[str, dict[str, list[float]]], name: str, factor: float, more: dict[str, float]) -> tuple[str, ...]:
    known, left_out = ([factor * one for one in unasked[way][name]] for way in ("with", "without"))
    return title, figure(known, 1), figure(left_out, 1), f"{more[name]:+.1%}"
