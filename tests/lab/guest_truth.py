"""What a guest says of itself, from its own tools, under virtflow's names: worked out here without any of our code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.support.lab_scrape import Scrape, Series
from tests.support.lab_shell import GuestShell

EPHEMERAL = {"vm_guest_age_seconds", "vm_guest_agent_up", "vm_guest_agent_info", "vm_guest_values_cut", "vm_guest_values_dropped"}
"""About the answer, not about the guest."""
LOADS = ("vm_guest_load1", "vm_guest_load5", "vm_guest_load15")
"""Told by agents and libvirts from 10.0 and 11.2 on; they move while they are compared."""
OS_LABELS = {
    "os_id": "ID",
    "os_name": "NAME",
    "os_pretty_name": "PRETTY_NAME",
    "os_version": "VERSION",
    "os_version_id": "VERSION_ID",
}
ADDRESS = re.compile(r"^\d+: (\S+)\s+(inet6?) ([0-9a-f.:]+)/\d+", re.MULTILINE)


def of_itself(shell: GuestShell) -> dict[Series, float]:
    """Every series its agent can tell of it, without uuid and name."""
    series: dict[Series, float] = {("vm_guest_cpus", frozenset()): float(shell.run("nproc"))}
    series["vm_guest_info", _system(shell)] = 1.0
    series |= {("vm_guest_ip_address_info", labels): 1.0 for labels in _addresses(shell)}
    for device, mountpoint, fstype in _mounts(shell):
        labels = frozenset({("mountpoint", mountpoint), ("fstype", fstype), ("device", device)})
        blocks, free, available, size = map(int, shell.run(f"stat -f -c '%b %f %a %S' '{mountpoint}'").split())
        series["vm_guest_filesystem_size_bytes", labels] = (blocks - free + available) * size
        series["vm_guest_filesystem_free_bytes", labels] = available * size
    return series


def _system(shell: GuestShell) -> frozenset[tuple[str, str]]:
    release = dict(line.split("=", 1) for line in shell.run("cat /etc/os-release").splitlines())
    words = {label: release[key].removeprefix('"').removesuffix('"').replace('\\"', '"') for label, key in OS_LABELS.items()}
    words |= {"hostname": shell.run("hostname").strip(), "os_kernel_release": shell.run("uname -r").strip()}
    return frozenset((words | {"os_machine": shell.run("uname -m").strip()}).items())


def _addresses(shell: GuestShell) -> Iterator[frozenset[tuple[str, str]]]:
    for interface, family, address in ADDRESS.findall(shell.run("ip -o addr")):
        if interface != "lo":
            words = {"interface": interface, "address": address, "family": "ipv6" if family == "inet6" else "ipv4", "source": "agent"}
            yield frozenset(words.items())


def _mounts(shell: GuestShell) -> Iterator[tuple[str, str, str]]:
    for line in shell.run("cat /proc/mounts").splitlines():
        device, mountpoint, fstype = line.split()[:3]
        if device.startswith("/dev/vd"):
            yield device.removeprefix("/dev/"), mountpoint.replace("\\040", " "), fstype


def loads(shell: GuestShell) -> tuple[float, ...]:
    """The guest's load averages, in the order of ``LOADS``."""
    return tuple(map(float, shell.run("cat /proc/loadavg").split()[:3]))


def tells_loads(shell: GuestShell, libvirt: str) -> bool:
    """Whether the guest's agent and a libvirt of this version ("11.3") know load averages."""
    agent = shell.run("qemu-ga --version").split()[-1]
    return _version(agent) >= (10, 0) and _version(libvirt) >= (11, 2)


def _version(said: str) -> tuple[int, ...]:
    return tuple(map(int, said.split(".")[:2]))


def shown(seen: Scrape, uuid: str) -> dict[Series, float]:
    """What a scrape shows that came from the VM's agent, but for its load averages."""
    return {
        key: value
        for key, value in seen.of_vm(uuid).items()
        if key[0].startswith("vm_guest_") and not key[0].startswith("vm_guest_memory_") and key[0] not in EPHEMERAL and key[0] not in LOADS
    }
