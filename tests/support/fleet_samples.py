"""Fleets of many VMs as an exporter takes them: two rounds apart, so that rates are known, each value a simple function of the VM's number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from msgspec.structs import replace

from tests.support.vm_samples import INTERVAL, WALL, inventory, sample, status, uuid
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.views.fleet_view import FleetView
from virtflow.schemas.fields import BlockMetrics, NetworkMetrics, VcpuMetrics
from virtflow.schemas.records import NodeStatus, VmInventory, VmMetrics, VmMigration

Taken = VmMetrics | VmInventory | VmMigration | NodeStatus
VMS_A_NODE: Final = 50
PROJECTS: Final = 7
GIB: Final = 1 << 30
HOSTILE: Final = "<script>alert(1)</script>\"'&"
LONG: Final = "x" * 1_024


def node_of(number: int) -> str:
    """The node of a VM."""
    return f"node-{number // VMS_A_NODE + 1}"


def busy(number: int, round_: int, **fields: Any) -> VmMetrics:  # noqa: ANN401, any field of the record
    """VM ``number`` in a round: it uses (number % 40) / 20 of its two vCPUs, 1 KiB/s times its number of disk and network."""
    seconds = 1_000.0 + round_ * INTERVAL
    cores, rate = number % 40 / 20, 1024 * (number + 1)
    given: dict[str, Any] = {
        "node": node_of(number),
        "name": f"vm-{number:05d}",
        "cpu_seconds_total": cores * seconds,
        "memory_rss_bytes": GIB + number * 1024,
        "memory_balloon_current_bytes": 4 * GIB,
        "guest_memory_total_bytes": -1,
        "guest_memory_free_bytes": -1,
        "vcpus": [
            VcpuMetrics(vcpu=n, state=1, seconds_total=cores / 2 * seconds, delay_seconds_total=cores / 20 * seconds) for n in (0, 1)
        ],
        "networks": [
            NetworkMetrics(
                device=f"vnet{number}",
                receive_bytes_total=int(rate * seconds),
                transmit_bytes_total=int(2 * rate * seconds),
                receive_packets_total=int(10 * seconds),
                transmit_packets_total=int(5 * seconds),
                receive_packets_dropped_total=0,
                transmit_packets_dropped_total=0,
                receive_errors_total=0,
                transmit_errors_total=0,
            )
        ],
        "blocks": [
            BlockMetrics(
                device="vda",
                read_bytes_total=int(rate * seconds),
                write_bytes_total=int(rate / 2 * seconds),
                read_requests_total=int(20 * seconds),
                write_requests_total=int(10 * seconds),
                read_seconds_total=0.02 * seconds,
                write_seconds_total=0.05 * seconds,
                flush_requests_total=int(seconds),
                flush_seconds_total=0.01 * seconds,
                capacity_bytes=20 * GIB,
                allocation_bytes=5 * GIB,
            )
        ],
    }
    return sample(number, round_, **(given | fields))


def described(number: int, **fields: Any) -> VmInventory:  # noqa: ANN401, any field of the record
    """Its inventory."""
    project = f"project-{number % PROJECTS}"
    given = {
        "node": node_of(number),
        "name": f"vm-{number:05d}",
        "title": f"Title {number}",
        "project": project,
        "project_id": f"{number % PROJECTS:032x}",
    }
    return inventory(number, **(given | fields))


def fleet_records(count: int, rounds: int = 2) -> Iterator[Taken]:
    """Inventories, nodes and samples, in an order that an exporter may see."""
    yield from (described(number) for number in range(count))
    for round_ in range(rounds):
        yield from (status(node_of(number), round_) for number in range(0, count, VMS_A_NODE))
        yield from (busy(number, round_) for number in range(count))


def lasting(records: Iterable[Taken]) -> list[Taken]:
    """The records with an interval of an hour, so that nothing of them expires while a test looks at it."""
    return [record if isinstance(record, VmInventory | VmMigration) else replace(record, interval=3_600.0) for record in records]


def taken(fleet: Fleet, records: Iterable[Taken], now: float) -> None:
    """Hands records to the fleet as an exporter does."""
    for record in records:
        if isinstance(record, VmMetrics):
            fleet.take_metrics(record, now)
        elif isinstance(record, VmInventory):
            fleet.take_inventory(record, now)
        elif isinstance(record, VmMigration):
            fleet.take_migration(record, now)
        else:
            fleet.take_node(record, now)


def updated(view: FleetView, now: float) -> FleetView:
    """The view after a look at the fleet."""
    for _ in view.updating(now):
        pass
    return view


def seen_twice(fleet: Fleet, count: int) -> FleetView:
    """A view of ``count`` VMs whose rates are known, as of the second round."""
    view = FleetView(fleet)
    taken(fleet, (described(number) for number in range(count)), 0.0)
    for round_ in range(2):
        now = round_ * INTERVAL
        taken(fleet, (status(node_of(number), round_) for number in range(0, count, VMS_A_NODE)), now)
        taken(fleet, (busy(number, round_) for number in range(count)), now)
        updated(view, now)
    return view


def migration(number: int, result: str = "running", **fields: Any) -> VmMigration:  # noqa: ANN401, any field of the record
    """A migration of a VM to the next node."""
    given: dict[str, Any] = {
        "uuid": uuid(number),
        "id": f"m-{number}",
        "name": f"vm-{number:05d}",
        "source": node_of(number),
        "destination": node_of(number + VMS_A_NODE),
        "result": result,
        "revision": 1,
        "started_timestamp_seconds": WALL + number,
        "progress_ratio": 0.25,
        "data_remaining_bytes": 3 * GIB,
        "data_total_bytes": 4 * GIB,
        "memory_bytes_per_second": 1 << 27,
        "elapsed_seconds": 12.5,
        "converging": 1,
    }
    return VmMigration(**(given | fields))
