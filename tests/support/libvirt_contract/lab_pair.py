"""Two real hosts of the lab with a guest, for the suite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import libvirt

from tests.support.agent_program import HONEST, AgentProgram, Speech, broken, silent, slow
from tests.support.lab import GuestSpec, Lab, await_true
from tests.support.lab_migration import Migrating
from tests.support.libvirt_contract.host import Known
from tests.support.libvirt_contract.lab_host import LabAttempt
from virtflow.producer.hypervisor.connection import start_event_loop

SPEECHES: dict[str, Speech] = {"honest": HONEST, "silent": silent, "mute": slow(1e6), "broken": broken}
SLOW_MBPS = 8
CHANNEL_SECONDS = 30.0


class LabPair:
    """A ``Pair`` of real hosts."""

    def __init__(self, lab: Lab) -> None:
        """Boot the guest on the first node; its agent is not connected yet."""
        start_event_loop()
        self._nodes = lab.nodes
        self._guest = lab.nodes[0].start_guest(GuestSpec("relay-1", agent="relay", vcpus=2))
        self.guest = Known(self._guest.name, self._guest.uuid)
        self._agent: AgentProgram | None = None
        self._connections: list[Any] = []
        number = self.connect(0).getLibVersion()
        self.version = (number // 1_000_000, number // 1000 % 1000, number % 1000)

    def calm(self) -> None:
        """After a test: what it opened is closed."""
        for connection in self._connections:
            with suppress(libvirt.libvirtError):
                connection.close()
        self._connections.clear()

    def close(self) -> None:
        """The agent ends."""
        if self._agent is not None:
            self._agent.close()

    def connect(self, host: int, *, writing: bool = False) -> Any:  # noqa: ANN401, the binding has no types
        """See ``Pair``."""
        uri = self._nodes[host].socket_uri
        connection = libvirt.open(uri) if writing else libvirt.openReadOnly(uri)
        self._connections.append(connection)
        return connection

    def attempt(self, call: Callable[[], Any]) -> LabAttempt:
        """See ``Pair``."""
        return LabAttempt(call)

    def await_true(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """See ``Pair``."""
        await_true(condition, seconds, what)

    def speak(self, speech: str) -> None:
        """See ``Pair``."""
        if self._agent is not None:
            self._agent.disconnect()
            self._agent = None
            self._await_agent("disconnected")
        if speech != "away":
            self._agent = AgentProgram(self.guest.uuid, self._nodes[0].disks, SPEECHES[speech])
            self._await_agent("connected")

    def _await_agent(self, state: str) -> None:
        def seen() -> bool:
            return f"name='org.qemu.guest_agent.0' state='{state}'" in self._nodes[0].virsh("dumpxml", self.guest.uuid)

        await_true(seen, CHANNEL_SECONDS, f"libvirt sees that the agent is {state}")

    def migrate(self) -> None:
        """See ``Pair``."""
        Migrating.begin(self._guest, self._nodes[0], self._nodes[1], mbps=SLOW_MBPS)

    def hurry(self) -> None:
        """See ``Pair``."""
        self._nodes[0].virsh("migrate-setspeed", self.guest.uuid, "8796093022207")

    def cancel(self) -> None:
        """See ``Pair``."""
        self._nodes[0].virsh("domjobabort", self.guest.uuid)
