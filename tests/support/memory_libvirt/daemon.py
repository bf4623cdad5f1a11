"""The in-memory libvirtd: its VMs, who holds which job lock, what happens to VMs and to the daemon itself.

The methods from ``freeze`` on are a test's hand: what it does to a real host with signals and virsh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import libvirt

from tests.support.memory_libvirt.clock import VirtualClock
from tests.support.memory_libvirt.errors import lock_timeout, no_domain, not_running
from tests.support.memory_libvirt.requests import Request, Requests, Socket
from tests.support.memory_libvirt.vm import Vm

LOCK_SECONDS: Final = 30.0
"""How long a call waits for a VM's job lock."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Release:
    """A version of libvirt and its QEMU, and in what its daemon differs."""

    libvirt: tuple[int, int, int]
    qemu: tuple[int, int, int]

    @property
    def xml_takes_job(self) -> bool:
        """Whether ``XMLDesc`` takes the VM's job lock (from 11.0 on)."""
        return self.libvirt >= (11, 0, 0)

    @property
    def announces_shutdown(self) -> bool:
        """Whether the end of the source's QEMU after a migration is announced (measured with QEMU 10.0, not with 7.2)."""
        return self.qemu >= (10, 0, 0)

    @property
    def events(self) -> int:
        """How many kinds of VM events its daemon knows; their numbers are below that."""
        return 26 + (self.libvirt >= (11, 2, 0)) + 2 * (self.libvirt >= (12, 4, 0))


BOOKWORM: Final = Release((9, 0, 0), (7, 2, 22))
TRIXIE: Final = Release((11, 3, 0), (10, 0, 8))


