"""A VM as the in-memory daemon has it: what it would tell, its QEMU, its job lock, its guest's agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import libvirt

if TYPE_CHECKING:
    from tests.support.memory_libvirt.requests import Request

PREFIXES: Final[Mapping[int, str]] = {
    libvirt.VIR_DOMAIN_STATS_STATE: "state.",
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL: "cpu.",
    libvirt.VIR_DOMAIN_STATS_BALLOON: "balloon.",
    libvirt.VIR_DOMAIN_STATS_VCPU: "vcpu.",
    libvirt.VIR_DOMAIN_STATS_INTERFACE: "net.",
    libvirt.VIR_DOMAIN_STATS_BLOCK: "block.",
    libvirt.VIR_DOMAIN_STATS_PERF: "perf.",
    libvirt.VIR_DOMAIN_STATS_IOTHREAD: "iothread.",
    libvirt.VIR_DOMAIN_STATS_MEMORY: "memory.",
    libvirt.VIR_DOMAIN_STATS_DIRTYRATE: "dirtyrate.",
    1 << 10: "vm.",
}
"""The statistics' groups and how their fields begin."""

MONITOR_GROUPS: Final = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_IOTHREAD
    | libvirt.VIR_DOMAIN_STATS_DIRTYRATE
    | 1 << 10
)
"""Groups for which the daemon takes the VM's job lock and asks its QEMU."""

_WITHOUT_MONITOR: Final = ("state.", "net.", "perf.", "cpu.time", "cpu.user", "cpu.system", "cpu.cache.", "vcpu.")
_WITHOUT_MONITOR_EXACTLY: Final = frozenset({"balloon.current", "balloon.maximum", "block.count"})
_BLOCK_WITHOUT_MONITOR: Final = (".name", ".path", ".backingIndex")


def without_monitor(key: str) -> bool:
    """Whether the daemon tells this field without asking QEMU, as it does behind a held job lock (measured)."""
    if key.startswith("block."):
        return key == "block.count" or key.endswith(_BLOCK_WITHOUT_MONITOR)
    return key.startswith(_WITHOUT_MONITOR) or key in _WITHOUT_MONITOR_EXACTLY


def usual_stats(name: str, vcpus: int = 2) -> dict[str, Any]:
    """What a daemon tells of a running VM with one disk and one NIC, but for its state, which the VM itself has."""
    stats: dict[str, Any] = {
        "cpu.time": 170_000_000,
        "cpu.user": 90_000_000,
        "cpu.system": 80_000_000,
        "cpu.cache.monitor.count": 0,
        "cpu.haltpoll.success.time": 0,
        "cpu.haltpoll.fail.time": 0,
        "balloon.current": 16384,
        "balloon.maximum": 16384,
        "balloon.last-update": 0,
        "balloon.rss": 36284,
        "vcpu.current": vcpus,
        "vcpu.maximum": vcpus,
    }
    for number in range(vcpus):
        stats |= {f"vcpu.{number}.{key}": value for key, value in {"state": 1, "time": 0, "wait": 0, "delay": 2_203_542}.items()}
    stats |= {"net.count": 1, "net.0.name": f"vnet-{name}"}
    stats |= {f"net.0.{way}.{what}": 0 for way in ("rx", "tx") for what in ("bytes", "pkts", "errs", "drop")}
    stats |= {"block.count": 1, "block.0.name": "vda", "block.0.path": f"/disks/{name}.img", "block.0.backingIndex": 1}
    stats |= {f"block.0.{way}.{what}": 0 for way in ("rd", "wr") for what in ("reqs", "bytes", "times")}
    stats |= {"block.0.fl.reqs": 0, "block.0.fl.times": 0}
    stats |= {"block.0.allocation": 0, "block.0.capacity": 67_108_864, "block.0.physical": 67_108_864}
    status = {"calc_status": 0, "calc_start_time": 0, "calc_period": 0, "calc_mode": "page-sampling"}
    return stats | {f"dirtyrate.{key}": value for key, value in status.items()}


