"""A VM's XML to its inventory: what changes rarely, and what the owner's platform calls the VM. Pure.

Sources: libvirt's domain XML format; Nova's ``nova:instance`` metadata, oVirt's ``ovirt-vm:vm``, KubeVirt's ``kubevirt``.
"""

from __future__ import annotations

from typing import Any, Final
from xml.etree import ElementTree as ET  # the XML is libvirt's own rendering: no entities, no external references

from virtflow.schemas.catalogue.types import LONG_MAX
from virtflow.schemas.errors import InputError
from virtflow.schemas.records import Disk, Nic, VmInventory
from virtflow.schemas.text import printable

XML_BYTES: Final = 5 * 1024 * 1024
"""libvirt sends no string above 4 MiB; anything larger is not read."""
DEVICES: Final = 128
"""Disks, and NICs, that an inventory lists at most, so that one VM always fits into a message."""
SOURCE_LENGTH: Final = 1024

NOVA: Final = "http://openstack.org/xmlns/libvirt/nova/"
OVIRT: Final = "http://ovirt.org/vm/"
KUBEVIRT: Final = "http://kubevirt.io"

_UNITS: Final = {
    "b": 1,
    "bytes": 1,
    "KB": 10**3,
    "k": 2**10,
    "KiB": 2**10,
    "MB": 10**6,
    "M": 2**20,
    "MiB": 2**20,
    "GB": 10**9,
    "G": 2**30,
    "GiB": 2**30,
    "TB": 10**12,
    "T": 2**40,
    "TiB": 2**40,
}
_DISK_SOURCES: Final = ("file", "dev", "dir", "name", "volume")
_NIC_SOURCES: Final = ("bridge", "network", "dev", "portgroup", "path")


class IndescribableError(InputError):
    """An XML that can't be read as a VM's description."""


def inventory(uuid: str, name: str, xml: str) -> VmInventory:
    """What the XML says of the VM; node and order are the envelope's and stay empty. Raises ``IndescribableError``."""
    if len(xml) > XML_BYTES:
        raise IndescribableError(f"VM {uuid}: its XML has {len(xml)} characters, at most {XML_BYTES} are read")
    try:
        domain = ET.fromstring(xml)  # noqa: S314, see the import
    except (ET.ParseError, ValueError) as error:  # a lone surrogate can't be encoded, which is a ValueError
        raise IndescribableError(f"VM {uuid}: its XML can't be parsed: {error}") from error
    owner = _owner(domain, name)
    return VmInventory(
        uuid=uuid,
        name=printable(name),
        title=printable(domain.findtext("title", "")),
        machine_type=_attribute(domain.find("os/type"), "machine"),
        vcpus=_number(domain.findtext("vcpu", "")),
        memory_bytes=_bytes(domain.find("memory")),
        disks=[_disk(disk) for disk in domain.findall("devices/disk")[:DEVICES]],
        nics=[_nic(nic) for nic in domain.findall("devices/interface")[:DEVICES]],
        **owner,
    )


def _disk(disk: ET.Element) -> Disk:
    target, source = disk.find("target"), disk.find("source")
    path = _first(source, _DISK_SOURCES)
    pool, protocol = _attribute(source, "pool"), _attribute(source, "protocol")
    if pool:
        path = f"{pool}/{path}"
    elif protocol:
        path = f"{protocol}:{path}"
    return Disk(
        device=_attribute(target, "dev"),
        kind=_attribute(disk, "device") or "disk",
        bus=_attribute(target, "bus"),
        source=path[:SOURCE_LENGTH],
    )


def _nic(nic: ET.Element) -> Nic:
    return Nic(
        device=_attribute(nic.find("target"), "dev"),
        model=_attribute(nic.find("model"), "type"),
        mac=_attribute(nic.find("mac"), "address"),
        source=_first(nic.find("source"), _NIC_SOURCES),
    )


def _owner(domain: ET.Element, name: str) -> dict[str, Any]:
    """The fields that only the platform which made the VM knows; {} when no known one did."""
    metadata = domain.find("metadata")
    for element in () if metadata is None else metadata:
        space, _, tag = element.tag.removeprefix("{").rpartition("}")
        if space.startswith(NOVA) and tag == "instance":
            return _openstack(element, f"{{{space}}}")
        if space.startswith(OVIRT) and tag == "vm":
            return {"platform": "ovirt", "platform_name": printable(name)}
        if space.startswith(KUBEVIRT):
            return _kubevirt(name)
    return {}


def _openstack(instance: ET.Element, space: str) -> dict[str, str]:
    user, project = instance.find(f"{space}owner/{space}user"), instance.find(f"{space}owner/{space}project")
    return {
        "platform": "openstack",
        "platform_name": printable(instance.findtext(f"{space}name", "")),
        "flavor": _attribute(instance.find(f"{space}flavor"), "name"),
        "user": _text(user),
        "user_id": _attribute(user, "uuid"),
        "project": _text(project),
        "project_id": _attribute(project, "uuid"),
    }


def _kubevirt(name: str) -> dict[str, str]:
    """KubeVirt names the domain ``namespace_name``; neither part can hold an underscore in Kubernetes."""
    namespace, _, instance = name.partition("_")
    return {"platform": "kubevirt", "namespace": printable(namespace), "platform_name": printable(instance)}


def _attribute(element: ET.Element | None, key: str) -> str:
    return "" if element is None else printable(element.get(key, ""))


def _text(element: ET.Element | None) -> str:
    return "" if element is None else printable(element.text or "")


def _first(element: ET.Element | None, keys: tuple[str, ...]) -> str:
    return "" if element is None else next((printable(element.get(key, ""), SOURCE_LENGTH) for key in keys if element.get(key)), "")


def _number(text: str) -> int:
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < len(str(LONG_MAX)) else -1


def _bytes(element: ET.Element | None) -> int:
    if element is None:
        return -1
    amount, factor = _number(element.text or ""), _UNITS.get(element.get("unit", "KiB"))
    return amount * factor if amount >= 0 and factor and amount * factor <= LONG_MAX else -1
