"""The table of calls that may wait for a VM, measured on a real libvirtd: each call that the producer makes, into VMs that do not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from tests.support.lab import Guest, Lab, Node, await_true
from tests.support.lab_process import Process
from tests.support.lab_release import releases
from virtflow.producer.hypervisor import call_safety, qemu_events
from virtflow.producer.hypervisor.call_safety import MEASURED, LibvirtCall, may_wait
from virtflow.producer.hypervisor.connection import open_read_only, start_event_loop
from virtflow.producer.hypervisor.queries import NOWAIT
from virtflow.producer.hypervisor.status_files import StatusFiles

RELEASES = releases(every_run=True)
WAITS_SECONDS = 10.0
"""A call that has not returned by then waits: for the VM's lock it is 30 s, for its QEMU without limit. The others take milliseconds."""
SLOW_SECONDS = 15.0
"""So much longer a call that is believed safe may take on a machine with too much to do, before it is said that it waits."""
HANGING_SECONDS = 120.0

Connection = Any
Domain = Any


def of_domain(call: LibvirtCall, connection: Connection, domain: Domain) -> object:
    """Make the call, as the producer does."""
    match call:
        case LibvirtCall.LIST:
            return connection.listAllDomains()
        case LibvirtCall.LOOKUP:
            return connection.lookupByUUIDString(domain.UUIDString())
        case LibvirtCall.XML:
            return domain.XMLDesc(0)
        case _ if call.name.startswith("GROUP_"):
            return connection.domainListGetStats([domain], getattr(libvirt, call.value), NOWAIT)
        case _:
            return getattr(domain, call.value)()


class Timed:
    """A call in a thread of its own, on a connection of its own."""

    def __init__(self, uri: str, guest: Guest, call: LibvirtCall) -> None:
        """Connected; nothing is asked before ``start``."""
        self.call = call
        self._connection = open_read_only(uri)
        self._domain = self._connection.lookupByUUIDString(guest.uuid)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Make the call."""
        self._thread.start()

    def waits(self, until: float) -> bool:
        """Whether the call has not returned at that moment (monotonic seconds)."""
        self._thread.join(max(0.0, until - time.monotonic()))
        return self._thread.is_alive()

    def close(self) -> None:
        """The VM answers again: so does the call."""
        self._thread.join(HANGING_SECONDS)
        assert not self._thread.is_alive(), f"{self.call} has never returned"
        self._connection.close()

    def _run(self) -> None:
        try:
            of_domain(self.call, self._connection, self._domain)
        except libvirt.libvirtError:  # the VM's lock could not be had, after a while
            return


@pytest.fixture(scope="module")
def node(release: str) -> Iterator[Node]:
    """One host, whose daemon has probed its QEMUs.

    It does so once in its life, where CPU_TOTAL, the domain XML or its capabilities are first asked for, and holds that VM's lock meanwhile:
    a second on an idle machine in which every call into that VM is late, though the VM is not what it waits for.
    """
    with Lab(1, release) as lab:
        connection = open_read_only(lab.nodes[0].socket_uri)
        connection.getCapabilities()
        connection.close()
        yield lab.nodes[0]


@pytest.fixture(scope="module")
def version(node: Node) -> int:
    """Its libvirt's own number."""
    connection = open_read_only(node.socket_uri)
    number: int = connection.getLibVersion()
    connection.close()
    return number


@pytest.fixture(scope="module")
def waiting(node: Node, version: int) -> dict[LibvirtCall, bool]:
    """Of each call whether it waited: as the first one into a stopped VM, or in a VM in which another call hangs."""
    untouched = dict(zip(LibvirtCall, node.load_paused(len(LibvirtCall), "untouched"), strict=True))
    (occupied,) = node.load_paused(1, "occupied")
    first = [Timed(node.socket_uri, guest, call) for call, guest in untouched.items()]
    later = [Timed(node.socket_uri, occupied, call) for call in LibvirtCall]
    occupier = Timed(node.socket_uri, occupied, LibvirtCall.GROUP_BLOCK)
    everyone = [*untouched.values(), occupied]
    node.freeze(*everyone)
    try:
        occupier.start()
        await_true(lambda: node.hung_calls() == 1, HANGING_SECONDS, "a call hangs in the VM")
        found = dict.fromkeys(LibvirtCall, False)
        for timed in (later, first):  # one after the other, so that the daemon's workers suffice
            for one in timed:
                one.start()
            until = time.monotonic() + WAITS_SECONDS
            for one in timed:
                found[one.call] |= one.waits(until if may_wait(one.call, version) else until + SLOW_SECONDS)
    finally:
        node.thaw(*everyone)
        for one in (occupier, *first, *later):
            one.close()
    return found


