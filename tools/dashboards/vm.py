"""One virtual machine, from its identity to its devices."""

from __future__ import annotations

from tools.dashboards.board import Board, Part
from tools.dashboards.links import CELL, to_node
from tools.dashboards.panels import Panel, Query, Style, Text, graph, labels, number
from tools.dashboards.promql import OF_VM
from tools.dashboards.variables import node, vm

IDENTITY = ["uuid", "name"]
"""Labels that a table of one VM leaves out."""


def board() -> Board:
    """``vm.json``."""
    parts = [
        Part("", [_what(), *_state()]),
        Part("CPU", _cpu()),
        Part("Memory", _memory()),
        Part("Disks", _disks()),
        Part("Network", _network()),
        Part("The guest's own word (its agent)", _guest()),
    ]
    return Board("vm", "VM", "One virtual machine, from its identity to its devices.", [node(multi=False), vm()], parts)


def _rate(metric: str) -> str:
    return f"rate({metric}{{{OF_VM}}}[$__rate_interval])"


def _rates(unit: str, *asked: tuple[str, str], title: str, about: str) -> Panel:
    return graph(Text(title, about), [Query(_rate(metric), legend) for metric, legend in asked], Style(unit))


def _values(unit: str, *asked: tuple[str, str], title: str, about: str) -> Panel:
    return graph(Text(title, about), [Query(f"{metric}{{{OF_VM}}}", legend) for metric, legend in asked], Style(unit))


def _one(text: Text, metric: str, unit: str = "short", *, alarm: float | None = None, width: int = 3) -> Panel:
    return number(text, f"{metric}{{{OF_VM}}}", unit, alarm=alarm, width=width)


def _what() -> Panel:
    return labels(Text("What it is", "Identity and inventory."), f"vm_info{{{OF_VM}}}", [], {"node": to_node(CELL)})


def _state() -> list[Panel]:
    state = Text("State", "State and its reason.", ("VirtflowVmCrashed", "VirtflowVmIoError"))
    monitor = "CPU, disks and memory come over QEMU's monitor, which can hang."
    return [
        labels(state, f"vm_state_info{{{OF_VM}}}", IDENTITY, {}).span(8),
        _one(Text("Answers", "Whether its QEMU answers libvirt: 1 yes, 0 no.", ("VirtflowVmStuck",)), "vm_responsive"),
        _one(Text("Age of the newest sample", "Grows while nothing comes."), "vm_sample_age_seconds", "s", alarm=60),
        _one(Text("Age of the monitor groups", monitor), "vm_monitor_age_seconds", "s", alarm=60),
        _one(Text("Virtual CPUs", "In use now."), "vm_vcpus_current"),
        _one(Text("Memory", "What the balloon leaves the guest."), "vm_memory_balloon_current_bytes", "bytes", width=4),
    ]


def _cpu() -> list[Panel]:
    cores = [
        Query(f"vm:cpu_seconds:rate1m{{{OF_VM}}}", "all"),
        Query(_rate("vm_cpu_user_seconds_total"), "user"),
        Query(_rate("vm_cpu_system_seconds_total"), "system"),
    ]
    legend = "vCPU {{vcpu}}"
    steal = "Wanted and not got (steal), per virtual CPU."
    return [
        graph(Text("CPU", "Cores in use: all of it, and the host's user and system part."), cores),
        _rates("percentunit", ("vm_vcpu_seconds_total", legend), title="Each virtual CPU", about="Share of one host CPU."),
        _rates("percentunit", ("vm_vcpu_delay_seconds_total", legend), title="Waiting for a host CPU", about=steal),
    ]


def _memory() -> list[Panel]:
    return [
        _values(
            "bytes",
            ("vm_memory_rss_bytes", "resident"),
            ("vm_memory_balloon_current_bytes", "balloon"),
            ("vm_memory_balloon_maximum_bytes", "maximum"),
            title="Host side",
            about="Resident on the host, the balloon now, and at most.",
        ),
        _values(
            "bytes",
            ("vm_guest_memory_total_bytes", "total"),
            ("vm_guest_memory_usable_bytes", "usable"),
            ("vm_guest_memory_free_bytes", "free"),
            ("vm_guest_memory_disk_caches_bytes", "disk caches"),
            title="In the guest",
            about="Needs the guest's balloon driver and a statistics period.",
        ),
        _rates(
            "short",
            ("vm_guest_memory_swap_in_bytes_total", "swapped in, B/s"),
            ("vm_guest_memory_swap_out_bytes_total", "swapped out, B/s"),
            ("vm_guest_memory_major_faults_total", "major faults/s"),
            title="Swap and major faults",
            about="In the guest.",
        ),
    ]


