"""All hypervisors, and the VMs that need attention."""

from __future__ import annotations

from tools.dashboards.board import Board, Part
from tools.dashboards.links import CELL, SERIES_NODE, SERIES_VM, to_node, to_page, to_vm
from tools.dashboards.panels import Column, Panel, Query, Style, Text, by_label, graph, labels, number
from tools.dashboards.promql import OF_NODE, top
from tools.dashboards.variables import node, project

VM = to_vm(SERIES_VM)
NODE = to_node(SERIES_NODE)


def board() -> Board:
    """``fleet.json``."""
    parts = [
        Part("", _numbers()),
        Part("Alerts", [_alerts()]),
        Part("VMs", _vms()),
        Part("Hypervisors and pipeline", [_table(), *_nodes(), *_pipeline()]),
    ]
    return Board("fleet", "fleet", "All hypervisors and the VMs that need attention.", [node(), project()], parts)


def _numbers() -> list[Panel]:
    dropped = f"sum(increase(virtflow_node_drops_total{{{OF_NODE}}}[1h])) or vector(0)"
    undecodable = "sum(increase(virtflow_processors_dead_letters_total[1h])) or vector(0)"
    return [
        number(Text("Hypervisors up", "Hypervisors whose libvirt answered in the newest round."), f"sum(virtflow_node_up{{{OF_NODE}}})"),
        number(
            Text(
                "Hypervisors silent",
                "libvirt does not answer, or nothing came from the producer for three intervals.",
                ("VirtflowNodeSilent",),
            ),
            f"count(virtflow_node_up{{{OF_NODE}}} == 0) or vector(0)",
            alarm=1,
        ),
        number(Text("VMs running", "VMs in state running on these hypervisors."), f'sum(virtflow_node_vms{{state="running",{OF_NODE}}})'),
        number(
            Text("VM samples per second", "Samples that the processors delivered.", ("VirtflowNoSamples",)), "virtflow:vm_samples:rate1m"
        ),
        number(
            Text("Slowest hop", "Age of a record when the exporter took it, newest and slowest topic.", ("VirtflowPipelineSlow",)),
            "max(virtflow_exporter_lag_seconds)",
            "s",
            alarm=30,
        ),
        number(
            Text(
                "Dropped in an hour",
                "What producers gave up (snapshots, values, devices, messages) and messages that could not be decoded.",
                ("VirtflowSnapshotsDropped", "VirtflowEventsLost", "VirtflowDeadLetters"),
            ),
            f"round(({dropped}) + ({undecodable}))",
            alarm=1,
        ),
    ]


def _alerts() -> Panel:
    runbook = to_page("Runbook", f"runbooks/{CELL}.md")
    text = Text(
        "Firing alerts",
        "Alerts of deploy/prometheus/alerts.yml that fire now; the name of each links to its runbook. Empty while all is well.",
    )
    return labels(text, 'ALERTS{alertstate="firing",alertname=~"Virtflow.+"}', ["alertstate"], {"alertname": runbook}, height=6)


def _vms() -> list[Panel]:
    network = "(vm:network_receive_bytes:rate1m + vm:network_transmit_bytes:rate1m)"
    disks = "(vm:block_read_bytes:rate1m + vm:block_write_bytes:rate1m)"
    packets = "(vm:network_receive_packets_dropped:rate1m + vm:network_transmit_packets_dropped:rate1m)"

    def busiest(text: Text, promql: str, unit: str) -> Panel:
        return graph(text, [Query(top(promql), "{{name}}")], Style(unit, link=VM))

    steal = Text("Waiting for a host CPU", "CPU time that the VM's virtual CPUs wanted and did not get (steal), per second.")
    memory = Text("Guest memory in use", "Share of its memory that the guest cannot hand out any more; needs the guest's balloon driver.")
    states = [Query(f"sum by (state) (virtflow_node_vms{{{OF_NODE}}})", "{{state}}")]
    return [
        busiest(Text("CPU: busiest VMs", "CPU cores in use, host CPU time included."), "vm:cpu_seconds:rate1m", "short"),
        busiest(steal, "vm:vcpu_delay_seconds:rate1m", "s"),
        busiest(Text("Network: busiest VMs", "Bytes received and sent per second."), network, "Bps"),
        busiest(Text("Disks: busiest VMs", "Bytes read and written per second."), disks, "Bps"),
        busiest(Text("Slowest writes", "Mean time of a write request."), "vm:block_write_latency_seconds:mean1m", "s"),
        busiest(memory, "vm:guest_memory_used:ratio", "percentunit"),
        graph(Text("VMs by state", "All VMs of these hypervisors."), states, Style(stacked=True)),
        busiest(Text("Packets dropped", "At the VMs' network devices, per second."), packets, "pps"),
    ]


