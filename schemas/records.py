"""The records of the topics. The fields that the catalogue names come from ``fields.py``, which is generated from it.

Absent is -1 for integers, NaN for doubles and "" for strings: never 0. Times are Unix seconds, sizes bytes, unless the
field is one of libvirt's own (``SampledVm`` and its devices), which keep libvirt's names and units.
Records are msgspec structs: frozen, with slots, built and taken apart in C.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct, field

from virtflow.schemas.fields import (
    BlockMetrics,
    BlockSample,
    HealthFields,
    KvmMetrics,
    KvmSample,
    MigrationFields,
    NetworkMetrics,
    NetworkSample,
    SampledVm,
    VcpuMetrics,
    VcpuSample,
    VmFields,
)

NAN: Final = float("nan")


class Disk(Struct, frozen=True, gc=False, kw_only=True):
    """One disk of a VM as its XML describes it. ``device`` is the target name (``vda``), ``source`` a path, volume or URL."""

    device: str = ""
    kind: str = ""
    bus: str = ""
    source: str = ""


class Nic(Struct, frozen=True, gc=False, kw_only=True):
    """One network interface of a VM as its XML describes it. ``device`` is the host's name of it (``vnet3``)."""

    device: str = ""
    model: str = ""
    mac: str = ""
    source: str = ""


class VmInventory(Struct, frozen=True, gc=False, kw_only=True):
    """What changes rarely of a VM (topic ``vm.inventory``), from its XML and the metadata of the owner's platform.

    ``platform`` is ``openstack``, ``ovirt``, ``kubevirt`` or "". ``namespace`` and ``platform_name`` are what the
    platform calls the VM.
    """

    uuid: str
    name: str = ""
    node: str = ""
    boot_id: str = ""
    sequence: int = -1
    part: int = 0
    collected: float = NAN
    title: str = ""
    machine_type: str = ""
    vcpus: int = -1
    memory_bytes: int = -1
    platform: str = ""
    project: str = ""
    project_id: str = ""
    user: str = ""
    user_id: str = ""
    flavor: str = ""
    namespace: str = ""
    platform_name: str = ""
    disks: list[Disk] = field(default_factory=list)
    nics: list[Nic] = field(default_factory=list)


class GuestFilesystem(Struct, frozen=True, gc=False, kw_only=True):
    """One filesystem as the guest's agent tells it. 0 <= used <= total <= 2^60, or both are absent. ``device`` is the guest's name of its disk."""

    mountpoint: str = ""
    fstype: str = ""
    total_bytes: int = -1
    used_bytes: int = -1
    device: str = ""


class GuestAddress(Struct, frozen=True, gc=False, kw_only=True):
    """One IP address in its canonical form; ``family`` is ``ipv4`` or ``ipv6``, ``prefix`` the bits of its network."""

    address: str = ""
    family: str = ""
    prefix: int = -1


class GuestInterface(Struct, frozen=True, gc=False, kw_only=True):
    """One network interface under the guest's own name (the host's, where the guest did not tell), with its addresses."""

    name: str = ""
    mac: str = ""
    addresses: list[GuestAddress] = field(default_factory=list)


class GuestOs(Struct, frozen=True, gc=False, kw_only=True):
    """What the guest's agent says of its operating system; fields are named after the keys of os-release."""

    hostname: str = ""
    os_id: str = ""
    os_name: str = ""
    os_pretty_name: str = ""
    os_version: str = ""
    os_version_id: str = ""
    os_kernel_release: str = ""
    os_machine: str = ""


