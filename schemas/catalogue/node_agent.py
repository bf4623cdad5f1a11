"""The catalogue's rows about the helper process that asks the guests' agents, one for each node where it is wanted (docs/guest-agent.md)."""

from __future__ import annotations

from typing import Final

from virtflow.schemas.catalogue.types import Group, Health, Metric, Type

_C, _G = Type.COUNTER, Type.GAUGE


def _node(name: str, kind: Type, text: str, labels: tuple[str, ...] = ()) -> Metric:
    field = f"guest_{name}"
    return Metric(f"virtflow_node_{field}", kind, "", text, Group.NODE, Health(field), ("node", *labels))


NODE_AGENT_METRICS: Final = (
    _node("process_up", _G, "Whether the process that asks the guests' agents runs and libvirt answers it; missing where none is wanted."),
    _node("process_restarts_total", _C, "Ends of the process that asks the guests' agents, by reason.", ("reason",)),
    _node("calls_total", _C, "Calls of that process to libvirt about a VM, by outcome.", ("outcome",)),
    _node("calls_in_flight", _G, "Calls of that process that are under way."),
    _node("calls_lost", _G, "Calls of that process that did not come back in time; they count among the hung calls."),
    _node("vms", _G, "VMs by how their agent stands: up, or the reason why not.", ("reason",)),
    _node("values_cut_total", _C, "Parts of agents' answers that were cut because there was too much."),
    _node("balloon_periods_set_total", _C, "VMs that were given a statistics period of their balloon."),
)
