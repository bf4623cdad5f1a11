"""The machines of docs/install-fleet.md: brokers, a centre and hypervisors, each a Debian system with its own systemd, on one network."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from scripts.debian_root import with_apt
from scripts.embedded_kafka import fetch
from tests.support.debian_host import DebianHost, SystemdHost, built_packages
from tests.support.lab_guest import USER_NIC, make_disk, paused_xml
from tests.support.lab_network import Network
from tests.support.secure_broker import SecureBroker

RELEASE: Final = "bookworm"
CENTRE: Final = "centre"
HYPERVISORS: Final = ("hv-1", "hv-2")
BROKERS: Final = ("kafka-1", "kafka-2", "kafka-3")
"""Names of the page. One broker answers to all of them."""
MACHINE: Final = 254
"""The number of this machine in a lab's network: the broker, Prometheus and Kafka's tools run here."""
WORK: Final = "root"
"""The folder of the centre in which the page's commands are typed."""
LIBVIRT: Final = ("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "openssh-server", "ca-certificates")
LIBVIRT_SETTINGS: Final = {
    "libvirtd.conf": 'host_uuid = "{uuid}"\n',
    # The hypervisor's own confinement wants controllers, devices and kernel modules that namespaces do not have.
    "qemu.conf": 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\n'
    'stdio_handler = "file"\ndynamic_ownership = 0\nremember_owner = 0\n',
}
STEP_SECONDS: Final = 600.0


class FleetMachines:
    """``centre`` and ``hypervisors`` have booted, ``broker`` runs; nothing of virtflow is installed yet.

    ``names`` is this machine's file of host names for programs that are to see the network as the page's machines do.
    """

    def __init__(self, folder: Path, network: Network, broker: SecureBroker, systems: dict[str, SystemdHost]) -> None:
        """Nothing more."""
        self.folder = folder
        self.network = network
        self.broker = broker
        self.systems = systems
        self.names = folder / "names"
        self.work = systems[CENTRE].host.root / WORK

    @property
    def centre(self) -> SystemdHost:
        """Where processors, exporter and history run."""
        return self.systems[CENTRE]

    @property
    def hypervisors(self) -> dict[str, SystemdHost]:
        """By name."""
        return {name: self.systems[name] for name in HYPERVISORS}

    def address(self, name: str) -> str:
        """Of a system, on the network."""
        return self.network.address(list(self.systems).index(name) + 1)

    def here(self, script: str) -> str:
        """What a shell script says that is run on this machine in the centre's folder, with Kafka's own tools; fails where it fails."""
        tool = self.folder / "bin" / "kafka-configs.sh"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(
            f"#!/bin/sh\nexec java -cp '{fetch()}/*' -Dorg.slf4j.simpleLogger.defaultLogLevel=warn kafka.admin.ConfigCommand \"$@\"\n"
        )
        tool.chmod(0o755)
        named = self.program("named-bash", "bash")
        done = subprocess.run(
            [named, "-euc", f"PATH={tool.parent}:$PATH\n{script}"],
            cwd=self.work,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{script}: {done.stdout + done.stderr}"
        return done.stdout

    def program(self, name: str, command: str, *mounts: tuple[Path, str]) -> Path:
        """A program that is ``command`` on this machine with the page's host names, and with folders mounted where the page has them."""
        file = self.folder / name
        steps = [f"mount --bind {source} {target}" for source, target in ((self.names, "/etc/hosts"), *mounts)]
        file.write_text(
            f'#!/bin/sh\nexec unshare --mount --propagation private sh -c \'{" && ".join(steps)} && exec {command} "$@"\' sh "$@"\n'
        )
        file.chmod(0o755)
        return file

    def typed(self, script: str) -> str:
        """What a shell script says that root types in the centre's folder; fails where it fails."""
        (self.work / ".typed").write_text(script)
        return self.centre.run(f"cd /{WORK} && bash -euo pipefail /{WORK}/.typed")

    def start_vm(self, name: str, vm: str, uuid: str) -> None:
        """Start a VM on a hypervisor: firmware that finds nothing to boot."""
        system = self.hypervisors[name]
        images = "var/lib/libvirt/images"
        make_disk(system.host.root / images / f"{vm}.img")
        xml = paused_xml(vm, uuid, Path(f"/{images}/{vm}.img"), nic=USER_NIC)
        system.host.write(f"{WORK}/{vm}.xml", xml)
        system.run(f"virsh -q create /{WORK}/{vm}.xml")


@contextmanager
def fleet_machines(folder: Path) -> Iterator[FleetMachines]:
    """A centre, two hypervisors with Debian's libvirt and QEMU, and a broker with TLS, passwords and an authorizer."""
    with ExitStack() as stack:
        network = Network()
        stack.callback(network.close)
        broker = SecureBroker(folder / "broker", host=network.address(MACHINE), names=BROKERS, port=9093)
        names = "127.0.0.1 localhost\n" + "".join(f"{broker.host} {name}\n" for name in BROKERS)
        hosts = _hosts(folder / "hosts")
        names += "".join(f"{network.address(number)} {name}\n" for number, name in enumerate(hosts, 1))
        (folder / "names").write_text(names)
        systems = {}
        for name, host in hosts.items():
            host.write("etc/hosts", names)
            host.write("etc/hostname", f"{name}\n")
            systems[name] = stack.enter_context(SystemdHost(host))
            network.connect(systems[name].pid)
        stack.enter_context(broker)
        yield FleetMachines(folder, network, broker, systems)


def _hosts(folder: Path) -> dict[str, DebianHost]:
    """The systems before they boot, with Debian's packages and with ssh from the centre to the hypervisors."""
    packages = built_packages(RELEASE)
    centre = DebianHost(RELEASE, folder / CENTRE)
    with_apt(centre.root, "apt-get -qq -y --no-install-recommends install openssh-client ca-certificates")
    centre.fetch(packages["virtflow-centre"])
    key = centre.root / "root/.ssh/id_ed25519"
    key.parent.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    centre.write("root/.ssh/config", "StrictHostKeyChecking accept-new\n")
    first, *others = HYPERVISORS
    hosts = {CENTRE: centre, first: DebianHost(RELEASE, folder / first)}
    with_apt(hosts[first].root, f"apt-get -qq -y --no-install-recommends install {' '.join(LIBVIRT)}")
    hosts[first].fetch(packages["virtflow-producer"])
    hosts[first].write("etc/ssh/sshd_config.d/test.conf", "UsePAM no\n")
    hosts[first].write("root/.ssh/authorized_keys", key.with_suffix(".pub").read_text())
    hosts |= {name: DebianHost(RELEASE, folder / name, like=hosts[first]) for name in others}
    for number, name in enumerate(HYPERVISORS, 1):
        for file, text in LIBVIRT_SETTINGS.items():
            hosts[name].write(f"etc/libvirt/{file}", text.format(uuid=f"00000000-0000-4000-8000-{number:012}"))
    return hosts