def _disks() -> list[Panel]:
    def latency(way: str) -> str:
        return f"{_rate(f'vm_block_{way}_seconds_total')} / ({_rate(f'vm_block_{way}_requests_total')} > 0)"

    slow = [Query(latency("read"), "{{device}} read"), Query(latency("write"), "{{device}} write")]
    return [
        _rates(
            "Bps",
            ("vm_block_read_bytes_total", "{{device}} read"),
            ("vm_block_write_bytes_total", "{{device}} written"),
            title="Bytes",
            about="Read and written per second.",
        ),
        _rates(
            "reqps",
            ("vm_block_read_requests_total", "{{device}} read"),
            ("vm_block_write_requests_total", "{{device}} write"),
            ("vm_block_flush_requests_total", "{{device}} flush"),
            title="Requests",
            about="Per second.",
        ),
        graph(Text("Mean latency", "Time of a request."), slow, Style("s")),
        _values(
            "bytes",
            ("vm_block_capacity_bytes", "{{device}} capacity"),
            ("vm_block_physical_bytes", "{{device}} on the host"),
            title="Size",
            about="What the guest sees, and what the image occupies.",
        ),
    ]


def _network() -> list[Panel]:
    def both(what: str) -> str:
        return f"{_rate(f'vm_network_receive_{what}_total')} + {_rate(f'vm_network_transmit_{what}_total')}"

    packets = [
        Query(_rate("vm_network_receive_packets_total"), "{{device}} received"),
        Query(_rate("vm_network_transmit_packets_total"), "{{device}} sent"),
        Query(both("packets_dropped"), "{{device}} dropped"),
        Query(both("errors"), "{{device}} errors"),
    ]
    return [
        _rates(
            "Bps",
            ("vm_network_receive_bytes_total", "{{device}} received"),
            ("vm_network_transmit_bytes_total", "{{device}} sent"),
            title="Bytes",
            about="Per second.",
        ),
        graph(Text("Packets, errors, drops", "Per second."), packets, Style("pps")),
    ]


def _guest() -> list[Panel]:
    def words(title: str, about: str, metric: str, width: int) -> Panel:
        return labels(Text(title, about), f"{metric}{{{OF_VM}}}", IDENTITY, {}).span(width)

    free = "vm_guest_filesystem_free_bytes"
    share = [Query(f"{free}{{{OF_VM}}} / (vm_guest_filesystem_size_bytes{{{OF_VM}}} > 0)", "{{mountpoint}}")]
    up = "Whether the guest's agent answered when it was asked last: 1 yes, 0 no. Empty: it is not asked (docs/guest-agent.md)."
    full = Text("Free space", "Of each filesystem, as a share of its size.", ("VirtflowGuestFilesystemNearlyFull",))
    return [
        words("Operating system", "What the guest's agent says of it; the tenant can say anything.", "vm_guest_info", 24),
        _one(Text("Agent answers", up), "vm_guest_agent_up"),
        _one(Text("Age of its answer", "Age of what the guest's agent told."), "vm_guest_age_seconds", "s"),
        _one(Text("CPUs in the guest", "CPUs that are online in the guest."), "vm_guest_cpus"),
        words("Why it does not answer", "Empty while it answers.", "vm_guest_agent_info", 5),
        words(
            "Addresses",
            "By interface, with who told them: the agent, a DHCP lease, or the host's ARP table.",
            "vm_guest_ip_address_info",
            10,
        ),
        graph(full, share, Style("percentunit")),
        _values("bytes", (free, "{{mountpoint}}"), title="Free bytes", about="Of each filesystem; those kept for root left out."),
        _values(
            "short",
            ("vm_guest_load1", "1 minute"),
            ("vm_guest_load5", "5 minutes"),
            ("vm_guest_load15", "15 minutes"),
            title="Load",
            about="The guest's load averages, where its agent tells them.",
        ),
        _values(
            "short",
            ("vm_guest_values_cut", "too many"),
            ("vm_guest_values_dropped", "not true"),
            title="Left out of its answers",
            about="Values that were too many or could not be true: a guest that makes things up shows here.",
        ),
    ]
