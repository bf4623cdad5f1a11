"""Synthetic VMs: what libvirt would say of them at any time, as a pure function of (seed, node, slot, time).

A slot is a place for a VM on a node. Some slots keep their VM, in others VMs are made and deleted; all VMs reboot now and then
(their counters start again), some are paused or shut off. A VM's load is a curve with a closed integral: every counter is that
integral times a rate of its own, so that counters at two times always agree, whatever was asked in between.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from functools import lru_cache
from random import Random
from typing import Final

from msgspec import Struct

from virtflow.producer.records.merge import PROBED, RESPONSIVE
from virtflow.schemas import states
from virtflow.schemas.records import Disk, Nic, VmInventory

MIB: Final = 1024**2
GIB: Final = 1024**3
KIBIBYTES_PER_GIB: Final = MIB
NANOSECONDS: Final = 1e9
REBOOT_SECONDS: Final = (900.0, 7200.0)
LIFE_SECONDS: Final = (300.0, 1800.0)
CHURNING_SLOTS: Final = 0.1
"""Share of the slots whose VMs are made and deleted."""
VACANT: Final = 0.1
"""Part of a churning slot's period during which it holds no VM."""
PAUSED_VMS: Final = 0.02
SHUT_OFF_VMS: Final = 0.02
WITHOUT_BALLOON: Final = 0.2
"""Share of the VMs whose guest has no balloon driver, so that it tells nothing of its memory."""

Stats = dict[str, object]
"""One VM under libvirt's own typed-parameter names, as a bulk statistics call returns it."""


class SimulatedVm(Struct, frozen=True, gc=False):
    """One VM of one round: libvirt's statistics, and the inventory its XML would give."""

    uuid: str
    name: str
    stats: Stats
    inventory: VmInventory


class _Curve(Struct, frozen=True, gc=False):
    """A load between 0 and 1 that swings around ``mean``."""

    mean: float
    swing: float
    period_seconds: float
    phase: float

    def at(self, seconds: float) -> float:
        """The load at a time."""
        return self.mean + self.swing * math.sin(math.tau * seconds / self.period_seconds + self.phase)

    def work(self, since: float, until: float) -> float:
        """The load's integral, in seconds of full load."""
        turn = math.tau / self.period_seconds
        swung = math.cos(turn * since + self.phase) - math.cos(turn * until + self.phase)
        return self.mean * (until - since) + self.swing / turn * swung


class _Vm(Struct, frozen=True, gc=False):
    """What never changes in a VM's life, laid out so that a sample is two multiplications over tuples.

    ``counters`` grow by ``rates`` per second of full load; ``levels`` lie between ``low`` and ``low + span`` with the load.
    """

    uuid: str
    name: str
    inventory: VmInventory
    fixed: Stats
    counters: tuple[str, ...]
    rates: tuple[float, ...]
    levels: tuple[str, ...]
    low: tuple[int, ...]
    span: tuple[int, ...]
    curve: _Curve
    reboot_seconds: float
    reboot_offset: float


class _Slot(Struct, frozen=True, gc=False):
    """A place for a VM: how long each of its VMs lives (infinite where it keeps one), and when the first one began."""

    life_seconds: float
    offset: float

    def life(self, seconds: float) -> tuple[int, float, bool]:
        """Which VM it is at a time, when that one began, and whether it is there."""
        if math.isinf(self.life_seconds):
            return 0, 0.0, True
        number = math.floor((seconds + self.offset) / self.life_seconds)
        began = number * self.life_seconds - self.offset
        return number, began, seconds - began < self.life_seconds * (1 - VACANT)


def vms_at(seed: int, node: str, slots: int, seconds: float) -> list[SimulatedVm]:
    """The VMs of ``node`` at a time (Unix seconds)."""
    found = []
    for slot in range(slots):
        number, began, present = _slot(seed, node, slot).life(seconds)
        if present:
            found.append(_sample(_vm(seed, node, slot, number), began, seconds))
    return found


def lasting(seed: int, node: str, slots: int) -> Iterator[str]:
    """The UUIDs of the VMs of ``node`` that run for ever, in the order of their slots."""
    for slot in range(slots):
        vm = _vm(seed, node, slot, 0)
        if math.isinf(_slot(seed, node, slot).life_seconds) and vm.fixed["state.state"] == states.RUNNING:
            yield vm.uuid


def vm_at(seed: int, node: str, slot: int, began: float, seconds: float) -> SimulatedVm:
    """The first VM of a slot at a time, if its process began at ``began`` (both Unix seconds)."""
    return _sample(_vm(seed, node, slot, 0), began, seconds)


