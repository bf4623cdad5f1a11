"""Real hypervisors on one machine: each node a libvirtd with QEMU in namespaces of its own, guests that boot, and migration between them.

    with Lab(nodes=2) as lab:
        guest = lab.nodes[0].start_guest(GuestSpec("web-1"))
        lab.nodes[0].domstats(guest)["cpu.time"]

``Lab(release="trixie")`` runs that Debian release's libvirt and QEMU, ``Lab(releases=("bookworm", "trixie"))`` one on each node.

Needs root and Debian's libvirt-clients, debootstrap, iproute2, kmod and cpio, and libvirt-daemon-system, qemu-system-x86 and qemu-utils for
the machine's own release; no KVM, no systemd.
Everything lies under one temporary folder; all processes and devices end with the lab, also when the test run is killed.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from tests.support.lab_guest import UP, GuestSpec, console_path, guest_image, guest_images, guest_xml, make_disk, paused_xml
from tests.support.lab_network import Network
from tests.support.lab_process import COMMAND_SECONDS, LabError, Namespaces, Process, await_true, run
from tests.support.lab_release import OLDEST_MACHINES, Daemon, Hypervisor, usual

__all__ = ["Guest", "GuestSpec", "Lab", "LabError", "Node", "Process", "await_true", "run"]

FIRST_PROCESS = Path(__file__).with_name("lab_node.sh")
BOOT_SECONDS = 180.0
LOOK_SECONDS = 1.5
LOADERS = 4
"""VMs that are started at a time; libvirtd serves five calls per connection."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A VM on a node, as the test knows it."""

    name: str
    uuid: str
    console: Path


