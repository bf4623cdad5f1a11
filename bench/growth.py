"""What a VM-sample costs in fleets of 10 to 10,000 VMs, and with 1 to 16 partitions."""

from __future__ import annotations

from typing import Any, Final

from bench.centre_processes import Load
from bench.part import Asked, origin
from bench.pipeline import OF_THE_CENTRE, measure
from tools.documents import table

FLEETS: Final = ((1, 10), (2, 50), (20, 50), (200, 50))
"""Nodes and VMs on each."""
FLEET_PARTITIONS: Final = 4
FLEET_INTERVAL_SECONDS: Final = 5.0
PARTITIONS: Final = (1, 4, 16)
PARTITIONED: Final = (20, 50)
PARTITIONED_INTERVAL_SECONDS: Final = 1.0
MOST_SECONDS: Final = 20.0
WARM_SECONDS: Final = 12.0
"""After 10 s of 1,000 samples a second the exporter reads them in columns."""


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    seconds = min(asked.seconds, MOST_SECONDS)
    loads = [("fleets", Load(nodes, vms, FLEET_INTERVAL_SECONDS, seconds, partitions=FLEET_PARTITIONS)) for nodes, vms in FLEETS]
    loads += [("partitions", Load(*PARTITIONED, PARTITIONED_INTERVAL_SECONDS, seconds, partitions=count)) for count in PARTITIONS]
    found: dict[str, Any] = {"seconds": round(seconds), "fleets": [], "partitions": []}
    for number, (kind, load) in enumerate(loads):
        folder = asked.folder / str(number)
        folder.mkdir()
        found[kind].append({"partitions": load.partitions, **measure(load, folder, WARM_SECONDS)})
    return found


def section(found: dict[str, Any]) -> list[str]:
    """See ``bench.part``."""
    fleets, partitions = found["fleets"], found["partitions"]
    return [
        "## Growth",
        origin(found, "scripts/bench growth"),
        (
            f"One process of each service, all of it on this machine, {found['seconds']} s each, scraped every 5 s. Small fleets show what the "
            "processes cost while they have nearly nothing to do; divide by no small number of samples."
        ),
        f"**By VMs**, every {FLEET_INTERVAL_SECONDS:g} s, {FLEET_PARTITIONS} partitions:",
        _table("VMs", "vms", fleets),
        f"**By partitions**, {PARTITIONED[0] * PARTITIONED[1]} VMs every {PARTITIONED_INTERVAL_SECONDS:g} s:",
        _table("partitions", "partitions", partitions),
    ]


def _table(title: str, key: str, rows: list[dict[str, Any]]) -> str:
    heads = (title, "VM-samples a second", *(f"{name}, µs" for name in OF_THE_CENTRE), "sum, µs", "cores", "exporter MiB", "lag, median s")
    return table(heads, [_row(key, row) for row in rows])


def _row(key: str, row: dict[str, Any]) -> tuple[str, ...]:
    cost, cores = row["cpu_microseconds_per_vm_sample"], row["cores"]
    return (
        str(row[key]),
        str(row["samples_per_second"]),
        *(f"{cost[name]:.0f}" for name in OF_THE_CENTRE),
        f"{row['centre_microseconds']:.0f}",
        f"{sum(cores[name] for name in OF_THE_CENTRE):.2f}",
        str(row["memory_mib"]["exporter"][-1]),
        f"{row['lag_seconds']['median']:.2f}",
    )
