"""What can be found out about this host's libvirt without asking a single VM's monitor: for ``virtflow doctor``.

Every call made here is one that never waits for a VM, on a connection of its own that is given up at its deadline. So an examination
captures no call, whatever hangs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

import libvirt

from virtflow.producer.agent.domain_xml import look_of
from virtflow.producer.hung_calls.breaker_types import STOPPED
from virtflow.producer.hypervisor.connection import Job, Lane, start_event_loop
from virtflow.producer.hypervisor.mailbox import Call, Inbox, Opened, OpenFailed
from virtflow.producer.hypervisor.qemu_processes import Processes
from virtflow.producer.hypervisor.queries import Connection, domains, list_vms, look, versions
from virtflow.producer.hypervisor.subscriptions import KINDS, register
from virtflow.producer.records.domain_xml import IndescribableError, inventory
from virtflow.runtime.settings import Settings
from virtflow.schemas.text import printable

HELD_SECONDS: Final = 1.0
"""A VM that is occupied for longer than that is held by a call that does not come back."""
TURN_SECONDS: Final = 0.2


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
        """Whether a call into it does not come back."""
        return self.occupied_seconds >= HELD_SECONDS

    @property
    def stuck(self) -> bool:
        """Whether it answers nobody."""
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


def examine(settings: Settings, processes: Processes | None = None) -> Examined:
    """Look at the host; takes twice ``connect_timeout_seconds`` at most."""
    start_event_loop()
    found = Examined(settings.libvirt.uri)
    inbox, limit = Inbox(), settings.libvirt.connect_timeout_seconds
    lane = Lane("examine", settings.libvirt, inbox)
    opened = _awaited(inbox, limit)
    if isinstance(opened, OpenFailed):
        found.problem = str(opened.error)
    elif not isinstance(opened, Opened):
        found.problem = f"no answer within {limit:g} s"
    else:
        call = lane.submit("examine", _all(found, processes or Processes(), Inbox()))
        answer = _awaited(inbox, limit)
        if not isinstance(answer, Call):
            found.problem = f"connected, but calls are not answered within {limit:g} s: all of libvirtd's workers may be taken"
        elif call.error is not None:
            found.problem = str(call.error)
        lane.retire()
    return found


def _awaited(inbox: Inbox, seconds: float) -> Any:  # noqa: ANN401, whatever comes
    """The next message, or None; in short waits, so that Ctrl-C is heard."""
    until, message = time.monotonic() + seconds, None
    while message is None and (now := time.monotonic()) < until:
        message = inbox.take(min(until, now + TURN_SECONDS))
    return message


def _all(found: Examined, processes: Processes, events: Inbox) -> Job:
    def job(connection: Connection) -> None:
        begin = time.monotonic()
        listed = list_vms(connection)
        found.seconds = time.monotonic() - begin
        found.libvirt_version, found.hypervisor_version = versions(connection)
        found.event_kinds = register(connection, events)
        looked = look(listed.vms, processes.states)(connection)
        known = domains(connection, listed.vms)
        for uuid, domain in known.items():
            vm = listed.vms[uuid]
            storage, lacks = _described(uuid, domain)
            found.vms.append(
                ExaminedVm(
                    uuid,
                    printable(vm.name),
                    domain.ID() >= 0,
                    looked.occupied.get(uuid, 0.0),
                    looked.processes.get(uuid, ""),
                    storage,
                    lacks_statistics_period=lacks,
                )
            )

    return job


def _described(uuid: str, domain: Any) -> tuple[tuple[str, ...], bool]:  # noqa: ANN401, libvirt's virDomain
    """Where the VM's disks lie, and whether its balloon has no statistics period; nothing where the XML can't be had."""
    try:
        xml = domain.XMLDesc(0)
        disks = inventory(uuid, "", xml).disks
    except (libvirt.libvirtError, UnicodeDecodeError, IndescribableError):
        return (), False
    return tuple(disk.source for disk in disks if disk.source), lacks_statistics_period(xml)


def lacks_statistics_period(xml: str) -> bool:
    """Whether the guest's memory statistics are missing or frozen because libvirt never asks the balloon driver for them."""
    look = look_of(xml)
    return look.balloon and not look.period_seconds
