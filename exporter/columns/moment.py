"""The counters of all VMs of a table at one moment, and how much they have grown since an earlier one: all VMs at once.

What of a VM or a device is not known at both moments, or became smaller, is NaN.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isnan
from typing import Final

import numpy as np

from virtflow.exporter.columns.table import COUNT, FIRST_PLACE, DeviceTable, Table, name_of, number_of
from virtflow.exporter.columns.vm import NodeSample
from virtflow.schemas.avro.cursors import Numbers

Grown = dict[str, Numbers]
"""Growth per second by field, a value for each VM."""
SHOWN: Final = frozenset(
    {
        "delay_seconds_total",
        "read_bytes_total",
        "write_bytes_total",
        "read_requests_total",
        "write_requests_total",
        "read_seconds_total",
        "write_seconds_total",
        "receive_bytes_total",
        "transmit_bytes_total",
    }
)
"""The counters of devices that a point is made of; rates begin with the others, too."""
Counted = tuple[float, tuple[object, ...], "array[float]"]
"""When counters were collected, their devices' names, and the values of the first device, then of the second."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The fields that are needed: of VMs, as ``gauges`` and as ``counters``; and of devices by attribute, with the time that they are of.

    ``monitored``: as of ``monitor_collected``, as the VM's own counters, else of ``collected``.
    """

    gauges: tuple[str, ...]
    counters: tuple[str, ...]
    devices: Mapping[str, tuple[str, ...]]
    monitored: frozenset[str]

    def all_in(self, table: Table) -> bool:
        """Whether a table has all of them: it has the fields of exported metrics alone."""
        kinds = {of_kind.kind.devices.attribute: of_kind.numbers for of_kind in table.kinds}
        own = {*self.gauges, *self.counters} <= set(table.numbers)
        return own and all(name in kinds and set(fields) <= set(kinds[name]) for name, fields in self.devices.items())


class _Devices:
    """The devices of one kind: of each VM the first row and their number; of each device its VM, its keys and its values."""

    __slots__ = ("counts", "fields", "keys", "kind", "owners", "starts", "values")

    def __init__(self, table: DeviceTable, places: Numbers, fields: Sequence[str]) -> None:
        """Those of the VMs at ``places``."""
        table.of_vm.grow(int(places.max(initial=0)) + 1)
        first, self.counts = (table.of_vm.numbers[name][places] for name in (FIRST_PLACE, COUNT))
        ends = np.append([0], np.cumsum(self.counts))
        self.starts = ends[:-1]
        self.owners = np.repeat(np.arange(len(places)), self.counts)
        at = np.repeat(first - self.starts, self.counts) + np.arange(ends[-1])
        self.kind = table.kind
        self.keys = [column[at] for name, column in table.numbers.items() if name not in table.kind.numbers]
        self.fields = tuple(fields)
        self.values = np.column_stack([table.numbers[name][at].astype(np.float64) for name in fields])

    def rows_before(self, before: _Devices, rows: Numbers) -> Numbers:
        """Of each device its row in ``before``, -1 where it was not there; ``rows`` are those of the VMs."""
        mine = rows[self.owners]
        there = mine >= 0
        there[there] = self.counts[self.owners[there]] == before.counts[mine[there]]
        turns = np.arange(len(self.owners)) - self.starts[self.owners]
        found = np.full(len(self.owners), -1)
        found[there] = before.starts[mine[there]] + turns[there]
        for now, then in zip(self.keys, before.keys, strict=True):
            same = found >= 0
            found[np.flatnonzero(same)[now[same] != then[found[same]]]] = -1
        return found

    def differ(self, before: _Devices, rows: Numbers) -> Numbers:
        """Which VMs have other devices than in ``before``, or other values of them are known."""
        there = rows >= 0
        differ = ~there
        differ[there] = self.counts[there] != before.counts[rows[there]]
        then = self.rows_before(before, rows)
        differ[self.owners[then < 0]] = True
        known = then >= 0
        differ[self.owners[known][_unlike(self.values[known], before.values[then[known]])]] = True
        return differ

    def named(self, row: int) -> tuple[tuple[object, ...], array[float]]:
        """The names of a VM's devices and their values."""
        start = int(self.starts[row])
        places = range(start, start + int(self.counts[row]))
        of_key = name_of if self.kind.named else number_of
        names = tuple(of_key([int(column[place]) for column in self.keys]) for place in places)
        return names, array("d", chain.from_iterable(self.values[place].tolist() for place in places))