class Node:
    """One hypervisor. Processes given to it see its network, host name, processes and libvirt sockets only."""

    def __init__(self, number: int, folder: Path, network: Network, hypervisor: Hypervisor) -> None:
        """Make the namespaces and start libvirtd; returns once it answers."""
        self.name = f"node{number}"
        self.hypervisor = hypervisor
        self.folder = folder / self.name
        self.disks = folder / "disks"
        (self.folder / "etc").mkdir(parents=True)
        self._configure()
        shared = [folder.parent, guest_images(), *([hypervisor.programs] if hypervisor.programs else [])]
        first = [FIRST_PROCESS, self.folder, self.name, hypervisor.root, *shared]
        self._namespaces = Namespaces([str(word) for word in first], self.folder / "node.log")
        self.address = network.connect(self._namespaces.first_pid)
        self.uri = f"qemu+tcp://{self.address}/system"
        """For a client anywhere on the machine."""
        self.socket = self.folder / "run" / ("libvirt-sock" if hypervisor.daemon == "libvirtd" else f"{hypervisor.daemon}-sock")
        self.socket_uri = f"qemu:///system?socket={self.socket}"
        """The same over the unix socket, by its path on the machine; a program run by ``spawn`` uses plain qemu:///system."""
        self._guests = 0
        self._daemons: dict[str, Process] = {}
        self.start_libvirtd()

    def _configure(self) -> None:
        etc = self.folder / "etc"
        local = f'auth_unix_ro = "none"\nauth_unix_rw = "none"\nunix_sock_ro_perms = "0777"\nhost_uuid = "{uuid4()}"\n'
        for name in self.hypervisor.services:
            remote = "" if name == "virtqemud" else 'listen_tls = 0\nlisten_tcp = 1\nauth_tcp = "none"\n'
            (etc / f"{name}.conf").write_text(remote + local)
        (etc / "qemu.conf").write_text(
            'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\n'
            'stdio_handler = "file"\ndynamic_ownership = 0\nremember_owner = 0\n'
        )

    # -- the daemon

    @property
    def libvirtd(self) -> Process:
        """The running daemon that holds the VMs, whatever its name; its ``pid`` is the one outside of the namespaces."""
        if self.hypervisor.daemon not in self._daemons:
            raise LabError(f"{self.name}: {self.hypervisor.daemon} is stopped")
        return self._daemons[self.hypervisor.daemon]

    def start_libvirtd(self) -> None:
        """Start the daemon and wait until it answers; running VMs are picked up again."""
        for name, command in self.hypervisor.services.items():
            if name not in self._daemons:
                inside = self.hypervisor.inside(self.folder / "root", command)
                self._daemons[name] = self.spawn(inside, self.folder / "libvirtd.log")
        await_true(self._answers, COMMAND_SECONDS, f"libvirtd of {self.name} answers (see {self.folder}/libvirtd.log)")

    def stop_libvirtd(self) -> None:
        """End the daemon by SIGTERM, killed when that is not enough; its VMs run on."""
        daemon = self.libvirtd
        del self._daemons[self.hypervisor.daemon]
        try:
            daemon.stop(5.0)
        except LabError:  # a call that is stuck in a stuck VM never lets it end
            daemon.kill()

    def restart_libvirtd(self) -> None:
        """Stop and start the daemon."""
        self.stop_libvirtd()
        self.start_libvirtd()

    def pause_libvirtd(self) -> None:
        """Hang the daemon (SIGSTOP): its sockets accept, and nothing answers."""
        self.libvirtd.signal(signal.SIGSTOP)

    def resume_libvirtd(self) -> None:
        """Let a paused daemon go on."""
        self.libvirtd.signal(signal.SIGCONT)

    def _answers(self) -> bool:
        if self.libvirtd.ended:
            raise LabError(f"libvirtd of {self.name} ended: {(self.folder / 'libvirtd.log').read_text()[-2000:]}")
        try:
            self.virsh("uri", timeout_seconds=10.0)
        except LabError:
            return False
        return True

    def hung_calls(self) -> int:
        """How many of the daemon's workers are held by calls that do not return, by its own count: those busy all through LOOK_SECONDS."""
        least = self._busy_workers()
        end = time.monotonic() + LOOK_SECONDS
        while least and time.monotonic() < end:
            least = min(least, self._busy_workers())
        return least

    def _busy_workers(self) -> int:
        said = self.virt_admin("srv-threadpool-info", self.hypervisor.daemon).splitlines()
        numbers = {key.strip(): int(value) for key, _, value in (line.partition(":") for line in said) if value}
        return numbers["nWorkers"] - numbers["freeWorkers"]

    # -- commands

    def virsh(self, *arguments: str, timeout_seconds: float = COMMAND_SECONDS) -> str:
        """Run virsh on this node; its output. LabError when it fails."""
        return run(self.virsh_command(*arguments), timeout_seconds)

    def virsh_command(self, *arguments: str) -> list[str]:
        """The command line of the release's own virsh, for a test that runs it in the background."""
        return self._client("virsh", "-q", "-c", self.uri, *arguments)

    def virt_admin(self, *arguments: str) -> str:
        """Run virt-admin on this node's daemon; its output. LabError when it fails."""
        return self.exec(
            *self.hypervisor.inside(self.folder / "root", ["virt-admin", "-c", f"{self.hypervisor.daemon}:///system", *arguments])
        )

    def _client(self, *command: str) -> list[str]:
        """A client's command line: the machine's, outside of the namespaces, where that is the release; else the release's, within them."""
        if not self.hypervisor.elsewhere:
            return list(command)
        return self._namespaces.command(self.hypervisor.inside(self.folder / "root", command))

    def exec(self, *command: str, timeout_seconds: float = COMMAND_SECONDS) -> str:
        """Run a command in the node's namespaces; its standard output. LabError when it fails."""
        return self._namespaces.run(*command, timeout_seconds=timeout_seconds)

    def spawn(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Process:
        """Start a program in the node's namespaces, as a service on that host, its outputs appended to ``log``."""
        return self._namespaces.spawn(command, log, environment)

    def paths_of(self, shared: Path) -> list[Path]:
        """Where a folder of the lab is in the node's namespaces: for its services, and for a hypervisor that has a root of its own."""
        root = self.folder / "root"
        return [shared, *([root / shared.relative_to("/")] if self.hypervisor.elsewhere else [])]

    # -- virtual machines

    def start_guest(self, spec: GuestSpec, *, wait: bool = True) -> Guest:
        """Define and boot a guest; returns once its load runs, or at once without ``wait`` (then call ``await_up``)."""
        self._guests += 1
        xml = self.xml_of(spec, f"10.99.0.{self._guests}/24")
        guest = Guest(spec.name, spec.uuid, console_path(spec.uuid, self.disks))
        self.define(spec.uuid, xml)
        self.virsh("start", spec.uuid)
        if wait:
            self.await_up(guest)
        return guest

    def xml_of(self, spec: GuestSpec, address: str) -> str:
        """Libvirt's XML of a guest here, its disks made; ``address`` is that of its first NIC, with prefix length."""
        return guest_xml(spec, guest_image(), self.disks, address).replace("machine='q35'", f"machine='{self.hypervisor.machines[0]}'")

    def define(self, uuid: str, xml: str) -> None:
        """Define a VM from libvirt XML without starting it."""
        path = self.folder / f"{uuid}.xml"
        path.write_text(xml)
        self.virsh("define", str(path))

    def await_up(self, guest: Guest) -> None:
        """Wait until the guest says on its console that its load runs."""
        await_true(lambda: UP in guest.console.read_text(errors="replace"), BOOT_SECONDS, f"{guest.name} boots (see {guest.console})")

    def load_paused(self, count: int, prefix: str = "load") -> list[Guest]:
        """Start many paused VMs, named ``prefix``-0000 and so on."""
        return self.start_paused([f"{prefix}-{index:04d}" for index in range(count)])

    def start_paused(self, names: Sequence[str]) -> list[Guest]:
        """Start transient paused VMs without an operating system: about 50 MB and a third of a CPU second each."""
        guests = [Guest(name, str(uuid4()), Path("/dev/null")) for name in names]
        for guest in guests:
            disk = make_disk(self.disks / f"{guest.uuid}.img")
            xml = paused_xml(guest.name, guest.uuid, disk).replace("machine='pc'", f"machine='{self.hypervisor.machines[1]}'")
            (self.folder / f"{guest.uuid}.xml").write_text(xml)

        def create(share: Sequence[Guest]) -> None:
            commands = "; ".join(f"create {self.folder}/{guest.uuid}.xml --paused" for guest in share)
            if commands:
                self.virsh(commands, timeout_seconds=60.0 + 5.0 * len(share))

        with ThreadPoolExecutor(LOADERS) as pool:
            list(pool.map(create, (guests[start::LOADERS] for start in range(LOADERS))))
        return guests

    def destroy(self, guest: Guest) -> None:
        """End the VM at once, as if its power were cut; a persistent one stays defined, shut off."""
        self.virsh("destroy", guest.uuid)

    def delete(self, guest: Guest) -> None:
        """End the VM and remove its definition."""
        self.destroy(guest)
        if guest.uuid in self.virsh("list", "--all", "--uuid"):
            self.virsh("undefine", guest.uuid)

    def reboot(self, guest: Guest, *, wait: bool = True) -> None:
        """Cut the VM's power and boot it again: a new QEMU process, so that its counters begin at 0."""
        self.destroy(guest)
        self.virsh("start", guest.uuid)
        if wait:
            self.await_up(guest)

    def qemu_pid(self, guest: Guest) -> int:
        """Process id of the VM's QEMU, outside of the namespaces; LabError when it does not run here."""
        return self._qemu_pids([guest])[0]

    def _qemu_pids(self, guests: Sequence[Guest]) -> list[int]:
        try:
            inner = [int((self.folder / "run" / "qemu" / f"{guest.name}.pid").read_text()) for guest in guests]
        except FileNotFoundError as error:
            raise LabError(f"a VM does not run on {self.name}: {error}") from error
        outer = self._namespaces.outer_pids(frozenset(inner))
        if missing := [guest.name for guest, pid in zip(guests, inner, strict=True) if pid not in outer]:
            raise LabError(f"VMs without a QEMU on {self.name}: {missing}")
        return [outer[pid] for pid in inner]

    def freeze(self, *guests: Guest) -> None:
        """Stop the VMs' QEMUs (SIGSTOP): what VMs on storage that does not answer look like."""
        self.freezer(*guests)()

    def freezer(self, *guests: Guest) -> Callable[[], None]:
        """Freezes the VMs when it is called, all at one moment: their processes, which take a while to find, are found before."""
        return partial(self._signal, self._qemu_pids(guests), signal.SIGSTOP)

    def thaw(self, *guests: Guest) -> None:
        """Let frozen VMs go on."""
        self._signal(self._qemu_pids(guests), signal.SIGCONT)

    def _signal(self, pids: Iterable[int], number: signal.Signals) -> None:
        for pid in pids:
            self._namespaces.signal(pid, number)

    def domstats(self, guest: Guest, *groups: str) -> dict[str, str]:
        """What ``virsh domstats`` says of a VM now, by libvirt's own keys; all groups unless some are named (``state``, ``block``...)."""
        lines = self.virsh("domstats", "--raw", *(f"--{group}" for group in groups), guest.uuid).splitlines()
        return dict(line.strip().split("=", 1) for line in lines if "=" in line)

    def close(self) -> None:
        """End the node with everything on it."""
        self._namespaces.close()


class Lab:
    """Some hypervisors that reach one another."""

    def __init__(self, nodes: int = 2, release: str = "", *, releases: Sequence[str] = (), daemon: Daemon = "libvirtd") -> None:
        """Start the nodes; on failure nothing is left behind.

        ``release`` is one of lab_release.RELEASES, the usual one unless named; "trixie-virtqemud" is trixie with that ``daemon``.
        ``releases`` names one for each node in its place, whose VMs then have machine types that all releases know.
        """
        name, _, named = (release or usual()).partition("-")
        hypervisors = [Hypervisor(name, "virtqemud" if named else daemon)] * nodes
        if releases:
            hypervisors = [Hypervisor(name, daemon, OLDEST_MACHINES) for name in releases]
        self.folder = Path(tempfile.mkdtemp(prefix="vflab-"))  # short: unix socket paths end at 107 characters
        (self.folder / "disks").mkdir()
        self.network = Network()
        self.nodes: list[Node] = []
        try:
            self.nodes.extend(Node(number, self.folder, self.network, one) for number, one in enumerate(hypervisors, 1))
        except BaseException:
            self.close()
            raise

    def migrate(self, guest: Guest, source: Node, destination: Node, mbps: int = 0) -> None:
        """Move a running VM and wait for the end; ``mbps`` MiB/s at most (0: as fast as it goes). LabError when it fails."""
        if mbps:
            source.virsh("migrate-setspeed", guest.uuid, str(mbps))
        source.virsh(*migration(guest, destination), timeout_seconds=600.0)

    def close(self) -> None:
        """End all nodes and remove all that the lab made."""
        for node in self.nodes:
            node.close()
        self.network.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Nothing more: the lab runs since it was made."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the lab."""
        self.close()


def migration(guest: Guest, destination: Node) -> list[str]:
    """The virsh arguments of a live migration, for a test that starts it in the background and watches."""
    options = ["--live", "--persistent", "--undefinesource", "--auto-converge", "--unsafe"]
    return ["migrate", *options, guest.uuid, destination.uri, f"tcp://{destination.address}"]
