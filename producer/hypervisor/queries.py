"""The calls to libvirt that sampling makes, each a job for a lane: they run in the lane's thread and return plain values."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import libvirt
from msgspec import Struct

from virtflow.producer.hung_calls.breaker_types import Looked
from virtflow.producer.records.merge import Answer, Vm, of_info, of_vcpus
from virtflow.producer.records.node_health import version_words
from virtflow.schemas.jobs import JobType
from virtflow.schemas.text import REPLACEMENT

SAFE_GROUPS: Final = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE
MONITOR_GROUPS: Final = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_VCPU | libvirt.VIR_DOMAIN_STATS_BLOCK
)
FEW: Final = 8
"""VMs up to which a look-up of each is cheaper than a list of all."""
NOWAIT: Final = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT

Domain = Any
Connection = Any
"""libvirt's ``virDomain`` and ``virConnect``; the binding has no types."""


class Listed(Struct, frozen=True, gc=False):
    """Every VM of the host by its UUID, in libvirt's order."""

    vms: dict[str, Vm]


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


def list_vms(connection: Connection) -> Listed:
    """Every VM with the groups that never wait. One VM that makes libvirt fail costs none of the others."""
    try:
        return _listed(connection.getAllDomainStats(SAFE_GROUPS, NOWAIT))
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return _listed(_one_by_one(connection, connection.listAllDomains()))


def _one_by_one(connection: Connection, domains: Iterable[Domain]) -> Iterable[tuple[Domain, dict[str, object]]]:
    found: list[tuple[Domain, dict[str, object]]] = []
    for domain in domains:
        try:
            found += connection.domainListGetStats([domain], SAFE_GROUPS, NOWAIT)
        except libvirt.libvirtError:
            if not connection.isAlive():
                raise
    return found


def ask_everyone(connection: Connection) -> Listed:
    """Every VM with all groups in one call, which is what a round costs while all is well: may never return."""
    return _listed(connection.getAllDomainStats(SAFE_GROUPS | MONITOR_GROUPS, NOWAIT))


def ask_monitors(uuids: tuple[str, ...]) -> Callable[[Connection], dict[str, dict[str, object]]]:
    """A job that asks these VMs, in this order, for the groups that ask their QEMU: may never return."""

    def job(connection: Connection) -> dict[str, dict[str, object]]:
        known = domains(connection, uuids)
        chosen = [known[uuid] for uuid in uuids if uuid in known]
        records = connection.domainListGetStats(chosen, MONITOR_GROUPS, NOWAIT) if chosen else []
        return {domain.UUIDString(): data for domain, data in records}

    return job


def look(uuids: Collection[str], states: Callable[[list[str]], dict[str, str]]) -> Callable[[Connection], Looked]:
    """A job that looks at VMs without waiting for one: who is occupied for how long, and what ``states`` says of the processes."""

    def job(connection: Connection) -> Looked:
        known = domains(connection, uuids)
        occupied = {uuid: _occupied_seconds(connection, domain) for uuid, domain in known.items()}
        return Looked(occupied, states([uuid for uuid, domain in known.items() if domain.ID() >= 0]))

    return job


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


def fill(uuids: Collection[str], found: dict[str, Answer], until: float) -> Callable[[Connection], None]:
    """A job that asks for what never waits of these VMs and puts it into ``found`` as it comes; stops at ``until``.

    First the VMs' CPU time and memory, then their vCPUs: where time is short, each VM has the more important half.
    """

    def job(connection: Connection) -> None:
        known = domains(connection, uuids)
        for uuid, domain in known.items():
            began, started = time.monotonic(), time.time()
            if began > until:
                return
            if (info := _tried(connection, domain.info)) is not None:
                found[uuid] = Answer(of_info(info, running=domain.ID() >= 0), began, started)
        for uuid, domain in known.items():
            if time.monotonic() > until:
                return
            before = found.get(uuid)
            if before is not None and domain.ID() >= 0 and (vcpus := _tried(connection, domain.vcpus)) is not None:
                found[uuid] = Answer(before.data | of_vcpus(vcpus[0]), before.began, before.started)

    return job


def _tried(connection: Connection, ask: Callable[[], Any]) -> Any:  # noqa: ANN401, the binding has no types
    """What a call about one VM says; None when the VM has gone, or is just being started or ended."""
    try:
        return ask()
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return None


def read_descriptions(uuids: Collection[str], found: dict[str, str], until: float) -> Callable[[Connection], None]:
    """A job that reads the XML of these VMs into ``found`` one by one, "" where it can't be had; stops at ``until``."""

    def job(connection: Connection) -> None:
        for uuid, domain in domains(connection, uuids).items():
            if time.monotonic() > until:
                return
            try:
                found[uuid] = domain.XMLDesc(0)
            except UnicodeDecodeError:
                found[uuid] = ""
            except libvirt.libvirtError:
                if not connection.isAlive():
                    raise
                found[uuid] = ""

    return job


class Polled(Struct, frozen=True, gc=False):
    """What a poll of a VM's job brought: libvirt's statistics of it and their ``moment`` (Unix seconds); without a job the VM's state."""

    name: str = ""
    statistics: dict[str, Any] = {}
    state: int = -1
    reason: int = -1
    moment: float = float("nan")


def poll_job(uuid: str, *, known: bool) -> Callable[[Connection], Polled]:
    """A job that asks for the statistics of a VM's job, and where a job is ``known`` but not there, for the VM's state.

    The moment is the middle of that one question: looking up the VM before it may wait for a busy daemon, and numbers grow meanwhile.
    """

    def job(connection: Connection) -> Polled:
        domain = connection.lookupByUUIDString(uuid)
        asked = time.time()
        statistics = domain.jobStats()
        moment = (asked + time.time()) / 2
        state, reason = domain.state() if known and statistics.get("type", 0) == JobType.NONE else (-1, -1)
        return Polled(domain.name(), statistics, state, reason, moment)

    return job


def versions(connection: Connection) -> tuple[str, str]:
    """The versions of libvirt and of the hypervisor; "" for one that is not told."""
    found = []
    for ask in (connection.getLibVersion, connection.getVersion):
        try:
            found.append(version_words(ask()))
        except libvirt.libvirtError:
            found.append("")
    return found[0], found[1]


def versions_at(uri: str) -> tuple[str, str]:
    """The same by a connection of its own: libvirt may take seconds to look at its QEMU the first time, and nothing waits for that."""
    try:
        connection = libvirt.openReadOnly(uri)
        try:
            return versions(connection)
        finally:
            connection.close()
    except libvirt.libvirtError:
        return "", ""
