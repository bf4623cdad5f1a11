"""The fleet page, its API and `virtflow top` over 10,000 VMs: answers, first paint, keys, open pages, and their cost where nobody looks.

The first part is in this process and without HTTP (``bench.fleet_api``), the others are an exporter's own process, a real broker and Debian's
Chromium. Needs Playwright and Chromium (``scripts/prepare test``).
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from statistics import median
from typing import Any, Final

from bench import fleet_api, fleet_top
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
MINUTE_SECONDS: Final = 60.0
"""How long CPU is watched: the hour in memory gets a point each minute, so each minute has the cost of one."""
SETTLING_SECONDS: Final = 70.0
"""Over a minute: samples are in columns from the second one of a VM on, and the first point of the hour reads every VM once."""
SCRAPES: Final = 9
GOALS: Final = {
    "sort_milliseconds": fleet_api.GOAL_MILLISECONDS,
    "paint_milliseconds": 1_000.0,
    "open_cores": 0.05,
    "unused_share": 0.05,
    "key_milliseconds": 100.0,
}
_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    found: dict[str, Any] = {
        "vms": NODES * VMS,
        "goals": GOALS,
        "answers": answers(),
        "bytes_a_vm": fleet_api.bytes_a_vm(),
        "keys": fleet_top.keys(),
    }
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
    """CPU with the page and API, which nobody asks, and without them: microseconds a sample, seconds a scrape, bytes of memory.

    Both exporters run side by side and read the same samples, so that whatever disturbs the machine disturbs both.
    """
    found: dict[str, dict[str, list[float]]] = {way: {"ingest": [], "scrape": [], "memory": []} for way in ("with", "without")}
    with ExitStack() as stack:
        parts = {
            way: stack.enter_context(started(centre, name=f"exporter-{way}", EXPORTER_FLEET_PAGE=str(way == "with").lower()))[0]
            for way in found
        }
        with arriving(samples, SETTLING_SECONDS):
            time.sleep(SETTLING_SECONDS)
        for _ in range(ROUNDS):
            for way, cores in while_arriving(parts, samples).items():
                found[way]["ingest"].append(1e6 * cores / PER_SECOND)
            for way, part in parts.items():
                found[way]["scrape"].append(median(timed(part, packed=True, repeats=SCRAPES)[1]))
                found[way]["memory"].append(float(part.resident_bytes()))
    return found


def arriving(samples: Samples, seconds: float) -> AbstractContextManager[None]:
    """``PER_SECOND`` samples arrive every second meanwhile, for longer than so many seconds."""
    return samples.arriving(PER_SECOND, rounds=round(seconds * PER_SECOND / (NODES * VMS)) + 1)


def while_arriving(parts: Mapping[str, Part], samples: Samples) -> dict[str, float]:
    """CPU seconds of processes by the second over a minute, while samples arrive."""
    with arriving(samples, MINUTE_SECONDS):
        time.sleep(1.0)
        began, before = time.monotonic(), {name: part.cpu_seconds() for name, part in parts.items()}
        time.sleep(MINUTE_SECONDS)
        passed = time.monotonic() - began
        return {name: (part.cpu_seconds() - before[name]) / passed for name, part in parts.items()}


def opened(centre: Centre, samples: Samples) -> dict[str, Any]:
    """Milliseconds to the first paint of each page, and the exporter's CPU while no page and while ten pages are open, in cores."""
    with started(centre) as (part, _), chromium() as browser:
        base = part.url.removesuffix("/metrics")
        vm = f"/vms/{_some_vm(base)}"
        with arriving(samples, SETTLING_SECONDS):
            time.sleep(SETTLING_SECONDS)
        paints = {("/vms/UUID" if page == vm else page): [painted(browser, base, page) for _ in range(PAINTS)] for page in (*PAGES, vm)}
        closed, live = [], []
        for _ in range(ROUNDS):
            closed.append(while_arriving({"": part}, samples)[""])
            with ExitStack() as stack:
                for number in range(OPEN_PAGES):
                    stack.enter_context(visit(browser, base)).lively((*PAGES, vm)[number % (len(PAGES) + 1)])
                live.append(while_arriving({"": part}, samples)[""])
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
    spent, goals, unasked, pages = found["answers"], found["goals"], found["unused"], found["open"]
    slowest = max((name for name in spent if name.startswith("/vms?sort")), key=lambda name: float(spent[name]))
    others = [name for name in spent if not name.startswith("/vms?sort")]
    more = median(pages["live"]) - median(pages["closed"])
    return [
        "## The fleet page and its API",
        origin(found, "scripts/bench api"),
        (
            f"{found['vms']:,} VMs. Answers: median milliseconds of CPU, in one process, without HTTP. The slowest order of all: `{slowest}`, "
            f"{spent[slowest]:.1f} ms (goal: {goals['sort_milliseconds']:.0f} ms)."
        ),
        table(("answer", "ms"), [(f"`{name}`", f"{spent[name]:.1f}") for name in (slowest, *others)]),
        (
            f"From asking for a page to its first content on the screen, Debian's Chromium on the same machine "
            f"(goal: {goals['paint_milliseconds']:.0f} ms):"
        ),
        table(("page", "ms"), [(f"`{page}`", figure(rounds)) for page, rounds in found["paints"].items()]),
        (
            f"`virtflow top`: from a key to the lines on the screen, median milliseconds of CPU (goal: {goals['key_milliseconds']:.0f} ms). A key "
            "that needs other rows is shown at once, and the rows when the exporter has answered."
        ),
        table(("key", "ms"), [(name, f"{spent:.1f}") for name, spent in found["keys"].items()]),
        (
            f"While {PER_SECOND} samples arrive every second the exporter takes {figure(pages['closed'], 3)} cores over a minute, with "
            f"{pages['pages']} pages open that are kept current {figure(pages['live'], 3)}: {more:.3f} more (goal: {goals['open_cores']})."
        ),
        (
            "**A page that nobody opens**: two exporters side by side on the same samples, with page and API, and without "
            f"(`exporter.fleet_page = false`); goal of CPU: {goals['unused_share']:.0%} more. The last hour and the counters of the page take "
            f"{found['bytes_a_vm'] / 1024:.1f} KiB a VM once somebody has opened it."
        ),
        table(
            ("", "with", "without", "more"),
            [
                _row("CPU of a sample, µs", unasked, "ingest", 1.0),
                _row("CPU of a scrape, ms", unasked, "scrape", 1e3),
                _row("memory, MiB", unasked, "memory", 2**-20),
            ],
        ),
    ]


def _row(title: str, unasked: dict[str, dict[str, list[float]]], name: str, factor: float) -> tuple[str, ...]:
    known, left_out = ([factor * one for one in unasked[way][name]] for way in ("with", "without"))
    more = median(one / other - 1 for one, other in zip(known, left_out, strict=True))
    return title, figure(known, 1), figure(left_out, 1), f"{more:+.1%}"
