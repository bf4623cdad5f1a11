"""The VMs that are simulated, and what is true of them: where each runs, since when its process counts, what its host announces.

Everything follows from the seed and the time. A VM's process counts from 0; it is a new one after a restart, and at the destination of a migration.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.simulation.machine import BEGINS
from virtflow.producer.records.merge import PROBED, RESPONSIVE
from virtflow.producer.records.vm_snapshot import Reading
from virtflow.producer.types import HypervisorEvent
from virtflow.schemas import states
from virtflow.schemas.jobs import (
    RESUMED_MIGRATED,
    STARTED_MIGRATED,
    STOPPED_MIGRATED,
    SUSPENDED_MIGRATED,
    JobType,
    Kind,
    Lifecycle,
    Operation,
)
from virtflow.schemas.records import VmInventory

NANOSECONDS: Final = 10**9
DOWN_SECONDS: Final = 0.2
STOPPED_FAILED: Final = 5
BOOTED: Final = 0
SHUT_DOWN: Final = 0


@dataclass(frozen=True, slots=True)
class Process:
    """One life of a VM: on a node from one time to another, counting from 0; ``number`` rises from each to the next."""

    number: int
    node: str
    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class Move:
    """A migration: from when to when, and whether the VM is at its destination afterwards."""

    source: str
    destination: str
    begins: float
    ends: float
    completes: bool


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM: its lives in order, and its migrations."""

    uuid: str
    name: str
    rate: float
    lives: tuple[Process, ...]
    moves: tuple[Move, ...]

    def life(self, at: float) -> Process:
        """The life that runs at a time."""
        return next(life for life in self.lives if life.begins <= at < life.ends)

    def inventory(self) -> VmInventory:
        """What its XML says."""
        return VmInventory(uuid=self.uuid, name=self.name, title=f"{self.name} of the simulation", vcpus=1, memory_bytes=1 << 30)

    def reading(self, node: str, at: float, wall: float = float("nan")) -> Reading | None:
        """What libvirt on a node says of it at a time, which the node's clock calls ``wall``; None where it does not list it."""
        life = self.life(at)
        move = next((move for move in self.moves if move.begins <= at < move.ends), None)
        if life.node == node:
            stops = move is not None and move.completes and at >= move.ends - DOWN_SECONDS
            state = (states.PAUSED, states.PAUSED_MIGRATION) if stops else (states.RUNNING, states.RUNNING_MIGRATED)
            return Reading(self.uuid, self.name, {**_state(*state), **self._counters(at - life.begins)}, wall)
        if move is not None and move.destination == node:
            reason = states.PAUSED_STARTING_UP if at < move.begins + 1 else states.PAUSED_MIGRATION
            return Reading(self.uuid, self.name, {**_state(states.PAUSED, reason), **self._counters(0.0, cpu=False)}, wall)
        return None

    def events(self) -> Iterator[tuple[float, str, str, tuple[object, ...]]]:
        """What the hosts announce: when, which node, the kind and its numbers."""
        for before, after in zip(self.lives, self.lives[1:], strict=False):
            if before.node == after.node:
                yield after.begins - 0.01, after.node, Kind.LIFECYCLE, (Lifecycle.STOPPED.value, SHUT_DOWN)
                yield after.begins, after.node, Kind.LIFECYCLE, (Lifecycle.STARTED.value, BOOTED)
        for move in self.moves:
            yield from _told(move)

    def _counters(self, seconds: float, *, cpu: bool = True) -> dict[str, object]:
        work = seconds * self.rate
        counted: dict[str, object] = {
            "block.count": 1,
            "block.0.name": "vda",
            "block.0.rd.reqs": int(work * 10),
            "block.0.rd.bytes": int(work * 40_960),
            "net.count": 1,
            "net.0.name": f"vnet-{self.name}",
            "net.0.rx.bytes": int(work * 1_000),
            PROBED: 1,
            RESPONSIVE: 1,
        }
        return {"cpu.time": int(work * NANOSECONDS), **counted} if cpu else counted


def _state(state: int, reason: int) -> dict[str, object]:
    return {"state.state": state, "state.reason": reason}


