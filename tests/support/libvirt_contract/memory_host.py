"""The in-memory host of the suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import libvirt

from tests.support.libvirt_contract.host import Known
from tests.support.memory_libvirt import Binding, Daemon, Release, VirtualClock, Vm
from tests.support.virtual_time.standins import Threading

URI = "qemu:///system"
DESTROY_SECONDS = 10.0
"""How long libvirt tries it gently with a QEMU that does not answer (measured)."""


class MemoryAttempt:
    """A call in a thread that the clock knows."""

    def __init__(self, clock: VirtualClock, call: Callable[[], Any]) -> None:
        """Begin."""
        self._clock, self._call = clock, call
        self._begin, self._seconds = clock.now, 0.0
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = Threading(clock).Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except libvirt.libvirtError as error:
            self._error = error
        self._seconds = self._clock.now - self._begin

    def ends_within(self, seconds: float) -> bool:
        """In virtual time."""
        self._clock.wait(lambda: self._thread.over, self._clock.now + seconds)
        return bool(self._thread.over)

    @property
    def seconds(self) -> float:
        """Virtual ones."""
        return self._seconds

    def result(self) -> Any:  # noqa: ANN401, whatever the call returns
        """What the call returned or raised."""
        if self._error is not None:
            raise self._error
        return self._result


def loop_of(binding: Binding, clock: VirtualClock) -> None:
    """Run the binding's event loop in a thread."""

    def run() -> None:
        while True:
            binding.virEventRunDefaultImpl()

    binding.virEventRegisterDefaultImpl()
    Threading(clock).Thread(target=run, daemon=True).start()


class MemoryHost:
    """A ``Host`` on virtual time."""

    def __init__(self, release: Release, vms: int = 8) -> None:
        """With as many paused VMs and one that is shut off."""
        self.clock = VirtualClock()
        self.daemon = Daemon(self.clock, release)
        self.version = release.libvirt
        self.libvirt = Binding({URI: self.daemon})
        self.uri = URI
        self._count = 0
        self.vms = tuple(self.create() for _ in range(vms))
        self.off = Known("off", str(UUID(int=1 << 64)))
        self.daemon.add(Vm(self.off.name, self.off.uuid, libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN))
        loop_of(self.libvirt, self.clock)

    def close(self) -> None:
        """End all threads."""
        self.clock.close()

    def connect(self, *, writing: bool = False) -> Any:  # noqa: ANN401, as the binding
        """See ``Host``."""
        connection = self.libvirt.open(URI) if writing else self.libvirt.openReadOnly(URI)
        connection.setKeepAlive(2, 2)
        return connection

    def attempt(self, call: Callable[[], Any]) -> MemoryAttempt:
        """See ``Host``."""
        return MemoryAttempt(self.clock, call)

    def thread(self) -> int:
        """See ``Host``."""
        return self.clock.current.number

    def let_pass(self, seconds: float) -> None:
        """See ``Host``."""
        self.clock.advance(seconds)

    def freeze(self, *vms: Known) -> None:
        """See ``Host``."""
        self.daemon.freeze(*(vm.uuid for vm in vms))

    def thaw(self, *vms: Known) -> None:
        """See ``Host``."""
        self.daemon.thaw(*(vm.uuid for vm in vms))

    def create(self) -> Known:
        """See ``Host``."""
        self._count += 1
        known = Known(f"vm-{self._count}", str(UUID(int=self._count)))
        self.daemon.create_paused(Vm(known.name, known.uuid, persistent=False))
        return known

    def destroy(self, vm: Known) -> None:
        """See ``Host``; a QEMU that does not answer is killed after a while."""
        if self.daemon.vms[vm.uuid].stopped:
            self.clock.advance(DESTROY_SECONDS)
        self.daemon.destroy(vm.uuid)

    def resume(self, vm: Known) -> None:
        """See ``Host``."""
        self.daemon.resume_vm(vm.uuid)

    def suspend(self, vm: Known) -> None:
        """See ``Host``."""
        self.daemon.suspend(vm.uuid)

    def start(self, vm: Known) -> None:
        """See ``Host``."""
        self.daemon.start(vm.uuid)

    def pause_daemon(self) -> None:
        """See ``Host``."""
        self.daemon.pause()

    def resume_daemon(self) -> None:
        """See ``Host``."""
        self.daemon.resume()

    def restart_daemon(self) -> None:
        """See ``Host``."""
        self.daemon.restart()

    def limit_workers(self, workers: int, priority: int) -> None:
        """See ``Host``."""
        self.daemon.workers, self.daemon.priority_workers = workers, priority

    def hung_calls(self) -> int:
        """See ``Host``."""
        return len(self.daemon.serving)
