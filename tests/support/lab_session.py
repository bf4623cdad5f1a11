"""A user's own libvirt daemon in a lab node, as one runs in each of KubeVirt's virt-launcher pods: unprivileged, with a folder of its own and one VM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from uuid import uuid4

from tests.support.lab import Guest, LabError, Node, await_true
from tests.support.lab_guest import EMULATOR, make_disk
from virtflow.producer.daemons.connector import uri_of

USER: Final = 65_534
ANSWER_SECONDS: Final = 60.0


class SessionDaemon:
    """The daemon; its socket is ``socket``, below ``folder``. It ends with the node at the latest."""

    def __init__(self, node: Node, folder: Path) -> None:
        """Start it; returns once it answers. What it has found out about QEMU it shares with others of the node."""
        self._node = node
        self.folder = folder
        program, *_ = node.hypervisor.services[node.hypervisor.daemon]
        self.socket = folder / "run" / "libvirt" / ("libvirt-sock" if node.hypervisor.daemon == "libvirtd" else "virtqemud-sock")
        homes = {"XDG_RUNTIME_DIR": folder / "run", "XDG_CONFIG_HOME": folder / "config", "XDG_CACHE_HOME": folder.parent / "cache"}
        node.folder.parent.chmod(0o711)  # the lab's own, which is root's alone
        for path in (folder, *homes.values(), folder / "config" / "libvirt"):
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, USER, USER)
        (folder / "config" / "libvirt" / "qemu.conf").write_text('security_driver = "none"\nnamespaces = []\nstdio_handler = "file"\n')
        drop = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", program]
        environment = {"HOME": str(folder), **{key: str(path) for key, path in homes.items()}}
        self.process = node.spawn(node.hypervisor.inside(node.folder / "root", drop), folder / "daemon.log", environment)
        await_true(self._answers, ANSWER_SECONDS, f"a user's daemon answers (see {folder}/daemon.log)")

    @property
    def uri(self) -> str:
        """For a client of the node that may open the socket."""
        return uri_of(str(self.socket), privileged=False)

    def virsh(self, *arguments: str) -> str:
        """Run virsh on it; its output. LabError when it fails."""
        return self._node.exec(*self._node.hypervisor.inside(self._node.folder / "root", ["virsh", "-q", "-c", self.uri, *arguments]))

    def _answers(self) -> bool:
        if self.process.ended:
            raise LabError(f"a user's daemon has ended: {(self.folder / 'daemon.log').read_text()[-2000:]}")
        try:
            self.virsh("uri")
        except LabError:
            return False
        return True

    def start_paused(self, name: str) -> Guest:
        """Start a transient paused VM with one disk and without an operating system."""
        guest = Guest(name, str(uuid4()), Path("/dev/null"))
        disk = make_disk(self.folder / f"{name}.img")
        os.chown(disk, USER, USER)
        path = self.folder / "vm.xml"
        path.write_text(
            f"<domain type='qemu'><name>{name}</name><uuid>{guest.uuid}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>"
            "<metadata><kubevirt xmlns='http://kubevirt.io'/></metadata>"
            f"<os><type arch='x86_64' machine='{self._node.hypervisor.machines[1]}'>hvm</type></os><devices><emulator>{EMULATOR}</emulator>"
            "<controller type='usb' model='none'/><disk type='file' device='disk'><driver name='qemu' type='raw'/>"
            f"<source file='{disk}'/><target dev='vda' bus='virtio'/></disk><memballoon model='virtio'/></devices></domain>"
        )
        self.virsh("create", str(path), "--paused")
        return guest
