"""What the lab's virtual machines are made of: the guest's kernel and initramfs, and libvirt's XML."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import uuid4
from xml.sax.saxutils import escape, quoteattr

from scripts.embedded_kafka import data_folder, one_at_a_time
from tests.support.lab_process import run

BUILD = Path(__file__).with_name("guest")
BUILD_SECONDS = 600.0
UP = "GUEST-UP"
"""What the guest says on its console once its devices and its load are up."""

DISK_BYTES = 64 << 20
EMULATOR = "/usr/bin/qemu-system-x86_64"
BRIDGED_NIC = "<interface type='bridge'><source bridge='guests'/><model type='virtio'/></interface>"
USER_NIC = "<interface type='user'><model type='virtio'/></interface>"
"""For a host without bridges and without /dev/net/tun."""


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """What a guest is to be; the defaults boot fastest and make every counter grow slowly."""

    name: str
    memory_mib: int = 160
    balloon_mib: int = 144
    """What the balloon leaves to the guest; kept apart from ``memory_mib`` so that the two can't be mixed up unseen."""
    vcpus: int = 1
    maximum_vcpus: int = 2
    dirty_mib: int = 0
    """MiB of memory written over and over without a pause: what a migration has to chase. Costs a whole host CPU."""
    agent: Literal["", "real", "relay"] = ""
    """``real``: Debian's qemu-guest-agent; ``relay``: what it would say comes from a program of the test (``agent_program``). With either,
    the guest has a root shell (``lab_shell``). In a guest with neither no channel of the kind is there."""
    nics: int = 1
    disks: int = 1
    statistics_period_seconds: int = 1
    """0: no period in the XML, as in a VM whose owner forgot it."""
    title: str = ""
    devices: str = ""
    """More devices, as libvirt XML."""
    uuid: str = field(default_factory=lambda: str(uuid4()))


def guest_image() -> Path:
    """Folder with ``vmlinuz`` and ``initrd.img``, built on first use and kept under VIRTFLOW_DATA (else ``.virtflow``)."""
    digest = hashlib.sha256((BUILD / "build").read_bytes() + (BUILD / "init").read_bytes()).hexdigest()[:16]
    image = guest_images() / digest
    with one_at_a_time(image.parent / "lock"):
        if not image.exists():
            fresh = image.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            run([str(BUILD / "build"), str(fresh)], BUILD_SECONDS)
            fresh.rename(image)
    return image


def guest_images() -> Path:
    """The folder of all guest images, made where it is missing."""
    folder = data_folder() / "guest"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_disk(path: Path) -> Path:
    """A sparse raw disk of DISK_BYTES."""
    with path.open("ab") as disk:
        disk.truncate(DISK_BYTES)
    return path


def guest_xml(spec: GuestSpec, image: Path, disks: Path, address: str) -> str:
    """Libvirt's XML of a bootable guest, its disks made under ``disks``; ``address`` is that of its first NIC, with prefix length."""
    kernel = f"console=ttyS0 quiet lab.dirtymb={spec.dirty_mib} lab.ip={address} lab.peer=10.99.0.254 lab.agent={spec.agent}"
    period = f"<stats period='{spec.statistics_period_seconds}'/>" if spec.statistics_period_seconds else ""
    title = f"<title>{escape(spec.title)}</title>" if spec.title else ""
    return f"""<domain type='qemu'><name>{escape(spec.name)}</name><uuid>{spec.uuid}</uuid>{title}
<memory unit='MiB'>{spec.memory_mib}</memory><currentMemory unit='MiB'>{spec.balloon_mib}</currentMemory>
<vcpu current='{spec.vcpus}'>{spec.maximum_vcpus}</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{image}/vmlinuz</kernel><initrd>{image}/initrd.img</initrd><cmdline>{kernel}</cmdline></os>
<features><acpi/></features>
<devices><emulator>{EMULATOR}</emulator>{_disks(spec, disks)}{_nics(spec.nics)}
<serial type='file'><source path={quoteattr(str(console_path(spec.uuid, disks)))}/></serial>
<memballoon model='virtio'>{period}</memballoon>{_channels(spec, disks)}{spec.devices}</devices></domain>"""


def paused_xml(name: str, uuid: str, disk: Path, nic: str = BRIDGED_NIC) -> str:
    """Libvirt's XML of a VM without an operating system, for scale."""
    return f"""<domain type='qemu'><name>{escape(name)}</name><uuid>{uuid}</uuid><memory unit='MiB'>16</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>{EMULATOR}</emulator><controller type='usb' model='none'/>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file={quoteattr(str(disk))}/><target dev='vda' bus='virtio'/></disk>
{nic}<memballoon model='virtio'/></devices></domain>"""


def _channels(spec: GuestSpec, disks: Path) -> str:
    """The agent's channel, of which the socket is libvirt's, and the test's own."""
    if not spec.agent:
        return ""
    names = ["lab.shell", "lab.relay"] if spec.agent == "relay" else ["lab.shell"]
    own = "".join(
        f"<channel type='unix'><source mode='bind' path={quoteattr(str(channel_path(spec.uuid, disks, name)))}/>"
        f"<target type='virtio' name='{name}'/></channel>"
        for name in names
    )
    return f"<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>{own}"


def channel_path(uuid: str, disks: Path, name: str) -> Path:
    """The host's socket of one of the test's own channels into a guest."""
    return disks / f"{uuid}.{name}"


def console_path(uuid: str, disks: Path) -> Path:
    """Where a guest's serial console goes."""
    return disks / f"{uuid}.console"


def _disks(spec: GuestSpec, disks: Path) -> str:
    devices = [(f"vd{chr(ord('a') + index)}", make_disk(disks / f"{spec.uuid}-{index}.img")) for index in range(spec.disks)]
    return "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
        f"<source file={quoteattr(str(path))}/><target dev='{device}' bus='virtio'/></disk>"
        for device, path in devices
    )


def _nics(count: int) -> str:
    return BRIDGED_NIC * count
