"""What the API tells of VMs, nodes, migrations and the fleet: one struct each. The OpenAPI document and docs/api.md are made of them.

None is unknown. Rates are per second, between the last two samples; times are Unix seconds; ratios are 0 to 1.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


def _about(text: str) -> Meta:
    return Meta(description=text)


Number = float | None
Count = int | None
History = dict[str, list[float | None]]


class VmRow(Struct, frozen=True, kw_only=True):
    """One VM of a list."""

    uuid: Annotated[str, _about("Its UUID.")]
    name: Annotated[str, _about("Its name in libvirt: the tenant's words.")]
    title: Annotated[str, _about("Its title, where the inventory has one.")]
    node: Annotated[str, _about("The node whose sample counts.")]
    project: Annotated[str, _about("Its project's name, or id where it has no name.")]
    flavor: Annotated[str, _about("Its flavor on its platform.")]
    state: Annotated[str, _about("libvirt's word for its state.")]
    reason: Annotated[str, _about("libvirt's word for the reason of the state.")]
    flags: Annotated[
        list[str],
        _about(
            "`stuck`: its QEMU does not answer. `migrating`. `conflict`: two nodes report that it runs. `not_probed`: unknown whether it answers."
        ),
    ]
    vcpus: Annotated[Count, _about("Its virtual CPUs.")]
    cpu_cores: Annotated[Number, _about("CPU time per second: cores in use.")]
    cpu_ratio: Annotated[Number, _about("Cores in use by its virtual CPUs.")]
    steal_ratio: Annotated[Number, _about("Time that its virtual CPUs were ready and had to wait for a CPU of the host, by their number.")]
    steal_cores: Annotated[Number, _about("That time of all its virtual CPUs together, per second.")]
    memory_used_bytes: Annotated[Number, _about("Memory in use; docs/memory.md has the rule.")]
    memory_bytes: Annotated[Number, _about("Of how much: what the guest manages, or what the balloon leaves to it.")]
    memory_ratio: Annotated[Number, _about("Memory in use by how much there is.")]
    memory_source: Annotated[str, _about("Whose figure it is: `guest`, `host`, or empty.")]
    disk_read_bytes_per_second: Annotated[Number, _about("Bytes read, of all block devices.")]
    disk_write_bytes_per_second: Annotated[Number, _about("Bytes written.")]
    disk_read_requests_per_second: Annotated[Number, _about("Read requests completed.")]
    disk_write_requests_per_second: Annotated[Number, _about("Write requests completed.")]
    disk_read_latency_seconds: Annotated[Number, _about("Mean time of a read request; unknown where none was made.")]
    disk_write_latency_seconds: Annotated[Number, _about("Mean time of a write request.")]
    network_receive_bytes_per_second: Annotated[Number, _about("Bytes received, of all network devices.")]
    network_transmit_bytes_per_second: Annotated[Number, _about("Bytes sent.")]
    network_receive_packets_per_second: Annotated[Number, _about("Packets received.")]
    network_transmit_packets_per_second: Annotated[Number, _about("Packets sent.")]
    network_dropped_packets_per_second: Annotated[Number, _about("Packets dropped, in both directions.")]
    collected: Annotated[Number, _about("When the sample was collected, by its node's clock.")]
    sample_age_seconds: Annotated[Number, _about("Age of the sample.")]
    monitor_age_seconds: Annotated[Number, _about("Age of the newest sample of the groups that can hang: CPU, memory, block devices.")]
    rate_seconds: Annotated[Number, _about("Time between the two samples that the rates are of.")]
    history: Annotated[
        list[float | None], _about("One column of the last hour, a point a minute, the oldest first; empty unless `history` asks for one.")
    ] = []


class Vcpu(Struct, frozen=True, kw_only=True):
    """A virtual CPU."""

    vcpu: int
    state: Annotated[str, _about("`offline`, `running`, `blocked`, or empty.")]
    cpu_ratio: Annotated[Number, _about("Share of the time that it ran.")]
    steal_ratio: Annotated[Number, _about("Share of the time that it was ready and had to wait for a CPU of the host.")]


class Disk(Struct, frozen=True, kw_only=True):
    """A block device."""

    device: str
    source: Annotated[str, _about("File, volume or URL, from the inventory.")]
    bus: str
    capacity_bytes: Count
    allocation_bytes: Count
    read_bytes_per_second: Number
    write_bytes_per_second: Number
    read_requests_per_second: Number
    write_requests_per_second: Number
    flush_requests_per_second: Number
    read_latency_seconds: Number
    write_latency_seconds: Number
    flush_latency_seconds: Number


class Interface(Struct, frozen=True, kw_only=True):
    """A network device."""

    device: str
    mac: str
    model: str
    source: Annotated[str, _about("Bridge or network, from the inventory.")]
    receive_bytes_per_second: Number
    transmit_bytes_per_second: Number
    receive_packets_per_second: Number
    transmit_packets_per_second: Number
    dropped_packets_per_second: Annotated[Number, _about("In both directions.")]
    error_packets_per_second: Annotated[Number, _about("In both directions.")]


class Filesystem(Struct, frozen=True, kw_only=True):
    """A filesystem as the guest's agent tells it."""

    mountpoint: str
    fstype: str
    size_bytes: Count
    free_bytes: Count


class Address(Struct, frozen=True, kw_only=True):
    """An IP address of the VM."""

    interface: str
    address: str
    prefix: Count


