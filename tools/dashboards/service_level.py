"""How much of the time VMs ran, what stopped them, and which do not answer."""

from __future__ import annotations

from tools.dashboards.board import Board, Part
from tools.dashboards.links import CELL, SERIES_NODE, to_node, to_vm
from tools.dashboards.panels import HALF, Column, Panel, Query, Style, Text, by_label, by_vm, graph, labels, number, numbers, timeline
from tools.dashboards.promql import CHOSEN_VMS, OF_NODE, OF_PROJECT, OF_VM, PLANNED, UNPLANNED, any_of, entered
from tools.dashboards.variables import node, project, vm

COUNT = "node_project:vms:count"
UNPLANNED_ALERTS = ("VirtflowVmCrashed", "VirtflowVmIoError")


def board() -> Board:
    """``service-level.json``."""
    parts = [
        Part("", _numbers()),
        Part("Time in each state", _states()),
        Part("Stops", _stops()),
        Part("VMs that do not answer", _stuck()),
        Part("One VM", _one()),
    ]
    about = "How much of the chosen time VMs ran, what stopped them, and which do not answer. The history's reports have the exact hours."
    return Board("service-level", "service level", about, [node(), project(), vm()], parts, since="now-24h", refresh="1m")


def _time(matchers: str, by: str = "") -> str:
    """Samples of VMs in the chosen time, summed: shares of it are shares of the VMs' time."""
    return f"sum{by} (sum_over_time({COUNT}{{{matchers}}}[$__range]))"


def _share(matchers: str) -> str:
    return f"({_time(matchers)} or vector(0)) / {_time(OF_PROJECT)}"


def _numbers() -> list[Panel]:
    still = Text(
        "Stand still unplanned", "VMs that crashed, failed, or were paused by an error, and are in that state now.", UNPLANNED_ALERTS
    )
    silent = Text("Do not answer", "VMs whose QEMU does not answer libvirt now.", ("VirtflowVmStuck",))
    stuck = Text("Time without an answer", "Of all VMs of these hypervisors in the chosen time, added up.", ("VirtflowVmStuck",))
    return [
        number(Text("Running", "Share of the VMs' time in state running."), _share(f'state="running",{OF_PROJECT}'), "percentunit"),
        number(Text("Paused", "Share of the VMs' time in state paused."), _share(f'state="paused",{OF_PROJECT}'), "percentunit"),
        number(Text("Shut off", "Share of the VMs' time in state shut_off."), _share(f'state="shut_off",{OF_PROJECT}'), "percentunit"),
        number(still, f"sum({any_of(COUNT, UNPLANNED, OF_PROJECT)}) or vector(0)", alarm=1),
        number(silent, f"count((vm_responsive == 0) {CHOSEN_VMS}) or vector(0)", alarm=1),
        number(stuck, f"sum(avg_over_time(virtflow_node_vms_skipped{{{OF_NODE}}}[$__range])) * $__range_s", "s", alarm=1),
    ]


def _states() -> list[Panel]:
    running = f'state="running",{OF_PROJECT}'
    projects = [
        Column("running", f"{_time(running, ' by (project)')} / {_time(OF_PROJECT, ' by (project)')}", "percentunit"),
        Column("VMs now", f"sum by (project) ({COUNT}{{{OF_PROJECT}}})"),
    ]
    shares = Query(f"{_time(OF_PROJECT, ' by (state)')} / scalar({_time(OF_PROJECT)})", "{{state}}")
    return [
        graph(
            Text("VMs by state", "VMs in each state."),
            [Query(f"sum by (state) ({COUNT}{{{OF_PROJECT}}})", "{{state}}")],
            Style(stacked=True),
        ),
        by_label(Text("Time running by project", "Share of the VMs' time in state running, by project."), projects, {}, height=8).span(
            HALF
        ),
        numbers(Text("Share of time by state", "Of all VMs' time in the chosen time."), [shares], "percentunit", width=24),
    ]


def _stops() -> list[Panel]:
    def counted(selectors: tuple[str, ...]) -> list[Query]:
        return [Query(f"count by (state, reason) ({entered(selectors)})", "{{state}}: {{reason}}")]

    unplanned = Text(
        "Unplanned stops",
        "VMs that newly crashed or failed, or were paused by an error, since the point before. Not seen are a VM that is up again between "
        "two points, and one that libvirt forgets as it stops. The legend adds up the chosen time.",
        UNPLANNED_ALERTS,
    )
    planned = Text(
        "Planned stops",
        "VMs that were newly shut down, destroyed, saved or reverted since the point before, or are shut off for a reason that libvirt does "
        "not know; migrations are none.",
    )
    now = Text("VMs that stand still unplanned now", "With the reason that libvirt gives. Empty while all is well.", UNPLANNED_ALERTS)
    return [
        graph(unplanned, counted(UNPLANNED), Style(bars=True)),
        graph(planned, counted(PLANNED), Style(bars=True)),
        labels(now, f"({any_of('vm_state_info', UNPLANNED)}) {CHOSEN_VMS}", [], {"uuid": to_vm(CELL)}, height=6),
    ]


def _stuck() -> list[Panel]:
    columns = [Column("last answer", f"vm_monitor_age_seconds and on (uuid) (vm_responsive == 0) {CHOSEN_VMS}", "s")]
    now = Text("VMs that do not answer now", "With the age of their last answer. Empty while all answer.", ("VirtflowVmStuck",))
    over_time = Text("VMs that do not answer", "By hypervisor.", ("VirtflowVmStuck", "VirtflowHungCallLimitReached"))
    return [
        graph(over_time, [Query(f"sum by (node) (virtflow_node_vms_skipped{{{OF_NODE}}})", "{{node}}")], Style(link=to_node(SERIES_NODE))),
        by_vm(now, [], columns, {"uuid": to_vm(CELL)}, height=8).span(HALF),
    ]


def _one() -> list[Panel]:
    shares = Query(
        f"sum by (state) (count_over_time(vm_state_info{{{OF_VM}}}[$__range])) / scalar(sum(count_over_time(vm_state{{{OF_VM}}}[$__range])))",
        "{{state}}",
    )
    silent = f"1 - avg_over_time(vm_responsive{{{OF_VM}}}[$__range])"
    return [
        timeline(Text("State", "The state of the VM that is chosen above."), Query(f"vm_state{{{OF_VM}}}", "{{name}}")),
        numbers(Text("Share of time by state", "Of the time for which the VM's state is known."), [shares], "percentunit", width=18),
        number(Text("Share of time without an answer", "Its QEMU did not answer libvirt."), silent, "percentunit", width=6),
    ]
