"""The fleet with rates: for each exported VM the growth between its last two samples, and its last hour.

It reads the fleet when somebody asks, and once a minute for the hour in memory: taking a sample and scraping do nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan, nan
from typing import Final

from msgspec.structs import replace

from virtflow.exporter.columns.vm import Vm
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.views.counters import CPU, KINDS, Growth, Kind
from virtflow.exporter.views.ring import POINT_SECONDS, Ring
from virtflow.exporter.views.totals import (
    INTERVALS_KNOWN,
    UNKNOWN,
    Held,
    Totals,
    held_of,
    latency,
    memory_of,
    plus,
    rates_between,
    totals_of,
)
from virtflow.schemas.jobs import Result
from virtflow.schemas.records import VmInventory, VmMetrics

STEP: Final = 200
"""VMs that are looked at before other tasks get their turn: a few milliseconds' work."""


class Seen:
    """What is known of one VM beside the fleet's own: the counters of its last two samples, what they say, and its last hour."""

    __slots__ = ("before", "conflict", "held", "inventory", "memory", "minute", "node", "ring", "stamp", "totals", "vm")

    def __init__(self, vm: Vm, record: VmMetrics) -> None:
        """Seen for the first time, so that no rate is known."""
        self.vm = vm
        self.node = record.node
        self.stamp = _stamp(record)
        """Which sample the counters are of. The sample itself is not kept: it would outlive its time in the fleet."""
        self.inventory: VmInventory | None = vm.inventory
        self.conflict = vm.conflict
        self.memory = memory_of(record).used
        self.before: Held = {}
        self.held: Held = held_of(record, {})
        self.minute: Held = self.held
        """The counters of the last point of the hour."""
        self.totals = UNKNOWN
        self.ring: Ring | None = None

    @property
    def record(self) -> VmMetrics:
        """The newest sample of the VM, which is exported."""
        assert self.vm.exported is not None
        return self.vm.exported

    def take(self, vm: Vm, record: VmMetrics) -> bool:
        """Takes the VM as the fleet has it now; False when nothing has changed."""
        new = _stamp(record) != self.stamp or record.node != self.node
        if not new and vm.inventory is self.inventory and vm.conflict == self.conflict:
            self.vm = vm
            return False
        if new:
            if record.node != self.node:
                self.before, self.held, self.minute = {}, held_of(record, {}), {}
            else:
                self.before, self.held = self.held, held_of(record, self.held)
            self.totals, self.memory = self._totals(record), memory_of(record).used
        self.vm, self.node, self.stamp, self.inventory, self.conflict = vm, record.node, _stamp(record), vm.inventory, vm.conflict
        return True

    def rates(self) -> dict[Kind, Growth]:
        """The growth of every device between the last two samples."""
        return rates_between(self.before, self.held)

    def put_point(self, minute: int) -> None:
        """Adds the mean of the time since the last point to the hour; where no newer sample came, the newest rates."""
        ring = self.ring = self.ring or Ring()
        if minute <= ring.newest or not self.vm.is_exported:
            return
        self.minute, before = self.held, self.minute
        totals = totals_of(rates_between(before, self.held)) if before is not self.held else self.totals
        mean = latency(
            plus(totals.read_latency * totals.read_requests, totals.write_latency * totals.write_requests),
            plus(totals.read_requests, totals.write_requests),
        )
        point = (totals.cpu_cores, totals.steal_cores, self.memory if self.memory >= 0 else nan, totals.read_bytes, totals.write_bytes)
        ring.put(minute, (*point, totals.receive_bytes, totals.transmit_bytes, mean))

    def _totals(self, record: VmMetrics) -> Totals:
        """What the last two samples say; a sample without the groups that can hang keeps their rates for three intervals."""
        totals = totals_of(self.rates(), _window(self.before, self.held))
        if not isnan(record.monitor_collected):
            return totals
        cpu = self.held.get(CPU)
        fresh = cpu is not None and record.collected - cpu.at <= INTERVALS_KNOWN * record.interval
        return _with_network(self.totals if fresh else UNKNOWN, totals)


def _stamp(record: VmMetrics) -> tuple[int, float]:
    return record.sequence, record.collected


def _with_network(totals: Totals, newer: Totals) -> Totals:
    """The rates with the network's of a newer sample."""
    return replace(
        totals,
        receive_bytes=newer.receive_bytes,
        transmit_bytes=newer.transmit_bytes,
        receive_packets=newer.receive_packets,
        transmit_packets=newer.transmit_packets,
        dropped_packets=newer.dropped_packets,
        window_seconds=newer.window_seconds,
    )


def _window(before: Held, after: Held) -> float:
    """Seconds between the two samples that the rates are of; that of the groups that can hang where both have them."""
    for kind in KINDS:
        one, other = before.get(kind), after.get(kind)
        if one is not None and other is not None and other.at > one.at:
            return other.at - one.at
    return nan


class FleetView:
    """All exported VMs with their rates. Belongs to the event loop; ``updating`` gives others their turn."""

    def __init__(self, fleet: Fleet) -> None:
        """Nothing is seen yet."""
        self.fleet: Final = fleet
        self.revision = 0
        """Grows whenever something that the API shows has changed; ages are not among it."""
        self._seen: dict[str, Seen] = {}
        self._others: tuple[object, ...] = ()

    def updating(self, now: float, *, keep: bool = True) -> Iterator[None]:
        """Takes the fleet as it is at ``now`` (its own clock), ``STEP`` VMs between two yields. ``keep``: its samples are read again soon."""
        self.fleet.expire(now)
        vms = self.fleet.vms()
        changed = False
        for start in range(0, len(vms), STEP):
            for vm in vms[start : start + STEP]:
                changed |= self._take(vm)
                if not keep:
                    vm.release()
            yield
        changed |= self._forget()
        others = (
            self.fleet.migrations.revision,
            *((node.status.node, node.status.boot_id, node.status.sequence, node.silent) for node in self.fleet.nodes()),
        )
        if changed or others != self._others:
            self._others = others
            self.revision += 1

    def recording(self, now: float) -> Iterator[None]:
        """Adds a point to every VM's hour; ``updating`` has been run before."""
        minute = int(now // POINT_SECONDS)
        every = list(self._seen.values())
        for start in range(0, len(every), STEP):
            for seen in every[start : start + STEP]:
                seen.put_point(minute)
            yield

    def vms(self) -> list[Seen]:
        """Every VM that is exported, in no order."""
        return [seen for seen in self._seen.values() if seen.vm.is_exported]

    def vm(self, uuid: str) -> Seen | None:
        """One VM."""
        seen = self._seen.get(uuid)
        return seen if seen is not None and seen.vm.is_exported else None

    def migrating(self) -> frozenset[str]:
        """The UUIDs of the VMs whose newest migration runs."""
        return frozenset(one.uuid for one in self.fleet.migrations.all() if one.result == Result.RUNNING)

    def _take(self, vm: Vm) -> bool:
        record = vm.exported
        if record is None:  # it has expired since
            return False
        seen = self._seen.get(record.uuid)
        if seen is None:
            self._seen[record.uuid] = Seen(vm, record)
            return True
        return seen.take(vm, record)

    def _forget(self) -> bool:
        gone = [uuid for uuid, seen in self._seen.items() if not seen.vm.is_exported]
        for uuid in gone:
            del self._seen[uuid]
        return bool(gone)
