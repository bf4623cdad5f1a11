"""What can be found out about this host's libvirt without asking a single VM's monitor: for ``virtflow doctor``.

Every call made here is one that never waits for a VM on this version of libvirt, on a connection that is given up at its deadline. So an
examination leaves no hung call behind, whatever hangs. Slow questions (versions, XML) go by a second connection: what they lack at the
deadline is missing from the result, and the rest stands.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Final

from virtflow.producer.hypervisor.call_safety import LibvirtCall, may_wait, stats_groups
from virtflow.producer.hypervisor.connection import Connection, Opener, Worker
from virtflow.producer.hypervisor.mailbox import Inbox
from virtflow.producer.hypervisor.messages import Message, Opened, OpenFailed, Progress, Query, Returned
from virtflow.producer.hypervisor.qemu_processes import Processes
from virtflow.producer.hypervisor.queries import check_health, domains, list_vms, read_xml, versions
from virtflow.producer.hypervisor.subscriptions import KINDS, register
from virtflow.producer.records.domain_xml import IndescribableError, inventory
from virtflow.producer.records.guest_devices import look_of
from virtflow.producer.records.node_health import version_words
from virtflow.producer.types import STOPPED, HealthCheck, Listed
from virtflow.runtime.secrets import plain_url
from virtflow.runtime.settings import Settings
from virtflow.schemas.text import printable

HELD_SECONDS: Final = 1.0
"""A VM that is occupied for longer than that has a hung call in it."""
TURN_SECONDS: Final = 0.2
EXAMINE, DETAILS = 1, 2
"""The two connections, and the calls on them."""


@dataclass(frozen=True, slots=True)
class ExaminedVm:
    """One VM: for how long its monitor has been occupied (seconds, 0: it is not), its process's state ("": not seen), its storage."""

    uuid: str
    name: str
    running: bool
    occupied_seconds: float = 0.0
    process: str = ""
    storage: tuple[str, ...] = ()
    lacks_statistics_period: bool = False

    @property
    def held(self) -> bool:
        """Whether a call hangs in it."""
        return self.occupied_seconds >= HELD_SECONDS

    @property
    def stuck(self) -> bool:
        """Whether it does not answer."""
        return self.held or self.process in STOPPED


@dataclass(slots=True)
class Examined:
    """What was found: ``problem`` says in libvirt's words why there is nothing, "" when libvirt answered."""

    uri: str
    problem: str = ""
    seconds: float = 0.0
    libvirt_version: str = ""
    hypervisor_version: str = ""
    event_kinds: int = 0
    event_kinds_wanted: int = len(KINDS)
    vms: list[ExaminedVm] = field(default_factory=list)

    def add(self, other: Examined) -> None:
        """Take in what another daemon of the host said: its VMs, the longest time, the fewest kinds of events, every version once."""
        self.vms += other.vms
        self.seconds = max(self.seconds, other.seconds)
        self.event_kinds = min(self.event_kinds or other.event_kinds, other.event_kinds)
        self.libvirt_version = _each_once(self.libvirt_version, other.libvirt_version)
        self.hypervisor_version = _each_once(self.hypervisor_version, other.hypervisor_version)


def _each_once(versions: str, version: str) -> str:
    return ", ".join(sorted({*versions.split(", "), version} - {""}))


@dataclass(frozen=True, slots=True)
class _Looked:
    """What the calls that are quick say: the list and how long it took, which VMs run, the health check, the kinds of events."""

    listed: Listed
    seconds: float
    running: frozenset[str]
    health: HealthCheck
    event_kinds: int


def examine(settings: Settings, processes: Processes | None = None, opener: Opener | None = None) -> Examined:
    """Look at the host; takes about three times ``connect_timeout_seconds`` at most."""
    opener = opener or Opener(settings.libvirt)
    found, limit = Examined(plain_url(settings.libvirt.uri)), settings.libvirt.connect_timeout_seconds
    inbox = Inbox()
    worker = Worker(EXAMINE, "examine", opener, inbox)
    opened = _awaited(inbox, limit)
    if isinstance(opened, OpenFailed):
        found.problem = opened.error
    elif not isinstance(opened, Opened):
        found.problem = f"no answer within {limit:g} s"
    else:
        found.libvirt_version = version_words(opened.libvirt_version)
        worker.submit(EXAMINE, _looking(opened.libvirt_version, processes or process_table(settings)))
        answer = _awaited(inbox, limit)
        if not isinstance(answer, Returned):
            found.problem = f"connected, but a list of VMs is not answered within {limit:g} s: all of libvirtd's workers may be taken"
        elif answer.error is not None:
            found.problem = str(answer.error)
        else:
            _describe(found, answer.result, opened.libvirt_version, _Details(opener, limit))
        worker.retire()
    return found


