"""One round from the rounds of many daemons. Pure.

A daemon that did not answer costs its own VMs their values: they are still in the round, flagged as VMs that do not respond, while somebody
listens on the daemon's socket. Numbers that count since the start never fall: what daemons had counted that are gone is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from virtflow.producer.records.merge import PROBED, RESPONSIVE, STATE
from virtflow.producer.records.node_health import Daemons, HungCalls, Versions, added
from virtflow.producer.records.vm_snapshot import Reading
from virtflow.producer.source import Round
from virtflow.runtime.version import version
from virtflow.schemas.records import VmInventory
from virtflow.schemas.states import RUNNING, SHUT_OFF

DUPLICATE: Final = "duplicate_vm"
"""Why a VM's values are dropped that two daemons report."""


@dataclass(frozen=True, slots=True)
class DaemonRound:
    """What one daemon brought in a round, and if that is nothing, its VMs as they were last known; ``daemon`` is its number."""

    daemon: int
    found: Round
    held: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True)
class Totals:
    """What a daemon's rounds have counted since its first one."""

    reconnects: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    job_polls: Mapping[str, int] = field(default_factory=dict)
    probes: Mapping[str, int] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Round) -> Totals:
        """Those of a round."""
        return cls(found.reconnects, found.drops, found.job_polls, found.hung_calls.probes, found.hung_calls.calls)

    def plus(self, more: Totals) -> Totals:
        """Both together."""
        return Totals(
            self.reconnects + more.reconnects,
            added(self.drops, more.drops),
            added(self.job_polls, more.job_polls),
            added(self.probes, more.probes),
            added(self.calls, more.calls),
        )


@dataclass(frozen=True, slots=True)
class Merged:
    """The round of the host, which daemon each VM's values are from, and how many VMs were dropped because another daemon has them too."""

    round: Round
    homes: Mapping[str, int]
    duplicates: int


def unanswered(reading: Reading) -> Reading:
    """A VM whose daemon does not answer: its last state, flagged as not responding where it had a QEMU."""
    state = {key: value for key, value in reading.data.items() if key.startswith("state.")}
    if state.get(STATE) == SHUT_OFF:
        return Reading(reading.uuid, reading.name, state)
    return Reading(reading.uuid, reading.name, {**state, PROBED: 1, RESPONSIVE: 0})


def merged(collected: float, rounds: Sequence[DaemonRound], before: Totals, *, scanned: bool) -> Merged:
    """One round of all daemons; ``before`` is what is kept of those that are gone, ``scanned`` whether this host could be searched."""
    answered = [one for one in rounds if one.found.up]
    chosen, duplicates = _chosen(rounds)
    homes = {uuid: daemon for uuid, (daemon, _) in chosen.items()}
    totals = _summed([before, *(Totals.of(one.found) for one in rounds)])
    silent = len(rounds) - len(answered)
    found = Round(
        collected,
        up=bool(answered) or (scanned and not rounds),
        late=silent > 0 or any(one.found.late for one in answered),
        readings=tuple(reading for _, reading in chosen.values()),
        inventories=_inventories(rounds, homes),
        seconds=_longest(one.found.seconds for one in answered),
        versions=_versions([one.found.versions for one in rounds]),
        reconnects=totals.reconnects,
        drops=totals.drops,
        jobs=sum(one.found.jobs for one in rounds),
        job_polls=totals.job_polls,
        hung_calls=_hung_calls(rounds, answered, totals),
        daemons=Daemons(len(rounds), silent),
    )
    return Merged(found, homes, duplicates)


def _chosen(rounds: Iterable[DaemonRound]) -> tuple[dict[str, tuple[int, Reading]], int]:
    """Each VM once, with its daemon: where it runs rather than where it does not, from an answer rather than from memory."""
    found: dict[str, tuple[int, Reading]] = {}
    ranks: dict[str, tuple[bool, bool]] = {}
    duplicates = 0
    for one in rounds:
        for held, readings in ((False, one.found.readings), (True, one.held)):
            for reading in readings:
                rank = held, reading.data.get(STATE) != RUNNING
                known = ranks.get(reading.uuid)
                duplicates += known is not None
                if known is None or rank < known:
                    ranks[reading.uuid] = rank
                    found[reading.uuid] = one.daemon, reading
    return found, duplicates


def _inventories(rounds: Iterable[DaemonRound], homes: Mapping[str, int]) -> dict[str, VmInventory]:
    return {uuid: one for found in rounds for uuid, one in found.found.inventories.items() if homes.get(uuid) == found.daemon}


def _summed(totals: Sequence[Totals]) -> Totals:
    """Summed at once: adding hundreds of them one after another would copy each mapping hundreds of times."""
    return Totals(
        sum(one.reconnects for one in totals),
        _counted(one.drops for one in totals),
        _counted(one.job_polls for one in totals),
        _counted(one.probes for one in totals),
        _counted(one.calls for one in totals),
    )


def _counted(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        if one:
            total.update(one)
    return dict(total)


def _longest(times: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The time of each tier's slowest daemon."""
    found: dict[str, float] = {}
    for one in times:
        for tier, seconds in one.items():
            found[tier] = max(seconds, found.get(tier, 0.0))
    return found


def _versions(found: Sequence[Versions]) -> Versions:
    """The versions of all daemons, each once: pods of two releases run side by side during an upgrade."""
    return Versions(version(), _words(one.libvirt for one in found), _words(one.hypervisor for one in found))


def _words(versions: Iterable[str]) -> str:
    return ", ".join(sorted({one for one in versions if one}))


def _hung_calls(rounds: Sequence[DaemonRound], answered: Sequence[DaemonRound], totals: Totals) -> HungCalls:
    """What hangs in all daemons; the VMs of those that did not answer count as skipped."""
    return HungCalls(
        sum(one.found.hung_calls.count for one in rounds),
        sum(one.found.hung_calls.limit for one in rounds),
        sum(one.found.hung_calls.vms_skipped for one in answered) + sum(len(one.held) for one in rounds),
        sum(one.found.hung_calls.vms_not_probed for one in answered),
        totals.probes,
        totals.calls,
    )
