"""Validates the guest agent's values again, because a producer of another version may not have done so.

Nothing is repaired here. A text that is not printable, a number out of range or an invalid address is left out, and
counted under the metric it would have become; entries beyond the limits of ``schemas/guest.py`` are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from virtflow.schemas.catalogue.types import ABSENT_LONG
from virtflow.schemas.guest import ADDRESSES, FILESYSTEMS, INTERFACES, LARGEST_BYTES, TEXT_LENGTH, AddressSource
from virtflow.schemas.ranges import EARLIEST_SECONDS, LATEST_SECONDS
from virtflow.schemas.records import (
    NAN,
    GuestAddress,
    GuestAddressMetrics,
    GuestFilesystem,
    GuestFilesystemMetrics,
    GuestInterface,
    GuestMetrics,
    GuestSample,
)
from virtflow.schemas.text import is_printable

Lost = Callable[[str, float], float]

CPUS: Final = 65_536
LOAD: Final = 1e9
PREFIX: Final = {"ipv4": 32, "ipv6": 128}
ADDRESS_LENGTH: Final = 45
SOURCES: Final = frozenset(AddressSource)
SIZE, FREE, ADDRESS, INFO, AGE = (
    f"vm_guest_{what}" for what in ("filesystem_size_bytes", "filesystem_free_bytes", "ip_address_info", "info", "age_seconds")
)


def guests(samples: Sequence[GuestSample], lost: Lost) -> list[GuestMetrics]:
    """The guest part of a VM's sample under the metrics' names: one entry, or none where the agent is not asked."""
    return [_named(samples[0], lost)] if samples else []


def _named(s: GuestSample, lost: Lost) -> GuestMetrics:
    return GuestMetrics(
        hostname=_text(s.hostname, INFO, lost),
        os_id=_text(s.os_id, INFO, lost),
        os_name=_text(s.os_name, INFO, lost),
        os_pretty_name=_text(s.os_pretty_name, INFO, lost),
        os_version=_text(s.os_version, INFO, lost),
        os_version_id=_text(s.os_version_id, INFO, lost),
        os_kernel_release=_text(s.os_kernel_release, INFO, lost),
        os_machine=_text(s.os_machine, INFO, lost),
        taken=_time(s.taken, lost),
        agent_up=_count(s.agent_up, 1, "vm_guest_agent_up", lost),
        reason=_text(s.reason, "vm_guest_agent_info", lost),
        cut=_count(s.cut, LARGEST_BYTES, "vm_guest_values_cut", lost),
        dropped=_count(s.dropped, LARGEST_BYTES, "vm_guest_values_dropped", lost),
        cpus=_count(s.cpus, CPUS, "vm_guest_cpus", lost),
        load1=_load(s.load1, "vm_guest_load1", lost),
        load5=_load(s.load5, "vm_guest_load5", lost),
        load15=_load(s.load15, "vm_guest_load15", lost),
        filesystems=_filesystems(s.filesystems, lost),
        addresses=_addresses(s.interfaces, lost),
        address_source=s.address_source if s.address_source in SOURCES or not s.address_source else _lost(ADDRESS, lost),
        addresses_taken=_time(s.addresses_taken, lost),
    )


def _filesystems(listed: Sequence[GuestFilesystem], lost: Lost) -> list[GuestFilesystemMetrics]:
    """The file systems with a printable mount point; of several with one mount point the first."""
    kept: dict[str, GuestFilesystemMetrics] = {}
    for one in listed[:FILESYSTEMS]:
        if not one.mountpoint or one.mountpoint in kept or not _shown(one.mountpoint):
            lost(SIZE, ABSENT_LONG)
            continue
        kept[one.mountpoint] = _filesystem(one, lost)
    if len(listed) > FILESYSTEMS:
        lost(SIZE, ABSENT_LONG)
    return list(kept.values())


def _filesystem(one: GuestFilesystem, lost: Lost) -> GuestFilesystemMetrics:
    fstype, device = _text(one.fstype, SIZE, lost), _text(one.device, SIZE, lost)
    total, used = one.total_bytes, one.used_bytes
    if 0 <= used <= total <= LARGEST_BYTES:
        return GuestFilesystemMetrics(mountpoint=one.mountpoint, fstype=fstype, device=device, size_bytes=total, free_bytes=total - used)
    if (total, used) != (ABSENT_LONG, ABSENT_LONG):
        lost(SIZE, ABSENT_LONG)
        lost(FREE, ABSENT_LONG)
    return GuestFilesystemMetrics(mountpoint=one.mountpoint, fstype=fstype, device=device)


def _addresses(interfaces: Sequence[GuestInterface], lost: Lost) -> list[GuestAddressMetrics]:
    """Every valid address with its interface, each pair once."""
    kept: dict[tuple[str, str], GuestAddressMetrics] = {}
    for interface in interfaces[:INTERFACES]:
        if not _shown(interface.name):
            lost(ADDRESS, ABSENT_LONG)
            continue
        mac = _text(interface.mac, ADDRESS, lost)
        for one in interface.addresses[:ADDRESSES]:
            family = family_of(one.address) if len(one.address) <= ADDRESS_LENGTH else ""
            if not family or (interface.name, one.address) in kept:
                lost(ADDRESS, ABSENT_LONG)
                continue
            kept[interface.name, one.address] = _address(interface.name, mac, one, family)
        if len(interface.addresses) > ADDRESSES:
            lost(ADDRESS, ABSENT_LONG)
    if len(interfaces) > INTERFACES:
        lost(ADDRESS, ABSENT_LONG)
    return list(kept.values())


def _address(interface: str, mac: str, one: GuestAddress, family: str) -> GuestAddressMetrics:
    prefix = one.prefix if 0 <= one.prefix <= PREFIX[family] else ABSENT_LONG
    return GuestAddressMetrics(interface=interface, address=one.address, family=family, prefix=prefix, mac=mac)


@lru_cache(maxsize=65_536)
def family_of(address: str) -> str:
    """``ipv4`` or ``ipv6`` for an address in its canonical form, "" for anything else."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    return f"ipv{parsed.version}" if str(parsed) == address and "%" not in address else ""


def _shown(text: str) -> bool:
    return len(text) <= TEXT_LENGTH and is_printable(text)


def _text(text: str, name: str, lost: Lost) -> str:
    return text if _shown(text) else _lost(name, lost)


def _lost(name: str, lost: Lost) -> str:
    lost(name, ABSENT_LONG)
    return ""


def _count(value: int, most: int, name: str, lost: Lost) -> int:
    return value if ABSENT_LONG <= value <= most else int(lost(name, ABSENT_LONG))


def _load(value: float, name: str, lost: Lost) -> float:
    if 0.0 <= value <= LOAD or value != value:  # noqa: PLR0124, only NaN differs from itself
        return value
    return NAN if value == ABSENT_LONG else lost(name, NAN)


def _time(at: float, lost: Lost) -> float:
    """Unix seconds; NaN, or -1 from a writer without the field, means that nothing was reported."""
    if EARLIEST_SECONDS <= at <= LATEST_SECONDS or at != at:  # noqa: PLR0124, only NaN differs from itself
        return at
    return NAN if at == ABSENT_LONG else lost(AGE, NAN)
