"""The fleet with the newest samples of each VM, and which VMs a Kubernetes name means. Pure: records and times in, samples out.

Order, ownership and expiry are the exporter's own: of two nodes that report a VM only the authoritative one's samples are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from virtflow.adapter.samples.series import Reader, reader_of
from virtflow.adapter.samples.window import Sample, Window
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.render.node import NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.schemas.catalogue.metrics import INVENTORY_LABELS
from virtflow.schemas.catalogue.types import Metric
from virtflow.schemas.order import INTERVALS_ALIVE, Freshness
from virtflow.schemas.records import VmInventory, VmMetrics, VmMigration

KUBEVIRT: Final = "kubevirt"
"""The platform of the VMs whose inventory has their Kubernetes namespace and name."""
FORGET_NODE_SECONDS: Final = 3_600.0


class RecentFleet(Fleet):
    """Renders nothing, and keeps what a rate needs. Not thread-safe: one thread feeds and asks it."""

    reader: Callable[[Metric], Reader] = staticmethod(reader_of)
    """How a row is read from its samples."""

    def __init__(self, window_seconds: float, namespace_field: str = "") -> None:
        """``namespace_field`` is the field of the inventory with the namespace of VMs that are not KubeVirt's; "" for none."""
        super().__init__(VmText(()), NodeText(()), FORGET_NODE_SECONDS)
        self._seconds = window_seconds
        self._field = namespace_field
        self._windows: dict[str, Window] = {}
        self._places: dict[str, tuple[str, str]] = {}
        self._at: dict[tuple[str, str], dict[str, None]] = {}
        """The VMs of each place, a namespace and a name; those that are not KubeVirt's have no name."""

    def take_metrics(self, record: VmMetrics, arrived: float) -> Freshness:
        """Takes a sample; keeps it where it is the VM's authoritative one."""
        fresh = super().take_metrics(record, arrived)
        if fresh is Freshness.NEW:
            self._keep(record.uuid)
        return fresh

    def take_migration(self, record: VmMigration, arrived: float) -> Freshness:
        """Takes a migration, which may make another node's sample the authoritative one."""
        fresh = super().take_migration(record, arrived)
        if fresh is Freshness.NEW:
            self._keep(record.uuid)
        return fresh

    def take_inventory(self, record: VmInventory, arrived: float) -> Freshness:
        """Takes an inventory, which says the VM's Kubernetes namespace and name."""
        fresh = super().take_inventory(record, arrived)
        if fresh is Freshness.NEW:
            self._place(record.uuid, record)
        return fresh

    def forget_inventory(self, uuid: str) -> None:
        """Drops an inventory, and with it the VM's place in Kubernetes."""
        super().forget_inventory(uuid)
        self._place(uuid, None)

    def expire(self, now: float) -> None:
        """Drops what has expired; to be called before samples are asked for."""
        super().expire(now)
        self.render()
        for uuid in [uuid for uuid in self._windows if uuid not in self._vms]:
            del self._windows[uuid]
        for uuid in [uuid for uuid in self._places if uuid not in self._vms]:
            self._place(uuid, None)

    def samples(self, uuid: str) -> Sequence[Sample]:
        """The VM's newest samples, oldest first; none where it is not reported now."""
        vm = self._vms.get(uuid)
        if vm is None or vm.exported is None:
            return ()
        self._keep(uuid)
        return tuple(self._windows[uuid].samples)

    def labels(self, uuid: str) -> dict[str, str]:
        """The labels that all series of a VM have: its own, and those of its inventory where it is known."""
        vm = self._vms.get(uuid)
        if vm is None or vm.exported is None:
            return {}
        record, inventory = vm.exported, vm.inventory
        found = {name: getattr(inventory, name) for name in INVENTORY_LABELS} if inventory is not None else {}
        return found | {"uuid": uuid, "name": record.name, "node": record.node}

    def instance(self, namespace: str, name: str) -> str:
        """The UUID of the KubeVirt VM of that name that is reported now, "" where none is; of two the one that was sampled last."""
        reported = [vm.exported for uuid in self._at.get((namespace, name), ()) if (vm := self._vms.get(uuid)) is not None]
        live = [record for record in reported if record is not None]
        return max(live, key=lambda record: record.collected).uuid if name and live else ""

    def plain(self, namespace: str) -> Iterator[str]:
        """The UUIDs of the VMs in a namespace that are not KubeVirt's, reported or not."""
        return iter(self._at.get((namespace, ""), ()))

    def silent(self, uuid: str) -> bool:
        """Whether a VM that was reported is not any more because its node is not heard of; of a node that is heard of, the VM has gone."""
        vm = self._vms.get(uuid)
        if vm is None or vm.exported is not None or not vm.samples:
            return False
        nodes = {self.node_text.key(name) for name in vm.samples}
        return not any(node in self._nodes and not self._nodes[node].silent for node in nodes)

    def _keep(self, uuid: str) -> None:
        """Adds the exported sample to the VM's window, unless it is there."""
        vm = self._vms.get(uuid)
        if vm is None or vm.exported is None:
            return
        record = vm.exported
        window = self._windows.setdefault(uuid, Window())
        window.add(record, vm.samples[record.node].expires - INTERVALS_ALIVE * record.interval, self._seconds)

    def _place(self, uuid: str, inventory: VmInventory | None) -> None:
        """Notes which namespace and name mean a VM; a VM that is not KubeVirt's has no name."""
        if old := self._places.pop(uuid, None):
            del self._at[old][uuid]
            if not self._at[old]:
                del self._at[old]
        if inventory is None:
            return
        if inventory.platform == KUBEVIRT:
            place = inventory.namespace, inventory.platform_name
        else:
            place = (getattr(inventory, self._field) if self._field else ""), ""
        if place[0]:
            self._places[uuid] = place
            self._at.setdefault(place, {})[uuid] = None
