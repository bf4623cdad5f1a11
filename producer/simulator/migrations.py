"""Synthetic VMs that move: both hosts' samples and events, as a pure function of the fleet and the time.

A traveller has two nodes and goes on a tour of four legs that never ends: there; back, but it does not converge and is cancelled;
back; there again, but the destination fails. Each leg is a migration and a rest. So where it is follows from the time alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from random import Random
from typing import Final

from msgspec import Struct

from virtflow.producer.simulator.fleet import SimulatedVm, vm_at
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
    Result,
)

LEG_SECONDS: Final = 60.0
REST_SECONDS: Final = 25.0
"""From the begin of a leg to that of its migration."""
MOVE_SECONDS: Final = 24.0
PASS_SECONDS: Final = 4.0
POLL_SECONDS: Final = 1.0
DOWN_SECONDS: Final = 0.2
"""From the source's stop to the destination's go."""
STOPPED_FAILED: Final = 5
TRAVELLERS: Final = "travellers"
"""Stands for a node where the travellers' own nature is drawn."""

GIB: Final = 1024**3
PAGE: Final = 4096
RATE: Final = 250_000_000
TOTAL: Final = 4 * GIB
SHRINKS: Final = 0.35
"""What a pass leaves of the one before, where the migration converges."""
STUCK_SHARE: Final = 0.4


class Leg(Struct, frozen=True, gc=False):
    """One leg of the tour: from where to where (0 or 1), whether it converges, and how it ends."""

    source: int
    destination: int
    converges: bool
    result: Result


TOUR: Final = (
    Leg(0, 1, converges=True, result=Result.COMPLETED),
    Leg(1, 0, converges=False, result=Result.CANCELLED),
    Leg(1, 0, converges=True, result=Result.COMPLETED),
    Leg(0, 1, converges=True, result=Result.FAILED),
)
TOUR_SECONDS: Final = LEG_SECONDS * len(TOUR)


class Traveller(Struct, frozen=True, gc=False):
    """A VM that moves: its slot, its two nodes, and how far its tour is ahead of the others'."""

    slot: int
    nodes: tuple[str, str]
    offset: float

    def tour(self, seconds: float) -> tuple[float, Leg]:
        """When the present leg began, and which it is."""
        number = math.floor((seconds + self.offset) / LEG_SECONDS)
        return number * LEG_SECONDS - self.offset, TOUR[number % len(TOUR)]


def travellers(seed: int, nodes: tuple[str, ...], count: int) -> tuple[Traveller, ...]:
    """``count`` VMs that move among ``nodes``; none where there are not two of them."""
    if len(nodes) < 2:  # noqa: PLR2004, nobody moves alone
        return ()
    return tuple(_traveller(seed, nodes, slot) for slot in _running_slots(seed, count))


def _traveller(seed: int, nodes: tuple[str, ...], slot: int) -> Traveller:
    dice = Random(f"traveller {seed} {slot}")  # noqa: S311, a fleet, not a secret
    first, second = dice.sample(nodes, 2)
    return Traveller(slot, (first, second), dice.uniform(0, TOUR_SECONDS))


@lru_cache(maxsize=8)
def _running_slots(seed: int, count: int) -> tuple[int, ...]:
    """The first slots whose VM runs: one that is shut off has nothing to move."""
    slots: list[int] = []
    slot = 0
    while len(slots) < count:
        if vm_at(seed, TRAVELLERS, slot, 0.0, 1.0).stats["state.state"] == states.RUNNING:
            slots.append(slot)
        slot += 1
    return tuple(slots)


# -- samples


def travellers_at(seed: int, known: tuple[Traveller, ...], node: str, seconds: float) -> list[SimulatedVm]:
    """The travellers that ``node`` lists at a time: those that run there, and those that arrive."""
    return [vm for one in known if node in one.nodes and (vm := _listed(seed, one, node, seconds)) is not None]


def _listed(seed: int, one: Traveller, node: str, seconds: float) -> SimulatedVm | None:
    began, leg = one.tour(seconds)
    at = seconds - began - REST_SECONDS
    source, destination = one.nodes[leg.source], one.nodes[leg.destination]
    completes = leg.result == Result.COMPLETED
    moved = completes and at >= MOVE_SECONDS
    if node == (destination if moved else source):
        arrived = began + REST_SECONDS + MOVE_SECONDS if moved else _arrived(one, began, leg.source)
        vm = vm_at(seed, TRAVELLERS, one.slot, arrived, seconds)
        stops = completes and not moved and at >= MOVE_SECONDS - DOWN_SECONDS
        return _with(vm, states.PAUSED, states.PAUSED_MIGRATION) if stops else _with(vm, states.RUNNING, states.RUNNING_MIGRATED)
    if node == destination and 0 <= at < MOVE_SECONDS:
        vm = vm_at(seed, TRAVELLERS, one.slot, seconds, seconds)
        arriving = _with(vm, states.PAUSED, states.PAUSED_STARTING_UP if at < POLL_SECONDS else states.PAUSED_MIGRATION)
        return SimulatedVm(vm.uuid, vm.name, {k: v for k, v in arriving.stats.items() if not k.startswith("cpu.")}, vm.inventory)
    return None


