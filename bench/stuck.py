"""Collectors of one host side by side while VMs of it hang: how old a healthy VM's value is, how long a scrape takes, what is left behind.

A real libvirtd with VMs without a system, in namespaces of their own; "stuck" is SIGSTOP to the VM's QEMU. Each collector runs alone on the same
host. Needs root and the lab's packages; the rivals are installed.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.part import Asked, origin
from bench.rivals import COLLECTD
from scripts.debian_programs import Missing, debian_program
from tests.support.lab import Guest, Lab, LabError, Node, Process, await_true
from tools.documents import table

ROOT: Final = Path(__file__).resolve().parent.parent
VMS: Final = 20
STUCK: Final = (0, 1, 8)
INTERVAL_SECONDS: Final = 1.0
SCRAPE_SECONDS: Final = 10.0
MOST_SECONDS: Final = 20.0
"""Prometheus' default limit of a scrape."""
PORT: Final = 9300
READY_SECONDS: Final = 60.0
FREE_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Collector:
    """A program that serves a host's VMs to Prometheus: its command, and when the value of a VM in an answer was taken."""

    name: str
    command: Callable[[Path], list[str]]
    taken: Callable[[str, str, float], float | None]


def _virtflow(folder: Path) -> list[str]:
    del folder
    program = Path(sys.executable).parent / "virtflow"
    return [str(program), "node", "--listen", f"0.0.0.0:{PORT}", "--interval", f"{INTERVAL_SECONDS:g}"]


def _of_virtflow(text: str, vm: str, began: float) -> float | None:
    found = re.search(rf'^vm_monitor_age_seconds{{[^}}]*name="{vm}"[^}}]*}} (\S+)$', text, re.MULTILINE)
    return began - float(found[1]) if found else None


def _exporter(folder: Path) -> list[str]:
    del folder
    return ["prometheus-libvirt-exporter", f"--web.listen-address=:{PORT}"]


def _of_exporter(text: str, vm: str, began: float) -> float | None:
    """It reads libvirt within the scrape."""
    return began if re.search(rf'^libvirt_domain_block_stats_read_requests_total{{[^}}]*domain="{vm}"', text, re.MULTILINE) else None


def _collectd(folder: Path) -> list[str]:
    configuration = folder / "collectd.conf"
    configuration.write_text(COLLECTD.format(interval=INTERVAL_SECONDS, folder=folder, port=PORT))
    return ["collectd", "-f", "-C", str(configuration)]


def _of_collectd(text: str, vm: str, began: float) -> float | None:
    """It says of each value when it was taken, in milliseconds."""
    del began
    found = re.search(rf'^collectd_virt_disk_ops_read_total{{[^}}]*instance="{vm}"[^}}]*}} \S+ (\d+)$', text, re.MULTILINE)
    return int(found[1]) / 1000 if found else None


COLLECTORS: Final = (
    Collector("virtflow node", _virtflow, _of_virtflow),
    Collector("prometheus-libvirt-exporter", _exporter, _of_exporter),
    Collector("collectd", _collectd, _of_collectd),
)


@dataclass
class Watched:
    """What was seen of a collector: ages of the healthy VM's newest known value, and how long scrapes took."""

    ages: list[float] = field(default_factory=list)
    scrapes: list[float] = field(default_factory=list)


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """One row per collector and number of stuck VMs."""
    failures = {}
    for program in ("prometheus-libvirt-exporter", "collectd"):
        try:
            debian_program(program)
        except Missing as error:
            failures[program] = str(error)
    rows = []
    with Lab(nodes=1) as lab:
        node = lab.nodes[0]
        guests = node.load_paused(VMS)
        for guest in guests:
            node.virsh("resume", guest.uuid)  # collectd passes by VMs that do not run; these have no system and idle in their firmware
        for collector in COLLECTORS:
            if collector.name in failures:
                continue
            for stuck in STUCK:
                rows.append(_row(node, guests, collector, stuck, folder, seconds))
                print(rows[-1], file=sys.stderr)
    return {
        "rows": rows,
        "failures": failures,
        "vms": VMS,
        "interval_seconds": INTERVAL_SECONDS,
        "seconds": seconds,
        "scrape_limit_seconds": SCRAPE_SECONDS,
    }


