"""The module ``libvirt`` of one client process, with the real module's constants and error class, and in-memory daemons behind its URIs.

binding = Binding({"qemu:///system": daemon})
monkeypatch.setattr("virtflow.producer.hypervisor.connection.libvirt", binding)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import libvirt

from tests.support.memory_libvirt.clock import VirtualClock
from tests.support.memory_libvirt.connection import MemoryConnection
from tests.support.memory_libvirt.daemon import Daemon
from tests.support.memory_libvirt.errors import error
from tests.support.memory_libvirt.requests import Socket


class EventLoop:
    """Libvirt's default event loop: callbacks in the order in which they became due, run by whoever runs the loop."""

    def __init__(self, clock: VirtualClock) -> None:
        """Nothing is due."""
        self._clock = clock
        self._due: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def put(self, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """A callback is due."""
        self._due.append((callback, arguments))
        self._clock.changed()

    def run_once(self) -> None:
        """Wait for a callback and run it."""
        with self._clock.lock:
            self._clock.wait(lambda: bool(self._due))
            callback, arguments = self._due.popleft()
        callback(*arguments)


class Binding:
    """One process's libvirt. Whatever is not here is the real module's."""

    def __init__(self, daemons: Mapping[str, Daemon]) -> None:
        """``daemons`` by the URI that leads to each."""
        self._daemons = dict(daemons)
        self._clock = next(iter(daemons.values())).clock
        self.loop = EventLoop(self._clock)
        self.has_loop = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, the real module's
        """Constants, ``libvirtError``."""
        return getattr(libvirt, name)

    def registerErrorHandler(self, handler: Callable[..., None] | None, context: object) -> None:  # noqa: N802, libvirt's name
        """Errors are only raised."""

    def virEventRegisterDefaultImpl(self) -> int:  # noqa: N802, libvirt's name
        """Connections opened from now on have events and keepalive."""
        self.has_loop = True
        return 0

    def virEventRunDefaultImpl(self) -> int:  # noqa: N802, libvirt's name
        """One turn of the event loop."""
        self.loop.run_once()
        return 0

    def getVersion(self) -> int:  # noqa: N802, libvirt's name
        """Of the client's library: as new as the newest daemon."""
        return max(MemoryConnection.number(daemon.release.libvirt) for daemon in self._daemons.values())

    def openReadOnly(self, name: str | None = None) -> MemoryConnection:  # noqa: N802, libvirt's name
        """A connection that may not write."""
        return self._open(name, read_only=True)

    def open(self, name: str | None = None) -> MemoryConnection:
        """A connection that may write."""
        return self._open(name, read_only=False)

    def openAuth(self, uri: str | None, auth: object, flags: int = 0) -> MemoryConnection:  # noqa: N802, libvirt's name
        """The same; nobody asks for a password."""
        del auth
        return self._open(uri, read_only=bool(flags & libvirt.VIR_CONNECT_RO))

    def _open(self, uri: str | None, *, read_only: bool) -> MemoryConnection:
        daemon = self._daemons.get(uri or "")
        if daemon is None or not daemon.running:
            text = f"Failed to connect socket to '{uri}': No such file or directory"
            raise error(libvirt.VIR_ERR_SYSTEM_ERROR, text, libvirt.VIR_FROM_RPC)
        socket = Socket(self)
        connection = socket.connection = MemoryConnection(daemon, socket, uri or "", read_only=read_only)
        daemon.opened(socket)
        with daemon.serve(socket, "remoteDispatchConnectOpen", priority=True):
            return connection
