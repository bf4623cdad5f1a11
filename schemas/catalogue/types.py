"""The words a catalogue row is made of: types, groups, conversions, sources and the row itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LONG_MAX = 2**63 - 1
"""Largest value an Avro ``long`` holds; anything above is out of range and counts as absent."""

ABSENT_LONG = -1
"""What an integer field holds when libvirt did not report it. Doubles hold NaN."""


class Type(StrEnum):
    """Prometheus' metric type."""

    COUNTER = "counter"
    GAUGE = "gauge"


class Group(StrEnum):
    """What a metric is about; the unit of ``--include``, ``--exclude`` and ``?collect[]=``."""

    CORE = "core"
    HYPERVISOR = "hypervisor"
    KVM = "kvm"
    GUEST = "guest"
    MIGRATION = "migration"
    VM = "vm"
    NODE = "node"
    PIPELINE = "pipeline"


class Stability(StrEnum):
    """What is promised of a name: a stable one never changes, an experimental one may."""

    STABLE = "stable"
    EXPERIMENTAL = "experimental"


class Scope(StrEnum):
    """The record that carries a value: one VM, or one of its devices."""

    VM = "vm"
    VCPU = "vcpu"
    NETWORK = "network"
    BLOCK = "block"
    KVM = "kvm"
    """KVM's own statistics of one vCPU, carried only on request."""
    FILESYSTEM = "filesystem"
    """A filesystem of the guest, as its agent reports it."""


class Tier(StrEnum):
    """How a value is sampled: the safe groups never wait, the monitor groups can hang indefinitely."""

    SAFE = "safe"
    MONITOR = "monitor"


class Rollup(StrEnum):
    """What an hour or a day keeps of a metric in the history."""

    SPREAD = "spread"
    """Average, minimum and maximum."""
    INCREASE = "increase"
    """By how much it grew, restarts of the counter included, and where it stood last."""
    STATES = "states"
    """Minutes in each state, and the last one."""
    LAST = "last"
    """The last value: an average would mean nothing."""
    NONE = "none"
    """Nothing: it is not a value of a VM's sample."""


class Conversion(StrEnum):
    """How libvirt's own unit becomes the base unit that is exposed."""

    NONE = "none"
    NANOSECONDS = "nanoseconds"
    MILLISECONDS = "milliseconds"
    KIBIBYTES = "kibibytes"
    PAGES = "pages"
    PERCENT = "percent"

    @property
    def to_float(self) -> bool:
        """Whether the base unit is fractional, so that the named field is a double."""
        return self in {Conversion.NANOSECONDS, Conversion.MILLISECONDS, Conversion.PERCENT}


@dataclass(frozen=True, slots=True)
class Libvirt:
    """A value that libvirt reports as is.

    ``field`` is libvirt's typed-parameter name with ``N`` for a device's index (``block.N.rd.bytes``).
    """

    field: str
    conversion: Conversion = Conversion.NONE

    @property
    def scope(self) -> Scope:
        """The record that carries the field, from libvirt's prefix."""
        parts = self.field.split(".")
        if "N" not in parts:
            return Scope.VM
        return Scope.KVM if parts[0] == "vcpu" and parts[-1] in KVM_KINDS else SCOPE_OF_PREFIX[parts[0]]

    @property
    def attribute(self) -> str:
        """The field's name in the snapshot records: ``rd_bytes``, ``balloon_last_update``."""
        field = self.field
        if self.scope is not Scope.VM:
            field = field.split(".", 2)[2]
        return field.replace(".", "_").replace("-", "_")

    @property
    def tier(self) -> Tier:
        """Whether reading the field can hang (source: measured on libvirt 9.0 with stopped QEMU processes)."""
        return Tier.SAFE if self.field.split(".")[0] in SAFE_PREFIXES else Tier.MONITOR


@dataclass(frozen=True, slots=True)
class Split:
    """Values that libvirt reports in several fields and that are one family: ``label`` tells them apart by the words before the fields."""

    label: str
    fields: tuple[tuple[str, Libvirt], ...]


