"""How a call gets through to the daemon: the connection's request slots, the daemon's workers, and what ends a wait.

A request that hangs in a VM stays in the daemon when its client goes: it keeps its worker and the VM's job lock until the VM moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import libvirt

from tests.support.memory_libvirt.clock import FOREVER, VirtualClock
from tests.support.memory_libvirt.errors import connection_lost

if TYPE_CHECKING:
    from tests.support.memory_libvirt.binding import Binding
    from tests.support.memory_libvirt.connection import MemoryConnection

SLOTS: Final = 5
"""Requests of one connection that the daemon takes at a time (``max_client_requests``)."""
KEEPALIVE, END_OF_FILE = "connection closed due to keepalive timeout", "End of file while reading data: Input/output error"
CLOSED: Final = "client socket is closed"


@dataclass(slots=True, eq=False)
class Socket:
    """A connection as the daemon has it; ``lost`` says why it is no more. Without a binding it is the daemon's own."""

    binding: Binding | None
    lost: str = ""
    keepalive_seconds: float = 0.0
    requests: list[Request] = field(default_factory=list)
    callbacks: dict[int, tuple[int, Callable[..., None], Any]] = field(default_factory=dict)
    """Event callbacks by their number: the event's id, the function, its opaque."""
    close_callback: tuple[Callable[..., None], Any] | None = None
    connection: MemoryConnection | None = None

    def put(self, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Have the client's event loop make this call."""
        if self.binding is not None:
            self.binding.loop.put(callback, arguments)


@dataclass(slots=True, eq=False)
class Request:
    """A call under way in the daemon; an ``orphan`` hangs in a VM, and its client has gone."""

    procedure: str
    socket: Socket
    priority: bool
    orphan: bool = False


class Requests:
    """All requests of a daemon; everything here is done under the clock's lock."""

    def __init__(self, clock: VirtualClock, workers: int, priority_workers: int) -> None:
        """``workers`` take any request, ``priority_workers`` those that are known to be short."""
        self.clock = clock
        self.workers, self.priority_workers = workers, priority_workers
        self.paused = False
        self.serving: list[Request] = []
        self.served: Counter[str] = Counter()
        """Requests that a worker has begun, by their procedure."""
        self._sockets: list[Socket] = []

    @contextmanager
    def serve(self, socket: Socket, procedure: str, *, priority: bool = False) -> Iterator[Request]:
        """A worker for the body of the call, once there is a slot and a worker; raises libvirt's error when the connection is lost."""
        with self.clock.lock:
            if socket.lost:
                raise connection_lost(CLOSED)
            request = Request(procedure, socket, priority)
            self.wait(request, lambda: len(socket.requests) < SLOTS)
            socket.requests.append(request)
            try:
                self.wait(request, lambda: self._has_worker(priority=priority))
                self.serving.append(request)
                self.served[procedure] += 1
                yield request
                self.wait(request, lambda: True)  # the answer does not leave a daemon that stands still
            finally:
                socket.requests.remove(request)
                if request in self.serving and not request.orphan:
                    self.serving.remove(request)
                self.clock.changed()

    def wait(self, request: Request, ready: Callable[[], bool], until: float = FOREVER) -> bool:
        """Wait, as the daemon does, for ``ready`` or until that time; whether it is ready. Raises when the client has lost the connection."""
        clock, socket = self.clock, request.socket

        def over() -> bool:
            return bool(socket.lost) or (not self.paused and (ready() or clock.now >= until))

        while not over():
            clock.wait(over, until if clock.now < until else FOREVER)
        if socket.lost:
            raise connection_lost(socket.lost)
        return ready()

    def _has_worker(self, *, priority: bool) -> bool:
        busy = len(self.serving)
        if priority:  # they are tried first, so a short request needs one of either kind
            return busy < self.workers + self.priority_workers
        return sum(not request.priority for request in self.serving) < self.workers

    # -- connections

    def opened(self, socket: Socket) -> None:
        """One more client."""
        self._sockets.append(socket)

    def forget(self, socket: Socket, why: str = CLOSED) -> None:
        """The client has closed the connection, or it is lost: whoever waits on it gets an error."""
        socket.lost = why
        if socket in self._sockets:
            self._sockets.remove(socket)
        self.clock.changed()

    def lose(self, socket: Socket, why: str, reason: int) -> None:
        """The connection ends without the client's doing; it is told so by its close callback."""
        if not socket.lost:
            self.forget(socket, why)
            if socket.close_callback is not None:
                callback, opaque = socket.close_callback
                socket.put(callback, (socket.connection, reason, opaque))

    @property
    def sockets(self) -> tuple[Socket, ...]:
        """All clients' connections."""
        return tuple(self._sockets)

    def kill(self, binding: Binding) -> None:
        """A client's process is killed: its connections end, and what hangs in a VM goes on hanging there."""
        with self.clock.lock:
            for socket in self.sockets:
                if socket.binding is binding:
                    self.forget(socket)

    # -- the daemon as a process

    def pause(self) -> None:
        """The daemon stands still (SIGSTOP); clients with keepalive notice in time."""
        with self.clock.lock:
            self.paused = True
            for socket in self._sockets:
                if socket.keepalive_seconds:
                    self.clock.at(self.clock.now + socket.keepalive_seconds, self._expiry(socket))

    def resume(self) -> None:
        """It goes on (SIGCONT)."""
        with self.clock.lock:
            self.paused = False
            self.clock.changed()

    def _expiry(self, socket: Socket) -> Callable[[], None]:
        def expire() -> None:
            if self.paused:
                self.lose(socket, KEEPALIVE, libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE)

        return expire

    def end(self) -> None:
        """The daemon ends: every connection and every request with it."""
        with self.clock.lock:
            self.paused = False
            for socket in self.sockets:
                self.lose(socket, END_OF_FILE, libvirt.VIR_CONNECT_CLOSE_REASON_EOF)
            self.serving.clear()
