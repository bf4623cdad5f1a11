"""The normaliser against the catalogue's rows: units, absence, ranges, and what one bad value may cost."""

from __future__ import annotations

import math
from typing import Any

import pytest

from virtflow.processors.normalise import Normalised, normalise_snapshot
from virtflow.schemas.catalogue.metrics import of_libvirt
from virtflow.schemas.catalogue.types import Conversion, Libvirt, Metric, Scope
from virtflow.schemas.fields import BlockSample, KvmSample, NetworkSample, VcpuSample
from virtflow.schemas.records import NodeSnapshot, VmMetrics, VmSnapshot

LONG_MAX = 2**63 - 1

UUID = "d4e232be-ede6-48cb-9c15-42cde320a1fc"
OTHER = "00000000-0000-4000-8000-000000000001"
COLLECTED = 1_795_476_243.7

ROWS = [pytest.param(scope, metric, source, id=metric.column) for scope in Scope for metric, source in of_libvirt(scope)]
DEVICES: dict[Scope, tuple[str, type[Any], dict[str, Any]]] = {
    Scope.VCPU: ("vcpus", VcpuSample, {"number": 3}),
    Scope.NETWORK: ("networks", NetworkSample, {"name": "vnet0"}),
    Scope.BLOCK: ("blocks", BlockSample, {"name": "vda"}),
    Scope.KVM: ("kvm", KvmSample, {"number": 3}),
}
FACTOR = {Conversion.NONE: 1, Conversion.KIBIBYTES: 1024, Conversion.NANOSECONDS: 1e-9}


def normalised(*vms: VmSnapshot) -> Normalised:
    return normalise_snapshot(NodeSnapshot(node="n", boot_id="b", sequence=7, part=2, collected=COLLECTED, interval=10.0, vms=list(vms)))


def vm_with(scope: Scope, source: Libvirt, value: int) -> VmSnapshot:
    """A VM of which libvirt reported nothing but this one value."""
    if scope is Scope.VM:
        return VmSnapshot(uuid=UUID, **{source.attribute: value})  # type: ignore[arg-type]
    devices, sample, key = DEVICES[scope]
    return VmSnapshot(uuid=UUID, **{devices: [sample(**key, **{source.attribute: value})]})  # type: ignore[arg-type]


def value_of(scope: Scope, metric: Metric, metrics: VmMetrics) -> float:
    record = metrics if scope is Scope.VM else getattr(metrics, DEVICES[scope][0])[0]
    value: float = getattr(record, metric.field)
    return value


def is_absent(value: float) -> bool:
    return math.isnan(value) or value == -1


@pytest.mark.parametrize(("scope", "metric", "source"), ROWS)
@pytest.mark.parametrize("value", [0, 1, 1_234_567])
def test_each_row_converts_to_base_units(scope: Scope, metric: Metric, source: Libvirt, value: int) -> None:
    """Nanoseconds become seconds, kibibytes bytes, everything else stays; zero is a value."""
    result = normalised(vm_with(scope, source, value))
    assert value_of(scope, metric, result.metrics[0]) == pytest.approx(value * FACTOR[source.conversion], rel=1e-15)
    assert result.dropped.values == []


@pytest.mark.parametrize(("scope", "metric", "source"), ROWS)
def test_each_row_stays_absent(scope: Scope, metric: Metric, source: Libvirt) -> None:
    """What libvirt did not report is absent, never 0, and is not counted as dropped."""
    result = normalised(vm_with(scope, source, -1))
    assert is_absent(value_of(scope, metric, result.metrics[0]))
    assert result.dropped.values == []


@pytest.mark.parametrize(("scope", "metric", "source"), ROWS)
def test_each_row_refuses_what_cannot_be(scope: Scope, metric: Metric, source: Libvirt) -> None:
    """A negative value costs its field only, and is counted under the metric's name."""
    result = normalised(vm_with(scope, source, -2))
    assert is_absent(value_of(scope, metric, result.metrics[0]))
    assert result.dropped.values == [metric.name]