class MigrationRow(Struct, frozen=True, kw_only=True):
    """The running or last migration of a VM."""

    id: str
    uuid: Annotated[str, _about("The VM.")]
    name: str
    source: str
    destination: str
    result: Annotated[str, _about("`running`, `completed`, `failed`, `cancelled`, `incomplete` or `unknown`.")]
    reason: str
    type: Annotated[str, _about("libvirt's word for what the job is now.")]
    kind: Annotated[str, _about("`pre_copy` or `post_copy`.")]
    progress_ratio: Number
    remaining_bytes: Count
    total_bytes: Count
    memory_bytes_per_second: Annotated[Count, _about("Memory sent per second.")]
    converging: Annotated[bool | None, _about("Whether it comes nearer to its end.")]
    expected_remaining_seconds: Number
    elapsed_seconds: Number
    downtime_seconds: Number
    started: Annotated[Number, _about("Unix seconds.")]
    ended: Annotated[Number, _about("Unix seconds; unknown while it runs.")]


class VmDetail(VmRow, frozen=True, kw_only=True):
    """One VM with everything that is known of it."""

    project_id: str
    user: str
    user_id: str
    platform: str
    namespace: str
    platform_name: str
    machine_type: str
    cpu_system_cores: Annotated[Number, _about("Cores in use in the host's kernel mode, as libvirt counts them.")]
    memory_resident_bytes: Annotated[Count, _about("Resident memory of its process on the host.")]
    memory_maximum_bytes: Annotated[Count, _about("Memory that it may have at most.")]
    interval_seconds: Annotated[Number, _about("Sampling interval of its node.")]
    virtual_cpus: list[Vcpu]
    disks: list[Disk]
    interfaces: list[Interface]
    hostname: Annotated[str, _about("As the guest's agent tells it.")]
    os: Annotated[str, _about("As the guest's agent tells it.")]
    agent_up: Annotated[bool | None, _about("Whether the guest's agent answers; unknown where it is not asked.")]
    load1: Number
    filesystems: list[Filesystem]
    addresses: list[Address]
    migration: Annotated[MigrationRow | None, _about("Its running or last migration.")]
    hour: Annotated[History, _about("The last hour by column, a point a minute, the oldest first.")]
    hour_end: Annotated[float, _about("When the newest point of the hour is of: Unix seconds; it is the mean of the minute before.")]


class NodeRow(Struct, frozen=True, kw_only=True):
    """One node."""

    node: str
    up: Annotated[bool, _about("Whether it is heard of and its libvirt answers.")]
    reason: Annotated[str, _about("Why it is down: `silent`, `no libvirt`, or empty.")]
    vms: Annotated[int, _about("VMs whose sample of this node counts.")]
    running: Annotated[int, _about("Those of them that run.")]
    stuck: Annotated[int, _about("Those of them that do not answer.")]
    cpu_cores: Annotated[Number, _about("Cores in use by its VMs.")]
    vcpus: Annotated[int, _about("Virtual CPUs of its VMs.")]
    memory_used_bytes: Annotated[Number, _about("Memory in use by its VMs.")]
    hung_calls: Annotated[Count, _about("Calls to libvirt that do not come back.")]
    hung_calls_limit: Count
    vms_skipped: Annotated[Count, _about("VMs whose monitors are not asked.")]
    rounds_late: Annotated[Count, _about("Rounds that were late, since its producer started.")]
    interval_seconds: Number
    sample_age_seconds: Number
    version: Annotated[str, _about("virtflow's version.")]
    libvirt_version: str
    hypervisor_version: str


class NodeFinding(Struct, frozen=True, kw_only=True):
    """Something that is wrong on a node."""

    thing: Annotated[str, _about("What it is about.")]
    why: Annotated[str, _about("What is wrong.")]
    fix: Annotated[str, _about("What to do.")]
    alert: Annotated[str, _about("The alert whose runbook says more; empty where there is none.")]


class NodeDetail(NodeRow, frozen=True, kw_only=True):
    """One node with what is wrong there, from what it reports of itself."""

    findings: list[NodeFinding]


class NodeCounts(Struct, frozen=True, kw_only=True):
    """Nodes in numbers."""

    known: int
    up: int
    down: int
    hung: Annotated[int, _about("Nodes with calls that do not come back.")]


class ProjectCount(Struct, frozen=True, kw_only=True):
    """VMs of one project."""

    project: str
    vms: int


class Top(Struct, frozen=True, kw_only=True):
    """A VM among those that use most of something."""

    uuid: str
    name: str
    node: str
    value: float


class FleetOverview(Struct, frozen=True, kw_only=True):
    """The whole fleet, or this exporter's shard of it."""

    version: Annotated[str, _about("virtflow's version.")]
    run: Annotated[str, _about("This run of the exporter: the ids of its events begin with it.")]
    time: Annotated[float, _about("Now, by the exporter's clock.")]
    missing: Annotated[str, _about("Why the fleet is not fully known yet; empty once it is.")]
    vms: int
    states: Annotated[dict[str, int], _about("VMs by state.")]
    stuck: int
    migrating: int
    conflicts: int
    nodes: NodeCounts
    vcpus: int
    cpu_cores: Number
    memory_used_bytes: Number
    memory_bytes: Number
    disk_read_bytes_per_second: Number
    disk_write_bytes_per_second: Number
    network_receive_bytes_per_second: Number
    network_transmit_bytes_per_second: Number
    projects: Annotated[list[ProjectCount], _about("The projects with the most VMs, 200 at most.")]
    top: Annotated[dict[str, list[Top]], _about("The five VMs that use most, by `cpu`, `steal`, `memory`, `disk` and `network`.")]
    last_event: Annotated[str, _about("Id of the newest event; empty before the first one.")]
