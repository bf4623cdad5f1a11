"""What VMs ask of each hypervisor, and what it cannot give them."""

from __future__ import annotations

from tools.dashboards.board import Board, Part
from tools.dashboards.links import CELL, SERIES_NODE, to_node
from tools.dashboards.panels import Column, Panel, Query, Style, Text, by_label, graph, number
from tools.dashboards.promql import OF_NODE
from tools.dashboards.variables import node

VCPUS = f"sum by (node) (node_project:vm_vcpus:sum{{{OF_NODE}}})"
MEMORY = f"sum by (node) (node_project:vm_memory_bytes:sum{{{OF_NODE}}})"
RESIDENT = f"sum by (node) (node_project:vm_memory_rss_bytes:sum{{{OF_NODE}}})"
CPU = f"sum by (node) (node_project:vm_cpu_seconds:rate1m{{{OF_NODE}}})"
STEAL = f"sum by (node) (node_project:vm_vcpu_delay_seconds:rate1m{{{OF_NODE}}})"
HOST_CPUS = f"node:host_cpus:count{{{OF_NODE}}}"
HOST_MEMORY = f"node:host_memory_bytes:sum{{{OF_NODE}}}"
NEEDS_HOST = " Needs node_exporter on the hypervisors, under the same names as the producers."
NODE = to_node(SERIES_NODE)


def board() -> Board:
    """``node-pressure.json``."""
    parts = [
        Part("", _numbers()),
        Part("Overcommit", _overcommit()),
        Part("CPU", _cpu()),
        Part("libvirt", _libvirt()),
        Part("Hypervisors", [_table()]),
    ]
    about = "What VMs ask of each hypervisor, what it cannot give them, and how libvirt answers. VMs that are shut off count for nothing."
    return Board("node-pressure", "node pressure", about, [node()], parts)


def _over(asked: str, there: str) -> str:
    """A ratio over all chosen hypervisors of which both parts are known."""
    return f"sum(({asked}) and on (node) {there}) / sum({there} and on (node) ({asked}))"


def _numbers() -> list[Panel]:
    slow = f"max(max by (node) (virtflow_node_sampling_seconds{{{OF_NODE}}}) / on (node) max by (node) (virtflow_node_interval_seconds{{{OF_NODE}}}))"
    return [
        number(Text("vCPUs per host CPU", "All vCPUs of VMs over all CPUs." + NEEDS_HOST), _over(VCPUS, HOST_CPUS)),
        number(Text("VM memory per host memory", "What balloons leave to VMs." + NEEDS_HOST), _over(MEMORY, HOST_MEMORY), "percentunit"),
        number(
            Text("vCPU time lost", "Share of the vCPUs' time that hosts did not give (steal)."),
            f"sum({STEAL}) / sum({VCPUS})",
            "percentunit",
        ),
        number(
            Text("Hung calls", "Calls to libvirt that do not come back.", ("VirtflowHungCallLimitReached",)),
            f"sum(virtflow_node_hung_calls{{{OF_NODE}}})",
            alarm=1,
        ),
        number(Text("Slowest sampling", "Of the sampling interval; from 100 % on rounds are late."), slow, "percentunit", alarm=1),
        number(
            Text("Hypervisors silent", "libvirt does not answer, or nothing came from the producer.", ("VirtflowNodeSilent",)),
            f"count(virtflow_node_up{{{OF_NODE}}} == 0) or vector(0)",
            alarm=1,
        ),
    ]


def _each(text: Text, unit: str, *asked: tuple[str, str]) -> Panel:
    queries = [Query(promql, " ".join(filter(None, ("{{node}}", word)))) for promql, word in asked]
    return graph(text, queries, Style(unit, link=NODE))


def _overcommit() -> list[Panel]:
    return [
        _each(Text("vCPUs per host CPU", "Of each hypervisor." + NEEDS_HOST), "short", (f"{VCPUS} / on (node) {HOST_CPUS}", "")),
        _each(
            Text("VM memory per host memory", "What balloons leave to VMs, and what is resident." + NEEDS_HOST),
            "percentunit",
            (f"{MEMORY} / on (node) {HOST_MEMORY}", "given"),
            (f"{RESIDENT} / on (node) {HOST_MEMORY}", "resident"),
        ),
        _each(Text("vCPUs", "Of the VMs on each hypervisor."), "short", (VCPUS, "")),
        _each(Text("Memory", "What balloons leave to VMs, and what is resident."), "bytes", (MEMORY, "given"), (RESIDENT, "resident")),
    ]


def _cpu() -> list[Panel]:
    return [
        _each(Text("CPU used by VMs", "Cores, host CPU time included."), "short", (CPU, "")),
        _each(
            Text("vCPU time lost", "Share of the vCPUs' time that the host did not give (steal)."),
            "percentunit",
            (f"{STEAL} / {VCPUS}", ""),
        ),
    ]


def _libvirt() -> list[Panel]:
    limit = Query(f"max(virtflow_node_hung_calls_limit{{{OF_NODE}}})", "limit")
    hung = [Query(f"virtflow_node_hung_calls{{{OF_NODE}}}", "{{node}}"), limit]
    unanswered = [
        Query(f"virtflow_node_vms_skipped{{{OF_NODE}}}", "{{node}} do not answer"),
        Query(f"virtflow_node_vms_not_probed{{{OF_NODE}}}", "{{node}} not asked"),
    ]
    rounds = [
        Query(f"rate(virtflow_node_rounds_late_total{{{OF_NODE}}}[5m])", "{{node}} late"),
        Query(f"rate(virtflow_node_rounds_skipped_total{{{OF_NODE}}}[5m])", "{{node}} skipped"),
    ]
    interval = Query(f"max(virtflow_node_interval_seconds{{{OF_NODE}}})", "interval")
    sampling = [Query(f"virtflow_node_sampling_seconds{{{OF_NODE}}}", "{{node}} {{tier}}"), interval]
    calls = Text("Hung calls", "Each holds one of libvirtd's workers; the limit bounds ours.", ("VirtflowHungCallLimitReached",))
    vms = Text(
        "VMs that do not answer", "QEMU does not answer libvirt, or may not be asked any more on that hypervisor.", ("VirtflowVmStuck",)
    )
    return [
        graph(calls, hung, Style(link=NODE)),
        graph(vms, unanswered, Style(link=NODE)),
        graph(
            Text("Sampling time", "How long a round took on each hypervisor, by tier, and the longest interval."),
            sampling,
            Style("s", link=NODE),
        ),
        graph(Text("Late and skipped rounds", "Per second over five minutes."), rounds, Style("cps", link=NODE)),
    ]


def _table() -> Panel:
    columns = [
        Column("VMs", f"max by (node) (node:vms:sum{{{OF_NODE}}})"),
        Column("vCPUs", VCPUS),
        Column("host CPUs", f"max by (node) ({HOST_CPUS})"),
        Column("CPU used, cores", CPU),
        Column("vCPU time lost", f"{STEAL} / {VCPUS}", "percentunit"),
        Column("memory given", MEMORY, "bytes"),
        Column("memory resident", RESIDENT, "bytes"),
        Column("host memory", f"max by (node) ({HOST_MEMORY})", "bytes"),
        Column("hung calls", f"max by (node) (virtflow_node_hung_calls{{{OF_NODE}}})"),
        Column("sampling took", f"max by (node) (virtflow_node_sampling_seconds{{{OF_NODE}}})", "s"),
        Column("interval", f"max by (node) (virtflow_node_interval_seconds{{{OF_NODE}}})", "s"),
    ]
    return by_label(Text("Hypervisors", "One line each."), columns, {"node": to_node(CELL)})
