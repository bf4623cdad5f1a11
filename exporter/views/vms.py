"""From what is seen of a VM to a row of the API, and the columns by which VMs are sorted."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from virtflow.exporter.views.fleet_view import Seen
from virtflow.exporter.views.ring import POINT_SECONDS
from virtflow.exporter.views.rows import VmRow
from virtflow.exporter.views.totals import plus
from virtflow.exporter.views.values import Column, age, known, ratio
from virtflow.schemas.states import reason_word, state_word

STUCK, MIGRATING, CONFLICT, NOT_PROBED = FLAGS = ("stuck", "migrating", "conflict", "not_probed")


class Moment(NamedTuple):
    """When rows are made: Unix time, the fleet's own clock, and the UUIDs of the VMs that migrate."""

    wall: float
    now: float
    migrating: frozenset[str]


def state_of(seen: Seen) -> str:
    """Libvirt's word for the VM's state, "unknown" where the sample has none."""
    return word_of(seen.state)


def word_of(state: int) -> str:
    """Libvirt's word for a state, "unknown" where there is none."""
    return state_word(state) if state >= 0 else "unknown"


def project_of(seen: Seen) -> str:
    """The VM's project: its name, else its id, else Kubernetes' namespace; "" for none."""
    inventory = seen.inventory
    return (inventory.project or inventory.project_id or inventory.namespace) if inventory is not None else ""


def flags_of(seen: Seen, migrating: frozenset[str]) -> list[str]:
    """What is special about a VM, in the order of ``FLAGS``."""
    holds = (seen.responsive == 0, seen.uuid in migrating, seen.conflict, seen.probed == 0)
    return [flag for flag, one in zip(FLAGS, holds, strict=True) if one]


def _memory_ratio(seen: Seen) -> float | None:
    return ratio(seen.memory.used, seen.memory.of)


def _per_vcpu(value: float, seen: Seen) -> float | None:
    return ratio(value, seen.vcpus)


COLUMNS: Final[tuple[Column[Seen], ...]] = (
    Column("name", "name", lambda seen: seen.name),
    Column("node", "node", lambda seen: seen.node),
    Column("project", "project", project_of),
    Column("state", "state", state_of),
    Column("vcpus", "virtual CPUs", lambda seen: known(seen.vcpus)),
    Column("cpu", "cores in use", lambda seen: seen.totals.cpu_cores),
    Column("cpu_ratio", "cores in use by virtual CPUs", lambda seen: _per_vcpu(seen.totals.cpu_cores, seen)),
    Column("steal", "steal by virtual CPUs", lambda seen: _per_vcpu(seen.totals.steal_cores, seen)),
    Column("memory", "memory in use", lambda seen: known(seen.memory.used)),
    Column("memory_ratio", "memory in use by how much there is", _memory_ratio),
    Column("disk", "bytes read and written per second", lambda seen: plus(seen.totals.read_bytes, seen.totals.write_bytes)),
    Column("read", "bytes read per second", lambda seen: seen.totals.read_bytes),
    Column("write", "bytes written per second", lambda seen: seen.totals.write_bytes),
    Column("requests", "disk requests per second", lambda seen: plus(seen.totals.read_requests, seen.totals.write_requests)),
    Column("read_latency", "mean time of a read request", lambda seen: seen.totals.read_latency),
    Column("write_latency", "mean time of a write request", lambda seen: seen.totals.write_latency),
    Column("network", "bytes received and sent per second", lambda seen: plus(seen.totals.receive_bytes, seen.totals.transmit_bytes)),
    Column("receive", "bytes received per second", lambda seen: seen.totals.receive_bytes),
    Column("transmit", "bytes sent per second", lambda seen: seen.totals.transmit_bytes),
    Column("age", "age of the sample", lambda seen: -seen.stamp[1]),
)
BY_NAME: Final = {column.name: column for column in COLUMNS}


def vm_row(seen: Seen, moment: Moment, column: str = "") -> VmRow:
    """The row of a list; ``column`` names the part of the last hour that is added."""
    return VmRow(**vm_fields(seen, moment), history=hour_of(seen, moment, column) if column else [])


def hour_of(seen: Seen, moment: Moment, column: str) -> list[float | None]:
    """One column of the VM's last hour; empty before its first point."""
    return seen.ring.column(column, int(moment.now // POINT_SECONDS)) if seen.ring is not None else []


def hour_end(moment: Moment) -> float:
    """When the newest point of an hour is of, in whole Unix seconds: minutes are those of the fleet's own clock."""
    return float(round(moment.wall - moment.now % POINT_SECONDS))


def vm_fields(seen: Seen, moment: Moment) -> dict[str, Any]:
    """The fields of a row, without history."""
    record, inventory, totals, memory = seen.record, seen.inventory, seen.totals, seen.memory
    return {
        "uuid": record.uuid,
        "name": record.name,
        "title": inventory.title if inventory else "",
        "node": record.node,
        "project": project_of(seen),
        "flavor": inventory.flavor if inventory else "",
        "state": state_of(seen),
        "reason": reason_word(record.state, record.state_reason) if record.state >= 0 and record.state_reason >= 0 else "",
        "flags": flags_of(seen, moment.migrating),
        "vcpus": known(record.vcpus_current),
        "cpu_cores": known(totals.cpu_cores),
        "cpu_ratio": _per_vcpu(totals.cpu_cores, seen),
        "steal_ratio": _per_vcpu(totals.steal_cores, seen),
        "steal_cores": known(totals.steal_cores),
        "memory_used_bytes": known(memory.used),
        "memory_bytes": known(memory.of),
        "memory_ratio": ratio(memory.used, memory.of),
        "memory_source": memory.source,
        "disk_read_bytes_per_second": known(totals.read_bytes),
        "disk_write_bytes_per_second": known(totals.write_bytes),
        "disk_read_requests_per_second": known(totals.read_requests),
        "disk_write_requests_per_second": known(totals.write_requests),
        "disk_read_latency_seconds": known(totals.read_latency),
        "disk_write_latency_seconds": known(totals.write_latency),
        "network_receive_bytes_per_second": known(totals.receive_bytes),
        "network_transmit_bytes_per_second": known(totals.transmit_bytes),
        "network_receive_packets_per_second": known(totals.receive_packets),
        "network_transmit_packets_per_second": known(totals.transmit_packets),
        "network_dropped_packets_per_second": known(totals.dropped_packets),
        "collected": known(record.collected),
        "sample_age_seconds": age(record.collected, moment.wall),
        "monitor_age_seconds": age(seen.vm.monitor_collected, moment.wall),
        "rate_seconds": known(totals.window_seconds),
    }
