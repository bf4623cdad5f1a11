"""Growth by processes: one of each service with one load, then two of each with twice the load; what a VM-sample costs both times."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.centre_processes import Centre, Load, Part, Watch
from bench.centre_scrapes import lag, wait_for_vms, watched
from bench.part import Asked, origin
from tests.support.broker import Broker
from tools.documents import table

PARTITIONS: Final = 4
NODES, VMS = 20, 60
"""Of one of each: 1,200 VMs every second."""
MOST_SECONDS: Final = 40.0
WARM_SECONDS: Final = 10.0
SERVICES: Final = ("processors", "exporter", "history")


def measure(load: Load, count: int, folder: Path) -> dict[str, Any]:
    """``count`` of each service under ``load``: each service's CPU per VM-sample, all its processes together."""
    folder.mkdir()
    with ExitStack() as stack:
        centre = Centre(folder, stack.enter_context(Broker(folder / "broker")), load)
        parts = [stack.enter_context(part) for name in SERVICES for part in _services(centre, name, count)]
        stack.enter_context(centre.service("simulate"))
        urls = [part.url for part in parts if part.name.startswith("exporter")]
        wait_for_vms(urls, load.nodes * load.vms)
        time.sleep(WARM_SECONDS)
        watch = Watch(parts)
        rounds = watched(urls, load.seconds, load.scrape_seconds, watch.look)
        samples, elapsed, cpu = watch.samples(), watch.elapsed, watch.cpu_seconds()
    return {
        "processes": count,
        "samples_per_second": round(samples / elapsed),
        "lag_seconds": lag(rounds, load.interval_seconds),
        "cores": {name: [round(cpu[part.name] / elapsed, 3) for part in _of(parts, name)] for name in SERVICES},
        "cpu_microseconds_per_vm_sample": {
            name: round(sum(cpu[part.name] for part in _of(parts, name)) / samples * 1e6, 1) for name in SERVICES
        },
    }


def _services(centre: Centre, name: str, count: int) -> list[Any]:
    """As many of a service as asked for, each under a name of its own; exporters are shards."""
    shard = name == "exporter" and count > 1
    return [
        centre.service(name, f"{name}-{number}", {"EXPORTER_SHARD": f"{number}/{count}"} if shard else None)
        for number in range(1, count + 1)
    ]


def _of(parts: list[Part], name: str) -> list[Part]:
    return [part for part in parts if part.name.startswith(name)]


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    load = Load(NODES, VMS, 1.0, min(asked.seconds, MOST_SECONDS), partitions=PARTITIONS)
    runs = [measure(replace(load, nodes=load.nodes * count), count, asked.folder / str(count)) for count in (1, 2)]
    return {"seconds": round(load.seconds), "partitions": PARTITIONS, "runs": runs}


def section(found: dict[str, Any]) -> list[str]:
    """See ``bench.part``."""
    one, two = found["runs"]
    rows = []
    for name in SERVICES:
        cost, double = (each["cpu_microseconds_per_vm_sample"][name] for each in (one, two))
        cores = " + ".join(f"{core:.2f}" for core in two["cores"][name])
        rows.append((name, f"{cost:.0f}", f"{double:.0f}", f"{double / cost:.2f}", f"{one['cores'][name][0]:.2f}", cores))
    return [
        "## Twice the processes, twice the load",
        origin(found, f"scripts/bench pairs --seconds {found['seconds']}"),
        (
            f"One of each service with {one['samples_per_second']} VM-samples a second, then two of each (two processors and two writers share "
            f"the partitions of their groups, two exporters are shards) with {two['samples_per_second']}; {found['partitions']} partitions, "
            f"{found['seconds']} s each, one broker. Growth is linear where the ratio is 1."
        ),
        table(("service", "CPU µs per VM-sample, one", "two", "ratio", "cores, one", "cores, each of two"), rows),
        f"Median lag: {one['lag_seconds']['median']:.2f} s with one of each, {two['lag_seconds']['median']:.2f} s with two.",
    ]