def _told(move: Move) -> Iterator[tuple[float, str, str, tuple[object, ...]]]:
    yield move.begins + 0.1, move.destination, Kind.LIFECYCLE, (Lifecycle.STARTED.value, STARTED_MIGRATED)
    second = 1
    while move.begins + second < move.ends:
        yield move.begins + second - 0.05, move.source, Kind.ITERATION, (second,)
        yield move.begins + second, move.source, Kind.JOB, ({"type": JobType.UNBOUNDED.value, **_statistics(move, second)},)
        second += 1
    if move.completes:
        yield move.ends - DOWN_SECONDS, move.source, Kind.LIFECYCLE, (Lifecycle.SUSPENDED.value, SUSPENDED_MIGRATED)
        yield move.ends, move.destination, Kind.LIFECYCLE, (Lifecycle.RESUMED.value, RESUMED_MIGRATED)
        yield move.ends + 0.2, move.source, Kind.LIFECYCLE, (Lifecycle.STOPPED.value, STOPPED_MIGRATED)
        yield move.ends + 0.2, move.source, Kind.COMPLETED, (_statistics(move, move.ends - move.begins),)
        return
    yield move.ends, move.destination, Kind.LIFECYCLE, (Lifecycle.STOPPED.value, STOPPED_FAILED)
    yield move.ends + 0.1, move.source, Kind.JOB_GONE, (states.RUNNING, states.RUNNING_MIGRATED, "failed")


def _statistics(move: Move, elapsed: float) -> dict[str, int]:
    whole = 1 << 30
    done = int(whole * elapsed / (move.ends - move.begins))
    return {
        "operation": Operation.MIGRATION_OUT.value,
        "time_elapsed": int(elapsed * 1_000),
        "data_total": whole,
        "data_processed": done,
        "data_remaining": whole - done,
    }


class Fleet:
    """All VMs, for ``seconds`` of change and for as long as needed afterwards."""

    def __init__(self, seed: int, nodes: tuple[str, ...], vms: int, seconds: float) -> None:
        """``vms`` of them, each at first on one of the nodes."""
        dice = Random(f"fleet {seed}")  # noqa: S311, a fleet, not a secret
        self.nodes: Final = nodes
        self.vms: Final = tuple(_vm(dice, number, nodes, seconds) for number in range(vms))
        self._by_uuid: Final = {vm.uuid: vm for vm in self.vms}
        events = [(at, node, vm, kind, detail) for vm in self.vms for at, node, kind, detail in vm.events()]
        self._events: Final = sorted(events, key=lambda event: event[0])
        self.migrations: Final = sum(len(vm.moves) for vm in self.vms)

    def vm(self, identity: str) -> Vm:
        """A VM by its UUID."""
        return self._by_uuid[identity]

    def readings(self, node: str, at: float, wall: float) -> tuple[Reading, ...]:
        """What libvirt on a node lists."""
        return tuple(reading for vm in self.vms if (reading := vm.reading(node, at, wall)) is not None)

    def happened(self, node: str, since: float, until: float, clock: float) -> list[HypervisorEvent]:
        """What a node announced in a time; ``clock`` is what its own clock adds to the kernel's time."""
        found = [event for event in self._events if since < event[0] <= until and event[1] == node]
        return [HypervisorEvent(vm.uuid, vm.name, kind, detail, at + clock) for at, _, vm, kind, detail in found]

    def last_words(self, at: float) -> None:
        """Something more that every node announces."""
        self._events.extend((at, node, self.vms[0], "reboot", ()) for node in self.nodes)
        self._events.sort(key=lambda event: event[0])

    def next_event(self, node: str, since: float) -> float:
        """When the node announces something next."""
        return next((event[0] for event in self._events if event[0] > since and event[1] == node), float("inf"))


def _vm(dice: Random, number: int, nodes: tuple[str, ...], seconds: float) -> Vm:
    """A VM with some restarts and migrations, one after the other."""
    identity = str(uuid.UUID(int=dice.getrandbits(128), version=4))
    node, at = dice.choice(nodes), BEGINS - dice.uniform(10, 500)
    lives: list[Process] = []
    moves: list[Move] = []
    begin, end = at, BEGINS + dice.uniform(2, seconds / 2)
    while end < BEGINS + seconds:
        kind = dice.random()
        if kind < 0.2:
            lives.append(Process(len(lives), node, begin, end))
            begin = end
        elif kind < 0.8 and len(nodes) > 1:
            other = dice.choice([each for each in nodes if each != node])
            move = Move(node, other, end, end + dice.uniform(1.5, 12), completes=dice.random() < 0.75)
            moves.append(move)
            if move.completes:
                lives.append(Process(len(lives), node, begin, move.ends))
                node, begin = other, move.ends
            end = move.ends
        end += dice.uniform(1, seconds / 2)
    lives.append(Process(len(lives), node, begin, float("inf")))
    return Vm(identity, f"vm-{number}", dice.uniform(0.1, 0.9), tuple(lives), tuple(moves))
