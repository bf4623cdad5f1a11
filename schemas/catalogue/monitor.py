"""The catalogue's rows about VMs whose monitor does not answer, and about the calls that hang in them.

The producer tells them itself: libvirt has no field for it (docs/stuck-vms.md).
"""

from __future__ import annotations

from virtflow.schemas.catalogue.types import Group, Health, Metric, Observed, Type

_C, _G = Type.COUNTER, Type.GAUGE


def _vm(name: str, text: str, field: str) -> Metric:
    return Metric(name, _G, "", text, Group.VM, Observed(field))


def _node(name: str, kind: Type, text: str, labels: tuple[str, ...] = ()) -> Metric:
    return Metric(f"virtflow_node_{name}", kind, "", text, Group.NODE, Health(name), ("node", *labels))


VM_MONITOR_METRICS = (
    _vm(
        "vm_responsive",
        "Whether the VM's QEMU answers libvirt; 0: it does not, and is not asked until something says that it moved.",
        "monitor.responsive",
    ),
    _vm(
        "vm_monitor_probed",
        "Whether the VM's QEMU may be asked; 0: unknown whether it answers, and no further call may hang on this host to find out.",
        "monitor.probed",
    ),
)

NODE_MONITOR_METRICS = (
    _node(
        "hung_calls",
        _G,
        "Calls that do not come back: in VMs that do not answer, ours and an earlier run's, each holding a worker of libvirtd; and openings that hang.",
    ),
    _node("hung_calls_limit", _G, "Calls that may hang at a time on the node."),
    _node("vms_skipped", _G, "VMs that are not asked because their QEMU does not answer."),
    _node("vms_not_probed", _G, "VMs that are not asked because no further call may hang."),
    _node("probes_total", _C, "Attempts to ask a VM that did not answer, by outcome.", ("outcome",)),
    _node("monitor_calls_total", _C, "Calls to the monitors of VMs, by outcome.", ("outcome",)),
)
