"""From libvirt's names and units to ours: the one place where either changes.

The work is a table, the catalogue's rows that libvirt reports (``schemas/catalogue/metrics.py``). At import each scope's rows become the
source of one function, a constructor call with one line per field: a loop over the table would cost several times as much for
each of the 80 values of a VM. Nothing here does I/O or knows a clock; ``virtflow node`` and ``snapshot`` use it as the
processors do.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final, Literal, Protocol, TypeVar

from msgspec import Struct

from virtflow.processors.guest_agent import guests
from virtflow.schemas.catalogue.metrics import of_libvirt
from virtflow.schemas.catalogue.types import ABSENT_LONG, LONG_MAX, Conversion, Libvirt, Metric, Scope
from virtflow.schemas.fields import BlockMetrics, BlockSample, NetworkMetrics, NetworkSample, VcpuMetrics, VcpuSample
from virtflow.schemas.ranges import EARLIEST_SECONDS, LATEST_SECONDS, NAME_LENGTH, is_uuid
from virtflow.schemas.records import NAN, NodeSnapshot, VmMetrics, VmSnapshot

BYTES_PER_KIBIBYTE: Final = 1024
NANOSECONDS_PER_SECOND: Final = 1e9
VCPU_LIMIT: Final = 65_536
"""More than any hypervisor gives a VM: a vCPU's number from here on is garbage."""

S_contra = TypeVar("S_contra", contravariant=True)
M_co = TypeVar("M_co", covariant=True)
S = TypeVar("S", VcpuSample, NetworkSample, BlockSample)
M = TypeVar("M", VcpuMetrics, NetworkMetrics, BlockMetrics)


class Dropped(Struct):
    """What was left out because it can't be true: the metric of each value, ``vm_block_devices`` for a whole device, and VMs."""

    values: list[str]
    vms: int = 0

    def lost(self, name: str, absent: float) -> float:
        """Notes a value of the metric ``name`` and returns what stands for it."""
        self.values.append(name)
        return absent


class Normalised(Struct, frozen=True, gc=False):
    """The samples of one snapshot in base units, and what had to be left out of them."""

    metrics: list[VmMetrics]
    dropped: Dropped


Lost = Callable[[str, float], float]


class Named(Protocol[S_contra, M_co]):
    """One device's record under the catalogue's names."""

    def __call__(self, sample: S_contra, lost: Lost, /) -> M_co:
        """``lost`` is told of every value that is out of range."""


def normalise_snapshot(snapshot: NodeSnapshot) -> Normalised:
    """Every VM of ``snapshot`` in base units: absent stays absent, a value out of range costs its field, a bad uuid its VM."""
    dropped = Dropped([])
    metrics = []
    for vm in snapshot.vms:
        if is_uuid(vm.uuid):
            metrics.append(_VM(vm, snapshot, dropped.lost))
        else:
            dropped.vms += 1
    return Normalised(metrics, dropped)


_VALUES: Final = {
    Conversion.NONE: "v if (v := s.{raw}) >= -1 else lost({name!r}, -1)",
    Conversion.KIBIBYTES: "v * kibi if 0 <= (v := s.{raw}) <= kibi_max else -1 if v == -1 else lost({name!r}, -1)",
    Conversion.NANOSECONDS: "v / nano if (v := s.{raw}) >= 0 else nan if v == -1 else lost({name!r}, nan)",
}
"""A value in base units from the sample ``s``: -1 is absent and stays so, whatever else can't be true is ``lost``."""

_VM_ENVELOPE: Final = """uuid=s.uuid,
    name=s.name[:name_length],
    node=round.node,
    boot_id=round.boot_id,
    sequence=round.sequence,
    part=round.part,
    collected=round.collected,
    interval=round.interval,
    monitor_collected=monitor_collected(s.monitor_collected, lost),
    vcpus=vcpus(s.vcpus, lost),
    networks=networks(s.networks, lost),
    blocks=blocks(s.blocks, lost),
    guest=guest(s.guest, lost) if s.guest else [],"""


def _compiled(scope: Scope, parameters: str, envelope: str, names: dict[str, object]) -> Any:  # noqa: ANN401, made at run time
    """The function that fills a record of ``scope``; ``envelope`` are the fields that the catalogue does not name."""
    values = "".join(f"    {metric.field}={_value(metric, source)},\n" for metric, source in of_libvirt(scope))
    code = f"def named({parameters}, lost, /):\n  return record(\n    {envelope}\n{values}  )\n"
    known = {
        "nan": NAN,
        "nano": NANOSECONDS_PER_SECOND,
        "kibi": BYTES_PER_KIBIBYTE,
        "kibi_max": LONG_MAX // BYTES_PER_KIBIBYTE,
        "name_length": NAME_LENGTH,
        **names,
    }
    exec(compile(code, f"<normalise {scope}>", "exec"), known)  # noqa: S102, source made of the catalogue alone
    return known["named"]


def _value(metric: Metric, source: Libvirt) -> str:
    return _VALUES[source.conversion].format(raw=source.attribute, name=metric.name)


def _monitor_collected(at: float, lost: Lost) -> float:
    """When the monitor groups were read: NaN, or -1 from a writer that left it out, says that they were not."""
    if EARLIEST_SECONDS <= at <= LATEST_SECONDS or at != at:  # noqa: PLR0124, only NaN differs from itself
        return at
    return NAN if at == ABSENT_LONG else lost("vm_monitor_age_seconds", NAN)


def _devices(
    named: Named[S, M], key: Literal["number", "name"], *, valid: Callable[[Any], bool], count: str
) -> Callable[[list[S], Lost], list[M]]:
    """Names all devices of one kind. A device without a usable key, or with one that was seen, has no series of its own."""

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


_VCPU: Named[VcpuSample, VcpuMetrics] = _compiled(Scope.VCPU, "s", "vcpu=s.number,", {"record": VcpuMetrics})
_NETWORK: Named[NetworkSample, NetworkMetrics] = _compiled(Scope.NETWORK, "s", "device=s.name,", {"record": NetworkMetrics})
_BLOCK: Named[BlockSample, BlockMetrics] = _compiled(Scope.BLOCK, "s", "device=s.name,", {"record": BlockMetrics})
_VM: Callable[[VmSnapshot, NodeSnapshot, Lost], VmMetrics] = _compiled(
    Scope.VM,
    "s, round",
    _VM_ENVELOPE,
    {
        "record": VmMetrics,
        "monitor_collected": _monitor_collected,
        "guest": guests,
        "vcpus": _devices(_VCPU, "number", valid=_is_vcpu, count="vm_vcpus_current"),
        "networks": _devices(_NETWORK, "name", valid=_is_device, count="vm_network_devices"),
        "blocks": _devices(_BLOCK, "name", valid=_is_device, count="vm_block_devices"),
    },
)