@dataclass(frozen=True, slots=True)
class Job:
    """A value of a running or completed job's statistics.

    ``field`` is libvirt's typed-parameter name (``memory_dirty_rate``); pages become bytes by the job's own ``memory_page_size``.
    Source: libvirt's ``VIR_DOMAIN_JOB_*`` macros.
    """

    field: str
    conversion: Conversion = Conversion.NONE


@dataclass(frozen=True, slots=True)
class Observed(Libvirt):
    """A value that the producer itself tells of a VM, under a key of its own beside libvirt's (``monitor.responsive``)."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A value that the guest's agent tells: the field ``attribute`` of ``GuestMetrics``, or of each entry of its list ``each``.

    ``attribute`` is "" where the series says all in its labels. ``command`` is the agent's own.
    """

    attribute: str
    command: str
    each: str = ""

    @property
    def scope(self) -> Scope:
        """The record that carries the value: the VM, or one of its filesystems."""
        return Scope.FILESYSTEM if self.each == "filesystems" else Scope.VM


@dataclass(frozen=True, slots=True)
class Health:
    """A value of the node's own health record, which travels in every snapshot."""

    attribute: str


@dataclass(frozen=True, slots=True)
class Derived:
    """A value the exporter works out from the record, in one sentence."""

    how: str


@dataclass(frozen=True, slots=True)
class Own:
    """A value that a service counts about itself and serves on its own ``/metrics``."""

    service: str


Source = Libvirt | Split | Job | Guest | Health | Derived | Own

SCOPE_OF_PREFIX = {"vcpu": Scope.VCPU, "net": Scope.NETWORK, "block": Scope.BLOCK}
KVM_KINDS = frozenset({"sum", "cur", "max"})
"""Last part of a hypervisor's own statistic (``vcpu.N.exits.sum``). Source: libvirt's ``virConnectGetAllDomainStats`` reference."""
SAFE_PREFIXES = frozenset({"state", "net", "monitor"})
NAME_PREFIX = {
    Scope.VM: "vm_",
    Scope.VCPU: "vm_vcpu_",
    Scope.NETWORK: "vm_network_",
    Scope.BLOCK: "vm_block_",
    Scope.KVM: "vm_vcpu_kvm_",
}
MIGRATION_PREFIX = "vm_migration_"
"""What the names of a migration's metrics have before the field of ``VmMigration``."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue: everything that is known of a metric.

    ``labels`` are those beyond ``uuid`` and ``name`` (groups core, hypervisor, guest, migration, vm) or all of them (node, pipeline).
    """

    name: str
    type: Type
    unit: str
    help: str
    group: Group
    source: Source
    labels: tuple[str, ...] = ()
    ephemeral: bool = False
    stability: Stability = Stability.STABLE
    rolls: Rollup | None = None
    """How it rolls up where its type does not say it."""
    variant: tuple[str, str] | None = None
    """Label and word of the one field of a ``Split`` that this row stands for, where ``of_libvirt`` has taken a row apart."""

    @property
    def rollup(self) -> Rollup:
        """What an hour or a day keeps of it: a counter its increase, a gauge its spread, where the row does not say otherwise."""
        if not isinstance(self.source, Libvirt) and not (isinstance(self.source, Guest) and self.source.attribute):
            return Rollup.NONE
        return self.rolls or (Rollup.INCREASE if self.type is Type.COUNTER else Rollup.SPREAD)

    @property
    def column(self) -> str:
        """The metric's name where each value needs a name of its own: ``vm_cpu_haltpoll_fail_seconds_total``."""
        if self.variant is None:
            return self.name
        ending = f"_{self.unit}_total" if self.unit else "_total"
        return f"{self.name.removesuffix(ending)}_{self.variant[1]}{ending}"

    @property
    def field(self) -> str:
        """The value's name in its record: the metric's without the prefix of the record, where its source does not say it."""
        if isinstance(self.source, Libvirt):
            return self.column.removeprefix(NAME_PREFIX[self.source.scope])
        if isinstance(self.source, Health | Guest):
            return self.source.attribute
        if self.group is Group.MIGRATION:
            return self.name.removeprefix(MIGRATION_PREFIX)
        return self.name

    @property
    def of_vm(self) -> bool:
        """Whether the series carry a VM's ``uuid`` and ``name``."""
        return self.group not in {Group.NODE, Group.PIPELINE}
