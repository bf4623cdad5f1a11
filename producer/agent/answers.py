"""Converts a guest agent's answer to the record's fields. Pure and bounded; nothing is trusted, because the tenant controls the guest.

Text becomes printable and short, lists are cut, numbers that can't be true are dropped, addresses are parsed and written
canonically. What is left out is counted: ``cut`` where there was too much, ``dropped`` where it could not be true.
Sources of the keys: libvirt's ``virDomainGetGuestInfo`` and ``virDomainInterfaceAddresses``.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict, replace

from virtflow.schemas.catalogue.types import ABSENT_LONG
from virtflow.schemas.guest import ADDRESSES, FILESYSTEMS, INTERFACES, LARGEST_BYTES, TEXT_LENGTH, AddressSource
from virtflow.schemas.records import NAN, GuestAddress, GuestFilesystem, GuestInterface, GuestSample
from virtflow.schemas.text import printable

CPUS: Final = 65_536
"""More than any hypervisor gives a VM."""
LOAD: Final = 1e6
INDEX_DIGITS: Final = 6
PREFIX_BITS: Final = {4: 32, 6: 128}
PSEUDO: Final = frozenset(
    [
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nsfs",
        "overlay",
        "proc",
        "procfs",
        "pstore",
        "ramfs",
        "rootfs",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "squashfs",
        "sysfs",
        "tmpfs",
        "tracefs",
    ]
)
"""Types of filesystems that are on no disk of their own, or always full."""
CONTAINERS: Final = re.compile(
    r".*/kubelet/pods/.+"
    r"|(/var)?/run/(k3s/)?(containerd|containers|crio|docker)/.+"
    r"|/var/lib/(rancher/k3s/agent/)?containerd/.+"
    r"|/var/lib/containers/storage/.+/.+"
    r"|/var/lib/docker/(aufs|btrfs|containers|devicemapper|image|overlay2?|zfs)/.+",
    re.DOTALL,
)
"""Mountpoints made for one container or pod: they carry its id, so that each new one would be a series of its own. A disk that is mounted at
such a folder itself (``/var/lib/docker``) is somebody's disk. Source: the default folders of kubelet, containerd, CRI-O, Podman and Docker."""

_OS: Final = {
    "hostname": "hostname",
    "os.id": "os_id",
    "os.name": "os_name",
    "os.pretty-name": "os_pretty_name",
    "os.version": "os_version",
    "os.version-id": "os_version_id",
    "os.kernel-release": "os_kernel_release",
    "os.machine": "os_machine",
}
_LOADS: Final = {"load.1m": "load1", "load.5m": "load5", "load.15m": "load15"}
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Devices = dict[int, dict[str, object]]


class _Tally(Struct):
    """Counts what was omitted from one answer."""

    cut: int = 0
    dropped: int = 0

    def text(self, value: object) -> str:
        """``value`` as short printable text; "" when it is not a string."""
        if not isinstance(value, str):
            self.dropped += value is not None
            return ""
        self.cut += len(value) > TEXT_LENGTH
        return printable(value, TEXT_LENGTH)

    def first(self, items: list[Any], limit: int) -> list[Any]:
        """The first ``limit`` items."""
        self.cut += max(0, len(items) - limit)
        return items[:limit]


def sample_of(info: Mapping[str, object], *, pseudo: bool = False, containers: bool = False) -> GuestSample:
    """The part of the sample from libvirt's guest information, for any of its types.

    ``pseudo`` keeps filesystems without a disk, ``containers`` those that are mounted for a container or pod.
    """
    tally = _Tally()
    fields: dict[str, Any] = {field: tally.text(info[key]) for key, field in _OS.items() if key in info}
    fields |= {field: _load(info[key], tally) for key, field in _LOADS.items() if key in info}
    filesystems, interfaces = _numbered(info, "fs"), _numbered(info, "if")
    if filesystems or "fs.count" in info:
        fields["filesystems"] = _filesystems(filesystems, tally, pseudo=pseudo, containers=containers)
    if interfaces or "if.count" in info:
        fields["interfaces"] = _interfaces(map(_of_agent, interfaces.values()), tally)
        fields["address_source"] = AddressSource.AGENT.value
    return GuestSample(cut=tally.cut, dropped=tally.dropped, **fields)


def cpus_of(count: object) -> GuestSample:
    """The part of the sample with the number of CPUs that are online in the guest."""
    true = type(count) is int and 0 < count <= CPUS
    return GuestSample(cut=0, dropped=int(not true), cpus=count if true and isinstance(count, int) else ABSENT_LONG)


def address_of_interfaces(found: Mapping[str, object], source: AddressSource) -> GuestSample:
    """The part of the sample from libvirt's own address sources: addresses by the interface's name on the host.

    ``found`` is what ``interfaceAddresses`` returns: by name, ``addrs`` with ``addr``, ``prefix`` and ``type``, and ``hwaddr``.
    """
    tally = _Tally()
    interfaces = _interfaces(map(_of_libvirt, found.items()), tally)
    told = source.value if any(interface.addresses for interface in interfaces) else ""
    return GuestSample(cut=tally.cut, dropped=tally.dropped, interfaces=interfaces if told else [], address_source=told)


def merged(parts: Iterable[GuestSample]) -> GuestSample:
    """One sample from the parts of one poll cycle; where several parts have a field, the last one wins."""
    fields: dict[str, Any] = {}
    cut = dropped = 0
    for part in parts:
        cut, dropped = cut + max(0, part.cut), dropped + max(0, part.dropped)
        fields |= {name: value for name, value in asdict(part).items() if not _absent(value)}
    return GuestSample(**fields | {"cut": cut, "dropped": dropped})


def _absent(value: object) -> bool:
    return value in (ABSENT_LONG, "", []) or value != value  # noqa: PLR0124, only NaN differs from itself


