"""The calls to libvirt that sampling makes, each a query for a worker: they run in the worker's thread and return plain values.

A query that asks one VM after another is a generator: what it yields arrives one by one, so that nothing is lost when a later VM hangs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import libvirt

from virtflow.producer.hypervisor.call_safety import StatsGroups
from virtflow.producer.records.merge import of_info, of_vcpus
from virtflow.producer.records.node_health import version_words
from virtflow.producer.types import UNREADABLE, Answer, Batch, HealthCheck, Listed, Polled, Vm
from virtflow.schemas.jobs import JobType
from virtflow.schemas.text import REPLACEMENT

FEW: Final = 8
"""VMs up to which a look-up of each is cheaper than a list of all."""
NO_JOB: Final = frozenset({libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_UNSUPPORTED})
"""What libvirt answers where there is no job to ask about: no such VM, not running, or it is the destination's side."""
NOWAIT: Final = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT

FAILURES: Final = (libvirt.libvirtError, *UNREADABLE)
"""What a call may end with."""

Domain = Any
Connection = Any
"""libvirt's ``virDomain`` and ``virConnect``; the binding has no types."""


def _listed(records: Iterable[tuple[Domain, dict[str, object]]]) -> Listed:
    vms = {}
    for domain, data in records:
        uuid = domain.UUIDString()
        vms[uuid] = Vm(uuid, name_of(domain), data)
    return Listed(vms)


def domains(connection: Connection, uuids: Collection[str]) -> dict[str, Domain]:
    """Libvirt's handles of these VMs, as far as they are there: one by one where they are few, from a list of all otherwise."""
    if len(uuids) > FEW:
        wanted = frozenset(uuids)
        return {uuid: domain for domain in connection.listAllDomains() if (uuid := domain.UUIDString()) in wanted}
    found = {}
    for uuid in uuids:
        try:
            found[uuid] = connection.lookupByUUIDString(uuid)
        except libvirt.libvirtError:  # it has gone
            if not connection.isAlive():
                raise
    return found


def name_of(domain: Domain) -> str:
    """The VM's name; a mark where it is no text at all."""
    try:
        return str(domain.name())
    except UnicodeDecodeError:
        return REPLACEMENT


def list_vms(groups: StatsGroups) -> Callable[[Connection], Listed]:
    """A query for every VM with the groups that never wait. One VM that makes libvirt fail costs none of the others."""

    def query(connection: Connection) -> Listed:
        try:
            return _listed(connection.getAllDomainStats(groups.safe, NOWAIT))
        except FAILURES:
            if not connection.isAlive():
                raise
            return _listed(_one_by_one(connection, groups.safe))

    return query


def _one_by_one(connection: Connection, groups: int) -> Iterable[tuple[Domain, dict[str, object]]]:
    found: list[tuple[Domain, dict[str, object]]] = []
    for domain in connection.listAllDomains():
        try:
            found += connection.domainListGetStats([domain], groups, NOWAIT)
        except FAILURES:
            if not connection.isAlive():
                raise
    return found


Batches = Iterator[tuple[str, Batch]]
"""What a query streams that asks many VMs by several calls; no single VM's UUID belongs to one."""


def ask_everyone(uuids: tuple[str, ...], groups: StatsGroups, most: int) -> Callable[[Connection], Listed | Batches]:
    """A query for every VM with all groups, which is what a round costs while all is well: may never return.

    ``uuids`` are the VMs that are expected. Where they are more than ``most``, each call asks so many of them, in this order,
    and those that are new last.
    """

    def query(connection: Connection) -> Listed | Batches:
        if len(uuids) <= most:
            return _listed(connection.getAllDomainStats(groups.everything, NOWAIT))
        there = {domain.UUIDString(): domain for domain in connection.listAllDomains()}
        expected = {uuid: there.pop(uuid) for uuid in uuids if uuid in there}
        return _by_batches(connection, [*expected.values(), *there.values()], groups.everything, most, _listed)

    return query


def ask_monitors(uuids: tuple[str, ...], groups: StatsGroups, most: int) -> Callable[[Connection], dict[str, dict[str, object]] | Batches]:
    """A query that asks these VMs, in this order and ``most`` by each call, for the groups that may wait: may never return."""

    def query(connection: Connection) -> dict[str, dict[str, object]] | Batches:
        known = domains(connection, uuids)
        chosen = [known[uuid] for uuid in uuids if uuid in known]
        if len(chosen) > most:
            return _by_batches(connection, chosen, groups.monitor, most, _data)
        return _data(connection.domainListGetStats(chosen, groups.monitor, NOWAIT)) if chosen else {}

    return query


def _data(records: Iterable[tuple[Domain, dict[str, object]]]) -> dict[str, dict[str, object]]:
    return {domain.UUIDString(): data for domain, data in records}


def _by_batches(
    connection: Connection,
    chosen: Sequence[Domain],
    groups: int,
    most: int,
    read: Callable[[Iterable[tuple[Domain, dict[str, object]]]], Listed | dict[str, dict[str, object]]],
) -> Batches:
    """Ask ``most`` VMs at a time, so that a call which takes long is told from one that asks many."""
    for first in range(0, len(chosen), most):
        began, started = time.monotonic(), time.time()
        yield "", Batch(read(connection.domainListGetStats(chosen[first : first + most], groups, NOWAIT)), began, started)


