"""Records what libvirt answers about VMs as odd as they come: the golden tests' second recording.

``python -m tests.lab.record OUT.jsonl`` from the project's folder, as root. Lines are those that ``virtflow snapshot --record`` writes, with the
XML of some VMs beside them. The VMs: two NICs and two disks, one qcow2 over a backing file with a threshold; a cdrom without medium; a hole in
the vCPUs; sparse IOThreads; a NIC without a name; no balloon statistics; shut off; stuck; metadata of three clouds; hostile names and titles.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import libvirt

from tests.support.lab import Guest, GuestSpec, Lab, Node, await_true, run
from tests.support.lab_guest import guest_image, guest_xml

ROUNDS = 4
STATS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING

UUID_OF_ANOTHER = "d4e232be-ede6-48cb-9c15-42cde320a1fc"
HOSTILE_NAMES = (
    "tab\there",
    "quote\"s and 'single'",
    "back\\slash \\n",
    "right\u202eto-left",
    "next\u0085line",
    "-leading-dash",
    ".leading.dot",
    "{braces} %s %(name)s ${HOME}",
    UUID_OF_ANOTHER,
    "naïve 名前 🦄",
)

NOVA = """<metadata><nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"><nova:package version="26.1.0"/><nova:name>shop-db</nova:name>
<nova:creationTime>2026-11-01 09:00:00</nova:creationTime><nova:flavor name="m1.small"><nova:memory>160</nova:memory><nova:vcpus>2</nova:vcpus></nova:flavor>
<nova:owner><nova:user uuid="7f0c6a4e9b5d4c0e8c1d2a3b4c5d6e7f">alice</nova:user><nova:project uuid="0a1b2c3d4e5f60718293a4b5c6d7e8f9">shop</nova:project></nova:owner>
</nova:instance></metadata>"""
OVIRT = """<metadata><ovirt-vm:vm xmlns:ovirt-vm="http://ovirt.org/vm/1.0"><ovirt-vm:clusterVersion>4.7</ovirt-vm:clusterVersion>
<ovirt-vm:destroy_on_reboot type="bool">False</ovirt-vm:destroy_on_reboot><ovirt-vm:startTime type="float">1795555200.5</ovirt-vm:startTime></ovirt-vm:vm></metadata>"""
KUBEVIRT = """<metadata><kubevirt xmlns="http://kubevirt.io"><uid>11c4ba5e-5b9a-4d54-8c4f-6a3c5b1f2d10</uid>
<graceperiod><deletionGracePeriodSeconds>0</deletionGracePeriodSeconds></graceperiod></kubevirt></metadata>"""

CDROM = "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>"
USER_NIC = "<interface type='user'><model type='virtio'/></interface>"
HOLES = "</vcpu><vcpus>{}</vcpus><iothreads>2</iothreads><iothreadids><iothread id='2'/><iothread id='7'/></iothreadids>"


class Recorder:
    """Writes one line per VM and round."""

    def __init__(self, node: Node, out: TextIO) -> None:
        """Connect to ``node`` as a producer would."""
        self._connection = libvirt.openReadOnly(node.socket_uri)
        self._node = node.name
        self._out = out
        # A recording names no folder of the machine it was made on.
        self._folders = {
            str(node.disks): "/var/lib/libvirt/images",
            str(guest_image()): "/var/lib/libvirt/boot",
            str(node.folder): "/var/lib/libvirt",
        }

    def round(self) -> None:
        """One bulk answer about all VMs."""
        now = round(time.time(), 3)
        for domain, data in self._connection.getAllDomainStats(0, STATS):
            self._line(now, "stats", domain, data)

    def xml(self, guest: Guest) -> None:
        """The description of one VM."""
        domain = self._connection.lookupByUUIDString(guest.uuid)
        self._line(round(time.time(), 3), "xml", domain, domain.XMLDesc(0))

    def _line(self, now: float, kind: str, domain: libvirt.virDomain, data: object) -> None:
        line = {"t": now, "node": self._node, "kind": kind, "vm": domain.name(), "uuid": domain.UUIDString(), "data": data}
        text = json.dumps(line)
        for folder, shown in self._folders.items():
            text = text.replace(folder, shown)
        self._out.write(text + "\n")


def start(node: Node, spec: GuestSpec, **replacements: str) -> Guest:
    """Boot a guest whose XML is changed first: each keyword names a tag to close, its value what to put in its place."""
    xml = guest_xml(spec, guest_image(), node.disks, "10.99.0.9/24")
    for tag, text in replacements.items():
        xml = xml.replace(f"</{tag}>", text, 1)
    node.define(spec.uuid, xml)
    node.virsh("start", spec.uuid)
    return Guest(spec.name, spec.uuid, node.disks / f"{spec.uuid}.console")


def qcow2_disk(node: Node) -> str:
    """A qcow2 disk over a backing file, as XML."""
    base, top = node.disks / "base.qcow2", node.disks / "top.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), "32M"])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(top)])
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{top}'/><target dev='vdb' bus='virtio'/></disk>"
    )


def populate(node: Node) -> list[Guest]:
    """The odd VMs that boot; the last of them will be stuck."""
    enabled = {0: "enabled='yes' hotpluggable='no'", 1: "enabled='no' hotpluggable='yes'", 2: "enabled='yes' hotpluggable='yes'"}
    holes = HOLES.format("".join(f"<vcpu id='{number}' {how}/>" for number, how in enabled.items()))
    many = GuestSpec("db-1", uuid=UUID_OF_ANOTHER, nics=2, title="the shop's database", devices=qcow2_disk(node) + CDROM)
    return [
        start(node, many, uuid="</uuid>" + NOVA),
        start(node, GuestSpec("holes-1", vcpus=2, maximum_vcpus=3, nics=0, devices=USER_NIC), vcpu=holes, uuid="</uuid>" + OVIRT),
        start(node, GuestSpec("default_quiet-1", statistics_period_seconds=0, title='"\\' + "x" * 3000), uuid="</uuid>" + KUBEVIRT),
        start(node, GuestSpec("stuck-1", nics=1)),
    ]


def record(out: TextIO) -> None:
    """Make the VMs and write their rounds; from the third round on one VM is stuck and another client waits for it."""
    with Lab(nodes=1) as lab:
        node = lab.nodes[0]
        guests = populate(node)
        cold = GuestSpec("cold-1")
        node.define(cold.uuid, guest_xml(cold, guest_image(), node.disks, "10.99.0.10/24"))
        node.start_paused(HOSTILE_NAMES)
        for guest in guests[:1] + guests[2:]:  # this kernel does not boot with a hole in its CPUs; libvirt reports it all the same
            node.await_up(guest)
        node.virsh("domblkthreshold", guests[0].uuid, "vdb", "16777216")
        recorder = Recorder(node, out)
        for guest in guests[:3]:
            recorder.xml(guest)
        for number in range(ROUNDS):
            if number == ROUNDS // 2:
                hang(node, guests[3])
            recorder.round()
            time.sleep(1.0)
        node.thaw(guests[3])


def hang(node: Node, guest: Guest) -> None:
    """Stop a VM, and let a client of its own wait for it, so that libvirt knows."""
    node.freeze(guest)
    waiting = libvirt.openReadOnly(node.socket_uri)
    domain = waiting.lookupByUUIDString(guest.uuid)

    def ask() -> None:
        with suppress(libvirt.libvirtError):  # the lab's end ends the call
            domain.memoryStats()

    threading.Thread(target=ask, daemon=True).start()
    await_true(lambda: domain.controlInfo(0)[0] != libvirt.VIR_DOMAIN_CONTROL_OK, 10.0, "a call is captured")


if __name__ == "__main__":
    libvirt.registerErrorHandler(lambda *_: None, None)
    with Path(sys.argv[1]).open("w") as target:
        record(target)
