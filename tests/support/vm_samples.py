"""Samples of VMs and nodes as the exporter takes them, each with something in every field that matters."""

from __future__ import annotations

from typing import Any, Final

from virtflow.exporter.exposition import exposition
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.render.node import NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.selection import NAMES
from virtflow.schemas.fields import BlockMetrics, NetworkMetrics, VcpuMetrics
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