def check_health(uuids: Collection[str], states: Callable[[list[str]], dict[str, str]]) -> Callable[[Connection], HealthCheck]:
    """A health check, which never waits: which VMs are occupied for how long, and what ``states`` says of their processes."""

    def query(connection: Connection) -> HealthCheck:
        known = domains(connection, uuids)
        occupied = {uuid: _occupied_seconds(connection, domain) for uuid, domain in known.items()}
        return HealthCheck(occupied, states([uuid for uuid, domain in known.items() if domain.ID() >= 0]))

    return query


def _occupied_seconds(connection: Connection, domain: Domain) -> float:
    """For how long a call has been in the VM's monitor; 0 when none is."""
    if domain.ID() < 0:
        return 0.0
    try:
        state, _, milliseconds = domain.controlInfo()
    except libvirt.libvirtError:  # it has just ended
        if not connection.isAlive():
            raise
        return 0.0
    return max(milliseconds, 1) / 1000 if state == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED else 0.0


def fill(uuids: Collection[str], until: float) -> Callable[[Connection], Iterator[tuple[str, Answer]]]:
    """A streamed query for what never waits of these VMs; stops at ``until`` (monotonic seconds).

    First the VMs' CPU time and memory, then their vCPUs: where time is short, each VM has the more important half.
    """

    def query(connection: Connection) -> Iterator[tuple[str, Answer]]:
        known, found = domains(connection, uuids), dict[str, Answer]()
        for uuid, domain in known.items():
            began, started = time.monotonic(), time.time()
            if began > until:
                return
            if (info := _tried(connection, domain.info)) is not None:
                found[uuid] = Answer(of_info(info, running=domain.ID() >= 0), began, started)
                yield uuid, found[uuid]
        for uuid, before in found.items():
            if time.monotonic() > until:
                return
            domain = known[uuid]
            if domain.ID() >= 0 and (vcpus := _tried(connection, domain.vcpus)) is not None:
                yield uuid, Answer(before.data | of_vcpus(vcpus[0]), before.began, before.started)

    return query


def _tried(connection: Connection, ask: Callable[[], Any]) -> Any:  # noqa: ANN401, the binding has no types
    """What a call about one VM says; None when the VM has gone, or is just being started or ended."""
    try:
        return ask()
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return None


def read_xml(uuids: Collection[str], until: float) -> Callable[[Connection], Iterator[tuple[str, str]]]:
    """A streamed query for the XML of these VMs in this order, "" where it can't be had; stops at ``until`` (monotonic seconds)."""

    def query(connection: Connection) -> Iterator[tuple[str, str]]:
        known = domains(connection, uuids)
        for uuid in uuids:
            if time.monotonic() > until:
                return
            yield uuid, _xml(connection, known[uuid]) if uuid in known else ""

    return query


def _xml(connection: Connection, domain: Domain) -> str:
    try:
        return str(domain.XMLDesc(0))
    except UnicodeDecodeError:
        return ""
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return ""


def poll_job(uuid: str) -> Callable[[Connection], Polled]:
    """A query for the statistics of a VM's job, and where there is none any more, for the VM's state.

    libvirt may also refuse the statistics of a job that has just ended; the VM's state is asked for then as well, since it
    alone tells a migration that did not complete from one that may have. The moment is the middle of that one question: looking up the VM before it may wait for a busy daemon, and numbers grow meanwhile.
    """

    def query(connection: Connection) -> Polled:
        domain = connection.lookupByUUIDString(uuid)
        asked = time.time()
        try:
            statistics = domain.jobStats()
        except libvirt.libvirtError as error:
            if error.get_error_code() not in NO_JOB:
                raise
            statistics = {}
        moment = (asked + time.time()) / 2
        state, reason = domain.state() if statistics.get("type", JobType.NONE) == JobType.NONE else (-1, -1)
        return Polled(domain.name(), statistics, state, reason, moment)

    return query


class Position:
    """In which VM a query is that asks many of them, and since when (monotonic seconds).

    The worker's thread writes it and the sampling thread reads it; both values are replaced at once, by one assignment.
    """

    def __init__(self, now: float, uuid: str = "") -> None:
        """In this VM, or in none yet."""
        self.at: tuple[str, float] = (uuid, now)


def find_jobs(uuids: Collection[str], position: Position) -> Callable[[Connection], list[tuple[str, Polled]]]:
    """A query that asks each of these VMs whether it has a job, and returns those that have one.

    One call for all: a poll of each by itself costs the producer several times of what libvirt's answer costs.
    """

    def query(connection: Connection) -> list[tuple[str, Polled]]:
        found = []
        for uuid, domain in domains(connection, uuids).items():
            position.at = uuid, time.monotonic()
            asked = time.time()
            try:
                statistics = domain.jobStats()
            except libvirt.libvirtError:  # it has just ended, or is the destination's side
                if not connection.isAlive():
                    raise
                continue
            if statistics.get("type", JobType.NONE) != JobType.NONE:
                found.append((uuid, Polled(domain.name(), statistics, moment=(asked + time.time()) / 2)))
        return found

    return query


def versions(connection: Connection) -> tuple[str, str]:
    """The versions of libvirt and of the hypervisor; "" for one that libvirt does not say."""
    found = []
    for ask in (connection.getLibVersion, connection.getVersion):
        try:
            found.append(version_words(ask()))
        except libvirt.libvirtError:
            found.append("")
    return found[0], found[1]