def wrong(waiting: dict[LibvirtCall, bool], version: int) -> list[str]:
    """The calls of which the table says something else than was measured.

    On a version that the table does not know it may say of a safe call that it waits, but not the other way round.
    """
    known = MEASURED[0] <= version <= MEASURED[-1]
    return [call.name for call, waited in waiting.items() if waited != may_wait(call, version) and (known or waited)]


def test_the_table_says_what_waits(waiting: dict[LibvirtCall, bool], version: int) -> None:
    """Each call of the producer, on this release's libvirt."""
    assert wrong(waiting, version) == []


@pytest.mark.parametrize("call", LibvirtCall)
def test_a_wrong_row_is_found(call: LibvirtCall, waiting: dict[LibvirtCall, bool], version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whichever call the table were to say the opposite."""
    opposite = None if waiting[call] else 0
    rows = call_safety.TABLE | {call: replace(call_safety.TABLE[call], waits_from=opposite, ever_took_job=False)}
    monkeypatch.setattr(call_safety, "TABLE", rows)
    assert wrong(waiting, version) == [call.name] or not MEASURED[0] <= version <= MEASURED[-1]


def test_what_is_asked_of_every_vm_never_waits(waiting: dict[LibvirtCall, bool], node: Node, version: int) -> None:
    """The list of all VMs with its groups, which is in every round, while calls hang in VMs."""
    del waiting  # the VMs are there, and answer again
    guests = node.load_paused(3, "listed")
    node.freeze(*guests)
    connection = open_read_only(node.socket_uri)
    try:
        begin = time.monotonic()
        connection.getAllDomainStats(call_safety.stats_groups(version).safe, NOWAIT)
        assert time.monotonic() - begin < WAITS_SECONDS
    finally:
        node.thaw(*guests)
        connection.close()


def of_daemon(uri: str) -> Iterator[tuple[str, float]]:
    """Make each call that asks the daemon and no VM, as the producer does: its name, and the seconds that it took."""
    begin = 0.0

    def ask(call: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401, what libvirt says
        nonlocal begin
        begin = time.monotonic()
        return call(*arguments)

    def took(name: str) -> tuple[str, float]:
        return name, time.monotonic() - begin

    start_event_loop()
    connection = ask(libvirt.openReadOnly, uri)
    yield took("openReadOnly")
    writing = ask(libvirt.open, uri)
    yield took("open")
    for name, *arguments in (("setKeepAlive", 5, 3), ("getLibVersion",), ("getVersion",)):
        ask(getattr(connection, str(name)), *arguments)
        yield took(str(name))
    callback = ask(connection.domainEventRegisterAny, None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda *_: None, None)
    yield took("domainEventRegisterAny")
    ask(connection.domainEventDeregisterAny, callback)
    yield took("domainEventDeregisterAny")
    callback = ask(libvirt_qemu.qemuMonitorEventRegister, writing, None, qemu_events.EVENT, lambda *_: None, None, 0)
    yield took("qemuMonitorEventRegister")
    ask(libvirt_qemu.qemuMonitorEventDeregister, writing, callback)
    yield took("qemuMonitorEventDeregister")
    for each in (connection, writing):
        ask(each.close)
        yield took("close")


def test_what_is_asked_of_the_daemon_waits_for_no_vm(waiting: dict[LibvirtCall, bool], node: Node) -> None:
    """Connections and versions, while a call hangs in a stopped VM."""
    del waiting  # the VMs are there, and answer again
    (guest,) = node.load_paused(1, "beside")
    occupier, seconds = Timed(node.socket_uri, guest, LibvirtCall.GROUP_BLOCK), dict[str, float]()
    asker = threading.Thread(target=lambda: seconds.update(of_daemon(node.socket_uri)), daemon=True)
    node.freeze(guest)
    try:
        occupier.start()
        await_true(lambda: node.hung_calls() == 1, HANGING_SECONDS, "a call hangs in the VM")
        asker.start()
        asker.join(WAITS_SECONDS + SLOW_SECONDS)
    finally:
        node.thaw(guest)
        occupier.close()
    assert seconds.keys() == call_safety.OF_DAEMON
    assert max(seconds.values()) < WAITS_SECONDS


def test_a_vm_s_status_is_saved_when_a_job_begins(node: Node) -> None:
    """Seen in the folder that the producer looks at, though the job can't get on; another VM's file stays as it is."""
    dumped, other = node.load_paused(2, "saved")
    files = StatusFiles(node.folder / "run" / "qemu")
    before = files.read() or {}
    assert {dumped.name, other.name} <= before.keys()
    node.freeze(dumped)
    command = node.virsh_command("dump", "--memory-only", dumped.uuid, str(node.folder / "dump"))
    dump = Process(command, node.folder / "dump.log")
    try:
        await_true(lambda: (files.read() or {})[dumped.name] > before[dumped.name], WAITS_SECONDS, "the status is saved")
        assert (files.read() or {})[other.name] == before[other.name]
    finally:
        node.thaw(dumped)
        dump.stop()
