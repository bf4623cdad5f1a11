"""Read-only connections to libvirt, each with a thread of its own: a call that never returns blocks only its worker.

libvirt-python has no time limit per call, opening included. So the sampling thread never calls libvirt itself: it submits queries to
workers and reads its inbox. Source of the rules (event loop first, keepalive, close()): libvirt's reference, and experiments.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

import libvirt

from virtflow.producer.hypervisor.mailbox import Inbox, Outlet
from virtflow.producer.hypervisor.messages import Opened, OpenFailed, Progress, Query, Returned
from virtflow.producer.hypervisor.queries import FAILURES
from virtflow.runtime import settings

Connection = Any
"""libvirt's ``virConnect``; the binding has no types."""

Undo = Callable[[], None]
Prepare = Callable[[Connection], Undo]
"""What is done with a new connection; what it returns is called before the connection is closed."""

_LOGGER: Final = logging.getLogger(__name__)
_loop_lock = threading.Lock()
_loops: list[threading.Thread] = []


def start_event_loop() -> None:
    """Runs libvirt's event loop in a thread of its own, once in the process and before any connection is opened.

    Without it keepalive closes the connection and no event arrives. Also keeps libvirt from printing its errors: they are raised.
    """
    with _loop_lock:
        if _loops:
            return
        libvirt.registerErrorHandler(lambda *_: None, None)
        libvirt.virEventRegisterDefaultImpl()
        loop = threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True)
        _loops.append(loop)
        loop.start()


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            _LOGGER.error("libvirt's event loop: %s", error)  # noqa: TRY400, libvirt's words are all there is to say
            time.sleep(1.0)


def open_read_only(uri: str) -> Connection:
    """A new read-only connection; raises libvirt's error, and returns only once the daemon answers."""
    start_event_loop()
    return libvirt.openReadOnly(uri)


@dataclass(frozen=True, slots=True)
class Opener:
    """How connections are opened: the one place where libvirt itself comes in. ``connect`` may be an in-memory libvirt's."""

    config: settings.Libvirt
    connect: Callable[[str], Connection] = open_read_only

    def open(self, prepare: Prepare | None) -> tuple[Connection, int, Undo]:
        """A new connection with keepalive, prepared, the daemon's version, and what closes the connection."""
        connection = self.connect(self.config.uri)
        undo: list[Undo] = []

        def close() -> None:
            for step in undo:
                step()
            with suppress(libvirt.libvirtError):
                connection.close()

        try:
            self._keep_alive(connection)
            if prepare:
                undo.append(prepare(connection))
            return connection, connection.getLibVersion(), close
        except libvirt.libvirtError:
            close()
            raise

    def _keep_alive(self, connection: Connection) -> None:
        try:
            connection.setKeepAlive(self.config.keepalive_seconds, self.config.keepalive_count)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # a driver within this process can't be lost
                raise


class Worker:
    """One connection and the thread that makes its calls, one after another. It lives until it is retired or can't be opened."""

    def __init__(self, number: int, name: str, opener: Opener, inbox: Inbox, prepare: Prepare | None = None) -> None:
        """Begin to open; ``prepare`` runs once on the new connection, in the worker's thread, before ``Opened`` is put."""
        self.number = number
        self.name = name
        self._opener = opener
        self._inbox = inbox
        self._prepare = prepare
        self._queries: SimpleQueue[tuple[int, Query] | None] = SimpleQueue()
        self._connection: Connection = None
        self._thread = threading.Thread(target=self._run, name=f"libvirt-{name}", daemon=True)
        self._thread.start()

    def submit(self, call: int, query: Query) -> None:
        """Have ``query`` called with the connection; ``Returned`` is put once it has ended."""
        self._queries.put((call, query))

    def retire(self) -> None:
        """Let the worker close its connection and end as soon as its thread is free, whenever that is."""
        self._queries.put(None)

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end; whether it has ended."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    @property
    def ended(self) -> bool:
        """Whether its thread has ended."""
        return not self._thread.is_alive()

    @property
    def lost(self) -> bool:
        """Whether there was a connection that does not stand any more; asks nobody. Read by the sampling thread."""
        connection = self._connection
        return connection is not None and not stands(connection)

    def _run(self) -> None:
        try:
            self._connection, version, close = self._opener.open(self._prepare)
        except (libvirt.libvirtError, OSError) as error:
            self._inbox.put(OpenFailed(self.number, str(error)))
            return
        self._inbox.put(Opened(self.number, version))
        while (item := self._queries.get()) is not None:
            self._inbox.put(make_call(self._connection, *item, self._inbox))
        self._connection = None
        close()


def make_call(connection: Connection, call: int, query: Query, outlet: Outlet) -> Returned:
    """Call ``query`` with the connection, and put what it streams into ``outlet``; what came of it."""
    began, started = time.monotonic(), time.time()
    try:
        result = query(connection)
        if isinstance(result, Iterator):
            for uuid, value in result:
                outlet.put(Progress(call, uuid, value))
            result = None
    except FAILURES as error:
        return Returned(call, began, started, time.monotonic() - began, error=error, alive=stands(connection))
    return Returned(call, began, started, time.monotonic() - began, result)


def stands(connection: Connection) -> bool:
    """Whether the connection is not lost; asks nobody."""
    with suppress(libvirt.libvirtError):
        return bool(connection.isAlive())
    return False
