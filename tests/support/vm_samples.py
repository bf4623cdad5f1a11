"""Samples of VMs and nodes as the exporter takes them, each with something in every field that matters."""

from __future__ import annotations

from typing import Any, Final

from tests.support.guest_samples import told
from virtflow.exporter.exposition import exposition
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.render.node import NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.selection import NAMES
from virtflow.schemas.catalogue.metrics import of_libvirt
from virtflow.schemas.catalogue.types import Scope
from virtflow.schemas.fields import BlockMetrics, KvmMetrics, NetworkMetrics, VcpuMetrics
from virtflow.schemas.records import NodeHealth, NodeStatus, VmInventory, VmMetrics

WALL: Final = 1_700_000_000.0
"""The Unix time at which the samples of sequence 0 were collected."""
INTERVAL: Final = 10.0


def uuid(number: int) -> str:
    """The UUID of the ``number``-th VM."""
    return f"00000000-0000-4000-8000-{number:012x}"


def sample(number: int = 1, sequence: int = 0, **fields: Any) -> VmMetrics:  # noqa: ANN401, any field of the record
    """A running VM's sample with all groups."""
    given: dict[str, Any] = {
        "uuid": uuid(number),
        "name": f"vm-{number}",
        "node": "node-1",
        "boot_id": "boot-1",
        "sequence": sequence,
        "collected": WALL + sequence * INTERVAL,
        "interval": INTERVAL,
        "monitor_collected": WALL + sequence * INTERVAL,
        "cpu_seconds_total": 12.5 + sequence,
        "state": 1,
        "state_reason": 1,
        "memory_rss_bytes": 536_870_912,
        "vcpus_current": 2,
        "guest_memory_free_bytes": 1024,
        "vcpus": [VcpuMetrics(vcpu=0, state=1, seconds_total=6.25), VcpuMetrics(vcpu=3, state=2, wait_seconds_total=0.5)],
        "networks": [NetworkMetrics(device="vnet0", receive_bytes_total=100 + sequence, transmit_bytes_total=200)],
        "blocks": [
            BlockMetrics(device="vda", read_bytes_total=4096, read_seconds_total=0.125, capacity_bytes=2**33),
            BlockMetrics(device="sda", read_bytes_total=0),
        ],
    }
    return VmMetrics(**(given | fields))


def filled(scope: Scope, first: int) -> dict[str, Any]:
    """A different value in every field of a scope's record: multiples of a quarter where it is a double."""
    doubles = {metric.field for metric, source in of_libvirt(scope) if source.conversion.to_float}
    fields = [metric.field for metric, _ in of_libvirt(scope)]
    return {field: (first + at) + 0.25 if field in doubles else first + at for at, field in enumerate(fields)}


def everything() -> VmMetrics:
    """A VM for which libvirt reported every field, of two devices of each kind."""
    fields = filled(Scope.VM, 100) | {"state": 1, "state_reason": 2}
    return sample(
        1,
        name='web "1" \\ \u202eprod\n',
        vcpus=[VcpuMetrics(vcpu=number, **filled(Scope.VCPU, 200 + 50 * number)) for number in (0, 2)],
        networks=[NetworkMetrics(device=device, **filled(Scope.NETWORK, first)) for device, first in (("vnet0", 400), ("vnet11", 500))],
        blocks=[BlockMetrics(device=device, **filled(Scope.BLOCK, first)) for device, first in (("vda", 600), ("sdb", 700))],
        kvm=[KvmMetrics(vcpu=number, **filled(Scope.KVM, 800 + 50 * number)) for number in (0, 2)],
        guest=[told(hostname='say "hello" \\ \u4e16', reason="timeout")],
        **fields,
    )


def inventory(number: int = 1, sequence: int = 0, **fields: Any) -> VmInventory:  # noqa: ANN401, any field of the record
    """A VM's inventory as OpenStack would tell it."""
    given: dict[str, Any] = {
        "uuid": uuid(number),
        "name": f"vm-{number}",
        "node": "node-1",
        "boot_id": "boot-1",
        "sequence": sequence,
        "collected": WALL,
        "title": "A VM",
        "machine_type": "pc-q35-7.2",
        "platform": "openstack",
        "project": "shop",
        "flavor": "m1.small",
    }
    return VmInventory(**(given | fields))


def status(node: str = "node-1", sequence: int = 0, **fields: Any) -> NodeStatus:  # noqa: ANN401, any field of the record
    """A healthy node's status."""
    health = NodeHealth(
        up=1,
        vms={"running": 2, "paused": 1},
        sampling_seconds={"safe": 0.0625, "monitor": 0.25},
        rounds_total=7,
        drops_total={"snapshots": 0},
        cpu_seconds_total=1.5,
        version="0.1.0",
        libvirt_version="9.0.0",
        hypervisor_version="7.2.0",
    )
    given: dict[str, Any] = {
        "node": node,
        "boot_id": "boot-1",
        "sequence": sequence,
        "collected": WALL + sequence * INTERVAL,
        "interval": INTERVAL,
        "health": health,
    }
    return NodeStatus(**(given | fields))


def fleet(labels: tuple[str, ...] = ("name",), names: frozenset[str] = NAMES) -> Fleet:
    """An empty fleet that exports everything and forgets silent nodes after an hour."""
    return Fleet(VmText(names, labels), NodeText(names), 3_600.0)


def text_of(fleet_: Fleet, now: float = 0.0, wall: float = WALL) -> str:
    """The whole exposition at ``now``."""
    fleet_.expire(now)
    return "".join(exposition(fleet_, NAMES, wall, {}))


def series_of(fleet_: Fleet, now: float = 0.0, wall: float = WALL) -> dict[str, str]:
    """Each series with its value; fails when one is there twice."""
    lines = [line for line in text_of(fleet_, now, wall).splitlines() if not line.startswith("#")]
    series = dict(line.rsplit(" ", 1) for line in lines)
    assert len(series) == len(lines), "a series is there twice"
    return series
