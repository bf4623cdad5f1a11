"""``virConnect`` of the in-memory libvirt, as far as virtflow uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import libvirt

from tests.support.memory_libvirt.daemon import LOCK_SECONDS, Daemon
from tests.support.memory_libvirt.domain import MemoryDomain
from tests.support.memory_libvirt.errors import error, no_domain
from tests.support.memory_libvirt.requests import Request, Socket
from tests.support.memory_libvirt.vm import MONITOR_GROUPS, PREFIXES, Vm

NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
ENFORCE = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS
ALL_GROUPS = sum(PREFIXES)
Statistics = list[tuple[MemoryDomain, dict[str, Any]]]


class MemoryConnection:
    """One connection; any thread may use it."""

    def __init__(self, daemon: Daemon, socket: Socket, uri: str, *, read_only: bool) -> None:
        """To be had from a ``Binding``."""
        self.daemon, self.socket, self.read_only = daemon, socket, read_only
        self._uri = uri
        self._closed = False

    # -- the connection itself

    def close(self) -> int:
        """Let go of it; calls under way and registered callbacks keep it. How many do."""
        self._open_still("virConnectClose")
        self._closed = True
        with self.daemon.clock.lock:
            kept = len(self.socket.requests) + len(self.socket.callbacks)
            if not kept:
                self.socket.close_callback = None
                self.daemon.forget(self.socket)
            return kept

    def isAlive(self) -> int:  # noqa: N802, libvirt's name
        """Whether it stands; asks nobody."""
        self._open_still("virConnectIsAlive")
        return int(not self.socket.lost)

    def setKeepAlive(self, interval: int, count: int) -> int:  # noqa: N802, libvirt's name
        """Take a daemon for gone that is silent for so many intervals and one more (measured: 6.0 s for 2 x 2)."""
        if self.socket.binding is None or not self.socket.binding.has_loop:
            text = "internal error: the caller doesn't support keepalive protocol; perhaps it's missing event loop implementation"
            raise error(libvirt.VIR_ERR_INTERNAL_ERROR, text, libvirt.VIR_FROM_RPC)
        self.socket.keepalive_seconds = interval * (count + 1)
        return 0

    def registerCloseCallback(self, callback: Callable[..., None], opaque: object) -> int:  # noqa: N802, libvirt's name
        """Have ``callback(connection, reason, opaque)`` called when the connection is lost."""
        self.socket.close_callback = (callback, opaque)
        return 0

    def getURI(self) -> str:  # noqa: N802, libvirt's name
        """Where it leads."""
        return self._uri

    def getLibVersion(self) -> int:  # noqa: N802, libvirt's name
        """The daemon's version."""
        with self._request("remoteDispatchConnectGetLibVersion", priority=True):
            return self.number(self.daemon.release.libvirt)

    def getVersion(self) -> int:  # noqa: N802, libvirt's name
        """QEMU's version."""
        with self._request("remoteDispatchConnectGetVersion"):
            return self.number(self.daemon.release.qemu)

    def getHostname(self) -> str:  # noqa: N802, libvirt's name
        """The host's name."""
        with self._request("remoteDispatchConnectGetHostname", priority=True):
            return "node1"

    @staticmethod
    def number(version: tuple[int, int, int]) -> int:
        """A version as libvirt writes it."""
        return version[0] * 1_000_000 + version[1] * 1000 + version[2]

    # -- VMs

    def listAllDomains(self, flags: int = 0) -> list[MemoryDomain]:  # noqa: N802, libvirt's name
        """Every VM, or the running ones."""
        with self._request("remoteDispatchConnectListAllDomains", priority=True):
            running = libvirt.VIR_DOMAIN_RUNNING
            wanted = flags & libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING
            return [self.handle(vm) for vm in self.daemon.vms.values() if not wanted or vm.state == running]

    def lookupByUUIDString(self, uuidstr: str) -> MemoryDomain:  # noqa: N802, libvirt's name
        """The VM; error 42 when there is none."""
        with self._request("remoteDispatchDomainLookupByUUID", priority=True):
            return self.handle(self.daemon.find(uuidstr))

    def lookupByName(self, name: str) -> MemoryDomain:  # noqa: N802, libvirt's name
        """The VM; error 42 when there is none."""
        with self._request("remoteDispatchDomainLookupByName", priority=True):
            for vm in self.daemon.vms.values():
                if vm.name == name:
                    return self.handle(vm)
            raise no_domain(name)

    def handle(self, vm: Vm) -> MemoryDomain:
        """A handle of the VM as it is now."""
        return MemoryDomain(self, vm.uuid, vm.name, vm.number)

    # -- statistics of many

    def getAllDomainStats(self, stats: int = 0, flags: int = 0) -> Statistics:  # noqa: N802, libvirt's name
        """Statistics of every VM."""
        with self._request("remoteDispatchConnectGetAllDomainStats") as request:
            return self._statistics(request, list(self.daemon.vms.values()), stats, flags)

    def domainListGetStats(self, doms: Iterable[MemoryDomain], stats: int = 0, flags: int = 0) -> Statistics:  # noqa: N802, libvirt's name
        """Statistics of these VMs, in their order; VMs that have gone are left out."""
        asked = list(doms)
        if not asked:
            text = "invalid argument: doms array in virDomainListGetStats must contain at least one domain"
            raise error(libvirt.VIR_ERR_INVALID_ARG, text, libvirt.VIR_FROM_DOMAIN)
        with self._request("remoteDispatchConnectGetAllDomainStats") as request:
            known = self.daemon.vms
            return self._statistics(request, [known[domain.UUIDString()] for domain in asked if domain.UUIDString() in known], stats, flags)

    def _statistics(self, request: Request, vms: list[Vm], stats: int, flags: int) -> Statistics:
        if flags & ENFORCE and (unknown := stats & ~ALL_GROUPS):
            text = f"argument unsupported: Stats types bits {unknown:#x} are not supported by this daemon or QEMU"
            raise error(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, text)
        found: Statistics = []
        for vm in vms:
            data = self._of(request, vm, stats or ALL_GROUPS, 0.0 if flags & NOWAIT else LOCK_SECONDS)
            if vm.uuid in self.daemon.vms:
                found.append((self.handle(vm), data))
        return found

    def _of(self, request: Request, vm: Vm, groups: int, seconds: float) -> dict[str, Any]:
        daemon = self.daemon
        vm.fail("domainListGetStats")
        if not vm.active:
            return vm.told(groups, monitor=True)
        if not groups & MONITOR_GROUPS or not daemon.take_job(request, vm, seconds):
            return vm.told(groups, monitor=not groups & MONITOR_GROUPS)
        try:
            return daemon.ask_qemu(request, vm, lambda: vm.told(groups, monitor=True))
        finally:
            daemon.give_job(request, vm)

    # -- events

    def domainEventRegisterAny(self, dom: MemoryDomain | None, eventID: int, cb: Callable[..., None], opaque: object) -> int:  # noqa: N802, N803, libvirt's names
        """Have ``cb(connection, domain, *details, opaque)`` called for every such event."""
        del dom
        with self._request("remoteDispatchConnectDomainEventCallbackRegisterAny", priority=True):
            if eventID >= self.daemon.release.events:
                raise error(libvirt.VIR_ERR_INTERNAL_ERROR, f"internal error: unsupported event ID {eventID}", libvirt.VIR_FROM_RPC)
            number = max(self.socket.callbacks, default=-1) + 1
            self.socket.callbacks[number] = (eventID, cb, opaque)
            return number

    def domainEventDeregisterAny(self, callbackID: int) -> int:  # noqa: N802, N803, libvirt's names
        """No more of them."""
        with self._request("remoteDispatchConnectDomainEventCallbackDeregisterAny", priority=True):
            del self.socket.callbacks[callbackID]
            return 0

    # -- for handles

    def _open_still(self, function: str) -> None:
        if self._closed:
            text = f"invalid connection pointer in {function}"
            raise error(libvirt.VIR_ERR_INVALID_CONN, text, libvirt.VIR_FROM_DOMAIN)

    def _request(self, procedure: str, *, priority: bool = False) -> Any:  # noqa: ANN401, a context manager
        self._open_still(procedure.replace("remoteDispatch", "vir"))
        return self.daemon.serve(self.socket, procedure, priority=priority)
