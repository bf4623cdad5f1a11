"""The fleet with rates: for each exported VM the growth between its last two samples, and its last hour.

It reads the fleet when somebody asks, and once a minute for the hour in memory: taking a sample and scraping do nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan, nan
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from virtflow.exporter.columns.vm import Vm
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.views.counters import BLOCKS, CPU, KINDS, NETWORKS, VCPUS, Counters, Growth, Kind
from virtflow.exporter.views.ring import POINT_SECONDS, Ring
from virtflow.exporter.views.totals import (
    INTERVALS_KNOWN,
    MEMORY_FIELDS,
    UNKNOWN,
    Held,
    Totals,
    held_of,
    latency,
    memory_in_use,
    memory_of,
    plus,
    rates_between,
    totals_between,
)
from virtflow.schemas.jobs import Result
from virtflow.schemas.records import VmMetrics

if TYPE_CHECKING:
    from virtflow.exporter.columns.moment import Moment

STEP: Final = 200
"""VMs that are looked at before other tasks get their turn: a few milliseconds' work."""


class Seen:
    """What is known of one VM beside the fleet's own: the counters of its last two samples, what they say, and its last hour."""

    __slots__ = (
        "before",
        "conflict",
        "held",
        "inventory",
        "memory",
        "minute",
        "name",
        "node",
        "probed",
        "responsive",
        "ring",
        "stamp",
        "state",
        "totals",
        "uuid",
        "vcpus",
        "vm",
    )

    def __init__(self, vm: Vm, record: VmMetrics) -> None:
        """Seen for the first time, so that no rate is known."""
        self.uuid: Final = record.uuid
        self.conflict = vm.conflict
        self.before: Held = {}
        self.held: Held = held_of(record, {})
        self.minute: Held = self.held
        """The counters of the last point of the hour."""
        self.totals = UNKNOWN
        self.ring: Ring | None = None
        self._note(vm, record)

    @property
    def record(self) -> VmMetrics:
        """The newest sample of the VM, which is exported."""
        assert self.vm.exported is not None
        return self.vm.exported

    def knows(self, vm: Vm) -> bool:
        """Whether nothing of the VM has changed; without reading a sample that is in columns."""
        sample = vm.in_columns
        if sample is not None:
            same = self.stamp == (sample.seen.newest.sequence, sample.collected)
        else:
            same = vm.row is not None and self.stamp == _stamp(vm.row) and self.node == vm.row.node
        return same and vm.inventory is self.inventory and vm.conflict == self.conflict and vm is self.vm

    def take(self, vm: Vm, record: VmMetrics, earlier: Held) -> None:
        """Takes the VM as the fleet has it now; ``earlier`` are counters between those that are held and the sample's, {} for none."""
        if record.node != self.node:
            self.before, self.held, self.minute, self.totals = {}, held_of(record, {}), {}, UNKNOWN
        elif _stamp(record) != self.stamp:
            self.before = earlier or self.held
            self.held = held_of(record, self.before)
            self.totals = self._totals(record)
        self._note(vm, record)

    def _note(self, vm: Vm, record: VmMetrics) -> None:
        self.vm, self.name, self.node, self.inventory, self.conflict = vm, record.name, record.node, vm.inventory, vm.conflict
        self.stamp = _stamp(record)
        """Which sample the counters are of. The sample itself is not kept: it would outlive its time in the fleet."""
        self.memory = memory_of(record)
        # Lists and sums look at every VM, so what they need is here: a sample in columns would be read for it.
        self.state, self.responsive, self.probed, self.vcpus = record.state, record.responsive, record.monitor_probed, record.vcpus_current

    def rates(self) -> dict[Kind, Growth]:
        """The growth of every device between the last two samples."""
        return rates_between(self.before, self.held)

    def put_point(self, minute: int, earlier: Held) -> None:
        """Adds the mean of the time since the last point to the hour; where no newer sample came, the newest rates.

        ``earlier`` are the counters of the last point where it was put in columns, {} where not.
        """
        ring = self.ring = self.ring or Ring()
        if minute <= ring.newest or not self.vm.is_exported:
            return
        before = earlier or self.minute
        self.minute = self.held
        totals = totals_between(before, self.held) if before is not self.held else self.totals
        mean = latency(
            plus(totals.read_latency * totals.read_requests, totals.write_latency * totals.write_requests),
            plus(totals.read_requests, totals.write_requests),
        )
        used = self.memory.used
        point = (totals.cpu_cores, totals.steal_cores, used if used >= 0 else nan, totals.read_bytes, totals.write_bytes)
        ring.put(minute, (*point, totals.receive_bytes, totals.transmit_bytes, mean))

    def _totals(self, record: VmMetrics) -> Totals:
        """What the last two samples say; a sample without the groups that can hang keeps their rates for three intervals."""
        totals = totals_between(self.before, self.held, _window(self.before, self.held))
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
        self._moment: Moment | None = None
        """The counters of the VMs in columns at the last point of the hour."""

    def updating(self, now: float) -> Iterator[None]:
        """Takes the fleet as it is at ``now`` (its own clock), ``STEP`` VMs between two yields."""
        self.fleet.expire(now)
        vms = self.fleet.vms()
        changed = False
        for start in range(0, len(vms), STEP):
            for vm in vms[start : start + STEP]:
                changed |= self._take(vm)
            yield
        self._note_changes(changed=changed)

    def recording(self, now: float) -> Iterator[None]:
        """Adds a point to every VM's hour; of VMs in columns without reading their samples, all at once."""
        self.fleet.expire(now)
        vms, minute = self.fleet.vms(), int(now // POINT_SECONDS)
        points, moment = self._points(vms)
        changed = False
        for start in range(0, len(vms), STEP):
            for vm in vms[start : start + STEP]:
                seen, point = self._seen.get(vm.uuid), points.get(vm.uuid)
                if point is None or seen is None or seen.vm is not vm:
                    changed |= self._record(vm, minute)
                    continue
                ring = seen.ring = seen.ring or Ring()
                if point:
                    ring.put(minute, point)
                else:
                    ring.put_again(minute)
            yield
        self._moment = moment
        self._note_changes(changed=changed)

    def _points(self, vms: Sequence[Vm]) -> tuple[dict[str, bytes], Moment | None]:
        """The points of the VMs in columns that were there a minute ago; empty where no newer sample came. And the moment that they are of."""
        table = self.fleet.table
        if table is None:
            return {}, None
        # Loaded with the table: it needs numpy, and small fleets have no table.
        from virtflow.exporter.columns.moment import Moment, Wanted

        wanted = Wanted(
            MEMORY_FIELDS,
            CPU.fields,
            {"vcpus": VCPUS.fields, "blocks": BLOCKS.fields, "networks": NETWORKS.fields},
            frozenset({"vcpus", "blocks"}),
        )
        inside = [vm for vm in vms if vm.in_columns is not None]
        if not inside or not wanted.all_in(table):
            return {}, None
        before, moment = self._moment, Moment(table, [vm.place for vm in inside], wanted)
        if before is None:
            return {}, moment
        rows = moment.rows_in(before)
        fresh = moment.fresh(before, rows).tolist()
        each = zip(inside, rows.tolist(), fresh, moment.points(before, rows, self._memories(moment)), strict=True)
        return {vm.uuid: point if new else b"" for vm, row, new, point in each if row >= 0}, moment

    @staticmethod
    def _memories(moment: Moment) -> list[float]:
        """Bytes in use by each VM; NaN where unknown."""
        fields = (moment.gauges[field].tolist() for field in MEMORY_FIELDS)
        found = (memory_in_use(*values).used for values in zip(moment.collected.tolist(), *fields, strict=True))
        return [used if used >= 0 else nan for used in found]

    def _record(self, vm: Vm, minute: int) -> bool:
        """A point of a VM that is not in columns, or was not a minute ago; whether it has changed."""
        changed = self._take(vm)
        seen = self._seen.get(vm.uuid)
        if seen is not None:
            seen.put_point(minute, self._earlier(seen.vm, seen.node, nan, seen.stamp[1]))
        vm.release()
        return changed

    def _earlier(self, vm: Vm, node: str, after: float, before: float) -> Held:
        """The counters of the VM's last point, where that is of a time between; {} where it is not, or was not put in columns."""
        sample = vm.samples.get(node)
        if self._moment is None or sample is None:
            return {}
        collected = self._moment.collected_of(sample)
        if not collected < before or collected <= after:
            return {}
        return {_BY_ATTRIBUTE[name]: Counters(*counted) for name, counted in self._moment.counted(sample).items()}

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
        seen = self._seen.get(vm.uuid)
        if seen is not None and seen.knows(vm):
            return False
        record = vm.exported
        if record is None:  # it has expired since
            return False
        if seen is None:
            self._seen[vm.uuid] = Seen(vm, record)
        else:
            seen.take(vm, record, self._earlier(vm, record.node, seen.stamp[1], record.collected))
        return True

    def _note_changes(self, *, changed: bool) -> None:
        """Forgets what is gone, and makes the revision grow where anything has changed."""
        gone = [uuid for uuid, seen in self._seen.items() if not seen.vm.is_exported]
        for uuid in gone:
            del self._seen[uuid]
        others = (
            self.fleet.migrations.revision,
            *((node.status.node, node.status.boot_id, node.status.sequence, node.silent) for node in self.fleet.nodes()),
        )
        if changed or gone or others != self._others:
            self._others = others
            self.revision += 1


_BY_ATTRIBUTE: Final = {"": CPU, "vcpus": VCPUS, "blocks": BLOCKS, "networks": NETWORKS}
