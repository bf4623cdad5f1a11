"""VMs' XML: what platforms write into it, and what must not hurt."""

from __future__ import annotations

import pytest

from virtflow.producer.records.domain_xml import IndescribableError, inventory
from virtflow.schemas.records import Disk, Nic, VmInventory

UUID = "96d39f50-15c8-409f-9a7f-d2f9b5cba981"


def described(inside: str, name: str = "web-1") -> VmInventory:
    return inventory(UUID, name, f"<domain type='kvm'><name>x</name>{inside}</domain>")


def test_the_plain_parts() -> None:
    found = described(
        "<title>Web server</title><memory unit='KiB'>2048</memory><vcpu placement='static' current='1'>4</vcpu>"
        "<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>"
    )
    assert (found.title, found.memory_bytes, found.vcpus, found.machine_type) == ("Web server", 2_097_152, 4, "pc-q35-7.2")
    assert (found.uuid, found.name, found.platform, found.node, found.sequence) == (UUID, "web-1", "", "", -1)


@pytest.mark.parametrize(
    ("xml", "disk"),
    [
        (
            "<disk device='disk'><source file='/a.img'/><target dev='vda' bus='virtio'/></disk>",
            Disk(device="vda", kind="disk", bus="virtio", source="/a.img"),
        ),
        ("<disk device='cdrom'><target dev='sda' bus='sata'/></disk>", Disk(device="sda", kind="cdrom", bus="sata")),
        ("<disk><source dev='/dev/sdb'/><target dev='vdb'/></disk>", Disk(device="vdb", kind="disk", source="/dev/sdb")),
        (
            "<disk><source protocol='rbd' name='pool/image'/><target dev='vda'/></disk>",
            Disk(device="vda", kind="disk", source="rbd:pool/image"),
        ),
        ("<disk><source pool='default' volume='a'/><target dev='vda'/></disk>", Disk(device="vda", kind="disk", source="default/a")),
        ("<disk/>", Disk(kind="disk")),
    ],
)
def test_disks(xml: str, disk: Disk) -> None:
    assert described(f"<devices>{xml}</devices>").disks == [disk]


def test_nics() -> None:
    xml = "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='vnet3'/><model type='virtio'/></interface>"
    assert described(f"<devices>{xml}<interface type='user'/></devices>").nics == [
        Nic(device="vnet3", model="virtio", mac="52:54:00:00:00:01", source="br0"),
        Nic(),
    ]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_openstack_nova(version: str) -> None:
    found = described(
        f"<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/{version}'><nova:name>shop</nova:name>"
        "<nova:flavor name='m1.small'/><nova:owner><nova:user uuid='u-1'>anna</nova:user><nova:project uuid='p-1'>sales</nova:project>"
        "</nova:owner></nova:instance></metadata>"
    )
    shown = (found.platform, found.platform_name, found.flavor, found.user, found.user_id, found.project, found.project_id)
    assert shown == ("openstack", "shop", "m1.small", "anna", "u-1", "sales", "p-1")


def test_ovirt() -> None:
    found = described(
        "<metadata><ovirt-vm:vm xmlns:ovirt-vm='http://ovirt.org/vm/1.0'><ovirt-vm:clusterVersion>4.7</ovirt-vm:clusterVersion></ovirt-vm:vm></metadata>"
    )
    assert (found.platform, found.platform_name) == ("ovirt", "web-1")


def test_kubevirt_names_the_domain_after_namespace_and_instance() -> None:
    found = described("<metadata><kubevirt xmlns='http://kubevirt.io'><uid>1</uid></kubevirt></metadata>", "shop_web-1")
    assert (found.platform, found.namespace, found.platform_name) == ("kubevirt", "shop", "web-1")


def test_foreign_metadata_is_passed_by() -> None:
    assert described("<metadata><other xmlns='http://example.org'/><plain/></metadata>").platform == ""


def test_a_huge_title_does_not_hurt() -> None:
    found = described(f"<title>{'t' * 3_900_000}</title><vcpu>2</vcpu>")
    assert (found.title, found.vcpus) == ("t" * 256, 2)


@pytest.mark.parametrize(
    "xml",
    ["", "<domain>", "no xml", "<domain>\ud800</domain>", f"<domain><title>{'x' * 6_000_000}</title></domain>", "<domain>\x00</domain>"],
    ids=["empty", "open", "text", "surrogate", "too large", "null"],
)
def test_an_xml_that_is_none_says_so(xml: str) -> None:
    with pytest.raises(IndescribableError, match=UUID):
        inventory(UUID, "x", xml)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ("<memory>8</memory>", 8192),
        ("<memory unit='MiB'>1</memory>", 1 << 20),
        ("<memory unit='odd'>1</memory>", -1),
        ("<memory>-1</memory>", -1),
        ("<memory>x</memory>", -1),
        ("<memory unit='TiB'>99999999999999</memory>", -1),
        ("", -1),
    ],
)
def test_memory_in_whatever_unit(memory: str, expected: int) -> None:
    assert described(memory).memory_bytes == expected


def test_lists_are_bounded() -> None:
    found = described("<devices>" + "<disk/>" * 5000 + "<interface/>" * 5000 + "</devices>")
    assert (len(found.disks), len(found.nics)) == (128, 128)
