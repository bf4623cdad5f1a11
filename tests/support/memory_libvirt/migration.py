"""A VM's way from one in-memory daemon to another: events and jobs in the order that was measured on real ones (9.0)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import libvirt

from tests.support.memory_libvirt.daemon import Daemon
from tests.support.memory_libvirt.vm import Agent, Vm

TOTAL: Final = 202_121_216
PAGE: Final = 4096
_NOTHING: Final = dict.fromkeys(
    ("data_total", "data_processed", "data_remaining", "memory_total", "memory_processed", "memory_remaining", "memory_dirty_rate"), 0
)
_DISKS: Final = {"memory_iteration": 0, "memory_postcopy_requests": 0, "disk_total": 0, "disk_processed": 0, "disk_remaining": 0}


@dataclass
class Migration:
    """One live migration. Times in seconds: until the destination is ready, for each pass over the memory, for the end at the source."""

    source: Daemon
    destination: Daemon
    uuid: str
    prepare_seconds: float = 6.0
    pass_seconds: float = 2.0
    passes: int = 3
    finish_seconds: float = 2.0
    over: bool = False
    _vm: Vm = field(init=False)
    _incoming: Vm = field(init=False)
    _began: float = field(init=False, default=0.0)

    def begin(self) -> None:
        """Start it; the rest happens as time goes on."""
        clock = self.source.clock
        with clock.lock:
            self._began = clock.now
            self._vm = self.source.vms[self.uuid]
            self._vm.job_began = self._began
            self._vm.job = (
                {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT} | _NOTHING | _DISKS
            )
            self._arrive()
            self._after(self.prepare_seconds, self._ready)
            for number in range(self.passes):
                self._after(self.prepare_seconds + number * self.pass_seconds, partial(self._pass, number + 1))
            switch = self.prepare_seconds + self.passes * self.pass_seconds
            self._after(switch, self._switch)
            self._after(switch + 0.05, self._resume)
            self._after(switch + self.finish_seconds, self._finish)

    def cancel(self) -> None:
        """Abort the job: the VM stays where it was, and nothing announces it there."""
        with self.source.clock.lock:
            self.over = True
            self._vm.job = None
            del self.destination.vms[self.uuid]
            self._incoming.gone = True
            self._announce(self.destination, self._incoming, libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED)

    def _after(self, seconds: float, step: Callable[[], None]) -> None:
        def unless_over() -> None:
            if not self.over:
                step()

        self.source.clock.at(self._began + seconds, unless_over)

    # -- the steps

    def _arrive(self) -> None:
        agent = None if self._vm.agent is None else Agent(connected=False)
        self._incoming = replace(self._vm, number=-1, held=None, entered=None, agent=agent, persistent=False)
        self._incoming.state, self._incoming.reason = libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP
        self._incoming.job = {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN}
        self.destination.add(self._incoming)

    def _ready(self) -> None:
        self._incoming.reason = libvirt.VIR_DOMAIN_PAUSED_MIGRATION
        self._announce(self.destination, self._incoming, libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED)

    def _pass(self, number: int) -> None:
        self._vm.job = self._statistics(number)
        self.source.emit(self._vm, libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, number)

    def _statistics(self, number: int) -> dict[str, Any]:
        sent = TOTAL * number // (self.passes + 1)
        amounts = {"total": TOTAL, "processed": sent, "remaining": TOTAL - sent}
        found = {f"{kind}_{name}": value for kind in ("data", "memory") for name, value in amounts.items()}
        rates = {
            "memory_bps": 26_229_060,
            "memory_constant": 764,
            "memory_dirty_rate": 0,
            "memory_page_size": PAGE,
            "downtime": 300,
            "setup_time": 14,
        }
        pages = {"memory_normal": sent // PAGE, "memory_normal_bytes": sent, "memory_iteration": number}
        return (self._vm.job or {}) | _DISKS | found | rates | pages

    def _switch(self) -> None:
        self._vm.state, self._vm.reason = libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION
        self._announce(self.source, self._vm, libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED)

    def _resume(self) -> None:
        vm = self._incoming
        vm.state, vm.reason, vm.job, vm.persistent = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATED, None, True
        vm.agent = self._vm.agent
        self._announce(self.destination, vm, libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED)
        self._announce(self.destination, vm, libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED)

    def _finish(self) -> None:
        self.over = True
        statistics = self._statistics(self.passes) | {"data_remaining": 0, "memory_remaining": 0, "downtime": 105, "downtime_net": 97}
        statistics.pop("type")
        statistics["time_elapsed"] = round((self.source.clock.now - self._began) * 1000)
        if self.source.release.announces_shutdown:
            self._announce(self.source, self._vm, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST)
        self._announce(self.source, self._vm, libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED)
        self.source.emit(self._vm, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, statistics)
        self._vm.persistent = False
        self.source.leave(self._vm, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED)

    @staticmethod
    def _announce(daemon: Daemon, vm: Vm, event: int, detail: int) -> None:
        daemon.lifecycle(vm, event, detail)