def _table() -> Panel:
    columns = [
        Column("up", f"max by (node) (virtflow_node_up{{{OF_NODE}}})"),
        Column("VMs", f"max by (node) (node:vms:sum{{{OF_NODE}}})"),
        Column("interval", f"max by (node) (virtflow_node_interval_seconds{{{OF_NODE}}})", "s"),
        Column("age of newest", f"max by (node) (virtflow_node_sample_age_seconds{{{OF_NODE}}})", "s"),
        Column("sampling took", f"max by (node) (virtflow_node_sampling_seconds{{{OF_NODE}}})", "s"),
        Column("producer CPU", f"max by (node) (rate(virtflow_node_cpu_seconds_total{{{OF_NODE}}}[5m]))", "percentunit"),
        Column("producer memory", f"max by (node) (virtflow_node_resident_memory_bytes{{{OF_NODE}}})", "bytes"),
    ]
    return by_label(Text("Hypervisors", "One line each.", ("VirtflowNodeSilent",)), columns, {"node": to_node(CELL)})


def _nodes() -> list[Panel]:
    unanswered = [
        Query(f"virtflow_node_vms_skipped{{{OF_NODE}}} > 0", "{{node}} do not answer"),
        Query(f"virtflow_node_vms_not_probed{{{OF_NODE}}} > 0", "{{node}} not asked"),
    ]
    hung = [
        Query(f"virtflow_node_hung_calls{{{OF_NODE}}}", "{{node}}"),
        Query(f"max(virtflow_node_hung_calls_limit{{{OF_NODE}}})", "limit"),
    ]
    sampling = [Query(f"virtflow_node_sampling_seconds{{{OF_NODE}}}", "{{node}} {{tier}}")]
    drops = [Query(f"sum by (node, reason) (node:drops:rate5m{{{OF_NODE}}}) > 0", "{{node}} {{reason}}")]
    silent = Text(
        "VMs that do not answer", "QEMU does not answer libvirt, or may not be asked any more on that hypervisor.", ("VirtflowVmStuck",)
    )
    calls = Text("Hung calls", "Each holds one of libvirtd's workers; the limit bounds ours.", ("VirtflowHungCallLimitReached",))
    given_up = Text("Given up by producers", "By reason, per second over five minutes.", ("VirtflowSnapshotsDropped", "VirtflowEventsLost"))
    return [
        graph(silent, unanswered, Style(link=NODE)),
        graph(calls, hung, Style(link=NODE)),
        graph(Text("Sampling time", "How long a round took on each hypervisor, by tier."), sampling, Style("s", link=NODE)),
        graph(given_up, drops, Style("cps", link=NODE)),
    ]


def _pipeline() -> list[Panel]:
    throughput = [
        Query("sum(rate(virtflow_processors_messages_total[1m]))", "messages"),
        Query("virtflow:vm_samples:rate1m", "VM samples"),
        Query("sum(rate(virtflow_processors_dead_letters_total[1m])) or vector(0)", "dead letters"),
    ]
    lag = [
        Query("virtflow_processors_lag_seconds", "processors {{instance}}"),
        Query("virtflow_exporter_lag_seconds", "exporter {{topic}}"),
    ]
    return [
        graph(
            Text("Processors", "Messages and VM samples per second, and dead letters.", ("VirtflowDeadLetters",)), throughput, Style("cps")
        ),
        graph(Text("Lag", "How old data is when it is taken.", ("VirtflowPipelineSlow",)), lag, Style("s")),
    ]
