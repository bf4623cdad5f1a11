"""Which VMs and projects take most."""

from __future__ import annotations

from typing import NamedTuple

from tools.dashboards.board import Board, Part
from tools.dashboards.links import CELL, SERIES_VM, to_vm
from tools.dashboards.panels import Column, Panel, Query, Style, Text, by_vm, graph
from tools.dashboards.promql import OF_PROJECT, top
from tools.dashboards.variables import node, project

MOST = 20
"""Lines of the table."""


class Resource(NamedTuple):
    """What is taken: its name, what the figure means, per VM, the recording rule by project, and the unit."""

    name: str
    about: str
    of_vm: str
    of_project: str
    unit: str


RESOURCES = (
    Resource("CPU", "Cores in use, host CPU time included.", "vm:cpu_seconds:rate1m", "node_project:vm_cpu_seconds:rate1m", "short"),
    Resource(
        "Memory",
        "Resident on the host.",
        "vm_memory_rss_bytes",
        "node_project:vm_memory_rss_bytes:sum",
        "bytes",
    ),
    Resource(
        "Disks",
        "Bytes read and written per second.",
        "(vm:block_read_bytes:rate1m + vm:block_write_bytes:rate1m)",
        "node_project:vm_block_bytes:rate1m",
        "Bps",
    ),
    Resource(
        "Network",
        "Bytes received and sent per second.",
        "(vm:network_receive_bytes:rate1m + vm:network_transmit_bytes:rate1m)",
        "node_project:vm_network_bytes:rate1m",
        "Bps",
    ),
    Resource(
        "Steal",
        "CPU time that virtual CPUs wanted and did not get, per second.",
        "vm:vcpu_delay_seconds:rate1m",
        "node_project:vm_vcpu_delay_seconds:rate1m",
        "s",
    ),
)


def board() -> Board:
    """``consumers.json``."""
    parts = [Part("", [_table()]), *(Part(resource.name, _graphs(resource)) for resource in RESOURCES)]
    about = "The VMs and projects that take most CPU, memory, disks and network, and those that wait longest for a CPU."
    return Board("consumers", "top consumers", about, [node(), project()], parts)


def _table() -> Panel:
    busiest, *others = RESOURCES
    chosen = top(busiest.of_vm, MOST)
    columns = [Column(busiest.name, chosen, busiest.unit)]
    columns += [Column(other.name, f"{other.of_vm} and on (uuid) {chosen}", other.unit) for other in others]
    text = Text(f"The {MOST} VMs that use most CPU", "With what else they take now.")
    return by_vm(text, [], columns, {"uuid": to_vm(CELL)}, height=10)


def _graphs(resource: Resource) -> list[Panel]:
    projects = f"topk(10, sum by (project) ({resource.of_project}{{{OF_PROJECT}}}))"
    return [
        graph(
            Text(f"{resource.name}: VMs", resource.about),
            [Query(top(resource.of_vm), "{{name}}")],
            Style(resource.unit, link=to_vm(SERIES_VM)),
        ),
        graph(Text(f"{resource.name}: projects", resource.about), [Query(projects, "{{project}}")], Style(resource.unit)),
    ]