def _sample(vm: _Vm, began: float, seconds: float) -> SimulatedVm:
    booted = max(began, math.floor((seconds + vm.reboot_offset) / vm.reboot_seconds) * vm.reboot_seconds - vm.reboot_offset)
    work, load = vm.curve.work(booted, seconds), vm.curve.at(seconds)
    stats = dict(vm.fixed)
    stats.update(zip(vm.counters, [int(rate * work) for rate in vm.rates], strict=True))
    stats.update(zip(vm.levels, [low + int(span * load) for low, span in zip(vm.low, vm.span, strict=True)], strict=True))
    if "balloon.last-update" in stats:
        stats["balloon.last-update"] = int(seconds)
    return SimulatedVm(vm.uuid, vm.name, stats, vm.inventory)


@lru_cache(maxsize=200_000)
def _slot(seed: int, node: str, slot: int) -> _Slot:
    dice = Random(f"slot {seed} {node} {slot}")  # noqa: S311, a fleet, not a secret
    if dice.random() >= CHURNING_SLOTS:
        return _Slot(math.inf, 0.0)
    life = dice.uniform(*LIFE_SECONDS)
    return _Slot(life, dice.uniform(0, life))


@lru_cache(maxsize=200_000)
def _vm(seed: int, node: str, slot: int, number: int) -> _Vm:
    dice = Random(f"vm {seed} {node} {slot} {number}")  # noqa: S311, a fleet, not a secret
    identity = str(uuid.UUID(int=dice.getrandbits(128), version=4))
    name = f"{dice.choice(('web', 'db', 'cache', 'build', 'queue'))}-{node}-{slot}" + (f"-{number}" if number else "")
    vcpus, disks, nics = dice.choice((1, 2, 2, 4)), dice.choice((1, 1, 2)), dice.choice((1, 1, 2))
    memory = vcpus * dice.choice((2, 4)) * GIB
    running = dice.random()
    parts = [_memory(dice, memory)]
    parts += [_disk(dice, index) for index in range(disks)]
    parts += [_nic(dice, slot, index) for index in range(nics)]
    if running >= SHUT_OFF_VMS:
        parts += [_cpu(dice, vcpus), _Part({PROBED: 1, RESPONSIVE: 1}, {}, {})]
    fixed = _state(running) | {"vcpu.current": vcpus, "vcpu.maximum": vcpus, "block.count": disks, "net.count": nics}
    rates: dict[str, float] = {}
    levels: dict[str, tuple[int, int]] = {}
    for part in parts:
        fixed |= part.fixed
        rates |= part.rates
        levels |= part.levels
    still = running < SHUT_OFF_VMS + PAUSED_VMS
    mean = 0.0 if still else dice.uniform(0.05, 0.6)
    period = dice.uniform(*REBOOT_SECONDS)
    return _Vm(
        uuid=identity,
        name=name,
        inventory=_inventory(dice, identity, name, (vcpus, memory, disks, nics, slot)),
        fixed=fixed,
        counters=tuple(rates),
        rates=tuple(rates.values()),
        levels=tuple(levels),
        low=tuple(low for low, _ in levels.values()),
        span=tuple(span for _, span in levels.values()),
        curve=_Curve(mean, mean * dice.uniform(0.2, 0.6), dice.uniform(60, 3600), dice.uniform(0, math.tau)),
        reboot_seconds=period,
        reboot_offset=dice.uniform(0, period),
    )


class _Part(Struct, gc=False):
    """What one device or group adds to a VM: fields that stand still, that grow with the load, that follow it."""

    fixed: Stats
    rates: dict[str, float]
    levels: dict[str, tuple[int, int]]


def _state(running: float) -> Stats:
    if running < SHUT_OFF_VMS:
        return {"state.state": states.SHUT_OFF, "state.reason": 1}
    if running < SHUT_OFF_VMS + PAUSED_VMS:
        return {"state.state": states.PAUSED, "state.reason": 1}
    return {"state.state": states.RUNNING, "state.reason": 1}


def _cpu(dice: Random, vcpus: int) -> _Part:
    system = dice.uniform(0.1, 0.4)
    total = vcpus * NANOSECONDS
    rates = {"cpu.time": total, "cpu.user": total * (1 - system), "cpu.system": total * system}
    fixed: Stats = {}
    for number in range(vcpus):
        fixed[f"vcpu.{number}.state"] = 1
        rates[f"vcpu.{number}.time"] = NANOSECONDS * 0.97
        rates[f"vcpu.{number}.wait"] = NANOSECONDS * dice.uniform(0, 0.01)
        rates[f"vcpu.{number}.delay"] = NANOSECONDS * dice.uniform(0, 0.1)
    return _Part(fixed, rates, {})


