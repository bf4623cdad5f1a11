"""Simulated VMs through real processes: simulator, broker, processors, exporter, and a scraper; what arrives when, at which cost."""

from __future__ import annotations

import gzip
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scripts.bench_part import Asked, origin
from scripts.documents import table
from tests.support.broker import DIES_WITH_US, Broker, free_ports
from virtflow.runtime.configuration import load
from virtflow.runtime.topic_admin import TopicAdmin

WARM_SECONDS: Final = 15.0
STOP_SECONDS: Final = 15.0
TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
AGE: Final = re.compile(rb"^vm_sample_age_seconds\{[^\n]*\} ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Load:
    """What is simulated, for how long, and how often it is scraped."""

    nodes: int
    vms: int
    interval_seconds: float
    seconds: float
    scrape_seconds: float = 5.0


@dataclass(slots=True)
class Scrape:
    """One scrape of the exporter: when it began, how long it took, its sizes, and the ages of the VMs' samples."""

    seconds: float
    wire_bytes: int
    text_bytes: int
    series: int
    ages: list[float] = field(repr=False)


class Part:
    """One process of the pipeline and what it has used."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """``process`` runs."""
        self.name = name
        self.process = process

    def cpu_seconds(self) -> float:
        """CPU time of its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_bytes(self) -> int:
        """Its memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES


@contextmanager
def service(folder: Path, environment: dict[str, str], command: str) -> Iterator[Part]:
    """``virtflow COMMAND`` as a process of its own, ended with TERM."""
    with (folder / f"{command}.log").open("wb") as log:
        process = subprocess.Popen(
            [*DIES_WITH_US, sys.executable, "-m", "virtflow.cli.main", command], env=os.environ | environment, cwd=folder, stderr=log
        )
    try:
        yield Part(command, process)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def scrape(url: str) -> Scrape:
    """One scrape as Prometheus does it, gzipped."""
    began = time.monotonic()
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})  # noqa: S310, our own loopback
    with urllib.request.urlopen(request, timeout=30.0) as answer:  # noqa: S310, our own loopback
        wire = answer.read()
    seconds = time.monotonic() - began
    text = gzip.decompress(wire)
    series = text.count(b"\n") - text.count(b"\n#") - text.startswith(b"#")
    return Scrape(seconds, len(wire), len(text), series, [float(age) for age in AGE.findall(text)])


def measure(load_: Load, folder: Path) -> dict[str, Any]:
    """Runs the pipeline under ``load_`` and returns what was seen as plain data."""
    processors, exporter = free_ports(2)
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(folder / "broker"))
        environment = {
            "VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": broker.address,
            "VIRTFLOW_PROCESSORS_LISTEN": f"127.0.0.1:{processors}",
            "VIRTFLOW_EXPORTER_LISTEN": f"127.0.0.1:{exporter}",
            "VIRTFLOW_SIMULATE_NODES": str(load_.nodes),
            "VIRTFLOW_SIMULATE_VMS": str(load_.vms),
            "VIRTFLOW_PRODUCER_INTERVAL_SECONDS": str(load_.interval_seconds),
        }
        admin = TopicAdmin(load(None, environment))
        admin.create(admin.states(), dry_run=False)
        parts = [stack.enter_context(service(folder, environment, name)) for name in ("processors", "exporter", "simulate")]
        url = f"http://127.0.0.1:{exporter}/metrics"
        _wait_for_vms(url, load_)
        time.sleep(WARM_SECONDS)
        return _observed(load_, parts, url)


def _wait_for_vms(url: str, load_: Load) -> None:
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        try:
            if len(scrape(url).ages) > 0.9 * load_.nodes * load_.vms:
                return
        except OSError:
            pass
        time.sleep(1.0)
    raise TimeoutError("the simulated VMs did not arrive at the exporter")


def _observed(load_: Load, parts: list[Part], url: str) -> dict[str, Any]:
    before = {part.name: part.cpu_seconds() for part in parts}
    began = time.monotonic()
    scrapes = []
    while (now := time.monotonic()) < began + load_.seconds:
        scrapes.append(scrape(url))
        print(f"\r{now - began:5.0f} s  {_line(scrapes[-1])}", end="", file=sys.stderr, flush=True)
        time.sleep(max(0.0, load_.scrape_seconds - (time.monotonic() - now)))
    print(file=sys.stderr)
    elapsed = time.monotonic() - began
    vms = statistics.mean(len(one.ages) for one in scrapes)
    samples = vms * elapsed / load_.interval_seconds
    cpu = {part.name: part.cpu_seconds() - before[part.name] for part in parts}
    return {
        "nodes": load_.nodes,
        "vms": round(vms),
        "interval_seconds": load_.interval_seconds,
        "seconds": round(load_.seconds),
        "lag_seconds": _lag(scrapes, load_.interval_seconds),
        "cpu_microseconds_per_vm_sample": {name: round(seconds / samples * 1e6, 1) for name, seconds in cpu.items()},
        "cores": {name: round(seconds / elapsed, 3) for name, seconds in cpu.items()},
        "resident_mib": {part.name: round(part.resident_bytes() / 1024**2) for part in parts},
        "scrape": {
            "series": scrapes[-1].series,
            "median_seconds": round(statistics.median(one.seconds for one in scrapes), 3),
            "longest_seconds": round(max(one.seconds for one in scrapes), 3),
            "gzip_bytes": scrapes[-1].wire_bytes,
            "text_bytes": scrapes[-1].text_bytes,
        },
    }


def _lag(scrapes: list[Scrape], interval: float) -> dict[str, float]:
    """How far the exporter is behind the hypervisors: a sample's age at the scrape less the interval within which it is normal.

    Of each scrape the 99th percentile of its VMs counts, because the last percent are VMs that were just deleted; of all scrapes the
    median, the 95th percentile and the worst.
    """
    late = sorted(max(0.0, sorted(one.ages)[int(len(one.ages) * 0.99)] - interval) for one in scrapes)
    found = {"median": late[len(late) // 2], "p95": late[int(len(late) * 0.95)], "worst": late[-1]}
    return {name: round(seconds, 3) for name, seconds in found.items()}


def _line(one: Scrape) -> str:
    ages = sorted(one.ages)
    return f"{len(ages)} VMs, {one.series} series, scrape {one.seconds:.3f} s, age p50 {ages[len(ages) // 2]:.2f} s p99 {ages[int(len(ages) * 0.99)]:.2f} s"


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench_part``."""
    return measure(Load(asked.nodes, asked.vms, asked.interval_seconds, asked.seconds), asked.folder)


def section(pipeline: dict[str, Any]) -> list[str]:
    """The part of the page."""
    lag, scrape = pipeline["lag_seconds"], pipeline["scrape"]
    load = f"{pipeline['vms']} VMs on {pipeline['nodes']} nodes every {pipeline['interval_seconds']:g} s for {pipeline['seconds']} s"
    cpu, cores, memory = pipeline["cpu_microseconds_per_vm_sample"], pipeline["cores"], pipeline["resident_mib"]
    return [
        "## The pipeline under load",
        origin(pipeline, f"scripts/bench pipeline --seconds {pipeline['seconds']}"),
        f"{load}, through simulator, broker, one process of processors and one exporter, scraped every 5 s; all on this machine.",
        table(
            ("what", "value"),
            [
                ("lag behind the hypervisors, median scrape", f"{lag['median']:.2f} s"),
                ("lag, 95th percentile of the scrapes", f"{lag['p95']:.2f} s"),
                ("lag, worst scrape", f"{lag['worst']:.2f} s"),
                ("scrape, median", f"{scrape['median_seconds']:.3f} s"),
                ("scrape, longest", f"{scrape['longest_seconds']:.3f} s"),
                ("series", str(scrape["series"])),
                ("scrape's size, gzipped", f"{scrape['gzip_bytes'] / 1e6:.2f} MB"),
                ("scrape's size, text", f"{scrape['text_bytes'] / 1e6:.2f} MB"),
            ],
        ),
        table(
            ("process", "CPU µs per VM-sample", "cores", "memory MiB"),
            [(name, f"{cpu[name]:.0f}", f"{cores[name]:.2f}", str(memory[name])) for name in cpu],
        ),
        (
            "Lag is the age of a VM's sample at the scrape less the sampling interval, within which any age is normal; of each scrape the "
            "99th percentile of its VMs counts, the last percent being VMs that have just been deleted."
        ),
        "A process's CPU holds what no single hop shows: the Kafka clients, the stream framework, the event loop and the scrapes.",
    ]