def _numbered(info: Mapping[str, object], prefix: str) -> Devices:
    """The entries of ``prefix.N.key`` in ascending order of N; ``prefix.count`` is ignored, since it may be wrong."""
    devices: Devices = {}
    for key, value in info.items():
        parts = key.split(".", 2)
        if len(parts) == 3 and parts[0] == prefix and parts[1].isascii() and parts[1].isdecimal() and len(parts[1]) <= INDEX_DIGITS:  # noqa: PLR2004, prefix, number, rest
            devices.setdefault(int(parts[1]), {})[parts[2]] = value
    return dict(sorted(devices.items()))


# -- filesystems


def _filesystems(devices: Devices, tally: _Tally, *, pseudo: bool, containers: bool) -> list[GuestFilesystem]:
    """Each filesystem once: of a device that is mounted several times (bind mounts) the shortest mountpoint."""
    found: dict[str, GuestFilesystem] = {}
    for device in devices.values():
        mountpoint, fstype = tally.text(device.get("mountpoint")), tally.text(device.get("fstype"))
        if (not pseudo and fstype.lower() in PSEUDO) or (not containers and CONTAINERS.fullmatch(mountpoint)):
            continue
        if not mountpoint:
            tally.dropped += 1
            continue
        one = _filesystem(device, GuestFilesystem(mountpoint=mountpoint, fstype=fstype, device=tally.text(device.get("name"))))
        if one is None:
            tally.dropped += 1
        else:
            found.setdefault(mountpoint, one)
    return tally.first(_once_a_device(found.values()), FILESYSTEMS)


def _filesystem(device: Mapping[str, object], named: GuestFilesystem) -> GuestFilesystem | None:
    """The filesystem with its sizes, or without sizes where the agent does not report them; None where they can't be true."""
    total, used = device.get("total-bytes"), device.get("used-bytes")
    if total is None and used is None:
        return named
    if type(total) is int and type(used) is int and 0 <= used <= total <= LARGEST_BYTES:
        return replace(named, total_bytes=total, used_bytes=used)
    return None


def _once_a_device(listed: Iterable[GuestFilesystem]) -> list[GuestFilesystem]:
    """One mountpoint for each device, in the original order; without a device name each mountpoint counts as a filesystem."""
    best: dict[tuple[str, str], GuestFilesystem] = {}
    for one in listed:
        key = (one.device, "" if one.device else one.mountpoint)
        if key not in best or len(one.mountpoint) < len(best[key].mountpoint):
            best[key] = one
    return list(best.values())


# -- interfaces

_Interface = tuple[object, object, Iterable[tuple[object, object]]]
"""Name, hardware address, and addresses with their prefixes, as they came."""


def _of_agent(device: dict[str, object]) -> _Interface:
    addresses = _numbered({f"addr.{key.removeprefix('addr.')}": value for key, value in device.items() if key.startswith("addr.")}, "addr")
    return device.get("name"), device.get("hwaddr"), [(one.get("addr"), one.get("prefix")) for one in addresses.values()]


def _of_libvirt(item: tuple[str, object]) -> _Interface:
    name, details = item
    told = details if isinstance(details, dict) else {}
    addresses = told.get("addrs")
    listed = [one for one in addresses if isinstance(one, dict)] if isinstance(addresses, list | tuple) else []
    return name, told.get("hwaddr"), [(one.get("addr"), one.get("prefix")) for one in listed]


def _interfaces(told: Iterable[_Interface], tally: _Tally) -> list[GuestInterface]:
    found: dict[str, GuestInterface] = {}
    for name, mac, addresses in told:
        shown = tally.text(name)
        if not shown:
            tally.dropped += 1
        elif shown not in found:
            kept = tally.first(list(_addresses(addresses, tally)), ADDRESSES)
            found[shown] = GuestInterface(name=shown, mac=_mac(mac), addresses=kept)
    # A container host has hundreds of interfaces without an address: they show nothing, and take no place of one that does.
    # The virtual ones of its containers have a link-local address each: they take no place of one that others can reach.
    first = tally.first(sorted((one for one in found.values() if one.addresses), key=_is_link_local), INTERFACES)
    rest = [one for one in found.values() if not one.addresses][: INTERFACES - len(first)]
    names = {one.name for one in (*first, *rest)}
    return [one for one in found.values() if one.name in names]


def _is_link_local(interface: GuestInterface) -> bool:
    """Whether none of its addresses can be reached from another network."""
    return all(ipaddress.ip_address(one.address).is_link_local for one in interface.addresses)


def _addresses(told: Iterable[tuple[object, object]], tally: _Tally) -> Iterator[GuestAddress]:
    """The valid addresses, each once, in canonical form; loopback and other addresses that only the guest itself can reach are omitted."""
    seen: set[Address] = set()
    for text, prefix in told:
        address = _address(text)
        if address is None or address.is_multicast or address.is_unspecified:
            tally.dropped += 1
        elif not address.is_loopback and address not in seen:
            seen.add(address)
            bits = prefix if type(prefix) is int and 0 <= prefix <= PREFIX_BITS[address.version] else ABSENT_LONG
            yield GuestAddress(address=str(address), family=f"ipv{address.version}", prefix=bits)


def _address(text: object) -> Address | None:
    """The address in ``text`` without the scope that some agents append (``fe80::1%eth0``); None when it is not an address."""
    if not isinstance(text, str) or len(text) > TEXT_LENGTH:
        return None
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _mac(value: object) -> str:
    text = value.lower() if isinstance(value, str) else ""
    return text if _MAC.fullmatch(text) else ""


def _load(value: object, tally: _Tally) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= LOAD:
        return float(value)
    tally.dropped += 1
    return NAN