class GuestSample(GuestOs, frozen=True, gc=False, kw_only=True):
    """What only the guest knows of a VM, cleaned, and how its agent stands. It is the tenant's word, not the host's.

    ``agent_up`` is whether the newest attempt was answered; where it was not, ``reason`` says why (a ``GuestReason``'s word).
    ``taken`` is when the newest answer was asked for (Unix seconds), NaN without one: it may be older than the attempt, but
    an answer that is too old is left out. ``cut`` counts what was left out of it because there was too much, ``dropped`` what could not be true.
    ``address_source`` says who told the addresses: ``agent``, or libvirt's own ``lease`` or ``arp``, asked at ``addresses_taken``.
    """

    taken: float = NAN
    agent_up: int = -1
    reason: str = ""
    cut: int = -1
    dropped: int = -1
    cpus: int = -1
    load1: float = NAN
    load5: float = NAN
    load15: float = NAN
    filesystems: list[GuestFilesystem] = field(default_factory=list)
    interfaces: list[GuestInterface] = field(default_factory=list)
    address_source: str = ""
    addresses_taken: float = NAN


class VmSnapshot(SampledVm, frozen=True, gc=False, kw_only=True):
    """What libvirt said of one VM in one round, under libvirt's own names and in its own units.

    ``monitor_collected`` is the start of the call that brought the monitor groups: NaN when this round has none.
    ``inventory`` holds one entry when it changed or is due, else none. ``guest`` holds one entry where the guest's agent is
    asked, else none. ``kvm`` has KVM's own statistics of the vCPUs where they are asked for, else none.
    """

    uuid: str
    name: str = ""
    monitor_collected: float = NAN
    vcpus: list[VcpuSample] = field(default_factory=list)
    networks: list[NetworkSample] = field(default_factory=list)
    blocks: list[BlockSample] = field(default_factory=list)
    inventory: list[VmInventory] = field(default_factory=list)
    guest: list[GuestSample] = field(default_factory=list)
    kvm: list[KvmSample] = field(default_factory=list)


class NodeHealth(HealthFields, frozen=True, gc=False, kw_only=True):
    """The node's own health as of this round: the catalogue's fields, and the versions on the node."""

    version: str = ""
    libvirt_version: str = ""
    hypervisor_version: str = ""


class NodeSnapshot(Struct, frozen=True, gc=False, kw_only=True):
    """One message per node and round (topic ``vm.snapshots``); a large round is split into ``parts`` messages.

    ``boot_id`` is random for each run of the producer, ``sequence`` counts its rounds from 0: together with ``part`` they order
    a node's messages whatever its clock says.
    """

    node: str
    boot_id: str
    sequence: int
    part: int = 0
    parts: int = 1
    collected: float = NAN
    interval: float = NAN
    health: NodeHealth = field(default_factory=NodeHealth)
    vms: list[VmSnapshot] = field(default_factory=list)


class NodeStatus(Struct, frozen=True, gc=False, kw_only=True):
    """The newest health of a node (topic ``vm.nodes``)."""

    node: str
    boot_id: str = ""
    sequence: int = -1
    part: int = 0
    collected: float = NAN
    interval: float = NAN
    health: NodeHealth = field(default_factory=NodeHealth)


class GuestFilesystemMetrics(Struct, frozen=True, gc=False, kw_only=True):
    """Size and free space of one filesystem, as the guest sees them."""

    mountpoint: str
    fstype: str = ""
    size_bytes: int = -1
    free_bytes: int = -1
    device: str = ""


class GuestAddressMetrics(Struct, frozen=True, gc=False, kw_only=True):
    """One IP address of a VM in its canonical form, and the interface that has it; ``family`` is ``ipv4`` or ``ipv6``."""

    interface: str
    address: str = ""
    family: str = ""
    prefix: int = -1
    mac: str = ""


class GuestMetrics(GuestOs, frozen=True, gc=False, kw_only=True):
    """What only the guest knows of a VM, in base units; see ``GuestSample``. ``address_source`` holds for all addresses."""

    taken: float = NAN
    agent_up: int = -1
    reason: str = ""
    cut: int = -1
    dropped: int = -1
    cpus: int = -1
    load1: float = NAN
    load5: float = NAN
    load15: float = NAN
    filesystems: list[GuestFilesystemMetrics] = field(default_factory=list)
    addresses: list[GuestAddressMetrics] = field(default_factory=list)
    address_source: str = ""
    addresses_taken: float = NAN