def process_table(settings: Settings) -> Processes:
    """The host's processes. Who looks once waits longer for them than who looks each round, and less than libvirt's answer is waited for."""
    return Processes(scan_seconds=settings.libvirt.connect_timeout_seconds / 2)


def _awaited(inbox: Inbox, seconds: float) -> Message | None:
    """The next message, or None; in short waits, so that Ctrl-C is heard."""
    until, message = time.monotonic() + seconds, None
    while message is None and (now := time.monotonic()) < until:
        message = inbox.take(min(until, now + TURN_SECONDS))
    return message


def _looking(version: int, processes: Processes) -> Query:
    def query(connection: Connection) -> _Looked:
        begin = time.monotonic()
        # Without the interfaces: Open vSwitch, which libvirt asks for a vhost-user NIC's, may be what is slow.
        listed = list_vms(stats_groups(version, vhost_user=True))(connection)
        seconds = time.monotonic() - begin
        events = register(connection, Inbox())
        events.end()
        health = check_health(listed.vms, processes.states)(connection)
        running = frozenset(uuid for uuid, domain in domains(connection, listed.vms).items() if domain.ID() >= 0)
        return _Looked(listed, seconds, running, health, len(events.callbacks))

    return query


class _Details:
    """The slow questions, by a connection of their own; what has not come at the deadline is missing."""

    def __init__(self, opener: Opener, seconds: float) -> None:
        """Begin to connect."""
        self._inbox = Inbox()
        self._worker = Worker(DETAILS, "details", opener, self._inbox)
        self._until = time.monotonic() + seconds

    def ask(self, uuids: list[str]) -> tuple[dict[str, str], str]:
        """The XML of these VMs as far as it can be had, and the hypervisor's version, "" where it is not known."""
        xml: dict[str, str] = {}
        hypervisor = ""
        while (message := _awaited(self._inbox, self._until - time.monotonic())) is not None:
            match message:
                case Opened():
                    self._worker.submit(EXAMINE, read_xml(uuids, self._until))
                    self._worker.submit(DETAILS, versions)
                case Progress(uuid=uuid, value=text):
                    xml[uuid] = text
                case Returned(call=call, result=result) if call == DETAILS:
                    hypervisor = result[1] if result else ""
                    break
                case OpenFailed():
                    break
                case _:
                    pass
        self._worker.retire()
        return xml, hypervisor


def _describe(found: Examined, looked: _Looked, version: int, details: _Details) -> None:
    found.seconds, found.event_kinds = looked.seconds, looked.event_kinds
    vms = [
        ExaminedVm(
            uuid,
            printable(vm.name),
            uuid in looked.running,
            looked.health.occupied.get(uuid, 0.0),
            looked.health.processes.get(uuid, ""),
        )
        for uuid, vm in looked.listed.vms.items()
    ]
    waits = may_wait(LibvirtCall.XML, version)
    xml, found.hypervisor_version = details.ask([vm.uuid for vm in vms if not (waits and (vm.stuck or vm.occupied_seconds))])
    found.vms = [_with_xml(vm, xml.get(vm.uuid, "")) for vm in vms]


def _with_xml(vm: ExaminedVm, xml: str) -> ExaminedVm:
    """The VM with where its disks lie, and whether its balloon has no statistics period; as it is where the XML can't be had."""
    try:
        disks = inventory(vm.uuid, "", xml).disks
    except IndescribableError:
        return vm
    storage = tuple(disk.source for disk in disks if disk.source)
    return replace(vm, storage=storage, lacks_statistics_period=lacks_statistics_period(xml))


def lacks_statistics_period(xml: str) -> bool:
    """Whether the guest's memory statistics are missing or frozen because libvirt never asks the balloon driver for them."""
    look = look_of(xml)
    return look.balloon and not look.period_seconds
