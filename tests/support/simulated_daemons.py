"""A real ``DaemonsSampler`` on many in-memory daemons, a VM in each, and on virtual time: a node of KubeVirt's in milliseconds.

with SimulatedDaemons(monkeypatch, TRIXIE, daemons=3) as node:
    node.daemons[0].pause()
    rounds = node.rounds(10)
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Self
from uuid import UUID

import libvirt
import pytest

from tests.support.memory_libvirt import Binding, Daemon, Release, Vm
from tests.support.memory_libvirt.standins import install
from tests.support.simulated_rounds import INTERVAL_SECONDS, SimulatedRounds
from virtflow.producer.daemons import sampler
from virtflow.producer.daemons.connector import uri_of
from virtflow.producer.daemons.sampler import DaemonsSampler
from virtflow.producer.daemons.sockets import DaemonSocket, Scan
from virtflow.producer.hypervisor import connection
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.settings import Libvirt, Producer, Settings

PATTERN = "/pods/*/virtqemud-sock"


class SimulatedDaemons(SimulatedRounds):
    """One node with a daemon for each VM; all of them are found, until a test says otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, release: Release, daemons: int = 3) -> None:
        """Nothing samples before ``start``."""
        super().__init__()
        self.uuids = [str(UUID(int=number)) for number in range(1, daemons + 1)]
        self.daemons = [Daemon(self.clock, release) for _ in self.uuids]
        for number, (daemon, uuid) in enumerate(zip(self.daemons, self.uuids, strict=True), 1):
            daemon.add(Vm(f"shop_web-{number}", uuid))
        self.paths = [f"/pods/{number}/virtqemud-sock" for number in range(1, daemons + 1)]
        self.found = {path: number for number, path in enumerate(self.paths, 1)}
        """The sockets that a scan finds, by their path with their inode."""
        self.denied = 0
        self.events: list[HypervisorEvent] = []
        self.sampler: DaemonsSampler
        by_path = dict(zip(self.paths, self.daemons, strict=True))
        self._by_path = by_path
        modules = [module for name, module in sys.modules.items() if name.startswith("virtflow.producer")]
        binding = Binding({uri_of(path, privileged=True): daemon for path, daemon in by_path.items()})
        for module in modules:
            if getattr(module, "libvirt", None) is libvirt:
                monkeypatch.setattr(module, "libvirt", binding)
        monkeypatch.setattr(connection, "_loops", [])
        install(monkeypatch, self.clock, modules)

    # -- what the sampler sees of the node

    def _scan(self, patterns: Sequence[str]) -> Scan:
        assert list(patterns) == [PATTERN]
        return Scan(tuple(DaemonSocket((0, inode), path, 0) for path, inode in self.found.items()), self.denied)

    def _heard(self, path: str) -> bool:
        return self._by_path[path].running

    def _states(self, uuids: Iterable[str]) -> dict[str, str]:
        vms = {uuid: vm for daemon in self.daemons for uuid, vm in daemon.vms.items()}
        return {uuid: "T" if vms[uuid].stopped else "S" for uuid in uuids if uuid in vms and vms[uuid].active}

    # -- the test's hand

    def start(self, *, interval: float = INTERVAL_SECONDS, **producer: Any) -> Self:  # noqa: ANN401, settings
        """Start the sampler, with an interval in seconds."""
        self._interval = interval
        settings = Settings(producer=Producer(interval_seconds=interval, **producer), libvirt=Libvirt(discover=[PATTERN]))
        host = sampler.Host(self._scan, self._states, heard=self._heard)
        self.sampler = DaemonsSampler(settings, self.events.append, host, random.Random(1))  # noqa: S311, jitter
        self._next = self.clock.now
        return self

    def hide(self, number: int) -> None:
        """The pod of that daemon (from 0) ends: its socket goes with it."""
        self.daemons[number].stop()
        del self.found[self.paths[number]]

    def show(self, number: int) -> None:
        """A pod begins there: a socket of its own."""
        self.daemons[number].begin()
        self.found[self.paths[number]] = max(self.found.values(), default=0) + 1000
