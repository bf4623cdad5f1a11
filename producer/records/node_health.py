"""The node's own health as of a round. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from virtflow.schemas.catalogue.types import ABSENT_LONG
from virtflow.schemas.records import NAN, NodeHealth, VmSnapshot
from virtflow.schemas.states import state_word

MILLION: Final = 1_000_000
THOUSAND: Final = 1_000


@dataclass(frozen=True, slots=True)
class HungCalls:
    """Hung calls, their limit, and what became of the VMs; outcomes count since the producer started."""

    count: int = 0
    limit: int = 0
    vms_skipped: int = 0
    vms_not_probed: int = 0
    probes: Mapping[str, int] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GuestHealth:
    """The state of the guest-agent helper process; all absent where there is none. Outcomes count since the producer started."""

    up: int = ABSENT_LONG
    calls: Mapping[str, int] = field(default_factory=dict)
    in_flight: int = ABSENT_LONG
    lost: int = ABSENT_LONG
    vms: Mapping[str, int] = field(default_factory=dict)
    cut: int = ABSENT_LONG
    restarts: Mapping[str, int] = field(default_factory=dict)
    periods_set: int = ABSENT_LONG


@dataclass(frozen=True, slots=True)
class Daemons:
    """How many libvirt daemons were found, and how many of them did not answer; absent where there is one by the settings."""

    found: int = ABSENT_LONG
    silent: int = ABSENT_LONG


BY_SETTINGS: Final = Daemons()
"""Where there is one daemon by the settings."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What the producer has counted since it started, the newest durations by tier, and the resident memory of its process."""

    rounds: int = 0
    rounds_late: int = 0
    rounds_skipped: int = 0
    reconnects: int = 0
    unknown_fields: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    sampling_seconds: Mapping[str, float] = field(default_factory=dict)
    hung_calls: HungCalls = field(default_factory=HungCalls)
    jobs: int = 0
    job_polls: Mapping[str, int] = field(default_factory=dict)
    daemons: Daemons = BY_SETTINGS
    guest: GuestHealth = field(default_factory=GuestHealth)
    cpu_seconds: float = NAN
    resident_bytes: int = ABSENT_LONG


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions on the node in words; "" where libvirt has not said."""

    own: str
    libvirt: str = ""
    hypervisor: str = ""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What the publishers report: rounds that wait, drops by reason, events by kind, and the events' journal."""

    spooled_rounds: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    journal_events: int = ABSENT_LONG
    journal_bytes: int = ABSENT_LONG


def node_health(up: bool, vms: Iterable[VmSnapshot], counts: Counters, versions: Versions, outgoing: Outgoing) -> NodeHealth:  # noqa: FBT001, up is the field's name
    """The health record; ``up`` says whether libvirt answered in this round."""
    states = Counter(state_word(vm.state_state) for vm in vms if vm.state_state != ABSENT_LONG)
    return NodeHealth(
        up=int(up),
        vms=dict(states),
        sampling_seconds=dict(counts.sampling_seconds),
        rounds_total=counts.rounds,
        rounds_late_total=counts.rounds_late,
        rounds_skipped_total=counts.rounds_skipped,
        reconnects_total=counts.reconnects,
        unknown_fields_total=counts.unknown_fields,
        drops_total=added(counts.drops, outgoing.drops),
        spooled_rounds=outgoing.spooled_rounds,
        hung_calls=counts.hung_calls.count,
        hung_calls_limit=counts.hung_calls.limit,
        vms_skipped=counts.hung_calls.vms_skipped,
        vms_not_probed=counts.hung_calls.vms_not_probed,
        probes_total=dict(counts.hung_calls.probes),
        monitor_calls_total=dict(counts.hung_calls.calls),
        guest_process_up=counts.guest.up,
        guest_process_restarts_total=dict(counts.guest.restarts),
        guest_calls_total=dict(counts.guest.calls),
        guest_calls_in_flight=counts.guest.in_flight,
        guest_calls_lost=counts.guest.lost,
        guest_vms=dict(counts.guest.vms),
        guest_values_cut_total=counts.guest.cut,
        guest_balloon_periods_set_total=counts.guest.periods_set,
        events_total=dict(outgoing.events),
        journal_events=outgoing.journal_events,
        journal_bytes=outgoing.journal_bytes,
        jobs=counts.jobs,
        job_polls_total=dict(counts.job_polls),
        daemons=counts.daemons.found,
        daemons_silent=counts.daemons.silent,
        cpu_seconds_total=counts.cpu_seconds,
        resident_memory_bytes=counts.resident_bytes,
        version=versions.own,
        libvirt_version=versions.libvirt,
        hypervisor_version=versions.hypervisor,
    )


def added(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Two counts in one; nearly always one of them is empty."""
    if not (counts and more):
        return dict(counts or more)
    return {key: counts.get(key, 0) + more.get(key, 0) for key in (*counts, *more)}


def version_words(number: int) -> str:
    """The words for libvirt's version number: 9000000 is 9.0.0."""
    return f"{number // MILLION}.{number % MILLION // THOUSAND}.{number % THOUSAND}"
