"""A month of guests' filesystems whose truth is known: each fills by the hour as its row says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.history_lives import store_rolled, vm_uuid
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import INVENTORY_ROWS
from virtflow.history.writer.dedup import Changes
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.records import GuestFilesystemMetrics, GuestMetrics, VmInventory, VmMetrics

MONTH: Final = "2026-03"
START: Final = 1_772_323_200
HOUR: Final = 3_600
GIB: Final = 2**30
HOURS: Final = 10 * 24
"""So long are the VMs reported, from the month's beginning on."""


@dataclass(frozen=True)
class Filesystem:
    """Of ``size`` GiB, with ``used`` of them at first and ``grows`` more every hour; reported for ``hours``."""

    vm: int
    mountpoint: str
    fstype: str
    device: str
    size: float
    used: float
    grows: float
    hours: int = HOURS

    def at(self, hour: int) -> GuestFilesystemMetrics:
        """As the agent tells it."""
        size = round(self.size * GIB)
        free = size - round((self.used + self.grows * hour) * GIB)
        return GuestFilesystemMetrics(mountpoint=self.mountpoint, fstype=self.fstype, device=self.device, size_bytes=size, free_bytes=free)


FILESYSTEMS: Final = (
    Filesystem(1, "/", "ext4", "vda1", 40, 20, 0),
    Filesystem(1, "/srv/d\u00e4ta", "xfs", "vdb", 100, 10, 0.25),
    Filesystem(2, "/", "ext4", "vda1", 40, 38, 0),
    Filesystem(2, "/var", "ext4", "vda2", 1024, 500, -1),
    Filesystem(3, "/", "btrfs", "", 64, 60, 0.125, 24),
    Filesystem(3, "C:\\", "NTFS", "\\\\?\\Volume{1}\\", 480, 240, 0.5),
)


def samples() -> Iterator[VmMetrics]:
    """One sample of each VM an hour."""
    for vm in sorted({each.vm for each in FILESYSTEMS}):
        for hour in range(HOURS):
            told = [each.at(hour) for each in FILESYSTEMS if each.vm == vm and hour < each.hours]
            yield VmMetrics(
                uuid=vm_uuid(vm),
                name=f"vm-{vm}",
                node="kvm1",
                boot_id="run",
                sequence=hour,
                collected=float(START + hour * HOUR),
                interval=float(HOUR),
                state=1,
                state_reason=1,
                guest=[GuestMetrics(agent_up=1, cpus=2, filesystems=told)],
            )


def month(path: Path) -> tuple[Store, History]:
    """Its roll-ups and the inventory of two of the VMs."""
    settings = History(path=str(path), hourly_days=36_500)
    store = Store(settings)
    store_rolled(store, list(samples()))
    writer = TableWriter(store.make(INVENTORY_ROWS), Changes())
    writer.begin(["p"])
    for vm in (1, 2):
        writer.take("p", vm, VmInventory(uuid=vm_uuid(vm), name=f"vm-{vm}", node="kvm1", collected=float(START), project=f"p{vm}"))
    writer.commit()
    return store, settings
