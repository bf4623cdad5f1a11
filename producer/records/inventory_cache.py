"""When a VM's XML is read again: after something happened to it, after its devices' names changed, else every few minutes.

The readings are spread, so that no round reads them all. No libvirt and no clock in here: both are handed in.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from virtflow.producer.records.domain_xml import IndescribableError, inventory
from virtflow.producer.types import Vm
from virtflow.schemas.records import VmInventory

LEAST_PER_ROUND: Final = 16
VHOST_USER: Final = "<interface type='vhostuser'"
"""How libvirt writes the begin of a vhost-user NIC."""


@dataclass(slots=True)
class _Known:
    """What is known of one VM's XML: when it is due, and the names of the devices it was read with."""

    due: float = float("-inf")
    devices: tuple[str, ...] | None = None
    vhost_user: bool = False
    read: bool = False


@dataclass(slots=True)
class Inventories:
    """The schedule of the VMs' descriptions. ``drops`` counts those that could not be read, by reason."""

    every_seconds: float
    rng: random.Random = field(default_factory=random.Random)
    drops: Counter[str] = field(default_factory=Counter)
    _known: dict[str, _Known] = field(default_factory=dict)

    def due(self, vms: Mapping[str, Vm], now: float) -> list[str]:
        """The VMs whose XML is to be read now, longest due first; VMs that are gone are forgotten."""
        known = self._known
        if known.keys() != vms.keys():
            self._known = known = {uuid: known.get(uuid) or _Known() for uuid in vms}
        return [uuid for _, uuid in sorted([(one.due, uuid) for uuid, one in known.items() if one.due <= now])]

    def described(self, uuid: str, name: str, xml: str, now: float) -> VmInventory | None:
        """The VM's inventory from its XML, or None when that can't be read; it is due again in a while."""
        known = self._known.setdefault(uuid, _Known())
        known.due = now + self.every_seconds * self.rng.uniform(0.5, 1.0)
        known.vhost_user, known.read = VHOST_USER in xml, True
        try:
            return inventory(uuid, name, xml)
        except IndescribableError:
            self.drops["indescribable_vm"] += 1
            return None

    @property
    def vhost_user(self) -> bool:
        """Whether a VM has a vhost-user NIC, as far as has been read."""
        return any(known.vhost_user for known in self._known.values())

    @property
    def all_read(self) -> bool:
        """Whether the XML of every VM has been read, whenever that was."""
        return all(known.read for known in self._known.values())

    def unread(self, uuid: str, now: float) -> None:
        """The XML could not be had: try again in a while."""
        self._known.setdefault(uuid, _Known()).due = now + self.every_seconds * self.rng.uniform(0.1, 0.5)

    def changed(self, uuid: str) -> None:
        """Something happened to the VM: its XML is due at once."""
        if uuid in self._known:
            self._known[uuid].due = float("-inf")

    def devices(self, uuid: str, names: tuple[str, ...]) -> None:
        """The names of the VM's devices in a round; other ones than before make its XML due. Partial answers say nothing: pass none."""
        known = self._known.get(uuid)
        if known is None or known.devices == names:
            return
        if known.devices is not None:
            known.due = float("-inf")
        known.devices = names

    def all_changed(self) -> None:
        """Events may have been lost: every XML is due."""
        for known in self._known.values():
            known.due = float("-inf")


def per_round(vms: int, interval: float, every_seconds: float) -> int:
    """How many descriptions a round may read: four times what keeps up, and never less than a few."""
    return max(LEAST_PER_ROUND, round(4 * vms * interval / every_seconds))
