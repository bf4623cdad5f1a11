"""Types of the schedule: its limits, its observations, and the state of a VM and of its poll cycle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from virtflow.producer.agent.ipc import AGENT, Answered, Command, Happened, Up
from virtflow.producer.hung_calls.budget import Lease
from virtflow.producer.records.guest_devices import Look
from virtflow.schemas.guest import GuestReason

AGE_CYCLES: Final = 3
"""Cycles after which an answer is too old to be shown."""
MINUTE: Final = 60.0
GRACE_SECONDS: Final = 3.0
LOCK_SECONDS: Final = 30.0
"""How long libvirt waits for the VM's lock that somebody else's call holds."""
STUCK_SECONDS: Final = 600.0
"""How long a call that waits for a VM's QEMU is counted after the process that made it died: nobody can tell when it ends."""
STRIKE_SECONDS: Final = 3600.0
STRIKES: Final = 3
NEVER: Final = float("inf")
STARTED, STOPPED, CRASHED = 2, 5, 8
"""Libvirt's numbers of lifecycle events."""
AGENT_CONNECTED: Final = 1
STOPPING: Final = frozenset({GuestReason.TIMEOUT, GuestReason.DISCONNECTED, GuestReason.BUSY, GuestReason.FAILED, GuestReason.NOT_RUNNING})
"""After these the agent is not asked for more in the same turn."""
LIST_SECONDS: Final = 1.0
"""Time between two lists of the host's VMs at least, however many come and go."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits, in seconds and calls; ``agent`` and ``period`` enable the two kinds of work."""

    cycle: float
    timeout: float
    per_minute: int
    in_flight: int
    agent: bool = True
    period: bool = False
    memory: bool = False
    spread: float = 0.25
    """Part of a cycle over which the first turns are spread."""

    def deadline(self, command: Command) -> float:
        """Seconds after which a call counts as hung: libvirt tries twice to synchronise with an agent, then waits for its answer."""
        return 3 * self.timeout + GRACE_SECONDS if command in AGENT else GRACE_SECONDS

    def left(self, command: Command) -> float:
        """Seconds for which a call may still occupy a libvirtd worker after the calling process died; reading XML may wait for the VM's lock."""
        if command is Command.PERIOD or command is Command.MEMORY:
            return STUCK_SECONDS
        return self.deadline(command) + (LOCK_SECONDS if command in AGENT or command is Command.LOOK else 0.0)


@dataclass(frozen=True, slots=True)
class Down:
    """The helper process is gone. ``struck``: libvirt was lost with it, or the process died by itself, so a VM that was being asked may be the cause."""

    struck: bool


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed."""


Observation = Up | Answered | Happened | Down | Ticked
Allow = Callable[[str, str, Sequence[str] | None], bool]
"""Whether a VM may be asked: by UUID, name and the namespaces of its metadata, None where those are not known yet."""


@dataclass(slots=True)
class Vm:
    """State of a VM: ``due`` is the earliest start of its next poll cycle, ``began`` the start of the last one."""

    uuid: str
    name: str
    running: bool
    due: float
    began: float = -NEVER
    failures: int = 0
    strikes: int = 0
    reason: str = GuestReason.WAITING
    blocked: set[Command] = field(default_factory=set)
    look: Look | None = None
    balloon_driver: bool | None = None
    period_due: float = -NEVER


@dataclass(slots=True)
class Turn:
    """A VM's poll cycle: the call in flight (``number`` 0: none), the remaining commands, and the results so far."""

    vm: Vm
    todo: list[Command]
    number: int = 0
    lease: Lease | None = None
    command: Command = Command.LOOK
    asked: float = 0.0
    lost: bool = False
    answered: int = 0
    reason: str = ""
    addresses: bool = False
