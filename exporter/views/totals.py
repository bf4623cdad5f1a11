"""What a VM uses per second, summed over its devices, and the rule for the memory it uses."""

from __future__ import annotations

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


def held_of(record: VmMetrics, before: Held) -> Held:
    """The newest counters of each kind once ``record`` has been taken."""
    found = {kind: counters(kind, record, before.get(kind)) or before.get(kind) for kind in KINDS}
    return {kind: one for kind, one in found.items() if one is not None}


def rates_between(before: Held, after: Held) -> dict[Kind, Growth]:
    """The growth per second of every device by kind; all empty where the VM's process is another one."""
    if started_again(before.get(CPU), after.get(CPU)):
        return {kind: {} for kind in KINDS}
    return {kind: growth(kind, before.get(kind), after.get(kind)) for kind in KINDS}


def totals_of(rates: dict[Kind, Growth], window_seconds: float = nan) -> Totals:
    """The sums over the devices."""
    blocks, networks = rates[BLOCKS], rates[NETWORKS]
    reads, writes, flushes = (total(blocks, column) for column in (2, 3, 4))
    return Totals(
        cpu_cores=total(rates[CPU], 0),
        steal_cores=total(rates[VCPUS], 1),
        read_bytes=total(blocks, 0),
        write_bytes=total(blocks, 1),
        read_requests=reads,
        write_requests=writes,
        flush_requests=flushes,
        read_latency=latency(total(blocks, 5), reads),
        write_latency=latency(total(blocks, 6), writes),
        flush_latency=latency(total(blocks, 7), flushes),
        receive_bytes=total(networks, 0),
        transmit_bytes=total(networks, 1),
        receive_packets=total(networks, 2),
        transmit_packets=total(networks, 3),
        dropped_packets=plus(total(networks, 4), total(networks, 5)),
        window_seconds=window_seconds,
    )


def latency(seconds: float, requests: float) -> float:
    """Mean seconds of a request; NaN where none was made."""
    return seconds / requests if requests > 0 else nan


def plus(one: float, other: float) -> float:
    """The sum of what is known of two; NaN where neither is."""
    if isnan(one):
        return other
    return one if isnan(other) else one + other


class Memory(Struct, frozen=True, gc=False):
    """Bytes used, of how many, and who says so: ``guest``, ``host`` or "" for nobody. -1 where unknown."""

    used: int = -1
    of: int = -1
    source: str = ""


def memory_of(record: VmMetrics) -> Memory:
    """The memory a VM uses: the rule of docs/memory.md, "What the fleet page shows".

    The guest's own figure where its balloon driver reports one that is not frozen: total less usable, or less free where there is no
    usable. Else what the VM's process has resident on the host, of what the balloon leaves to the VM.
    """
    told, at = record.guest_memory_updated_timestamp_seconds, record.collected
    frozen = told >= 0 and at - told > BALLOON_SECONDS
    whole = record.guest_memory_total_bytes
    left = record.guest_memory_usable_bytes if record.guest_memory_usable_bytes >= 0 else record.guest_memory_free_bytes
    if whole > 0 and 0 <= left <= whole and not frozen:
        return Memory(whole - left, whole, "guest")
    if record.memory_rss_bytes >= 0:
        return Memory(record.memory_rss_bytes, record.memory_balloon_current_bytes, "host")
    return Memory()
