"""The connections to one daemon: one while its calls return, and another one for each call that is made while others are out.

A daemon of one VM has nothing to gain by a connection for each kind of call, and a host of hundreds of them would pay for each with memory
and keepalive messages. But no connection carries two calls at a time: libvirt's client ends the process where such a connection is lost
(9.0, keepalive timeout with two threads in it). So a call takes a connection that is free, or opens one. The first, the main connection,
has the callbacks for events. To their owner the workers look as those of ``hypervisor/workers.py`` do.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import libvirt

from virtflow.producer.daemons.call_pool import CallPool
from virtflow.producer.hypervisor.connection import Connection, Opener, Prepare, Undo, make_call, stands
from virtflow.producer.hypervisor.mailbox import Outlet
from virtflow.producer.hypervisor.messages import (
    FindVersions,
    Lost,
    Open,
    Opened,
    OpenFailed,
    Query,
    Retire,
    Returned,
    Submit,
    VersionsFound,
)
from virtflow.producer.hypervisor.queries import versions


@dataclass(slots=True, eq=False)
class _Link:
    """A connection that is open, and whether a call is out on it."""

    connection: Connection
    version: int
    close: Undo
    busy: bool = False


@dataclass(slots=True, eq=False)
class _Worker:
    """Calls that are made one after another."""

    number: int
    calls: deque[tuple[int, Query]] = field(default_factory=deque)
    busy: bool = False


class Connections:
    """The connections and the workers. ``perform`` and ``lost`` belong to the sampling thread; the pool's threads answer by ``outlet``."""

    def __init__(self, opener: Opener, outlet: Outlet, prepare: Prepare, pool: CallPool) -> None:
        """Nothing is opened; ``prepare`` is done once with each main connection."""
        self._opener: Final = opener
        self._outlet: Final = outlet
        self._prepare: Final = prepare
        self._pool: Final = pool
        self._lock = threading.Lock()
        self._main: _Link | None = None
        self._others: list[_Link] = []
        self._opening = False
        self._waiting: list[int] = []
        """Workers that wait for the main connection, which is opened once for all of them."""
        self._workers: dict[int, _Worker] = {}
        """Those that are not retired."""

    def perform(self, action: Open | Submit | Retire | FindVersions) -> None:
        """Carry out an action; returns at once."""
        match action:
            case Open(number):
                self._open(number)
            case Submit(number, call, query):
                self._submit(number, call, query)
            case Retire(number):
                self._retire(number)
            case FindVersions():
                self._pool.submit(self._find_versions)

    def lost(self) -> list[Lost]:
        """The workers, once the main connection does not stand any more; asking it costs no call."""
        main = self._main
        if main is None or stands(main.connection):
            return []
        with self._lock:
            return [Lost(number) for number in self._workers]

    # -- the sampling thread

    def _open(self, number: int) -> None:
        with self._lock:
            main, begin = self._main, False
            if main is not None and stands(main.connection):
                self._workers[number] = _Worker(number)
            else:
                main = None
                self._waiting.append(number)
                begin, self._opening = not self._opening, True
        if main is not None:
            self._outlet.put(Opened(number, main.version))
        if begin:
            self._pool.submit(self._connect)

    def _submit(self, number: int, call: int, query: Query) -> None:
        with self._lock:
            worker = self._workers[number]
            worker.calls.append((call, query))
            begin, worker.busy = not worker.busy, True
        if begin:
            self._pool.submit(lambda: self._make_calls(worker))

    def _retire(self, number: int) -> None:
        with self._lock:
            if number in self._waiting:
                self._waiting.remove(number)
            self._workers.pop(number, None)
            unused = self._unused()
        if unused:
            self._pool.submit(lambda: _close(unused))

    # -- the pool's threads

    def _connect(self) -> None:
        """Open the main connection."""
        try:
            link = _Link(*self._opened(self._prepare))
        except (libvirt.libvirtError, OSError) as error:
            with self._lock:
                waiting, self._waiting, self._opening = self._waiting, [], False
            for number in waiting:
                self._outlet.put(OpenFailed(number, str(error)))
            return
        with self._lock:
            waiting, self._waiting, self._opening = self._waiting, [], False
            self._workers |= {number: _Worker(number) for number in waiting}
            before, self._main = self._main, link
            if before is not None:
                self._others.append(before)
            unused = self._unused()
        for number in waiting:
            self._outlet.put(Opened(number, link.version))
        _close(unused)

    def _opened(self, prepare: Prepare | None) -> tuple[Connection, int, Undo]:
        connection, version, close = self._opener.open(prepare)
        return connection, version, close

    def _make_calls(self, worker: _Worker) -> None:
        while (item := self._next_call(worker)) is not None:
            self._outlet.put(self._call(*item))

    def _next_call(self, worker: _Worker) -> tuple[int, Query] | None:
        with self._lock:
            worker.busy = bool(worker.calls)
            return worker.calls.popleft() if worker.calls else None

    def _call(self, call: int, query: Query) -> Returned:
        began, started = time.monotonic(), time.time()
        try:
            link = self._taken()
        except (libvirt.libvirtError, OSError) as error:
            return Returned(call, began, started, time.monotonic() - began, error=error, alive=False)
        returned = make_call(link.connection, call, query, self._outlet)
        self._give_back(link)
        return returned

    def _find_versions(self) -> None:
        """It may take libvirt seconds to look at its QEMU the first time, and nothing waits for that."""
        found = "", ""
        try:
            link = self._taken()
        except (libvirt.libvirtError, OSError):
            pass
        else:
            found = versions(link.connection)
            self._give_back(link)
        self._outlet.put(VersionsFound(*found))

    def _taken(self) -> _Link:
        """A connection that no other call is out on, opened where there is none."""
        with self._lock:
            free = [link for link in self._links() if not link.busy and stands(link.connection)]
            if free:
                free[0].busy = True
                return free[0]
        link = _Link(*self._opened(None), busy=True)
        with self._lock:
            self._others.append(link)
        return link

    def _give_back(self, link: _Link) -> None:
        with self._lock:
            link.busy = False
            unused = self._unused()
        _close(unused)

    # -- under the lock

    def _links(self) -> list[_Link]:
        return [*([self._main] if self._main is not None else []), *self._others]

    def _unused(self) -> list[_Link]:
        """The free connections that are not needed any more, which are forgotten: one that stands is kept, and the main one for its workers."""
        wanted = bool(self._workers or self._waiting)
        free = [link for link in self._links() if not link.busy]
        needed = [link for link in free if stands(link.connection)][:1] if wanted else []
        unused = [link for link in free if link not in needed and not (wanted and link is self._main)]
        self._others = [link for link in self._others if link not in unused]
        if self._main in unused:
            self._main = None
        return unused


def _close(links: list[_Link]) -> None:
    for link in links:
        link.close()
