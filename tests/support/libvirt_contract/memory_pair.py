"""The in-memory pair of hosts of the suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import libvirt

from tests.support.libvirt_contract.host import Known
from tests.support.libvirt_contract.memory_host import MemoryAttempt, loop_of
from tests.support.memory_libvirt import Agent, Binding, Daemon, Migration, Release, VirtualClock, Vm
from tests.support.memory_libvirt.clock import FOREVER
from tests.support.memory_libvirt.errors import error

URIS: Final = ("qemu+tcp://first/system", "qemu+tcp://second/system")
GUEST: Final = Known("relay-1", "00000000-0000-4000-8000-000000000011")
TRUTH: Final = {"hostname": "honest", "vcpu.online": 2, "addresses": {"eth0": {"addrs": [], "hwaddr": "52:54:00:00:00:01"}}}
STEP_SECONDS: Final = 0.05


class MemoryPair:
    """A ``Pair`` on virtual time."""

    def __init__(self, release: Release) -> None:
        """The guest runs on the first host."""
        self.clock = VirtualClock()
        self.version, self.guest = release.libvirt, GUEST
        self._daemons = (Daemon(self.clock, release), Daemon(self.clock, release))
        self._vm = self._daemons[0].add(Vm(GUEST.name, GUEST.uuid, agent=Agent(answer=TRUTH)))
        self.libvirt = Binding(dict(zip(URIS, self._daemons, strict=True)))
        loop_of(self.libvirt, self.clock)
        self._migration = Migration(self._daemons[0], self._daemons[1], GUEST.uuid)

    def close(self) -> None:
        """End all threads."""
        self.clock.close()

    def connect(self, host: int, *, writing: bool = False) -> Any:  # noqa: ANN401, as the binding
        """See ``Pair``."""
        return self.libvirt.open(URIS[host]) if writing else self.libvirt.openReadOnly(URIS[host])

    def attempt(self, call: Callable[[], Any]) -> MemoryAttempt:
        """See ``Pair``."""
        return MemoryAttempt(self.clock, call)

    def await_true(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """See ``Pair``."""
        until = self.clock.now + seconds
        while not condition():
            assert self.clock.now < until, what
            self.clock.advance(STEP_SECONDS)

    def speak(self, speech: str) -> None:
        """See ``Pair``."""
        agent = self._vm.agent
        assert agent is not None
        with self.clock.lock:
            agent.connected, agent.seconds = speech != "away", FOREVER if speech in {"silent", "mute"} else 0.0
            agent.synchronises = speech != "silent"
            failures = {"broken": (libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: cannot parse json")}
            agent.failure = error(*failures[speech]) if speech in failures else None
            self.clock.changed()

    def migrate(self) -> None:
        """See ``Pair``."""
        self._migration = Migration(self._daemons[0], self._daemons[1], GUEST.uuid)
        self._migration.begin()

    def hurry(self) -> None:
        """It ends soon by itself."""

    def cancel(self) -> None:
        """See ``Pair``."""
        self._migration.cancel()
