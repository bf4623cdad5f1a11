"""Renders a VM's record as lines of the exposition format, by the catalogue: on arrival, and only the families whose value changed.

A VM's lines are a tuple with one string per family that has all series of the family, "" if nothing was reported. At a scrape
they only have to be joined (``exposition``). Format: Prometheus' text exposition 0.0.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from virtflow.exporter.render.guest import GuestText
from virtflow.exporter.render.lines import LABEL_BYTES, Lines, Plan, label_text, quoted
from virtflow.schemas.catalogue.metrics import INVENTORY_LABELS, METRICS, of_libvirt
from virtflow.schemas.catalogue.types import Group, Metric, Scope
from virtflow.schemas.errors import SettingError
from virtflow.schemas.records import VmInventory, VmMetrics
from virtflow.schemas.states import reason_word, state_word

VM_FAMILIES: Final = tuple(metric for metric in METRICS if metric.of_vm and metric.group is not Group.MIGRATION)
CONFLICT: Final = "vm_conflict"
STATE_INFO, VM_INFO, SAMPLE_AGE, MONITOR_AGE = "vm_state_info", "vm_info", "vm_sample_age_seconds", "vm_monitor_age_seconds"

DEVICES: Final = (
    (Scope.VCPU, "vcpus", "vcpu"),
    (Scope.NETWORK, "networks", "device"),
    (Scope.BLOCK, "blocks", "device"),
    (Scope.KVM, "kvm", "vcpu"),
)
"""The records of a VM's devices: their scope, their field in ``VmMetrics``, and the label (and field) that identifies a device."""


def head(metric: Metric) -> str:
    """The HELP and TYPE lines of a family."""
    about = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {metric.name} {about}\n# TYPE {metric.name} {metric.type}\n"


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The configured labels of every VM's series beside uuid; raises ``SettingError`` for one that does not exist."""
    known = ("name", *INVENTORY_LABELS)
    for label in labels:
        if label not in known:
            why = "is neither name nor a field of the inventory"
            fix = f"choose among {', '.join(known)}"
            raise SettingError(origin="settings", key="exporter.vm_labels", value=label, why=why, fix=fix)
    return tuple(dict.fromkeys(labels))


@dataclass(frozen=True, slots=True)
class Devices:
    """One kind of a VM's devices: their records in ``VmMetrics``, the label that identifies a device and its value, and their plan."""

    plan: Plan
    attribute: str
    listed: Callable[[VmMetrics], list[Any]]
    label: str
    key: Callable[[Any], object]
    label_bytes: int

    def same(self, devices: list[Any], before: list[Any]) -> bool:
        """Whether they are the same devices in the same order with the same values."""
        if len(devices) != len(before) or list(map(self.key, devices)) != list(map(self.key, before)):
            return False
        return list(map(self.plan.values, devices)) == list(map(self.plan.values, before))

    def render(self, lines: list[str], identity: str, devices: list[Any]) -> None:
        """Renders all families of the kind; of two devices with the same series the last one is rendered."""
        prefix, limit = f"{identity},{self.label}=", self.label_bytes
        self.plan.render_each(lines, {f'{prefix}"{quoted(str(self.key(device)), limit)}"': device for device in devices})

    def labels(self, identity: str, keys: Iterable[object]) -> list[str]:
        """The labels of each device's series, as ``render`` has them."""
        prefix, limit = f"{identity},{self.label}=", self.label_bytes
        return [f'{prefix}"{quoted(str(key), limit)}"' for key in keys]


class VmText:
    """Renders VMs for the families and labels that were chosen at start."""

    def __init__(self, names: Iterable[str], labels: Sequence[str] = ("name",), label_bytes: int = LABEL_BYTES) -> None:
        """``names`` are the metrics to export (others are skipped); every series has ``labels`` after uuid, cut at ``label_bytes``."""
        wanted = frozenset(names)
        self.families: Final = tuple(metric for metric in VM_FAMILIES if metric.name in wanted)
        self.at: Final = {metric.name: place for place, metric in enumerate(self.families)}
        self._labels = checked_labels(labels)
        self._inventory_labels = frozenset(self._labels) - {"name"}
        self._info_labels = tuple(label for label in INVENTORY_LABELS if label not in self._labels)
        self._label_bytes: Final = label_bytes
        self.values: Final = Plan.of([row for row in _rows(Scope.VM) if row.variant is None], self.at)
        self.split: Final = Plan.of([row for row in _rows(Scope.VM) if row.variant is not None], self.at)
        self._guest = GuestText(self.at, label_bytes)
        self.devices: Final = tuple(
            Devices(Plan.of(_rows(scope), self.at), listed, attrgetter(listed), label, attrgetter(label), label_bytes)
            for scope, listed, label in DEVICES
        )
        self._rendered = tuple(kind for kind in self.devices if kind.plan.at)

    def identity(self, record: VmMetrics, inventory: VmInventory | None) -> str:
        """The labels of all series of the VM, from its newest sample and its inventory."""
        pairs = [("uuid", record.uuid)]
        for label in self._labels:
            if label in {"name", "node"}:
                pairs.append((label, getattr(record, label)))
            else:
                pairs.append((label, getattr(inventory, label) if inventory else ""))
        return label_text(pairs, self._label_bytes)

    def lines(self, record: VmMetrics, identity: str, before: VmMetrics | None, rendered: Lines) -> Lines:
        """The sample's lines. ``rendered`` are those of ``before`` under the same ``identity``; unchanged lines are reused.

        Without ``before`` all lines are rendered and ``rendered`` is ignored.
        """
        lines = list(rendered) if before is not None else [""] * len(self.families)
        self.values.render(lines, identity, self.values.values(record), None if before is None else self.values.values(before))
        if self.split.at and (before is None or self.split.values(record) != self.split.values(before)):
            self.split.render_each(lines, {identity: record})
        for kind in self._rendered:
            devices, old = kind.listed(record), [] if before is None else kind.listed(before)
            if (devices or old) and not kind.same(devices, old):
                kind.render(lines, identity, devices)
        if record.guest or (before is not None and before.guest):
            self._guest.render(lines, identity, record.guest, before.guest if before is not None else [])
        self._render_state(lines, record, identity, before)
        return tuple(lines)

    def _render_state(self, lines: list[str], record: VmMetrics, identity: str, before: VmMetrics | None) -> None:
        at = self.at.get(STATE_INFO)
        if at is None or (before is not None and (record.state, record.state_reason) == (before.state, before.state_reason)):
            return
        lines[at] = self.state_info(record, identity)

    def state_info(self, record: VmMetrics, identity: str) -> str:
        """The line of ``vm_state_info``; "" where the state is not known, or nobody asked for the family."""
        if record.state < 0 or STATE_INFO not in self.at:
            return ""
        reason = reason_word(record.state, record.state_reason) if record.state_reason >= 0 else ""
        return f"{STATE_INFO}{{{identity},{label_text([('state', state_word(record.state)), ('reason', reason)])}}} 1\n"

    def info(self, record: VmMetrics, identity: str, inventory: VmInventory | None) -> str:
        """The line of ``vm_info``: the inventory with the VM's authoritative node; "" without an inventory."""
        if inventory is None or VM_INFO not in self.at:
            return ""
        pairs = ((label, record.node if label == "node" else getattr(inventory, label)) for label in self._info_labels)
        labels = label_text(pairs, self._label_bytes)
        return f"{VM_INFO}{{{identity},{labels}}} 1\n" if labels else f"{VM_INFO}{{{identity}}} 1\n"


def _rows(scope: Scope) -> list[Metric]:
    return [metric for metric, _ in of_libvirt(scope)]
