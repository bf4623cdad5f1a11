"""Which libvirt calls may wait for a VM that does not answer, by libvirt version: data, with the rule that reads it. Pure.

A call is believed safe only on versions that were measured, and between two of them on which it is safe. Outside of these no call is
believed safe that has ever taken a job of the VM (libvirt's lock on a VM), on any version. ``tests/lab/test_call_safety.py`` stops a QEMU on a real
libvirtd, hangs another call in it, and times every call that the producer makes: it fails when a row is wrong.
The calls that ask for no VM, and those of the guest-agent helper, are named beside the table, so that every call in the producer's code
has its place here: ``tests/unit/producer/test_call_table.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import libvirt


class LibvirtCall(StrEnum):
    """A call, or a group of bulk statistics, that the producer asks for of a VM."""

    LIST = "listAllDomains"
    LOOKUP = "lookupByUUIDString"
    CONTROL_INFO = "controlInfo"
    STATE = "state"
    INFO = "info"
    VCPUS = "vcpus"
    XML = "XMLDesc"
    JOB_STATS = "jobStats"
    GROUP_STATE = "VIR_DOMAIN_STATS_STATE"
    GROUP_INTERFACE = "VIR_DOMAIN_STATS_INTERFACE"
    GROUP_CPU_TOTAL = "VIR_DOMAIN_STATS_CPU_TOTAL"
    GROUP_BALLOON = "VIR_DOMAIN_STATS_BALLOON"
    GROUP_VCPU = "VIR_DOMAIN_STATS_VCPU"
    GROUP_BLOCK = "VIR_DOMAIN_STATS_BLOCK"


@dataclass(frozen=True, slots=True)
class Safety:
    """From which version on a call waits (None: on no version that was measured; 0: on all), and whether it ever took a job.

    Where the first version that waits was not measured, its number is libvirt's source's word: see ``may_wait``.
    """

    waits_from: int | None
    ever_took_job: bool


MEASURED: Final = (9_000_000, 11_003_000, 12_008_000)
"""The versions on which the table was measured, the oldest first, as libvirt's own number: 11.3.0 is 11003000."""

_NEVER: Final = Safety(None, ever_took_job=False)
_ALWAYS: Final = Safety(0, ever_took_job=True)
TABLE: Final[dict[LibvirtCall, Safety]] = {
    LibvirtCall.LIST: _NEVER,
    LibvirtCall.LOOKUP: _NEVER,
    LibvirtCall.CONTROL_INFO: _NEVER,
    LibvirtCall.STATE: _NEVER,
    LibvirtCall.INFO: Safety(None, ever_took_job=True),  # before 5.0, to ask QEMU for the balloon's size
    LibvirtCall.VCPUS: _NEVER,
    LibvirtCall.XML: Safety(11_000_000, ever_took_job=True),  # 11.3: 30 s behind a call that hangs in the VM
    LibvirtCall.JOB_STATS: _ALWAYS,
    LibvirtCall.GROUP_STATE: _NEVER,
    LibvirtCall.GROUP_INTERFACE: _NEVER,  # but for vhost-user NICs: see ``stats_groups``
    LibvirtCall.GROUP_CPU_TOTAL: _ALWAYS,
    LibvirtCall.GROUP_BALLOON: _ALWAYS,
    LibvirtCall.GROUP_VCPU: _ALWAYS,
    LibvirtCall.GROUP_BLOCK: _ALWAYS,
}

BULK: Final = frozenset({"getAllDomainStats", "domainListGetStats"})
"""Calls for groups of statistics: each may wait where one of its groups may."""
OF_CLIENT: Final = frozenset(
    {"ID", "UUIDString", "name", "isAlive", "registerCloseCallback"}
    | {"registerErrorHandler", "virEventRegisterDefaultImpl", "virEventRunDefaultImpl"}
)
"""Calls that libvirt's client answers by itself: they ask no daemon."""
OF_DAEMON: Final = frozenset(
    {"open", "openReadOnly", "close", "setKeepAlive", "getLibVersion", "getVersion"}
    | {"domainEventRegisterAny", "domainEventDeregisterAny", "qemuMonitorEventRegister", "qemuMonitorEventDeregister"}
)
"""Calls that ask the daemon about itself or the connection: they wait for no VM, but may wait for a daemon whose workers are all taken."""
OF_HELPER: Final = frozenset(
    {"guestInfo", "interfaceAddresses", "vcpusFlags", "memoryStats", "setMemoryStatsPeriod", "agentSetResponseTimeout"}
)
"""Calls that the guest-agent helper process alone makes. All count as calls that may wait, on every version."""


def judged_version(uri: str, libvirt_version: int) -> int:
    """The version by whose rows the calls of a connection are judged: that of the daemon, but for libvirt's own test driver.

    It has no QEMU that could hang, nor one that could answer, which makes a VM one that may be asked where calls wait.
    """
    return MEASURED[0] if uri.partition(":")[0] == "test" else libvirt_version


def may_wait(call: LibvirtCall, version: int) -> bool:
    """Whether the call may wait for a VM that does not answer, on this version of libvirt (its own number, 0: unknown).

    Where it waits on one version that was measured and not on the one before it, it may wait on all versions between them.
    """
    row = TABLE[call]
    if not MEASURED[0] <= version <= MEASURED[-1]:
        return row.ever_took_job
    if row.waits_from is None:
        return False
    return version > max((measured for measured in MEASURED if measured < row.waits_from), default=0)


def fill_may_wait(version: int) -> bool:
    """Whether the calls that fill in for a late monitor answer may wait."""
    return may_wait(LibvirtCall.INFO, version) or may_wait(LibvirtCall.VCPUS, version)


@dataclass(frozen=True, slots=True)
class StatsGroups:
    """The groups of bulk statistics as libvirt's bit masks: those that never wait on this host, and those that may."""

    safe: int
    monitor: int
    interfaces_safe: bool = True

    @property
    def everything(self) -> int:
        """All of them."""
        return self.safe | self.monitor


def stats_groups(version: int, *, vhost_user: bool = False) -> StatsGroups:
    """The host's groups. ``vhost_user``: a VM has a vhost-user NIC, of which libvirt asks Open vSwitch while it holds the VM's lock."""
    safe = monitor = 0
    waiting = may_wait(LibvirtCall.GROUP_INTERFACE, version) or vhost_user
    for call in LibvirtCall:
        if call.name.startswith("GROUP_"):
            number: int = getattr(libvirt, call.value)
            if waiting if call is LibvirtCall.GROUP_INTERFACE else may_wait(call, version):
                monitor |= number
            else:
                safe |= number
    return StatsGroups(safe, monitor, not waiting)
