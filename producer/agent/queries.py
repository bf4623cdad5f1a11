"""The libvirt calls of the helper process, one function per command. Only that process imports this module.

A guest-agent call is made with a response timeout; without one libvirt waits indefinitely. The timeout belongs to the VM and affects all
callers, so it is reset to libvirt's default afterwards: a backup that freezes filesystems has all the time it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import libvirt

from virtflow.producer.agent.answers import address_of_interfaces, cpus_of, sample_of
from virtflow.producer.agent.ipc import AGENT, LISTED_VMS, Command, Listed, Start
from virtflow.producer.records.guest_devices import look_of
from virtflow.schemas.guest import AddressSource
from virtflow.schemas.text import printable

Connection = Any
Domain = Any
"""libvirt's ``virConnect`` and ``virDomain``; the binding has no types."""

Found = dict[str, Any]
"""The fields of the ``Answered`` that a call leads to."""

LOAD_SINCE: Final = 11_002_000
"""The libvirt that tells the guest's load; the numbers are libvirt's own (source: its reference)."""
LOAD_TYPE: Final = 1 << 7
MONITOR_FREE: Final = 0


class NotSafeError(Exception):
    """A call that would wait for the VM's QEMU was not made: QEMU may not answer, or there is nothing to do."""


class NothingToldError(Exception):
    """The call returned without an error and without data: libvirt's way to report a timeout (measured on 9.0)."""


def commands_of(connection: Connection) -> list[Command]:
    """The commands that the daemon supports."""
    return [command for command in Command if command is not Command.LOAD or connection.getLibVersion() >= LOAD_SINCE]


def call(connection: Connection, start: Start, command: Command, uuid: str) -> Found:
    """Makes the call; raises libvirt's error, ``NothingToldError``, or the exception of the Python binding for an answer that it can't parse."""
    if command is Command.LIST:
        return {"vms": _list(connection)}
    domain = connection.lookupByUUIDString(uuid)
    if command not in AGENT:
        return _CALLS[command](domain, start)
    domain.agentSetResponseTimeout(start.timeout_seconds, 0)
    try:
        return _CALLS[command](domain, start)
    finally:
        with suppress(libvirt.libvirtError):
            domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)


def _list(connection: Connection) -> list[Listed]:
    running = {domain.UUIDString() for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING)}
    found = [(domain.UUIDString(), domain) for domain in connection.listAllDomains(0)[:LISTED_VMS]]
    return [Listed(uuid, _name(domain), uuid in running) for uuid, domain in found]


def _name(domain: Domain) -> str:
    try:
        return printable(domain.name())
    except UnicodeDecodeError:
        return ""


def _info(types: int) -> Callable[[Domain, Start], Found]:
    def ask(domain: Domain, start: Start) -> Found:
        if not (info := domain.guestInfo(types, 0)):
            raise NothingToldError
        return {"sample": sample_of(info, pseudo=start.pseudo_filesystems, containers=start.container_filesystems)}

    return ask


def _cpus(domain: Domain, start: Start) -> Found:
    del start
    return {"sample": cpus_of(domain.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST))}


def _addresses(number: int, source: AddressSource) -> Callable[[Domain, Start], Found]:
    def ask(domain: Domain, start: Start) -> Found:
        del start
        return {"sample": address_of_interfaces(domain.interfaceAddresses(number, 0), source)}

    return ask


def _look(domain: Domain, start: Start) -> Found:
    del start
    return {"look": look_of(domain.XMLDesc(0))}


def _period(domain: Domain, start: Start) -> Found:
    """Sets the balloon's statistics period of the running VM only; a period that was set meanwhile stays."""
    look = look_of(domain.XMLDesc(0))
    if not look.balloon or look.period_seconds or domain.controlInfo(0)[0] != MONITOR_FREE:
        raise NotSafeError
    domain.setMemoryStatsPeriod(start.period_seconds, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    return {}


def _memory(domain: Domain, start: Start) -> Found:
    """Whether the guest has a balloon driver; called only after the VM's agent has just answered, so that its QEMU answers, too."""
    del start
    if domain.controlInfo(0)[0] != MONITOR_FREE:
        raise NotSafeError
    return {"balloon_driver": not {"available", "unused"}.isdisjoint(domain.memoryStats())}


_CALLS: Final[Mapping[Command, Callable[[Domain, Start], Found]]] = {
    Command.OS: _info(libvirt.VIR_DOMAIN_GUEST_INFO_OS),
    Command.HOSTNAME: _info(libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME),
    Command.FILESYSTEMS: _info(libvirt.VIR_DOMAIN_GUEST_INFO_FILESYSTEM),
    Command.INTERFACES: _info(libvirt.VIR_DOMAIN_GUEST_INFO_INTERFACES),
    Command.CPUS: _cpus,
    Command.LOAD: _info(LOAD_TYPE),
    Command.LOOK: _look,
    Command.LEASE: _addresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, AddressSource.LEASE),
    Command.ARP: _addresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP, AddressSource.ARP),
    Command.PERIOD: _period,
    Command.MEMORY: _memory,
}