class Moment:
    """The VMs at some places of a table as they are now; the table may change later."""

    def __init__(self, table: Table, places: Sequence[int], wanted: Wanted) -> None:
        """``wanted.all_in(table)`` holds."""
        at = np.array(places, np.int64)
        self._wanted = wanted
        samples = [table.samples[place] for place in places]
        self._rows: Final[dict[NodeSample | None, int]] = {sample: row for row, sample in enumerate(samples)}
        self._samples = samples
        self.collected: Final = table.numbers["collected"][at]
        self._monitored = np.array([vm.monitor_collected if (vm := table.vms[place]) is not None else np.nan for place in places])
        self.gauges: Final = {name: table.numbers[name][at] for name in wanted.gauges}
        self._own = np.column_stack([table.numbers[name][at].astype(np.float64) for name in wanted.counters])
        self._devices = {
            of_kind.kind.devices.attribute: _Devices(of_kind, at, fields)
            for of_kind in table.kinds
            if (fields := wanted.devices.get(of_kind.kind.devices.attribute)) is not None
        }

    def rows_in(self, before: Moment) -> Numbers:
        """Of each VM its row in ``before``; -1 where it was not there, or has other devices, or where other values of it are known."""
        rows = np.fromiter((before._rows.get(sample, -1) for sample in self._samples), np.int64, len(self._samples))
        for name, devices in self._devices.items():
            rows[devices.differ(before._devices[name], rows)] = -1
        there = np.flatnonzero(rows >= 0)
        rows[there[_unlike(self._own[there], before._own[rows[there]])]] = -1
        return rows

    def grown(self, before: Moment, rows: Numbers) -> Grown:
        """Growth per second since ``before`` of the VM's own counters, and of its devices' together that a point shows, where it is known of any.

        All of a VM is NaN where its first counter became smaller: its process is another one.
        """
        monitored, collected = (
            _seconds(now, then, rows) for now, then in ((self._monitored, before._monitored), (self.collected, before.collected))
        )
        own = _growth(self._own, before._own, rows, monitored)
        with np.errstate(invalid="ignore"):
            again = (rows >= 0) & (self._own[:, 0] < before._own[rows, 0])
        found = dict(zip(self._wanted.counters, own.T, strict=True))
        for name, devices in self._devices.items():
            then = before._devices[name]
            seconds = (monitored if name in self._wanted.monitored else collected)[devices.owners]
            at = [place for place, field in enumerate(devices.fields) if field in SHOWN]
            each = _growth(devices.values[:, at], then.values[:, at], devices.rows_before(then, rows), seconds)
            for place, column in zip(at, each.T, strict=True):
                found[devices.fields[place]] = _summed(column, devices.owners, len(rows))
        for column in found.values():
            column[again] = np.nan
        return found

    def fresh(self, before: Moment, rows: Numbers) -> Numbers:
        """Of which VMs there is a newer sample than in ``before``."""
        return np.asarray(self.collected != before.collected[rows]) if len(before.collected) else np.ones(len(rows), bool)

    def points(self, before: Moment, rows: Numbers, memory: Sequence[float]) -> list[bytes]:
        """A point of the hour of each VM, as floats of 4 bytes in the order of ``views.ring.COLUMNS``; ``memory`` in use is as of now."""
        grown = self.grown(before, rows)
        reads, writes = grown["read_requests_total"], grown["write_requests_total"]
        with np.errstate(invalid="ignore", divide="ignore"):
            spent = _plus(
                *(np.where(n > 0, grown[field], np.nan) for n, field in ((reads, "read_seconds_total"), (writes, "write_seconds_total")))
            )
            requests = _plus(reads, writes)
            latency = np.where(requests > 0, spent / requests, np.nan)
        rates = [grown[field] for field in ("read_bytes_total", "write_bytes_total", "receive_bytes_total", "transmit_bytes_total")]
        columns = (grown["cpu_seconds_total"], grown["delay_seconds_total"], np.array(memory, np.float64), *rates, latency)
        packed, size = np.column_stack(columns).astype(np.float32).tobytes(), len(columns) * np.dtype(np.float32).itemsize
        return [packed[at : at + size] for at in range(0, len(packed), size)]

    def collected_of(self, sample: NodeSample) -> float:
        """When the node's sample was collected; NaN where it was not there."""
        row = self._rows.get(sample)
        return float(self.collected[row]) if row is not None else np.nan

    def counted(self, sample: NodeSample) -> dict[str, Counted]:
        """The counters of one VM, which was there: its own below "", those of its devices by attribute."""
        row = self._rows[sample]
        monitored, collected = float(self._monitored[row]), float(self.collected[row])
        found: dict[str, Counted] = {"": (monitored, ("",), array("d", self._own[row].tolist()))}
        for name, devices in self._devices.items():
            found[name] = (monitored if name in self._wanted.monitored else collected, *devices.named(row))
        return {name: one for name, one in found.items() if not isnan(one[0])}


def _seconds(now: Numbers, then: Numbers, rows: Numbers) -> Numbers:
    """Time between the two moments' samples; NaN where it is none."""
    with np.errstate(invalid="ignore"):
        passed = np.where(rows >= 0, now - then[rows], np.nan) if len(then) else np.full(len(now), np.nan)
        return np.where(passed > 0, passed, np.nan)


def _growth(now: Numbers, then: Numbers, rows: Numbers, seconds: Numbers) -> Numbers:
    """Growth per second of each counter in each row. Absent counters are -1 or NaN."""
    if not len(then):
        return np.full(now.shape, np.nan)
    was = then[rows]
    with np.errstate(invalid="ignore"):
        known = (rows >= 0)[:, None] & (was >= 0) & (now >= was)
        return np.where(known, (now - was) / seconds[:, None], np.nan)


def _unlike(now: Numbers, then: Numbers) -> Numbers:
    """In which rows other values are known than before."""
    with np.errstate(invalid="ignore"):
        return np.asarray(((now >= 0) != (then >= 0)).any(axis=1))


def _summed(values: Numbers, owners: Numbers, count: int) -> Numbers:
    """The sum of what is known of each owner; NaN where nothing is."""
    known = ~np.isnan(values)
    sums = np.bincount(owners[known], weights=values[known], minlength=count)
    return np.where(np.bincount(owners[known], minlength=count) > 0, sums, np.nan)


def _plus(one: Numbers, other: Numbers) -> Numbers:
    """The sum of what is known of two; NaN where neither is."""
    return np.where(np.isnan(one), other, np.where(np.isnan(other), one, one + other))
