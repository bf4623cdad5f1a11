"""What the agents in simulated guests tell: libvirt's own keys, as a pure function of the VM and the time, cleaned as real answers are."""

from __future__ import annotations

import math
from functools import lru_cache
from random import Random
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from virtflow.producer.agent.answers import cpus_of, merged, sample_of
from virtflow.producer.simulator.fleet import GIB, SimulatedVm
from virtflow.schemas import states
from virtflow.schemas.guest import GuestReason
from virtflow.schemas.records import GuestSample

CYCLE_SECONDS: Final = 60.0
FILL_SECONDS: Final = (43_200.0, 604_800.0)
"""How long a filesystem takes to fill up before somebody cleans it."""
SILENT: Final = 0.05
WITHOUT_CHANNEL: Final = 0.1
SYSTEMS: Final = (
    ("debian", "Debian GNU/Linux", "12", "6.1.0-28-cloud-amd64"),
    ("ubuntu", "Ubuntu", "24.04", "6.8.0-51-generic"),
    ("rocky", "Rocky Linux", "9.5", "5.14.0-503.el9.x86_64"),
)


def guest_at(vm: SimulatedVm, seconds: float) -> GuestSample:
    """What is known of the guest at a time (Unix seconds): its agent is asked once in CYCLE_SECONDS, at a moment of its own."""
    fate = _fate(vm.uuid)
    if vm.stats.get("state.state") != states.RUNNING:
        return GuestSample(agent_up=0, reason=GuestReason.NOT_RUNNING)
    if fate.reason:
        return GuestSample(agent_up=0, reason=fate.reason)
    taken = math.floor((seconds - fate.offset) / CYCLE_SECONDS) * CYCLE_SECONDS + fate.offset
    return _answer(vm.uuid, vm.name, (vm.inventory.vcpus, len(vm.inventory.disks), len(vm.inventory.nics)), taken)


class _Fate(Struct, frozen=True, gc=False):
    """What an agent is like: when it is asked within the cycle, and why it never answers where it does not."""

    offset: float
    reason: str


@lru_cache(maxsize=200_000)
def _fate(uuid: str) -> _Fate:
    dice = Random(f"agent {uuid}")  # noqa: S311, a fleet, not a secret
    offset, luck = dice.uniform(0, CYCLE_SECONDS), dice.random()
    return _Fate(offset, GuestReason.TIMEOUT if luck < SILENT else GuestReason.NO_CHANNEL if luck < SILENT + WITHOUT_CHANNEL else "")


@lru_cache(maxsize=20_000)
def _answer(uuid: str, name: str, shape: tuple[int, int, int], taken: float) -> GuestSample:
    """One answer; ``shape`` is the VM's vCPUs, disks and NICs."""
    vcpus, disks, nics = shape
    dice = Random(f"guest {uuid}")  # noqa: S311, a fleet, not a secret
    system, system_name, version, kernel = dice.choice(SYSTEMS)
    info: dict[str, object] = {
        "hostname": name,
        "os.id": system,
        "os.name": system_name,
        "os.pretty-name": f"{system_name} {version}",
        "os.version": version,
        "os.version-id": version,
        "os.kernel-release": kernel,
        "os.machine": "x86_64",
    }
    busy = vcpus * (0.4 + 0.3 * math.sin(math.tau * taken / dice.uniform(600, 7200)))
    info |= {"load.1m": round(busy, 2), "load.5m": round(busy * 0.9, 2), "load.15m": round(busy * 0.8, 2)}
    for index in range(disks):
        info |= _filesystem(dice, index, taken)
    for index in range(nics):
        info |= _interface(dice, index)
    told = merged([sample_of(info), cpus_of(vcpus)])
    return replace(told, taken=taken, addresses_taken=taken, agent_up=1)


def _filesystem(dice: Random, index: int, taken: float) -> dict[str, object]:
    """A filesystem that fills up and is cleaned, again and again."""
    total = dice.choice((9, 19, 98)) * GIB
    least, period = dice.uniform(0.1, 0.5), dice.uniform(*FILL_SECONDS)
    share = least + (0.97 - least) * (taken % period / period)
    told = {"mountpoint": f"/srv/data{index}" if index else "/", "fstype": "ext4", "total-bytes": total, "used-bytes": int(total * share)}
    return {f"fs.{index}.{key}": value for key, value in told.items()}


def _interface(dice: Random, index: int) -> dict[str, object]:
    host, site = dice.randrange(1, 255), dice.randrange(256)
    mac = f"52:54:00:{site:02x}:{index:02x}:{host:02x}"
    told: dict[str, object] = {
        "name": f"eth{index}",
        "hwaddr": mac,
        "addr.0.type": "ipv4",
        "addr.0.addr": f"10.{site}.{index}.{host}",
        "addr.0.prefix": 24,
        "addr.1.type": "ipv6",
        "addr.1.addr": f"fd00:{site:x}:{index:x}::{host:x}",
        "addr.1.prefix": 64,
    }
    return {f"if.{index}.{key}": value for key, value in told.items()}
