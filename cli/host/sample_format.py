"""A sample of VMs as a table for people, as Prometheus' exposition, or as JSON: pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from msgspec import to_builtins

from virtflow.cli.host.sample import Sample
from virtflow.exporter.exposition import exposition
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.render.node import NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.runtime.settings import Exporter
from virtflow.schemas.catalogue.metrics import METRICS, of_libvirt
from virtflow.schemas.catalogue.types import Metric, Scope
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.states import RUNNING, reason_word, state_word

NAMES: Final = frozenset(metric.name for metric in METRICS if metric.of_vm)
"""The metrics of VMs: all that a sample has."""

HEAD: Final = ("NAME", "STATE", "VCPUS", "CPU TIME", "MEMORY", "RESIDENT", "DISK READ", "DISK WRITTEN", "RECEIVED", "TRANSMITTED")
RIGHT: Final = frozenset(range(2, len(HEAD)))
UNKNOWN: Final = "-"
UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

_DEVICES: Final[tuple[tuple[Scope, Callable[[VmMetrics], Sequence[Any]], str], ...]] = (
    (Scope.VCPU, lambda vm: vm.vcpus, "vcpu"),
    (Scope.NETWORK, lambda vm: vm.networks, "device"),
    (Scope.BLOCK, lambda vm: vm.blocks, "device"),
    (Scope.KVM, lambda vm: vm.kvm, "vcpu"),
)


def exposition_of(sample: Sample, names: Collection[str], own: Exporter, now: float) -> str:
    """The VMs' series as an exporter with the settings ``own`` would serve them at ``now`` (Unix seconds): the families ``names``."""
    fleet = Fleet(VmText(names, own.vm_labels, own.label_value_bytes), NodeText(()), forget_node_seconds=0.0)
    for vm in by_name(sample):
        if inventory := sample.inventories.get(vm.uuid):
            fleet.take_inventory(inventory, 0.0)
        fleet.take_metrics(vm, 0.0)
    return "".join(exposition(fleet, names, now, {}))


def object_of(sample: Sample) -> dict[str, Any]:
    """The sample for programs: node, time and VMs; a VM's values stand under the metrics' names, by device where there are several.

    What libvirt did not report is not there.
    """
    return {"node": sample.node, "collected": sample.collected, "vms": [_vm(vm, sample) for vm in by_name(sample)]}


def by_name(sample: Sample) -> list[VmMetrics]:
    """The VMs in the order of their names."""
    return sorted(sample.vms, key=lambda vm: (vm.name, vm.uuid))


def _vm(vm: VmMetrics, sample: Sample) -> dict[str, Any]:
    found: dict[str, Any] = {"uuid": vm.uuid, "name": vm.name, "node": vm.node, "collected": vm.collected}
    if vm.state >= 0:
        found["state"] = state_word(vm.state)
        found["reason"] = reason_word(vm.state, vm.state_reason)
    inventory = sample.inventories.get(vm.uuid)
    if inventory is not None:
        kept = to_builtins(inventory)
        identity = ("uuid", "name", "node", "boot_id", "sequence", "part", "collected")
        told = {key: value for key, value in kept.items() if key not in identity and value not in ("", -1, [])}
        found |= {"inventory": told} if told else {}
    for metric, _ in of_libvirt(Scope.VM):
        _put(found, metric.name, metric, getattr(vm, metric.field))
    for scope, devices, key in _DEVICES:
        for metric, _ in of_libvirt(scope):
            for one in devices(vm):
                if known(value := getattr(one, metric.field)):
                    _put(found.setdefault(metric.name, {}), str(getattr(one, key)), metric, value)
    return found


def _put(found: dict[str, Any], name: str, metric: Metric, value: float) -> None:
    """Puts a known value under its name; the values that a label tells apart stand below it by the label's word."""
    if not known(value):
        return
    if metric.variant is None:
        found[name] = value
    else:
        found.setdefault(name, {})[metric.variant[1]] = value


def rows(sample: Sample) -> list[tuple[str, ...]]:
    """One line per VM for ``HEAD``, sizes and times in the units people read."""
    return [_row(vm) for vm in by_name(sample)]


def _row(vm: VmMetrics) -> tuple[str, ...]:
    return (
        vm.name,
        _state(vm),
        str(vm.vcpus_current) if known(vm.vcpus_current) else UNKNOWN,
        duration(vm.cpu_seconds_total),
        size(vm.memory_balloon_current_bytes),
        size(vm.memory_rss_bytes),
        size(total([block.read_bytes_total for block in vm.blocks])),
        size(total([block.write_bytes_total for block in vm.blocks])),
        size(total([network.receive_bytes_total for network in vm.networks])),
        size(total([network.transmit_bytes_total for network in vm.networks])),
    )


def _state(vm: VmMetrics) -> str:
    if not known(vm.state):
        return UNKNOWN
    word = state_word(vm.state).replace("_", " ")
    if vm.state == RUNNING:
        return word if known(vm.monitor_collected) else f"{word}, does not answer"
    # Reason 0 is "unknown" in every state.
    return f"{word} ({reason_word(vm.state, vm.state_reason).replace('_', ' ')})" if vm.state_reason > 0 else word


def known(value: float) -> bool:
    """Whether a field holds a value: absent is -1 for integers and NaN for doubles."""
    return value >= 0 and not math.isnan(value)


def total(values: Sequence[int]) -> int:
    """The sum of what is known; -1 where nothing is."""
    present = [value for value in values if known(value)]
    return sum(present) if present else -1


def size(value: float) -> str:
    """Bytes as people read them: ``1.5 GiB``."""
    if not known(value):
        return UNKNOWN
    step = min(int(math.log2(value)) // 10, len(UNITS) - 1) if value else 0
    scaled = value / 1024**step
    return f"{scaled:.0f} {UNITS[step]}" if step == 0 or scaled >= 100 else f"{scaled:.3g} {UNITS[step]}"  # noqa: PLR2004, three digits tell enough


def duration(seconds: float) -> str:
    """A time as people read it: ``4.2 s``, ``1m 5s``, ``2h 3m``, ``5d 6h``."""
    if not known(seconds):
        return UNKNOWN
    if seconds < 60:  # noqa: PLR2004, a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"
