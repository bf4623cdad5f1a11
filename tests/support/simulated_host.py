"""A real sampler on the in-memory libvirt and on virtual time: minutes of a host's life in milliseconds.

with SimulatedHost(monkeypatch, TRIXIE, vms=8) as host:
    host.daemon.freeze(host.uuids[0])
    rounds = host.rounds(10)
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from typing import Any, Self, cast
from uuid import UUID

import libvirt
import pytest

from tests.support.memory_libvirt import Binding, Daemon, Release, Vm
from tests.support.memory_libvirt.connection import MemoryConnection
from tests.support.memory_libvirt.standins import install
from tests.support.simulated_rounds import INTERVAL_SECONDS, SimulatedRounds
from tests.support.virtual_time.standins import Queue
from virtflow.producer import sampler
from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.producer.hypervisor import connection, mailbox
from virtflow.producer.hypervisor.connection import Opener
from virtflow.producer.hypervisor.qemu_processes import Processes
from virtflow.producer.sampler import Sampler
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.settings import Libvirt, Producer, Settings

URI = "qemu:///system"


def statistics_wait(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Vm, int], float]) -> None:
    """Bulk statistics wait for so many seconds at a VM, by the groups that they are asked for."""
    asked = MemoryConnection._of

    def of(self: MemoryConnection, request: Any, vm: Vm, groups: int, limit: float) -> Any:  # noqa: ANN401, the double's own
        if pause := seconds(vm, groups):
            self.daemon.wait(request, lambda: False, self.daemon.clock.now + pause)
        return asked(self, request, vm, groups, limit)

    monkeypatch.setattr(MemoryConnection, "_of", of)


class MemoryProcesses:
    """The process table: QEMU's main thread is stopped where the test has frozen it. Not ``visible``: as in a container."""

    def __init__(self, daemon: Daemon, *, visible: bool) -> None:
        """Of this host."""
        self._daemon, self._visible = daemon, visible

    def states(self, uuids: Iterable[str]) -> dict[str, str]:
        """One letter for each VM."""
        if not self._visible:
            return {}
        vms = self._daemon.vms
        return {uuid: "T" if vms[uuid].stopped else "S" for uuid in uuids if uuid in vms and vms[uuid].active}


class SimulatedHost(SimulatedRounds):
    """One host with its VMs, and a sampler once ``start`` is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, release: Release, vms: int = 8, *, processes: bool = False) -> None:
        """``processes`` says whether the sampler sees the process table."""
        super().__init__()
        self.daemon = Daemon(self.clock, release)
        self.uuids = [str(UUID(int=number)) for number in range(1, vms + 1)]
        for number, uuid in enumerate(self.uuids, 1):
            self.daemon.add(Vm(f"vm-{number}", uuid))
        self.binding: Binding
        self.processes = MemoryProcesses(self.daemon, visible=processes)
        self.events: list[HypervisorEvent] = []
        self.sampler: Sampler
        self.budget: CallBudget
        self._patch = monkeypatch
        self._modules = [module for name, module in sys.modules.items() if name.startswith("virtflow.producer")]
        self._of_libvirt = [module for module in self._modules if getattr(module, "libvirt", None) is libvirt]
        self._install()

    def _install(self) -> None:
        install(self._patch, self.clock, self._modules)
        clock = self.clock

        def inbox(self: mailbox.Inbox) -> None:
            self._queue = cast("Any", Queue(clock))

        self._patch.setattr(mailbox.Inbox, "__init__", inbox)

    def _new_client(self) -> None:
        """A process of its own: its binding, its event loop."""
        self.binding = Binding({URI: self.daemon})
        for module in self._of_libvirt:
            self._patch.setattr(module, "libvirt", self.binding)
        self._patch.setattr(connection, "_loops", [])

    def start(self, *, events: bool = True, limit: int = 3, interval: float = INTERVAL_SECONDS, **producer: Any) -> Self:  # noqa: ANN401, settings
        """Start the sampler, with an interval in seconds and as many calls that may hang."""
        self._new_client()
        chosen = Producer(interval_seconds=interval, hung_calls_max=limit, **producer)
        settings = Settings(producer=chosen, libvirt=Libvirt(uri=URI))
        self.budget, self._interval = CallBudget(limit), interval
        host = sampler.Host(Opener(settings.libvirt), cast("Processes", self.processes))
        self.sampler = Sampler(settings, self.events.append if events else None, self.budget, host, random.Random(1))  # noqa: S311, jitter
        self._next = self.clock.now
        return self

    def kill(self) -> None:
        """The producer's process is killed; ``start`` begins another."""
        self.daemon.kill(self.binding)

    def ask(self, call: str = "memoryStats", uuid: str = "") -> float:
        """How many seconds another client of the host waits for an answer about one VM (the last one unless named)."""
        begin = self.clock.now
        vm = Binding({URI: self.daemon}).openReadOnly(URI).lookupByUUIDString(uuid or self.uuids[-1])
        getattr(vm, call)()
        return self.clock.now - begin
