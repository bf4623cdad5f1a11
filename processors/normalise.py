"""From libvirt's names and units to those of the metrics: the only place where either changes.

The work is a table, the catalogue's rows that libvirt reports (``schemas/catalogue/metrics.py``). ``tools/normalise_source.py`` turns each
scope's rows into one function of ``normalise_generated.py``, a constructor call with one line per field: a loop over the table costs
several times as much for each of the 80 values of a VM. No I/O and no clock; ``virtflow node`` and ``snapshot`` use it as the
processors do.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final, Literal, Protocol, TypeVar

from msgspec import Struct

from virtflow.processors import normalise_generated as generated
from virtflow.processors.guest_agent import guests
from virtflow.schemas.catalogue.types import ABSENT_LONG
from virtflow.schemas.fields import BlockMetrics, BlockSample, KvmMetrics, KvmSample, NetworkMetrics, NetworkSample, VcpuMetrics, VcpuSample
from virtflow.schemas.ranges import EARLIEST_SECONDS, LATEST_SECONDS, is_uuid
from virtflow.schemas.records import NAN, NodeSnapshot, VmMetrics, VmSnapshot
from virtflow.schemas.text import NAME_LENGTH

VCPU_LIMIT: Final = 65_536
"""More than any hypervisor gives a VM: vCPU numbers from here on are invalid."""

S_contra = TypeVar("S_contra", contravariant=True)
M_co = TypeVar("M_co", covariant=True)
S = TypeVar("S", VcpuSample, NetworkSample, BlockSample, KvmSample)
M = TypeVar("M", VcpuMetrics, NetworkMetrics, BlockMetrics, KvmMetrics)


class Dropped(Struct):
    """What was left out because it is out of range: the metric of each value, ``vm_block_devices`` for a whole device, and VMs."""

    values: list[str]
    vms: int = 0

    def lost(self, name: str, absent: float) -> float:
        """Records a value of the metric ``name`` as dropped and returns ``absent`` in its place."""
        self.values.append(name)
        return absent


class Normalised(Struct, frozen=True, gc=False):
    """The samples of one snapshot in base units, and what was left out of them."""

    metrics: list[VmMetrics]
    dropped: Dropped


Lost = Callable[[str, float], float]


class Named(Protocol[S_contra, M_co]):
    """One device's record under the catalogue's names."""

    def __call__(self, sample: S_contra, lost: Lost, /) -> M_co:
        """``lost`` is called for every value that is out of range."""


def normalise_snapshot(snapshot: NodeSnapshot) -> Normalised:
    """Every VM of ``snapshot`` in base units: absent stays absent, a value out of range drops its field, an invalid UUID drops its VM."""
    dropped = Dropped([])
    metrics = []
    for vm in snapshot.vms:
        if is_uuid(vm.uuid):
            metrics.append(_vm(vm, snapshot, dropped.lost))
        else:
            dropped.vms += 1
    return Normalised(metrics, dropped)


def _monitor_collected(at: float, lost: Lost) -> float:
    """When the monitor groups were read: NaN, or -1 from a writer without the field, means that they were not."""
    if EARLIEST_SECONDS <= at <= LATEST_SECONDS or at != at:  # noqa: PLR0124, only NaN differs from itself
        return at
    return NAN if at == ABSENT_LONG else lost("vm_monitor_age_seconds", NAN)


def _devices(
    named: Named[S, M], key: Literal["number", "name"], *, valid: Callable[[Any], bool], count: str
) -> Callable[[list[S], Lost], list[M]]:
    """Renames the fields of all devices of one kind. A device without a valid key, or with the key of an earlier one, is left out."""

    def each(samples: list[S], lost: Lost) -> list[M]:
        keys = [getattr(sample, key) for sample in samples]
        if len(set(keys)) == len(keys) and all(map(valid, keys)):
            return [named(sample, lost) for sample in samples]
        return [named(sample, lost) for sample in _usable(dict(zip(reversed(keys), reversed(samples), strict=True)), samples, lost)]

    def _usable(first: dict[Hashable, S], samples: list[S], lost: Lost) -> list[S]:
        kept = [s for s in samples if first[getattr(s, key)] is s and valid(getattr(s, key))]
        for _ in range(len(samples) - len(kept)):
            lost(count, ABSENT_LONG)
        return kept

    return each


def _is_vcpu(number: int) -> bool:
    return 0 <= number < VCPU_LIMIT


def _is_device(name: str) -> bool:
    return 0 < len(name) <= NAME_LENGTH


_VCPUS: Final = _devices(generated.vcpu, "number", valid=_is_vcpu, count="vm_vcpus_current")
_NETWORKS: Final = _devices(generated.network, "name", valid=_is_device, count="vm_network_devices")
_BLOCKS: Final = _devices(generated.block, "name", valid=_is_device, count="vm_block_devices")
_KVM: Final = _devices(generated.kvm, "number", valid=_is_vcpu, count="vm_vcpus_current")


def _vm(vm: VmSnapshot, snapshot: NodeSnapshot, lost: Lost) -> VmMetrics:
    guest = guests(vm.guest, lost) if vm.guest else []
    kvm = _KVM(vm.kvm, lost) if vm.kvm else []
    devices = _VCPUS(vm.vcpus, lost), _NETWORKS(vm.networks, lost), _BLOCKS(vm.blocks, lost)
    return generated.vm(vm, snapshot, lost, _monitor_collected(vm.monitor_collected, lost), *devices, guest, kvm)
