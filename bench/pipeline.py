"""Simulated VMs through real processes: simulator, broker, processors, exporter, history, and a scraper; what arrives when, at which cost."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.centre_processes import Centre, Load, Part, Watch
from bench.centre_scrapes import lag, times, wait_for_vms, watched
from bench.part import Asked, origin
from tests.support.broker import Broker
from tools.documents import table

SERVICES: Final = ("processors", "exporter", "history", "simulate")
OF_THE_CENTRE: Final = ("processors", "exporter", "history")
TOPICS: Final = ("vm.snapshots", "vm.metrics")
BUDGET_US: Final = 200.0
LAG_SECONDS: Final = 2.0
WARM_SECONDS: Final = 15.0


def measure(load: Load, folder: Path, warm_seconds: float = WARM_SECONDS) -> dict[str, Any]:
    """Runs the pipeline under ``load`` and returns what was seen as plain data."""
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(folder / "broker"))
        centre = Centre(folder, broker, load)
        parts = [stack.enter_context(centre.service(name)) for name in SERVICES]
        url = next(part.url for part in parts if part.name == "exporter")
        wait_for_vms([url], load.nodes * load.vms)
        time.sleep(warm_seconds)
        watch = Watch([*parts, Part("broker", broker.pid)])
        before = {topic: centre.stored_bytes(topic) for topic in TOPICS}
        rounds = watched([url], load.seconds, load.scrape_seconds, watch.look)
        samples, elapsed, cpu, memory = watch.samples(), watch.elapsed, watch.cpu_seconds(), watch.memory_mib()
        stored = {topic: centre.stored_bytes(topic) - before[topic] for topic in TOPICS}
    vms = statistics.mean(len(one.ages) for (one,) in rounds)
    each = {name: round(seconds / samples * 1e6, 1) for name, seconds in cpu.items()}
    return {
        "nodes": load.nodes,
        "vms_a_node": load.vms,
        "vms": round(vms),
        "interval_seconds": load.interval_seconds,
        "seconds": round(load.seconds),
        "scrape_every_seconds": load.scrape_seconds,
        "samples_per_second": round(samples / elapsed),
        "lag_seconds": lag(rounds, load.interval_seconds),
        "cpu_microseconds_per_vm_sample": each,
        "centre_microseconds": round(sum(each[name] for name in OF_THE_CENTRE), 1),
        "centre_budget_microseconds": BUDGET_US,
        "cores": {name: round(seconds / elapsed, 3) for name, seconds in cpu.items()},
        "memory_mib": memory,
        "topic_bytes_per_vm_sample": {topic: round(size / samples) for topic, size in stored.items()},
        "scrape": times(rounds),
    }


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    return measure(Load(asked.nodes, asked.vms, asked.interval_seconds, asked.seconds), asked.folder)


def section(found: dict[str, Any]) -> list[str]:
    """See ``bench.part``."""
    behind, one, scrapes = found["lag_seconds"], found["scrape"], found["scrape_every_seconds"]
    switches = f"--nodes {found['nodes']} --vms {found['vms_a_node']} --interval {found['interval_seconds']:g}"
    total, budget = found["centre_microseconds"], found["centre_budget_microseconds"]
    cpu, cores, memory = found["cpu_microseconds_per_vm_sample"], found["cores"], found["memory_mib"]
    return [
        "## The pipeline under load",
        origin(found, f"scripts/bench pipeline {switches} --seconds {found['seconds']}"),
        (
            f"{found['samples_per_second']} VM-samples a second for {found['seconds']} s: {found['vms']} VMs on {found['nodes']} nodes every "
            f"{found['interval_seconds']:g} s through simulator, broker, and one process each of processors, exporter and history writer; "
            f"scraped every {scrapes:g} s; all on this machine."
        ),
        table(
            ("what", "value"),
            [
                ("lag behind the hypervisors, median scrape", f"{behind['median']:.2f} s"),
                ("lag, 95th percentile of the scrapes", f"{behind['p95']:.2f} s"),
                ("lag, worst scrape", f"{behind['worst']:.2f} s"),
                ("scrape, median", f"{one['median_seconds']:.3f} s"),
                ("scrape, longest", f"{one['longest_seconds']:.3f} s"),
                ("series", str(one["series"])),
                ("scrape's size, gzipped", f"{one['gzip_bytes'] / 1e6:.2f} MB"),
                ("scrape's size, text", f"{one['text_bytes'] / 1e6:.2f} MB"),
            ],
        ),
        table(
            ("process", "CPU µs per VM-sample", "cores", "memory MiB: begin, middle, end"),
            [(name, f"{cpu[name]:.0f}", f"{cores[name]:.2f}", ", ".join(map(str, memory[name]))) for name in cpu],
        ),
        f"**The centre as whole processes** (processors, exporter with its scrapes, history writer): **{total:.0f} µs** of its {budget:.0f} µs.",
        (
            "Lag is the age of a VM's sample at the scrape less the sampling interval, within which any age is normal; of each scrape the "
            "99th percentile of its VMs counts, the last percent being VMs that have just been deleted."
        ),
        (
            "A process's CPU holds what no single hop shows: the Kafka clients, the stream framework, the event loop and the scrapes. "
            "The exporter renders a sample when it is scraped: where scrapes are rarer than samples, as here, most are never rendered."
        ),
    ]
