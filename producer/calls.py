"""The calls to libvirt that sampling makes, each a job for a lane: they run in the lane's thread and return plain values."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import libvirt

from virtflow.producer.captive import Looked
from virtflow.producer.clean import REPLACEMENT
from virtflow.producer.health import version_words
from virtflow.producer.merge import Answer, Vm, filled

SAFE_GROUPS: Final = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE
MONITOR_GROUPS: Final = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_VCPU | libvirt.VIR_DOMAIN_STATS_BLOCK
)
NOWAIT: Final = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT

Domain = Any
Connection = Any
"""libvirt's ``virDomain`` and ``virConnect``; the binding has no types."""


class Listed:
    """What the safe call found: every VM of the host, and libvirt's handle of each."""

    __slots__ = ("domains", "vms")

    def __init__(self, records: Iterable[tuple[Domain, dict[str, object]]]) -> None:
        """``records`` are libvirt's."""
        self.vms: dict[str, Vm] = {}
        self.domains: dict[str, Domain] = {}
        for domain, data in records:
            uuid = domain.UUIDString()
            self.vms[uuid] = Vm(uuid, name_of(domain), data)
            self.domains[uuid] = domain


def name_of(domain: Domain) -> str:
    """The VM's name; a mark where it is no text at all."""
    try:
        return str(domain.name())
    except UnicodeDecodeError:
        return REPLACEMENT


def list_vms(connection: Connection) -> Listed:
    """Every VM with the groups that never wait. One VM that makes libvirt fail costs none of the others."""
    try:
        return Listed(connection.getAllDomainStats(SAFE_GROUPS, NOWAIT))
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return Listed(_one_by_one(connection, connection.listAllDomains()))


def _one_by_one(connection: Connection, domains: Iterable[Domain]) -> Iterable[tuple[Domain, dict[str, object]]]:
    found: list[tuple[Domain, dict[str, object]]] = []
    for domain in domains:
        try:
            found += connection.domainListGetStats([domain], SAFE_GROUPS, NOWAIT)
        except libvirt.libvirtError:
            if not connection.isAlive():
                raise
    return found


def ask_monitors(uuids: tuple[str, ...], *, everyone: bool) -> Callable[[Connection], dict[str, dict[str, object]]]:
    """A job that asks these VMs, in this order, for the groups that ask their QEMU: may never return."""

    def job(connection: Connection) -> dict[str, dict[str, object]]:
        if everyone:
            records = connection.getAllDomainStats(MONITOR_GROUPS, NOWAIT)
        else:
            known = {domain.UUIDString(): domain for domain in connection.listAllDomains()}
            chosen = [known[uuid] for uuid in uuids if uuid in known]
            records = connection.domainListGetStats(chosen, MONITOR_GROUPS, NOWAIT) if chosen else []
        return {domain.UUIDString(): data for domain, data in records}

    return job


def look(domains: dict[str, Domain], states: Callable[[list[str]], dict[str, str]]) -> Callable[[Connection], Looked]:
    """A job that looks at VMs without waiting for one: who is occupied for how long, and what ``states`` says of the processes."""

    def job(connection: Connection) -> Looked:
        occupied: dict[str, float] = {}
        for uuid, domain in domains.items():
            if domain.ID() < 0:
                occupied[uuid] = 0.0
                continue
            try:
                state, _, milliseconds = domain.controlInfo()
            except libvirt.libvirtError:  # it has just ended
                if not connection.isAlive():
                    raise
                state, milliseconds = libvirt.VIR_DOMAIN_CONTROL_OK, 0
            occupied[uuid] = max(milliseconds, 1) / 1000 if state == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED else 0.0
        return Looked(occupied, states([uuid for uuid, domain in domains.items() if domain.ID() >= 0]))

    return job


def fill(domains: dict[str, Domain], found: dict[str, Answer], until: float) -> Callable[[Connection], None]:
    """A job that asks for what never waits of these VMs and puts it into ``found`` one by one; stops at ``until``."""

    def job(connection: Connection) -> None:
        for uuid, domain in domains.items():
            began = time.monotonic()
            if began > until:
                return
            try:
                info = domain.info()
                found[uuid] = Answer(filled(tuple(info), domain.vcpus() if domain.ID() >= 0 else None), began, time.time())
            except libvirt.libvirtError:  # it has gone, or is just being started or ended
                if not connection.isAlive():
                    raise

    return job


def read_descriptions(domains: dict[str, Domain], found: dict[str, str], until: float) -> Callable[[Connection], None]:
    """A job that reads the XML of these VMs into ``found`` one by one, "" where it can't be had; stops at ``until``."""

    def job(connection: Connection) -> None:
        for uuid, domain in domains.items():
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


def versions(connection: Connection) -> tuple[str, str]:
    """The versions of libvirt and of the hypervisor; "" for one that is not told."""
    found = []
    for ask in (connection.getLibVersion, connection.getVersion):
        try:
            found.append(version_words(ask()))
        except libvirt.libvirtError:
            found.append("")
    return found[0], found[1]
