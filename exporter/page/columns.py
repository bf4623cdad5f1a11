"""The columns of the page's tables."""

from __future__ import annotations

from typing import Final

from virtflow.exporter.page.tables import TableColumn as Column

VMS: Final = (
    Column("name", "Name", "vm", "name"),
    Column("state", "State", "state", "state"),
    Column("node", "Node", "node", "node"),
    Column("project", "Project", "project", "project", wide=True),
    Column("vcpus", "vCPUs", "count", "vcpus", wide=True),
    Column("cpu_cores", "Cores", "cores", "cpu"),
    Column("cpu_ratio", "CPU", "bar", "cpu_ratio"),
    Column("history", "Cores, last hour", "spark", form="cores", wide=True),
    Column("steal_ratio", "Steal", "percent", "steal"),
    Column("memory_used_bytes", "Memory", "size", "memory"),
    Column("memory_ratio", "of it", "bar", "memory_ratio", wide=True),
    Column("disk_read_bytes_per_second", "Read", "rate", "read"),
    Column("disk_write_bytes_per_second", "Written", "rate", "write"),
    Column("disk_read_latency_seconds", "Read latency", "latency", "read_latency", wide=True),
    Column("disk_write_latency_seconds", "Write latency", "latency", "write_latency", wide=True),
    Column("network_receive_bytes_per_second", "Received", "rate", "receive"),
    Column("network_transmit_bytes_per_second", "Sent", "rate", "transmit"),
    Column("sample_age_seconds", "Age", "duration", "age", wide=True),
)
NODES: Final = (
    Column("node", "Node", "node", "name"),
    Column("up", "Up", "yes", "up"),
    Column("reason", "Reason", "word"),
    Column("vms", "VMs", "count", "vms"),
    Column("running", "Running", "count"),
    Column("stuck", "Stuck", "count", "stuck"),
    Column("cpu_cores", "Cores", "cores", "cpu"),
    Column("vcpus", "vCPUs", "count", wide=True),
    Column("memory_used_bytes", "Memory", "size", "memory"),
    Column("hung_calls", "Hung calls", "count", "hung"),
    Column("hung_calls_limit", "Limit", "count", wide=True),
    Column("rounds_late", "Late rounds", "count", wide=True),
    Column("sample_age_seconds", "Age", "duration", "age"),
    Column("libvirt_version", "libvirt", wide=True),
    Column("hypervisor_version", "QEMU", wide=True),
    Column("version", "virtflow", wide=True),
)
MIGRATIONS: Final = (
    Column("name", "VM", "vm", "name"),
    Column("result", "Result", "state", "result"),
    Column("source", "From", "text", "source"),
    Column("destination", "To", "text", "destination"),
    Column("progress_ratio", "Progress", "bar", "progress"),
    Column("remaining_bytes", "Remaining", "size", wide=True),
    Column("memory_bytes_per_second", "Sent", "rate", wide=True),
    Column("converging", "Converging", "yes", wide=True),
    Column("elapsed_seconds", "Took", "duration"),
    Column("downtime_seconds", "Downtime", "latency"),
    Column("started", "Started (UTC)", "clock", "started"),
    Column("kind", "Kind", "word", wide=True),
    Column("reason", "Reason", "text", wide=True),
)
EVENTS: Final = (
    Column("time", "Time (UTC)", "clock"),
    Column("name", "What", "vm"),
    Column("text", "Change"),
    Column("node", "Node", "node", wide=True),
)


def _of(columns: tuple[Column, ...], *fields: str) -> tuple[Column, ...]:
    """Some of a table's columns, by their fields."""
    by_field = {column.field: column for column in columns}
    return tuple(by_field[field] for field in fields)


ATTENTION: Final = (*_of(VMS, "name", "state", "node"), Column("monitor_age_seconds", "Last answer", "duration"))
NODES_ATTENTION: Final = _of(NODES, "node", "reason", "hung_calls", "sample_age_seconds")
MIGRATIONS_RUNNING: Final = _of(MIGRATIONS, "name", "source", "destination", "progress_ratio", "elapsed_seconds")

VCPUS: Final = (
    Column("vcpu", "vCPU", "count"),
    Column("state", "State", "state"),
    Column("cpu_ratio", "CPU", "bar"),
    Column("steal_ratio", "Steal", "percent"),
)
DISKS: Final = (
    Column("device", "Disk"),
    Column("capacity_bytes", "Size", "size"),
    Column("allocation_bytes", "Allocated", "size"),
    Column("read_bytes_per_second", "Read", "rate"),
    Column("write_bytes_per_second", "Written", "rate"),
    Column("read_requests_per_second", "Reads", "per_second"),
    Column("write_requests_per_second", "Writes", "per_second"),
    Column("read_latency_seconds", "Read latency", "latency"),
    Column("write_latency_seconds", "Write latency", "latency"),
    Column("source", "Source", wide=True),
)
INTERFACES: Final = (
    Column("device", "Interface"),
    Column("receive_bytes_per_second", "Received", "rate"),
    Column("transmit_bytes_per_second", "Sent", "rate"),
    Column("receive_packets_per_second", "Packets in", "per_second"),
    Column("transmit_packets_per_second", "Packets out", "per_second"),
    Column("dropped_packets_per_second", "Dropped", "per_second"),
    Column("error_packets_per_second", "Errors", "per_second"),
    Column("mac", "MAC", wide=True),
    Column("source", "Network", wide=True),
)
FILESYSTEMS: Final = (
    Column("mountpoint", "Mountpoint"),
    Column("fstype", "Type"),
    Column("size_bytes", "Size", "size"),
    Column("free_bytes", "Free", "size"),
)
ADDRESSES: Final = (Column("interface", "Interface"), Column("address", "Address"), Column("prefix", "Prefix", "count"))

TOPS: Final = (
    ("cpu", "CPU cores", "cores"),
    ("steal", "Steal", "percent"),
    ("memory", "Memory", "size"),
    ("disk", "Disk", "rate"),
    ("network", "Network", "rate"),
)
"""The lists of largest consumers: the API's name, the title and the format."""