class Daemon(Requests):
    """One libvirtd on virtual time."""

    def __init__(self, clock: VirtualClock, release: Release = BOOKWORM, *, workers: int = 20, priority_workers: int = 5) -> None:
        """Without VMs."""
        super().__init__(clock, workers, priority_workers)
        self.release = release
        self.running = True
        self.vms: dict[str, Vm] = {}
        self._numbers = 0
        self._orphans: list[tuple[Request, Vm]] = []
        self._reconnecting = Request("qemuProcessReconnect", Socket(None), priority=False)
        """Holds stopped VMs after the daemon's start."""

    # -- what calls need

    def find(self, uuid: str, name: str = "") -> Vm:
        """The VM; error 42 when it has gone."""
        if uuid not in self.vms:
            raise no_domain(uuid, name)
        return self.vms[uuid]

    def active(self, uuid: str, name: str = "") -> Vm:
        """The running VM; error 42 or 55."""
        vm = self.find(uuid, name)
        if not vm.active:
            raise not_running()
        return vm

    def take_job(self, request: Request, vm: Vm, seconds: float = LOCK_SECONDS) -> bool:
        """The VM's job lock, waited for ``seconds``; False when somebody else still holds it."""
        if not self.wait(request, lambda: vm.held is None or vm.gone, self.clock.now + seconds):
            return False
        if vm.gone:
            raise not_running()
        vm.held = request
        return True

    def need_job(self, request: Request, vm: Vm) -> None:
        """The VM's job lock; error 68 when it can't be had within 30 s."""
        holder = vm.held
        if not self.take_job(request, vm):
            raise lock_timeout((vm.held or holder or request).procedure)

    def give_job(self, request: Request, vm: Vm) -> None:
        """Let go of the job lock; a request without a client keeps it until the VM moves."""
        if vm.held is not request:
            return
        if request.socket.lost and vm.entered is not None and vm.stopped and not vm.gone:
            request.orphan = True
            self._orphans.append((request, vm))
            return
        vm.held = vm.entered = None
        self.clock.changed()

    def ask_qemu(self, request: Request, vm: Vm, ask: Callable[[], _T]) -> _T:
        """With the job lock held: wait for QEMU, without limit."""
        vm.entered = self.clock.now
        if vm.seconds:
            self.wait(request, lambda: vm.gone, self.clock.now + vm.seconds)
        self.wait(request, lambda: not vm.stopped or vm.gone)
        if vm.gone:
            raise not_running()
        vm.entered = None
        return ask()

    def monitor(self, socket: Socket, uuid: str, procedure: str, ask: Callable[[Vm], _T]) -> _T:
        """A call that takes the job lock and asks QEMU."""
        with self.serve(socket, procedure) as request:
            vm = self.active(uuid)
            self.need_job(request, vm)
            try:
                return self.ask_qemu(request, vm, lambda: ask(vm))
            finally:
                self.give_job(request, vm)

    # -- the VMs

    def add(self, vm: Vm) -> Vm:
        """A VM of this host; one whose state is not "shut off" gets a QEMU. Nothing is announced."""
        with self.clock.lock:
            self.vms[vm.uuid] = vm
            if vm.state != libvirt.VIR_DOMAIN_SHUTOFF:
                self._boot(vm)
        return vm

    def _boot(self, vm: Vm) -> None:
        self._numbers += 1
        vm.number, vm.gone, vm.stopped = self._numbers, False, False

    def freeze(self, *uuids: str) -> None:
        """Their QEMUs stand still (SIGSTOP)."""
        with self.clock.lock:
            for uuid in uuids:
                self.vms[uuid].stopped = True

    def thaw(self, *uuids: str) -> None:
        """They go on: calls that hang in them come back."""
        with self.clock.lock:
            for uuid in uuids:
                self.vms[uuid].stopped = False
            self._release_orphans()

    def _release_orphans(self) -> None:
        for request, vm in list(self._orphans):
            if not vm.stopped or vm.gone:
                self._orphans.remove((request, vm))
                self.serving.remove(request)
                vm.held = vm.entered = None
        for vm in self.vms.values():
            if vm.held is self._reconnecting and not vm.stopped:
                vm.held = vm.entered = None
        self.clock.changed()

    def start(self, uuid: str) -> None:
        """Boot a VM that is shut off."""
        with self.clock.lock:
            vm = self.vms[uuid]
            self._boot(vm)
            vm.state, vm.reason = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED
            self.lifecycle(vm, libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED)
            self.lifecycle(vm, libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED)

    def create_paused(self, vm: Vm) -> None:
        """Start a VM and leave it paused."""
        with self.clock.lock:
            vm.state, vm.reason = libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER
            self.add(vm)
            self.lifecycle(vm, libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED)
            self.lifecycle(vm, libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)

    def suspend(self, uuid: str) -> None:
        """Pause a VM."""
        with self.clock.lock:
            vm = self.vms[uuid]
            vm.state, vm.reason = libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER
            self.lifecycle(vm, libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)

    def resume_vm(self, uuid: str) -> None:
        """Let a paused VM run."""
        with self.clock.lock:
            vm = self.vms[uuid]
            vm.state, vm.reason = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_UNPAUSED
            self.lifecycle(vm, libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED)

    def destroy(self, uuid: str) -> None:
        """End its QEMU; a VM that is not persistent has gone."""
        with self.clock.lock:
            vm = self.vms[uuid]
            self.lifecycle(vm, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST)
            self.lifecycle(vm, libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED)
            self.leave(vm, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED)

    def leave(self, vm: Vm, reason: int) -> None:
        """Its QEMU is no more: whoever waits for it gets an error."""
        vm.gone, vm.number, vm.job = True, -1, None
        vm.state, vm.reason = libvirt.VIR_DOMAIN_SHUTOFF, reason
        if not vm.persistent:
            del self.vms[vm.uuid]
        self._release_orphans()

    def undefine(self, uuid: str) -> None:
        """Remove the definition of a VM that is shut off."""
        with self.clock.lock:
            vm = self.vms.pop(uuid)
            self.lifecycle(vm, libvirt.VIR_DOMAIN_EVENT_UNDEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED_REMOVED)

    # -- events

    def lifecycle(self, vm: Vm, event: int, detail: int) -> None:
        """Announce what happened to a VM."""
        self.emit(vm, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, event, detail)

    def emit(self, vm: Vm, event: int, *details: Any) -> None:  # noqa: ANN401, each event has its own
        """Hand an event to every client that listens to its kind."""
        with self.clock.lock:
            for socket in self.sockets:
                for wanted, callback, opaque in socket.callbacks.values():
                    if wanted == event and socket.connection is not None:
                        handle = socket.connection.handle(vm)
                        socket.put(callback, (socket.connection, handle, *details, opaque))

    # -- the daemon as a process

    def stop(self) -> None:
        """End the daemon; its VMs run on."""
        with self.clock.lock:
            self.end()
            self.running = False
            self._orphans.clear()
            for vm in self.vms.values():
                vm.held = vm.entered = None

    def begin(self) -> None:
        """Start it again. VMs that are stopped are held by its own attempt to reach them, which takes no worker."""
        with self.clock.lock:
            self.running = True
            for vm in self.vms.values():
                if vm.active and vm.stopped:
                    vm.held, vm.entered = self._reconnecting, self.clock.now

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.begin()
