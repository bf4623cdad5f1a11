"""What the threads that call libvirt share, with every order of two threads tried: right with the lock, wrong without it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from tests.support.interleaved import Orders, Pair, Shared, Still, Thing, WatchedLock, Work, threads_by_hand
from virtflow.producer.agent import queries, worker
from virtflow.producer.agent.ipc import Ask, Beat, Command, Start
from virtflow.producer.daemons import call_pool
from virtflow.producer.daemons.call_pool import CallPool
from virtflow.producer.hung_calls import budget as budget_module
from virtflow.producer.hung_calls.budget import CallBudget, Kind
from virtflow.producer.hypervisor import qemu_events, qemu_processes
from virtflow.producer.hypervisor.mailbox import Inbox
from virtflow.producer.hypervisor.qemu_events import QemuStatus
from virtflow.producer.hypervisor.qemu_processes import Processes
from virtflow.runtime.process import frames


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is started, and neither libvirt nor a process is asked."""
    for module in (call_pool, worker):
        monkeypatch.setattr(module, "threading", threads_by_hand())
    monkeypatch.setattr(libvirt, "open", lambda _: Listening())
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorEventRegister", lambda *_: 1)
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorEventDeregister", lambda connection, _: connection.deregister())
    monkeypatch.setattr(qemu_processes, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(qemu_processes, "_stat", lambda *_: Table.newest.stat())
    monkeypatch.setattr(queries, "call", lambda *_: {})
    monkeypatch.setattr(os, "write", Pipe.write)


def one_of_two(thing: Thing) -> bool:
    """One of them had something, the other one nothing."""
    return sorted(map(bool, (thing.first[0], thing.second[0]))) == [False, True]


# -- QemuStatus


class Listening:
    """A connection with one callback: it is closed once, after the callback is deregistered."""

    opened: list[Listening]

    def __init__(self) -> None:
        """Open."""
        self.state = "listening"
        Listening.opened.append(self)

    def deregister(self) -> None:
        assert self.state == "listening"
        self.state = "deregistered"

    def close(self) -> None:
        assert self.state == "deregistered"
        self.state = "closed"


def status(lock: WatchedLock) -> Thing:
    Listening.opened = []
    thing = Thing(QemuStatus("qemu:///system", Inbox())).guarded_by(lock)
    thing.it.listen()
    return thing


def one_listens(_: Thing) -> bool:
    return sorted(one.state for one in Listening.opened) == ["closed", "closed", "listening"]


# -- CallPool


def pool(lock: WatchedLock) -> Thing:
    """Two threads stay; the first is about to run a task."""
    thing = Thing(CallPool(threads=2, most=9)).guarded_by(lock)
    thing.it.submit(lambda: None)
    return thing


def hanging_pool(lock: WatchedLock) -> Thing:
    """Three threads where one stays: one hangs, one is about to run a task, and may end after it."""
    thing = pool(lock)
    thing.it._stay = 1
    thing.it._threads |= {8: Still(), 9: Still()}
    thing.it._began[9] = 0.0
    return thing


def run_one(number: int) -> Work:
    """One thread takes the next task, then is told to end."""

    def work(thing: Thing) -> None:
        thing.it._tasks.put(None)
        thing.it._run(number)

    return work


def submitted(thing: Thing) -> None:
    thing.it.submit(lambda: None)


class HungError(Exception):
    """In place of a task that never returns."""


def hang(thing: Thing) -> None:
    """Another thread takes a task, and hangs in it."""

    def task() -> None:
        raise HungError

    others = iter_queue(thing.it._tasks)
    thing.it.submit(task)
    for other in others:
        thing.it._tasks.put(other)
    with suppress(HungError):
        thing.it._run(8)


def tasks_counted(thing: Thing) -> bool:
    """Tasks that wait are those in the queue."""
    return bool(thing.it._waiting == len([one for one in iter_queue(thing.it._tasks) if one is not None]))


def threads_counted(thing: Thing) -> bool:
    """Each thread has a number of its own."""
    return tasks_counted(thing) and bool(thing.it._number == len(thing.it._threads))


def iter_queue(queue: SimpleQueue[Any]) -> list[Any]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


# -- CallBudget


def budget(lock: WatchedLock) -> Thing:
    """One call hangs, and one is under way."""
    thing = Thing(CallBudget(3)).guarded_by(lock)
    thing.it.adopt(Kind.MONITOR, "a")
    thing.more = thing.it.acquire(Kind.JOB, "b")
    return thing


def adopt(thing: Thing) -> None:
    thing.it.adopt(Kind.XML, "c")


def grown(by: int) -> Callable[[Any], bool]:
    """From the one of the call that hangs."""
    return lambda thing: bool(thing.it.version == 1 + by)


# -- Processes


class Table:
    """The process table, in which every process is gone once it was looked at ``looks`` times."""

    newest: Table

    def __init__(self, looks: int) -> None:
        """It is the newest one."""
        self.looks = looks
        Table.newest = self

    def stat(self) -> list[str]:
        self.looks -= 1
        return ["D", *["0"] * 18, "1"] if self.looks >= 0 else []


class Scanned:
    """A scan that finds the process again."""

    def __init__(self, processes: Processes) -> None:
        """Of this table."""
        self._processes = processes

    def join(self, _: float) -> None:
        self._processes._known["uuid"] = qemu_processes._Process(1, "1")


def processes(looks: int) -> Callable[[WatchedLock], Thing]:
    def make(lock: WatchedLock) -> Thing:
        Table(looks)
        thing = Thing(Processes(Path("/nowhere"))).guarded_by(lock)
        Scanned(thing.it).join(0.0)
        thing.it._begun = lambda: None
        return thing

    return make


def scanning(lock: WatchedLock) -> Thing:
    """The first look begins a scan, whose process is gone again; looks of the other thread begin none."""
    thing = processes(0)(lock)
    scans = [Scanned(thing.it)]
    thing.it._begun = lambda: scans.pop() if scans else None
    return thing


def states(thing: Thing) -> object:
    return thing.it.states(["uuid"])


def beginning(lock: WatchedLock) -> Thing:
    """Whoever looks first begins a scan."""
    Table(0)
    return Thing(Processes(Path("/nowhere"))).guarded_by(lock)


# -- the helper's process


class Pipe:
    """Takes three bytes at a time of what is written to descriptor -1."""

    written: bytearray
    _write = staticmethod(os.write)

    @classmethod
    def write(cls, out: int, data: memoryview) -> int:
        if out >= 0:
            return cls._write(out, data)
        cls.written += bytes(data[:3])
        return min(3, len(data))


def helper(lock: str) -> Callable[[WatchedLock], Thing]:
    def make(watched: WatchedLock) -> Thing:
        Pipe.written = bytearray()
        start = Start("test:///default", 5, 3, 5.0, 5, 2**28, 10, pseudo_filesystems=False)
        thing = Thing(worker.Process(start, -1), lock).guarded_by(watched)
        thing.it._connection = object()
        thing.it._calls = 3
        return thing

    return make


def take(thing: Thing) -> None:
    thing.it._take(Ask(1, Command.OS))


def make_call(thing: Thing) -> None:
    thing.it._make(Ask(1, Command.OS))


def send(thing: Thing) -> None:
    thing.it.send(Beat())


def whole_frames(_: Thing) -> bool:
    half = len(Pipe.written) // 2
    return Pipe.written[:half] == Pipe.written[half:]


ONE_STEP = "one step of the interpreter, and nobody walks over what it changes"
SHARED = {
    "QemuStatus": Shared(
        qemu_events,
        "_lock",
        (("_replace", Pair(status, lambda thing: thing.it.listen(), lambda thing: thing.it.listen(), one_listens)),),
    ),
    "CallPool": Shared(
        call_pool,
        "_lock",
        (
            ("submit", Pair(pool, submitted, submitted, threads_counted)),
            ("tick", Pair(pool, lambda thing: thing.it.tick(0.0), submitted, threads_counted)),
            ("close", ONE_STEP),
            ("_run", Pair(pool, run_one(1), submitted, tasks_counted)),
            ("_run", Pair(hanging_pool, run_one(1), hang, tasks_counted)),
            ("_run", ONE_STEP),
        ),
    ),
    "CallBudget": Shared(
        budget_module,
        "_lock",
        (
            (
                "acquire",
                Pair(budget, lambda thing: thing.it.acquire(Kind.XML, "c"), lambda thing: thing.it.acquire(Kind.XML, "d"), one_of_two),
            ),
            ("acquire_essential", ONE_STEP),
            ("adopt", Pair(budget, adopt, adopt, grown(2))),
            (
                "keep_foreign",
                Pair(budget, lambda thing: thing.it.keep_foreign({"z"}), lambda thing: thing.it.keep_foreign({"z"}), grown(1)),
            ),
            ("avoid", ONE_STEP),
            ("hangs_in", Pair(budget, lambda thing: thing.it.hangs_in("q", Kind.XML), adopt, lambda thing: thing.first == [False])),
            (
                "hung_by_kind",
                Pair(budget, lambda thing: thing.it.hung_by_kind(), adopt, lambda thing: thing.first[0][Kind.MONITOR] == 1),
            ),
            ("foreign_vms", Pair(budget, lambda thing: thing.it.foreign_vms(), adopt, lambda thing: thing.first == [frozenset()])),
            ("hung_vms", Pair(budget, lambda thing: thing.it.hung_vms(), adopt, lambda thing: "a" in thing.first[0])),
            ("end", Pair(budget, lambda thing: thing.more.release(), lambda thing: thing.more.release(), grown(1))),
            ("leave", Pair(budget, lambda thing: thing.more.leave_behind(), lambda thing: thing.more.leave_behind(), grown(1))),
            (
                "hang",
                Pair(budget, lambda thing: thing.more.abandon(), lambda thing: thing.more.release(), lambda thing: thing.it.hung == 1),
            ),
            ("move", ONE_STEP),
        ),
    ),
    "Processes": Shared(
        qemu_processes,
        "_lock",
        (
            ("states", Pair(processes(0), states, states, lambda thing: not thing.it._known)),
            ("states", Pair(scanning, states, states, lambda thing: not thing.it._known)),
            ("states", Pair(processes(1), states, states, lambda thing: not thing.it._known)),
            ("_note", ONE_STEP),
        ),
    ),
    "helper's calls": Shared(
        worker,
        "_lock",
        (
            ("_leave", ONE_STEP),
            ("_take", Pair(helper("_lock"), take, make_call, lambda thing: thing.it._calls == 3)),
            ("_make", Pair(helper("_lock"), make_call, take, lambda thing: thing.it._calls == 3)),
        ),
    ),
    "helper's pipe": Shared(worker, "_pipe", (("send", Pair(helper("_pipe"), send, send, whole_frames, traced=frames)),)),
}


class TestOrders(Orders):
    """Of all of them."""

    shared = SHARED
