"""The catalogue's rows about what only the guest knows, told by its agent where it is asked (docs/guest-agent.md).

It is the tenant's word: every value is checked on the node and again by the processor, and vanishes when it is too old. Source of
the fields: libvirt's ``virDomainGetGuestInfo`` and ``virDomainGetGuestVcpus``, QEMU's guest agent protocol reference.
"""

from __future__ import annotations

from typing import Final

from virtflow.schemas.catalogue.types import Derived, Group, Guest, Metric, Rollup, Type

GUEST_PREFIX: Final = "vm_guest_"
FILESYSTEM_LABELS: Final = ("mountpoint", "fstype", "device")
ADDRESS_LABELS: Final = ("interface", "address", "family", "source")
INFO_LABELS: Final = (
    "hostname",
    "os_id",
    "os_name",
    "os_pretty_name",
    "os_version",
    "os_version_id",
    "os_kernel_release",
    "os_machine",
)
"""Fields of ``GuestMetrics`` of the same names."""


def _row(name: str, unit: str, text: str, source: Guest | Derived, labels: tuple[str, ...] = (), rolls: Rollup | None = None) -> Metric:
    return Metric(GUEST_PREFIX + name, Type.GAUGE, unit, text, Group.GUEST, source, labels, rolls=rolls)


AGENT_METRICS: Final = (
    _row("cpus", "", "CPUs that are online in the guest.", Guest("cpus", "guest-get-vcpus")),
    _row(
        "filesystem_size_bytes",
        "bytes",
        "Size of the filesystem without what is kept for root, as the guest sees it.",
        Guest("size_bytes", "guest-get-fsinfo", "filesystems"),
        FILESYSTEM_LABELS,
    ),
    _row(
        "filesystem_free_bytes",
        "bytes",
        "Bytes of the filesystem that others than root may still fill.",
        Guest("free_bytes", "guest-get-fsinfo", "filesystems"),
        FILESYSTEM_LABELS,
    ),
    _row(
        "ip_address_info",
        "",
        "An IP address of the VM, and who told it: its agent, a DHCP lease of libvirt's, or the host's ARP table; always 1.",
        Guest("", "guest-network-get-interfaces", "addresses"),
        ADDRESS_LABELS,
    ),
    _row(
        "info",
        "",
        "The guest's operating system and host name; always 1.",
        Guest("", "guest-get-osinfo, guest-get-host-name"),
        INFO_LABELS,
    ),
    _row("load1", "", "The guest's load average over a minute.", Guest("load1", "guest-get-load")),
    _row("load5", "", "The guest's load average over five minutes.", Guest("load5", "guest-get-load")),
    _row("load15", "", "The guest's load average over fifteen minutes.", Guest("load15", "guest-get-load")),
    _row("agent_up", "", "Whether the guest's agent answered when it was asked last.", Guest("agent_up", "every call")),
    _row("agent_info", "", "Why the guest's agent has no newer answer; always 1.", Guest("", "every call"), ("reason",)),
    _row(
        "age_seconds", "seconds", "Age of what the guest's agent told.", Derived("scrape time less the start of the newest answered call")
    ),
    _row(
        "values_cut",
        "",
        "What was left out of the agent's newest answer because there was too much of it.",
        Guest("cut", "every call"),
        rolls=Rollup.NONE,
    ),
    _row(
        "values_dropped",
        "",
        "What was left out of the agent's newest answer because it can't be true.",
        Guest("dropped", "every call"),
        rolls=Rollup.NONE,
    ),
)