class VmMetrics(VmFields, frozen=True, gc=False, kw_only=True):
    """One sample of one VM in base units (topic ``vm.metrics``); fields are named after the metrics.

    ``collected`` is the start of the round's safe calls, ``monitor_collected`` that of the call that brought the monitor groups
    (NaN when the sample has none). (uuid, node, boot_id, sequence) identifies the sample. ``guest`` holds one entry where the
    guest's agent is asked, else none. ``kvm`` has KVM's own statistics of the vCPUs where the node carries them.
    """

    uuid: str
    name: str = ""
    node: str = ""
    boot_id: str = ""
    sequence: int = -1
    part: int = 0
    collected: float = NAN
    interval: float = NAN
    monitor_collected: float = NAN
    vcpus: list[VcpuMetrics] = field(default_factory=list)
    networks: list[NetworkMetrics] = field(default_factory=list)
    blocks: list[BlockMetrics] = field(default_factory=list)
    guest: list[GuestMetrics] = field(default_factory=list)
    kvm: list[KvmMetrics] = field(default_factory=list)


class VmEvent(Struct, frozen=True, gc=False, kw_only=True):
    """Something that happened to a VM, or a poll of its running job (topic ``vm.events``). (node, boot_id, sequence) is its identity.

    ``kind`` is the event's name in libvirt, in lower case; ``job`` a poll of a running job, ``job_gone`` that it runs no more,
    ``state`` what a producer found when it started. ``event`` and ``detail`` are the event's own numbers, ``job`` holds job
    statistics under libvirt's names and in its units. ``time`` is Unix seconds of the node's clock.
    """

    uuid: str
    name: str = ""
    node: str = ""
    boot_id: str = ""
    sequence: int = -1
    time: float = NAN
    kind: str = ""
    event: int = -1
    detail: int = -1
    iteration: int = -1
    state: int = -1
    reason: int = -1
    device: str = ""
    path: str = ""
    text: str = ""
    size_bytes: int = -1
    excess_bytes: int = -1
    job: dict[str, int] = field(default_factory=dict)


class MigrationPass(Struct, frozen=True, gc=False, kw_only=True):
    """What was still to be moved when a pass over the VM's memory was first seen."""

    iteration: int = -1
    remaining_bytes: int = -1


class EventPosition(Struct, frozen=True, gc=False, kw_only=True):
    """The newest event of a node that a migration was changed by."""

    node: str = ""
    boot_id: str = ""
    sequence: int = -1


class VmMigration(MigrationFields, frozen=True, gc=False, kw_only=True):
    """The running or last migration of a VM, joined from both hosts' events (topic ``vm.migrations``).

    ``id`` stays the same from its start to the next one's. ``result`` is running, completed, failed, cancelled, incomplete or unknown,
    ``operation`` and ``type`` are libvirt's words for the job, ``kind`` is pre_copy or post_copy. Moments are Unix seconds of
    the clock of the node they happened on. ``revision`` rises with each change of any of the VM's migrations: of two records
    the higher one is newer. It is never less than the time of the event in milliseconds, so that it does not go back where the topic loses
    records. ``seen`` has the nodes of the VM's last migrations, the present ones first.
    """

    uuid: str
    id: str = ""
    name: str = ""
    source: str = ""
    destination: str = ""
    operation: str = ""
    type: str = ""
    kind: str = ""
    result: str = ""
    reason: str = ""
    revision: int = 0
    seen: list[EventPosition] = field(default_factory=list)
    passes: list[MigrationPass] = field(default_factory=list)


Record = NodeSnapshot | VmMetrics | VmInventory | NodeStatus | VmEvent | VmMigration
RECORDS: Final[tuple[type[Record], ...]] = (NodeSnapshot, VmMetrics, VmInventory, NodeStatus, VmEvent, VmMigration)
"""The records that are a topic's value, each with a schema file of its own."""