def _row(node: Node, guests: list[Guest], collector: Collector, stuck: int, folder: Path, seconds: float) -> dict[str, Any]:  # noqa: PLR0913, PLR0917, what a row is made of
    process = node.spawn(collector.command(folder), folder / f"{collector.name.split()[0]}.log")
    healthy = guests[-1].name
    address = f"http://{node.address}:{PORT}/metrics"
    await_true(lambda: _taken(address, collector, healthy) is not None, READY_SECONDS, f"{collector.name} shows {healthy}")
    for guest in guests[:stuck]:
        node.freeze(guest)
    watched = _watch(address, collector, healthy, seconds)
    _kill(process)
    left = node.hung_calls()
    for guest in guests[:stuck]:
        node.thaw(guest)
    await_true(lambda: node.hung_calls() == 0, FREE_SECONDS, "libvirtd's workers are free again")
    ages = sorted(watched.ages)
    return {
        "collector": collector.name,
        "stuck": stuck,
        "age_p50_seconds": statistics.median(ages),
        "age_p99_seconds": ages[min(len(ages) - 1, round(0.99 * len(ages)))],
        "scrape_median_seconds": statistics.median(watched.scrapes),
        "scrape_longest_seconds": max(watched.scrapes),
        "hung_calls_left": left,
    }


def _kill(process: Process) -> None:
    try:
        process.kill()
    except LabError as error:
        print(error, file=sys.stderr)


def _scrape(address: str) -> str | None:
    try:
        with urllib.request.urlopen(address, timeout=SCRAPE_SECONDS) as answer:  # noqa: S310, an address of the lab
            return str(answer.read().decode())
    except (OSError, urllib.error.URLError):
        return None


def _taken(address: str, collector: Collector, vm: str) -> float | None:
    began = time.time()
    text = _scrape(address)
    return None if text is None else collector.taken(text, vm, began)


def _watch(address: str, collector: Collector, vm: str, seconds: float) -> Watched:
    """Scrapes as Prometheus does, once an interval; between two scrapes the age of the value that is known grows."""
    watched = Watched()
    newest = time.time()
    end = newest + seconds
    while (began := time.time()) < end:
        taken = _taken(address, collector, vm)
        took = time.time() - began
        watched.scrapes.append(took)
        # What Prometheus knows was as old at the scrape's end as it ever gets: the new value replaces it only then.
        watched.ages.append(began + took - newest)
        newest = max(newest, taken or newest)
        time.sleep(max(0.0, began + INTERVAL_SECONDS - time.time()))
    return watched


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    return measure(asked.folder, min(asked.seconds, MOST_SECONDS))


def section(stuck: dict[str, Any]) -> list[str]:
    """The part of the page."""
    load = f"{stuck['vms']} VMs on a real libvirtd; each collector alone, for {stuck['seconds']:g} s, sampled and scraped every"
    return [
        "## Stuck VMs, side by side",
        origin(stuck, f"scripts/bench stuck --seconds {stuck['seconds']:g}"),
        f"{load} {stuck['interval_seconds']:g} s; a scrape is given up after {stuck['scrape_limit_seconds']:g} s. Stuck VMs are stopped in the middle.",
        table(
            ("collector", "stuck VMs", "healthy VM's age p50", "p99", "scrape, median", "longest", "hung calls left behind"),
            [
                (
                    row["collector"],
                    str(row["stuck"]),
                    f"{row['age_p50_seconds']:.1f} s",
                    f"{row['age_p99_seconds']:.1f} s",
                    f"{row['scrape_median_seconds']:.2f} s",
                    f"{row['scrape_longest_seconds']:.2f} s",
                    str(row["hung_calls_left"]),
                )
                for row in stuck["rows"]
            ],
        ),
        *(f"Not to be had: {name}, because {why}." for name, why in sorted(stuck.get("failures", {}).items())),
        "Age is that of the value Prometheus knows of a VM that is not stuck (its disk's reads), just before the next scrape replaces it.",
    ]
