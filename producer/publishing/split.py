"""A round's record split into messages that fit the topic: pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from virtflow.schemas.records import GuestSample, NodeSnapshot, VmInventory, VmSnapshot
from virtflow.schemas.topics import SNAPSHOT_SPLIT_BYTES

Encode = Callable[[NodeSnapshot], bytes]

_NUMBER_BYTES = 5
_VM_BYTES = 200
_DEVICE_NUMBERS = 14
_KVM_NUMBERS = 9
_ADDRESS_BYTES = 45


def messages(snapshot: NodeSnapshot, encode: Encode, limit: int = SNAPSHOT_SPLIT_BYTES) -> list[bytes]:
    """The round as encoded messages below ``limit`` bytes; the node's health travels in every one of them.

    The sizes are estimated, then measured; if an estimate was too low the round is split into smaller messages. A single VM is never split.
    """
    share = limit
    while True:
        chunks = _chunks(snapshot.vms, share)
        encoded = [
            encode(replace(snapshot, part=part, parts=len(chunks), vms=list(chunk))) if len(chunks) > 1 else encode(snapshot)
            for part, chunk in enumerate(chunks)
        ]
        if all(len(message) <= limit or len(chunk) <= 1 for message, chunk in zip(encoded, chunks, strict=True)):
            return encoded
        share //= 2


def _chunks(vms: Sequence[VmSnapshot], share: int) -> list[Sequence[VmSnapshot]]:
    chunks, begin, size = [], 0, 0
    for index, vm in enumerate(vms):
        estimate = _estimate(vm)
        if size + estimate > share and index > begin:
            chunks.append(vms[begin:index])
            begin, size = index, 0
        size += estimate
    return [*chunks, vms[begin:]]


def _estimate(vm: VmSnapshot) -> int:
    devices = len(vm.blocks) + len(vm.networks)
    return (
        _VM_BYTES
        + len(vm.name)
        + _NUMBER_BYTES * (4 * len(vm.vcpus) + _KVM_NUMBERS * len(vm.kvm) + _DEVICE_NUMBERS * devices)
        + sum(_inventory_estimate(inventory) for inventory in vm.inventory)
        + sum(_guest_estimate(guest) for guest in vm.guest)
    )


def _guest_estimate(guest: GuestSample) -> int:
    texts = [guest.hostname, guest.os_name, guest.os_pretty_name, guest.os_version, guest.os_kernel_release]
    filesystems = sum(len(one.mountpoint) + len(one.fstype) + 20 for one in guest.filesystems)
    interfaces = sum(len(one.name) + 30 + _ADDRESS_BYTES * len(one.addresses) for one in guest.interfaces)
    return 150 + sum(map(len, texts)) + filesystems + interfaces


def _inventory_estimate(inventory: VmInventory) -> int:
    texts = [inventory.title, inventory.name, inventory.project, inventory.user, inventory.flavor, inventory.platform_name]
    disks = sum(len(disk.source) + 20 for disk in inventory.disks)
    nics = sum(len(nic.source) + len(nic.device) + 30 for nic in inventory.nics)
    return 200 + sum(map(len, texts)) + disks + nics