def _arrived(one: Traveller, began: float, end: int) -> float:
    """When it last came to the node it leaves in the leg that ``began``: the begin of its process there, where its counters start."""
    while True:
        began -= LEG_SECONDS
        _, leg = one.tour(began + 1)
        if leg.result == Result.COMPLETED and leg.destination == end:
            return began + REST_SECONDS + MOVE_SECONDS


def _with(vm: SimulatedVm, state: int, reason: int) -> SimulatedVm:
    return SimulatedVm(vm.uuid, vm.name, {**vm.stats, "state.state": state, "state.reason": reason}, vm.inventory)


# -- events


def happenings(seed: int, known: tuple[Traveller, ...], since: float, until: float) -> list[tuple[str, HypervisorEvent]]:
    """What happened to the travellers after ``since`` up to ``until``, in time's order: the node that tells, and the event."""
    found: list[tuple[str, HypervisorEvent]] = []
    for one in known:
        began, _ = one.tour(since)
        while began <= until:
            found += [(node, event) for node, event in _leg(seed, one, began) if since < event.time <= until]
            began += LEG_SECONDS
    return sorted(found, key=lambda item: item[1].time)


def _leg(seed: int, one: Traveller, began: float) -> Iterator[tuple[str, HypervisorEvent]]:
    """All events of the leg that began at a time."""
    _, leg = one.tour(began + 1)
    vm = vm_at(seed, TRAVELLERS, one.slot, began, began)
    source, destination = one.nodes[leg.source], one.nodes[leg.destination]
    start = began + REST_SECONDS

    def event(node: str, after: float, what: str, *detail: object) -> tuple[str, HypervisorEvent]:
        return node, HypervisorEvent(vm.uuid, vm.name, what, detail, start + after)

    yield event(destination, 0.1, Kind.LIFECYCLE, Lifecycle.STARTED.value, STARTED_MIGRATED)
    for second in range(1, int(MOVE_SECONDS)):
        elapsed = second * POLL_SECONDS
        if elapsed % PASS_SECONDS == 0 or second == 1:
            yield event(source, elapsed - 0.05, Kind.ITERATION, _pass(elapsed))
        yield event(source, elapsed, Kind.JOB, {"type": JobType.UNBOUNDED.value, **_statistics(leg, elapsed)})
    if leg.result == Result.COMPLETED:
        yield event(source, MOVE_SECONDS - DOWN_SECONDS, Kind.LIFECYCLE, Lifecycle.SUSPENDED.value, SUSPENDED_MIGRATED)
        yield event(destination, MOVE_SECONDS, Kind.LIFECYCLE, Lifecycle.RESUMED.value, RESUMED_MIGRATED)
        yield event(source, MOVE_SECONDS + 0.2, Kind.LIFECYCLE, Lifecycle.STOPPED.value, STOPPED_MIGRATED)
        done = {**_statistics(leg, MOVE_SECONDS), "data_remaining": 0, "memory_remaining": 0, "downtime": int(DOWN_SECONDS * 1000)}
        yield event(source, MOVE_SECONDS + 0.2, Kind.COMPLETED, done)
        return
    yield event(destination, MOVE_SECONDS, Kind.LIFECYCLE, Lifecycle.STOPPED.value, STOPPED_FAILED)
    yield event(source, MOVE_SECONDS + 0.1, Kind.JOB_GONE, states.RUNNING, states.RUNNING_MIGRATED, leg.result.value)


def _pass(elapsed: float) -> int:
    return 1 + int(elapsed // PASS_SECONDS)


def _statistics(leg: Leg, elapsed: float) -> dict[str, int]:
    """A job's statistics as libvirt would tell them."""
    number = _pass(elapsed)
    share = SHRINKS ** (number - 1) if leg.converges else (1.0 if number == 1 else STUCK_SHARE)
    remaining = int(TOTAL * share * (1 - elapsed % PASS_SECONDS / PASS_SECONDS * (1 - SHRINKS)))
    processed = int(RATE * elapsed)
    dirty = RATE * (SHRINKS if leg.converges else 1.2)
    return {
        "operation": Operation.MIGRATION_OUT.value,
        "time_elapsed": int(elapsed * 1000),
        "setup_time": 12,
        "downtime": 300,
        "data_total": TOTAL,
        "data_processed": processed,
        "data_remaining": remaining,
        "memory_total": TOTAL,
        "memory_processed": processed,
        "memory_remaining": remaining,
        "memory_bps": RATE,
        "memory_constant": TOTAL // PAGE // 8,
        "memory_normal": processed // PAGE,
        "memory_dirty_rate": int(dirty) // PAGE if number > 1 else 0,
        "memory_iteration": number,
        "memory_postcopy_requests": 0,
        "memory_page_size": PAGE,
        "auto_converge_throttle": 0 if leg.converges else min(99, 20 + 10 * number),
        "disk_total": 0,
        "disk_processed": 0,
        "disk_remaining": 0,
    }