def usual_xml(name: str, uuid: str) -> str:
    """XML with one disk, one NIC and a balloon."""
    return (
        f"<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='KiB'>16384</memory><vcpu>2</vcpu>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
        f"<disk type='file' device='disk'><source file='/disks/{name}.img'/><target dev='vda' bus='virtio'/></disk>"
        f"<interface type='bridge'><source bridge='guests'/><target dev='vnet-{name}'/></interface>"
        "<memballoon model='virtio'/></devices></domain>"
    )


@dataclass(slots=True)
class Agent:
    """A guest's agent: connected or not, after how many seconds it answers (infinity: never), and with what.

    ``answer`` is what ``guestInfo`` brings, by libvirt's keys. ``failure`` is a ``libvirtError`` or what the binding makes of an
    answer that it can't read, raised in place of an answer.
    """

    connected: bool = True
    synchronises: bool = True
    """Whether it answers what libvirt says before each command."""
    seconds: float = 0.0
    answer: dict[str, Any] = field(default_factory=dict)
    failure: BaseException | None = None
    timeout: int = libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK
    held: Request | None = None
    asked: list[str] = field(default_factory=list)
    """The calls that have reached it."""


@dataclass(slots=True, eq=False)
class Vm:
    """One VM of one daemon."""

    name: str
    uuid: str
    state: int = libvirt.VIR_DOMAIN_RUNNING
    reason: int = libvirt.VIR_DOMAIN_RUNNING_BOOTED
    persistent: bool = True
    number: int = -1
    """libvirt's id of the running VM; -1: it is shut off."""
    stats: dict[str, Any] = field(default_factory=dict)
    xml: str = ""
    failures: dict[str, BaseException] = field(default_factory=dict)
    """What a call raises instead of an answer, by its name: ``domainListGetStats`` (bulk calls), ``XMLDesc``, ``info``, ``jobStats``."""
    seconds: float = 0.0
    """How long its QEMU takes for an answer."""
    stopped: bool = False
    """Whether its QEMU answers nobody (SIGSTOP)."""
    gone: bool = False
    """Whether its QEMU has ended."""
    job: dict[str, Any] | None = None
    """Statistics of a running job."""
    job_began: float = 0.0
    completed: dict[str, Any] | None = None
    """Statistics of a completed one that nobody has read."""
    agent: Agent | None = None
    held: Request | None = None
    """Who has its job lock."""
    entered: float | None = None
    """Since when that one waits for QEMU."""

    def __post_init__(self) -> None:
        """What is not given is as in any VM."""
        self.stats = self.stats or usual_stats(self.name)
        self.xml = self.xml or usual_xml(self.name, self.uuid)

    def fail(self, call: str) -> None:
        """Raise what this call is to raise."""
        if call in self.failures:
            raise self.failures[call]

    @property
    def active(self) -> bool:
        """Whether it has a QEMU."""
        return self.number >= 0

    def told(self, groups: int, *, monitor: bool) -> dict[str, Any]:
        """Its statistics of these groups; without ``monitor`` what the daemon knows by itself."""
        prefixes = tuple(prefix for group, prefix in PREFIXES.items() if groups & group)
        stats = {"state.state": self.state, "state.reason": self.reason} | (self.stats if self.active else self._off())
        return {key: value for key, value in stats.items() if key.startswith(prefixes) and (monitor or without_monitor(key))}

    def _off(self) -> dict[str, Any]:
        """Of a VM that is shut off; its CPU time is not its own (measured)."""
        kept = {key: self.stats[key] for key in ("balloon.current", "balloon.maximum", "vcpu.current", "vcpu.maximum") if key in self.stats}
        return {"cpu.time": 210_000_000, "cpu.user": 150_000_000, "cpu.system": 60_000_000, "block.count": 0} | kept
