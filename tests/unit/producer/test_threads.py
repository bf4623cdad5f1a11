"""Every structure that threads share, used by all of them at once while threads are switched every microsecond: see docs/threads.md."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from tests.support.torn import at_every_instruction, at_every_line
from virtflow.producer.agent import cache, scheduler, supervisor
from virtflow.producer.agent.ipc import Answered, Command, Listed, Up
from virtflow.producer.agent.poll_cycle import Down, Ticked
from virtflow.producer.agent.supervisor import GuestAgents
from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.producer.hypervisor import qemu_events
from virtflow.producer.hypervisor.mailbox import Inbox
from virtflow.producer.hypervisor.messages import OpenFailed
from virtflow.producer.hypervisor.qemu_events import QemuStatus
from virtflow.producer.hypervisor.qemu_processes import Processes
from virtflow.producer.publishing.events import EventPublisher
from virtflow.producer.publishing.snapshots import Publisher
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime import threads
from virtflow.runtime.settings import Guest, Producer, Settings
from virtflow.runtime.threads import Owner, WrongThreadError
from virtflow.schemas.records import GuestSample, NodeHealth, NodeSnapshot

TURNS = 300
TORN_TURNS = 15
SCHEDULE_TURNS = 7
VMS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(20)]


@pytest.fixture(autouse=True)
def torn() -> Iterator[None]:
    """Threads are switched every microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*uses: Callable[[], object], turns: int = TURNS) -> None:
    """Each use over and over in a thread of its own until the first has had its turns; the first error of any is raised."""
    errors: list[BaseException] = []
    over = threading.Event()

    def repeat(use: Callable[[], object], *, leads: bool) -> None:
        try:
            for turn in itertools.count():
                if over.is_set() or (leads and turn >= turns):
                    return
                use()
        except BaseException as error:  # noqa: BLE001, raised again in the test's own thread
            errors.append(error)
        finally:
            if leads:
                over.set()

    running = [threading.Thread(target=repeat, args=(use,), kwargs={"leads": not number}) for number, use in enumerate(uses)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]


def test_the_guest_agents_schedule() -> None:
    """Its own thread lets VMs come and go, calls be lost and the process die; the sampling thread asks how they are all the time."""
    settings = Settings(guest=Guest(enabled=True, cycle_seconds=1.0))
    guests = GuestAgents(settings, CallBudget(3))
    numbers = itertools.count()
    clock = itertools.count(0.0, 1.5)

    def observe() -> None:
        turn, now = next(numbers), next(clock)
        guests._observe(Up(list(Command)), now)
        for number in range(3 * turn, 3 * turn + 12):
            uuid = VMS[(turn + number) % len(VMS)]
            vms = [Listed(one, one, running=True) for one in VMS[turn % 7 :]]
            guests._observe(Answered(number, now, 0.1, vms=vms, sample=GuestSample(hostname=uuid, cut=0, dropped=0)), now)
        guests._observe(Ticked(), now)
        if turn % 3 == 0:
            guests._observe(Down(struck=False), now)
        with guests._lock:
            guests._counted[f"reason {turn}"] += 1
        guests._report()

    with at_every_line(supervisor, scheduler, cache):
        together(observe, guests.samples, guests.health, guests.vms, lambda: guests.lost, turns=SCHEDULE_TURNS)


def test_the_inbox() -> None:
    """Nothing is lost, and what one thread puts stays in its order."""
    inbox = Inbox()
    counters = [itertools.count() for _ in range(3)]
    taken: list[OpenFailed] = []

    def put(own: int) -> Callable[[], None]:
        return lambda: inbox.put(OpenFailed(own, str(next(counters[own]))))

    def take() -> None:
        message = inbox.take(0.0)
        if isinstance(message, OpenFailed):
            taken.append(message)

    together(*(put(own) for own in range(3)), take)
    while (message := inbox.take(0.0)) is not None:
        assert isinstance(message, OpenFailed)
        taken.append(message)
    for own, counter in enumerate(counters):
        assert [int(one.error) for one in taken if one.worker == own] == list(range(next(counter)))


def test_the_process_table(tmp_path: Path) -> None:
    """Two workers may check the VMs' health: one that was given up may still be at it. Processes come and go meanwhile."""
    processes, turns = Processes(tmp_path), itertools.count()

    def come_and_go() -> None:
        turn = next(turns)
        folder = tmp_path / str(41 + turn % 5)
        folder.mkdir(exist_ok=True)
        (folder / "cmdline").write_bytes(b"\0".join([b"qemu-kvm", b"-uuid", VMS[turn % 5].encode(), b""]))
        (folder / "stat").write_text(f"1 (kvm) S {'1 ' * 18}{turn % 3} 0 0\n")
        processes._next_scan = 0.0

    def look() -> None:
        assert set(processes.states(VMS[:5]).values()) <= {"S"}

    together(come_and_go, look, look)