@pytest.mark.parametrize(("scope", "metric", "source"), ROWS)
def test_each_row_at_the_largest_value(scope: Scope, metric: Metric, source: Libvirt) -> None:
    """The largest long converts where it still fits, else it is out of range: never an overflow."""
    result = normalised(vm_with(scope, source, LONG_MAX))
    fits = source.conversion is not Conversion.KIBIBYTES
    assert is_absent(value_of(scope, metric, result.metrics[0])) is not fits
    assert len(result.dropped.values) == (0 if fits else 1)


def test_no_name_of_libvirts_leaks() -> None:
    """No field of the result bears a name that only libvirt uses."""
    own = {metric.field for scope in Scope for metric, _ in of_libvirt(scope)}
    foreign = {source.attribute for scope in Scope for _, source in of_libvirt(scope)} - own
    samples = (VmMetrics(uuid=UUID), *normalised(vm_with(Scope.BLOCK, Libvirt("block.N.rd.reqs"), 1)).metrics[0].blocks)
    assert not foreign & {field for sample in samples for field in sample.__struct_fields__}


def test_the_envelope_is_the_snapshots() -> None:
    """Node, order, times and interval come from the snapshot, identity and name from the VM."""
    (vm,) = normalised(VmSnapshot(uuid=UUID, name="web-1", monitor_collected=COLLECTED - 1)).metrics
    assert (vm.uuid, vm.name, vm.node, vm.boot_id, vm.sequence, vm.part) == (UUID, "web-1", "n", "b", 7, 2)
    assert (vm.collected, vm.interval, vm.monitor_collected) == (COLLECTED, 10.0, COLLECTED - 1)


@pytest.mark.parametrize("uuid", ["", "web-1", UUID.upper(), UUID[:-1], UUID + "0", "d4e232be_ede6-48cb-9c15-42cde320a1fc"])
def test_a_bad_uuid_costs_that_vm_only(uuid: str) -> None:
    """Identity is the uuid: a VM without one is left out and counted; the others are not touched."""
    result = normalised(VmSnapshot(uuid=uuid), VmSnapshot(uuid=OTHER))
    assert [vm.uuid for vm in result.metrics] == [OTHER]
    assert result.dropped.vms == 1


def test_a_device_without_a_usable_name_costs_that_device_only() -> None:
    """A nameless or repeated device would give series without identity or twice: left out and counted."""
    networks = [NetworkSample(name="", rx_bytes=1), NetworkSample(name="vnet1", rx_bytes=2), NetworkSample(name="vnet1", rx_bytes=3)]
    vcpus = [VcpuSample(number=-1, time=1), VcpuSample(number=5, time=2)]
    result = normalised(VmSnapshot(uuid=UUID, networks=networks, vcpus=vcpus, blocks=[BlockSample(name="v" * 300)]))
    (vm,) = result.metrics
    assert [(n.device, n.receive_bytes_total) for n in vm.networks] == [("vnet1", 2)]
    assert [v.vcpu for v in vm.vcpus] == [5]
    assert vm.blocks == []
    assert sorted(result.dropped.values) == ["vm_block_devices", "vm_network_devices", "vm_network_devices", "vm_vcpus_current"]


def test_holes_among_vcpus_stay() -> None:
    """After hot-unplug the numbers have holes: a vCPU keeps its own."""
    (vm,) = normalised(VmSnapshot(uuid=UUID, vcpus=[VcpuSample(number=n, time=n) for n in (0, 2, 11)])).metrics
    assert [v.vcpu for v in vm.vcpus] == [0, 2, 11]


@pytest.mark.parametrize(("given", "dropped"), [(float("nan"), 0), (-1.0, 0), (0.0, 1), (float("inf"), 1), (1e300, 1), (-5.0, 1)])
def test_an_untrue_time_of_the_monitor_groups_is_absent(given: float, dropped: int) -> None:
    """NaN and -1 say that nothing was read; anything that is no time of this century is dropped."""
    result = normalised(VmSnapshot(uuid=UUID, monitor_collected=given))
    assert math.isnan(result.metrics[0].monitor_collected)
    assert len(result.dropped.values) == dropped


def test_an_over_long_name_is_cut() -> None:
    """A name can't make a label of any length."""
    (vm,) = normalised(VmSnapshot(uuid=UUID, name="n" * 5000)).metrics
    assert len(vm.name) == 256
