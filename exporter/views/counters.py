"""The counters of one sample by kind of device, kept small, and their growth per second between two samples.

Two kinds of time: the groups that can hang (CPU, vCPUs, block devices) are as of ``monitor_collected``, the network devices as of
``collected``. A counter that became smaller started again, so its growth is unknown until the next sample.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isnan, nan
from operator import attrgetter
from typing import Any, Final

from msgspec import Struct

from virtflow.schemas.records import VmMetrics


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind of devices: where they are in a sample, their name, their counters, and the field with the time of collection.

    Equal to itself alone: it is a key of dictionaries in the work for each sample.
    """

    devices: Callable[[VmMetrics], Sequence[Any]]
    name: Callable[[Any], object]
    fields: tuple[str, ...]
    time: str


CPU: Final = Kind(lambda record: (record,), lambda _: "", ("cpu_seconds_total", "cpu_system_seconds_total"), "monitor_collected")
VCPUS: Final = Kind(
    attrgetter("vcpus"), attrgetter("vcpu"), ("seconds_total", "delay_seconds_total", "wait_seconds_total"), "monitor_collected"
)
BLOCKS: Final = Kind(
    attrgetter("blocks"),
    attrgetter("device"),
    (
        "read_bytes_total",
        "write_bytes_total",
        "read_requests_total",
        "write_requests_total",
        "flush_requests_total",
        "read_seconds_total",
        "write_seconds_total",
        "flush_seconds_total",
    ),
    "monitor_collected",
)
NETWORKS: Final = Kind(
    attrgetter("networks"),
    attrgetter("device"),
    (
        "receive_bytes_total",
        "transmit_bytes_total",
        "receive_packets_total",
        "transmit_packets_total",
        "receive_packets_dropped_total",
        "transmit_packets_dropped_total",
        "receive_errors_total",
        "transmit_errors_total",
    ),
    "collected",
)
KINDS: Final = (CPU, VCPUS, BLOCKS, NETWORKS)
_VALUES: Final = {kind: attrgetter(*kind.fields) for kind in KINDS}


class Counters(Struct, frozen=True, gc=False):
    """The counters of all devices of one kind: ``values`` has those of the first device, then of the second; ``at`` in Unix seconds."""

    at: float
    names: tuple[object, ...]
    values: array[float]


Growth = dict[object, tuple[float, ...]]
"""Per second and device, in the order of the kind's fields; NaN where unknown."""


def counters(kind: Kind, record: VmMetrics, before: Counters | None = None) -> Counters | None:
    """The sample's counters; None where it has none of the kind's group. Equal names are shared with ``before``."""
    at = getattr(record, kind.time)
    if isnan(at):
        return None
    devices = kind.devices(record)
    names = tuple(map(kind.name, devices))
    if before is not None and names == before.names:
        names = before.names
    return Counters(at, names, array("d", chain.from_iterable(map(_VALUES[kind], devices))))


def growth(kind: Kind, before: Counters | None, after: Counters | None) -> Growth:
    """The growth per second of each device that is in both; empty where there are no two samples."""
    if before is None or after is None or not after.at > before.at:
        return {}
    seconds, width = after.at - before.at, len(kind.fields)
    if before.names is after.names:
        old: Iterable[float] = before.values
    else:
        places = {name: place * width for place, name in enumerate(before.names)}
        unknown = array("d", [nan] * width)
        old = chain.from_iterable(before.values[places[name] : places[name] + width] if name in places else unknown for name in after.names)
    # Absent counters are -1 or NaN.
    each = [(new - was) / seconds if was >= 0 and new >= was else nan for was, new in zip(old, after.values, strict=True)]
    return {name: tuple(each[place * width : (place + 1) * width]) for place, name in enumerate(after.names)}


def summed_growth(kind: Kind, columns: Sequence[int], before: Counters | None, after: Counters | None) -> list[float]:
    """The growth per second of some counters side by side, summed over the devices where it is known; NaN where it is known of none.

    The same as ``total`` of these columns of ``growth``, at a fraction of its price where the devices are the same.
    """
    if before is None or after is None or not after.at > before.at:
        return [nan] * len(columns)
    if before.names is not after.names:
        rates = growth(kind, before, after)
        return [total(rates, column) for column in columns]
    seconds, width, old, new = after.at - before.at, len(kind.fields), before.values, after.values
    if len(new) == width:
        side_by_side = slice(columns[0], columns[-1] + 1)
        return [
            (now - was) / seconds if was >= 0 and now >= was else nan for was, now in zip(old[side_by_side], new[side_by_side], strict=True)
        ]
    found = []
    for column in columns:
        grown = [now - was for was, now in zip(old[column::width], new[column::width], strict=True) if was >= 0 and now >= was]
        found.append(sum(grown) / seconds if grown else nan)
    return found


def started_again(before: Counters | None, after: Counters | None) -> bool:
    """Whether the VM's own CPU time became smaller: its process is another one, and no counter of before says anything."""
    return before is not None and after is not None and after.values[0] < before.values[0]


def total(rates: Growth, column: int) -> float:
    """The sum of one column over the devices where it is known; NaN where it is known of none."""
    known = [rate[column] for rate in rates.values() if not isnan(rate[column])]
    return sum(known) if known else nan
