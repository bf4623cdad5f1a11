"""What a VM uses per second, summed over its devices, and the rule for the memory it uses."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan
from typing import Final

from msgspec import Struct

from virtflow.exporter.views.counters import (
    BLOCKS,
    CPU,
    KINDS,
    NETWORKS,
    VCPUS,
    Counters,
    Growth,
    Kind,
    counters,
    growth,
    started_again,
    summed_growth,
    total,
)
from virtflow.schemas.records import VmMetrics

INTERVALS_KNOWN: Final = 3
"""For how many intervals a rate of the groups that can hang is shown while no newer sample of them comes."""
BALLOON_SECONDS: Final = 300.0
"""Age of the balloon driver's figures beyond which they count as frozen."""

Held = dict[Kind, Counters]
"""The newest counters of each kind; a sample without a kind's group leaves the earlier ones."""


class Totals(Struct, frozen=True, gc=False):
    """Per second, NaN where unknown; latencies are seconds per request, ``cpu_cores`` and ``steal_cores`` seconds per second."""

    cpu_cores: float = nan
    steal_cores: float = nan
    read_bytes: float = nan
    write_bytes: float = nan
    read_requests: float = nan
    write_requests: float = nan
    flush_requests: float = nan
    read_latency: float = nan
    write_latency: float = nan
    flush_latency: float = nan
    receive_bytes: float = nan
    transmit_bytes: float = nan
    receive_packets: float = nan
    transmit_packets: float = nan
    dropped_packets: float = nan
    window_seconds: float = nan


UNKNOWN: Final = Totals()
SUMMED: Final[tuple[tuple[Kind, Sequence[int]], ...]] = ((CPU, (0,)), (VCPUS, (1,)), (BLOCKS, range(8)), (NETWORKS, range(6)))
"""The columns of each kind that ``Totals`` is made of."""


def held_of(record: VmMetrics, before: Held) -> Held:
    """The newest counters of each kind once ``record`` has been taken."""
    found = {}
    for kind in KINDS:
        was = before.get(kind)
        one = counters(kind, record, was) or was
        if one is not None:
            found[kind] = one
    return found


def rates_between(before: Held, after: Held) -> dict[Kind, Growth]:
    """The growth per second of every device by kind; all empty where the VM's process is another one."""
    if started_again(before.get(CPU), after.get(CPU)):
        return {kind: {} for kind in KINDS}
    return {kind: growth(kind, before.get(kind), after.get(kind)) for kind in KINDS}


def totals_of(rates: dict[Kind, Growth], window_seconds: float = nan) -> Totals:
    """The sums over the devices."""
    return _totals(window_seconds, *([total(rates[kind], column) for column in columns] for kind, columns in SUMMED))


def totals_between(before: Held, after: Held, window_seconds: float = nan) -> Totals:
    """``totals_of`` the rates between two samples, without those of each device."""
    if started_again(before.get(CPU), after.get(CPU)):
        return Totals(window_seconds=window_seconds)
    return _totals(window_seconds, *(summed_growth(kind, columns, before.get(kind), after.get(kind)) for kind, columns in SUMMED))


def _totals(
    window_seconds: float, cpu: Sequence[float], vcpus: Sequence[float], blocks: Sequence[float], networks: Sequence[float]
) -> Totals:
    read, written, reads, writes, flushes, reading, writing, flushing = blocks
    received, sent, packets_in, packets_out, dropped_in, dropped_out = networks
    return Totals(
        cpu[0],
        vcpus[0],
        read,
        written,
        reads,
        writes,
        flushes,
        latency(reading, reads),
        latency(writing, writes),
        latency(flushing, flushes),
        received,
        sent,
        packets_in,
        packets_out,
        plus(dropped_in, dropped_out),
        window_seconds,
    )


def latency(seconds: float, requests: float) -> float:
    """Mean seconds of a request; NaN where none was made."""
    return seconds / requests if requests > 0 else nan


def plus(one: float, other: float) -> float:
    """The sum of what is known of two; NaN where neither is."""
    if isnan(one):
        return other
    return one if isnan(other) else one + other


MEMORY_FIELDS: Final = (
    "guest_memory_total_bytes",
    "guest_memory_usable_bytes",
    "guest_memory_free_bytes",
    "guest_memory_updated_timestamp_seconds",
    "memory_rss_bytes",
    "memory_balloon_current_bytes",
)
"""What the rule for memory looks at, in the order of ``memory_in_use``."""


class Memory(Struct, frozen=True, gc=False):
    """Bytes used, of how many, and who says so: ``guest``, ``host`` or "" for nobody. -1 where unknown."""

    used: int = -1
    of: int = -1
    source: str = ""


def memory_of(record: VmMetrics) -> Memory:
    """The memory that a sample says its VM uses: ``memory_in_use``."""
    return memory_in_use(record.collected, *(getattr(record, field) for field in MEMORY_FIELDS))


def memory_in_use(collected: float, whole: int, usable: int, free: int, told: float, resident: int, balloon: int) -> Memory:  # noqa: PLR0913, PLR0917, MEMORY_FIELDS
    """The memory a VM uses: the rule of docs/memory.md, "What the fleet page shows".

    The guest's own figure where its balloon driver reports one that is not frozen: total less usable, or less free where there is no
    usable. Else what the VM's process has resident on the host, of what the balloon leaves to the VM.
    """
    frozen = told >= 0 and collected - told > BALLOON_SECONDS
    left = usable if usable >= 0 else free
    if whole > 0 and 0 <= left <= whole and not frozen:
        return Memory(whole - left, whole, "guest")
    if resident >= 0:
        return Memory(resident, balloon, "host")
    return Memory()