def _memory(dice: Random, memory: int) -> _Part:
    kib = memory // 1024
    fixed: Stats = {"balloon.current": kib, "balloon.maximum": kib}
    levels = {"balloon.rss": (kib // 4, kib // 2)}
    if dice.random() < WITHOUT_BALLOON:
        return _Part(fixed, {}, levels)
    fixed |= {"balloon.available": kib - kib // 50, "balloon.last-update": 0}
    levels |= {
        "balloon.unused": (kib - kib // 10, -kib // 2),
        "balloon.usable": (kib - kib // 12, -kib // 3),
        "balloon.disk_caches": (kib // 20, kib // 10),
    }
    rates = {
        "balloon.swap_in": dice.choice((0.0, 0.0, 40.0)),
        "balloon.swap_out": dice.choice((0.0, 0.0, 60.0)),
        "balloon.major_fault": dice.uniform(0, 5),
        "balloon.minor_fault": dice.uniform(100, 20_000),
        "balloon.hugetlb_pgalloc": 0.0,
        "balloon.hugetlb_pgfail": 0.0,
    }
    return _Part(fixed, rates, levels)


def _disk(dice: Random, index: int) -> _Part:
    size = dice.choice((10, 20, 100)) * GIB
    prefix = f"block.{index}"
    fixed: Stats = {f"{prefix}.name": _disk_name(index), f"{prefix}.capacity": size, f"{prefix}.physical": size // 2}
    reads, writes = dice.uniform(1, 500), dice.uniform(1, 500)
    rates = {
        f"{prefix}.rd.reqs": reads,
        f"{prefix}.rd.bytes": reads * dice.uniform(4_096, 131_072),
        f"{prefix}.rd.times": reads * dice.uniform(1e5, 2e6),
        f"{prefix}.wr.reqs": writes,
        f"{prefix}.wr.bytes": writes * dice.uniform(4_096, 131_072),
        f"{prefix}.wr.times": writes * dice.uniform(1e5, 3e6),
        f"{prefix}.fl.reqs": writes / 20,
        f"{prefix}.fl.times": writes / 20 * 1e6,
    }
    return _Part(fixed, rates, {f"{prefix}.allocation": (size // 4, size // 8)})


def _nic(dice: Random, slot: int, index: int) -> _Part:
    prefix = f"net.{index}"
    rates: dict[str, float] = {}
    for way in ("rx", "tx"):
        packets = dice.uniform(10, 20_000)
        rates[f"{prefix}.{way}.bytes"] = packets * dice.uniform(80, 1_400)
        rates[f"{prefix}.{way}.pkts"] = packets
        rates[f"{prefix}.{way}.errs"] = 0.0
        rates[f"{prefix}.{way}.drop"] = packets * dice.choice((0.0, 1e-5))
    return _Part({f"{prefix}.name": _nic_name(slot, index)}, rates, {})


def _disk_name(index: int) -> str:
    return f"vd{chr(ord('a') + index)}"


def _nic_name(slot: int, index: int) -> str:
    return f"vnet{slot * 2 + index}"


def _inventory(dice: Random, identity: str, name: str, shape: tuple[int, int, int, int, int]) -> VmInventory:
    """The VM's description; ``shape`` is its vCPUs, memory in bytes, disks, NICs and slot."""
    vcpus, memory, disks, nics, slot = shape
    project = dice.randrange(12)
    return VmInventory(
        uuid=identity,
        name=name,
        title=f"{name} of project {project}",
        machine_type="pc-q35-7.2",
        vcpus=vcpus,
        memory_bytes=memory,
        platform="openstack",
        project=f"project-{project}",
        project_id=f"{project:032x}",
        user=f"user-{project % 5}",
        user_id=f"{project % 5:032x}",
        flavor=f"m{vcpus}.{memory // GIB}",
        platform_name=name,
        disks=[Disk(device=_disk_name(i), kind="file", bus="virtio", source=f"/var/lib/images/{identity}-{i}.qcow2") for i in range(disks)],
        nics=[
            Nic(device=_nic_name(slot, i), model="virtio", mac=f"52:54:00:{slot % 256:02x}:{i:02x}:01", source="br0") for i in range(nics)
        ],
    )