class Daemon:
    """It takes connections, and lets two of three be listened to; which of them are open, and which are registered."""

    def __init__(self) -> None:
        """Nobody has connected."""
        self.refuses = True
        self.open: set[Connection] = set()
        self.registered: set[Connection] = set()
        self._numbers = itertools.count()

    def connect(self, uri: str) -> Connection:
        assert uri == "qemu:///system"
        connection = Connection(self)
        self.open.add(connection)
        return connection

    def register(self, connection: Connection, *arguments: object) -> int:
        assert len(arguments) == 5
        number = next(self._numbers)
        if self.refuses and number % 3 == 1:
            raise libvirt.libvirtError("operation forbidden")
        assert connection in self.open
        self.registered.add(connection)
        return number

    def deregister(self, connection: Connection, callback: int) -> None:
        assert callback >= 0
        self.registered.remove(connection)


class Connection:
    """One of that daemon's."""

    def __init__(self, daemon: Daemon) -> None:
        """Open."""
        self._daemon = daemon

    def close(self) -> None:
        self._daemon.open.remove(self)


def test_the_listening_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers may open at a time, and one may be refused: at most one connection listens at the end, and all others are closed once."""
    daemon, status = Daemon(), QemuStatus("qemu:///system", Inbox())
    monkeypatch.setattr(libvirt, "open", daemon.connect)
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorEventRegister", daemon.register)
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorEventDeregister", daemon.deregister)
    with at_every_instruction(qemu_events):
        together(status.listen, status.listen, turns=TORN_TURNS)
    assert daemon.open == daemon.registered
    assert len(daemon.open) <= 1
    daemon.refuses = False
    status.listen()
    status.listen()
    assert len(daemon.registered) == 1
    status.close()
    assert not daemon.open | daemon.registered


class Client:
    """A broker's client that delivers at the next poll."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Nothing is under way."""
        del config
        self.delivered = 0
        self._waiting: list[Callable[[Any, Any], None]] = []

    def produce(self, topic: str, *, key: object, value: object, on_delivery: Callable[[Any, Any], None]) -> None:
        del topic, key, value
        self._waiting.append(on_delivery)

    def poll(self, seconds: float) -> None:
        del seconds
        waiting, self._waiting = self._waiting, []
        for report in waiting:
            self.delivered += 1
            report(None, None)

    def purge(self) -> None:
        self._waiting.clear()


def test_the_ring_of_rounds() -> None:
    """Offered and counted by the sampling thread, sent by another one: each round is sent, waits, or is counted as dropped."""
    clients: list[Client] = []

    def client(config: dict[str, Any]) -> Client:
        clients.append(Client(config))
        return clients[-1]

    publisher = Publisher(Settings(producer=Producer(ring_rounds=4)), client)
    offered = itertools.count()

    def offer() -> None:
        publisher.offer(
            NodeSnapshot(node="node", boot_id="boot", sequence=next(offered), collected=0.0, interval=1.0, health=NodeHealth(), vms=[])
        )

    together(offer, publisher.outgoing)
    left = publisher.close(5.0)
    dropped = sum(publisher.outgoing().drops.values())
    assert sum(client.delivered for client in clients) + dropped + left == next(offered)


def test_the_events_on_their_way(tmp_path: Path) -> None:
    clients: list[Client] = []

    def client(config: dict[str, Any]) -> Client:
        clients.append(Client(config))
        return clients[-1]

    settings = Settings(producer=Producer(journal_folder=str(tmp_path / "journal")))
    publisher = EventPublisher(settings, "node", client)
    offered = itertools.count()

    def offer() -> None:
        publisher.offer(HypervisorEvent(VMS[next(offered) % len(VMS)], "vm", "lifecycle", (4, 0)))

    together(offer, publisher.outgoing)
    assert publisher.close(10.0) == 0
    found = publisher.outgoing()
    assert (sum(found.events.values()), found.drops) == (next(offered), {})
    assert sum(client.delivered for client in clients) == sum(found.events.values())


def test_another_thread_than_the_owner_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In debug mode, which the tests switch on; without it nothing is checked."""
    owner, found = Owner("the thing"), list[str]()

    def use() -> None:
        try:
            owner.check()
        except WrongThreadError as error:
            found.append(str(error))

    def elsewhere() -> None:
        thread = threading.Thread(target=use, name="other")
        thread.start()
        thread.join()

    assert threads.CHECKED
    use()
    use()
    assert found == []
    elsewhere()
    assert found == ["the thing belongs to thread MainThread, and other used it"]
    monkeypatch.setattr(threads, "CHECKED", False)
    elsewhere()
    assert len(found) == 1
