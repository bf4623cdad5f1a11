"""Circuit breaker for libvirt monitor calls that may hang: its theory, its tables, its observations and actions. Pure, no I/O.

Theory of operation. A call that enters a VM whose QEMU does not answer never returns, and holds one of libvirtd's workers until the VM
recovers. A call that has stayed in one VM for longer than the stall timeout is a *hung call*: it is left alone and never retried. How
many calls may hang is the budget's affair (``budget.py``); the breaker decides which VMs are asked. How many more calls may hang
determines its state:

    STARTING   no health check has been made    check the health of all VMs before any of them is asked
    CLOSED     no call hangs, no VM is skipped  ask all VMs once: the whole price while all is well
    PROBING    two or more calls may hang       check; ask all VMs that are not skipped, healthy ones first; probe skipped ones, one by one
    DEGRADED   one more call may hang           check; ask only VMs known healthy; where there are none, one of unknown health
    OPEN       no more calls may hang           check; ask no VM

A *health check* never waits: libvirt's ``controlInfo`` of each VM ("occupied" and for how long) and, where it can be read, the state of
QEMU's main thread in the process table. It names the suspects, which are skipped, and sees them recover. A hung call proves that the
VMs before the one it hangs in are healthy, because libvirt asks in the order it was given. Where nothing names the VM that a call hangs
in, the VMs of the call are asked again in small batches, so that another hung call costs few of them, as long as calls may hang. Where
VMs are many, a call is several of libvirt's, one after another, and each by itself is to take no longer than the stall timeout. The
last call that may hang is kept for VMs known healthy, which would all lose their values with it: it is spent on a VM of unknown health
only while no VM is healthy, or where all hung calls are an earlier run's (then in small batches, as no VM is known healthy yet). A VM
that is neither skipped nor may be asked is *not probed*.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from virtflow.producer.types import STOPPED, HealthCheck

NEVER: Final = float("inf")
BATCHES: Final = 64
"""Into how many batches VMs are divided when one is stuck and nothing says which: up to that many VMs, one by one."""
DEGRADED_BATCHES: Final = 8
"""Into how many batches VMs of unknown health are divided when a single call may hang."""
ASKS_PER_ROUND: Final = 256
LEAST_AT_A_TIME: Final = 16
MOST_AT_A_TIME: Final = 128
"""VMs that are asked at a time, at least and at most."""
AT_A_TIME_SHARE: Final = 0.75
"""Part of the stall timeout that asking so many VMs takes while all is well. Were it more, each round of a host with many VMs would check
and list all of them besides."""


class State(Enum):
    """The breaker's state."""

    STARTING = auto()
    CLOSED = auto()
    PROBING = auto()
    DEGRADED = auto()
    OPEN = auto()


class Health(Enum):
    """What is thought of a VM's monitor."""

    UNKNOWN = auto()
    HEALTHY = auto()
    SKIPPED = auto()


# -- observations


@dataclass(frozen=True, slots=True)
class RoundBegan:
    """A round has begun with these VMs, in libvirt's order; no call begins after ``until``."""

    uuids: tuple[str, ...]
    until: float


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A call has returned: VMs whose QEMU answered, and VMs of which libvirt could only report what it knows itself."""

    call: int
    full: AbstractSet[str]
    partial: AbstractSet[str] = frozenset()


@dataclass(frozen=True, slots=True)
class BatchAnswered:
    """A call has got so far: it goes on with the VMs that are left. ``full`` and ``partial`` as in ``Answered``."""

    call: int
    full: AbstractSet[str]
    partial: AbstractSet[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Failed:
    """A call has returned with an error; ``lost`` when its connection is lost."""

    call: int
    lost: bool


@dataclass(frozen=True, slots=True)
class EventSeen:
    """libvirt announced something about the VM: a health check may find it recovered."""

    uuid: str


@dataclass(frozen=True, slots=True)
class HungElsewhere:
    """A call of another kind hangs in that VM."""

    uuid: str


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The connection to libvirt is a new one: what other calls hold is not known any more."""


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """Whether there is a connection by which monitors can be asked."""

    ready: bool


@dataclass(frozen=True, slots=True)
class BudgetChanged:
    """Somebody else released a lease, or has a hung call."""


Observation = (
    RoundBegan
    | Ticked
    | Answered
    | BatchAnswered
    | Failed
    | HealthCheck
    | EventSeen
    | HungElsewhere
    | Reconnected
    | ConnectionChanged
    | BudgetChanged
)

# -- actions


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask these VMs, in this order and ``most`` at a time; ``everyone`` when they are all there are."""

    call: int
    uuids: tuple[str, ...]
    everyone: bool = False
    most: int = MOST_AT_A_TIME


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Check the health of these VMs; of all when there are none."""

    uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Abandon:
    """Leave the call alone, with its thread and connection; it hangs in the VM ``uuid``, "" where nothing says in which."""

    call: int
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A VM that was skipped since ``since`` (monotonic seconds) answers again."""

    uuid: str
    since: float


@dataclass(frozen=True, slots=True)
class Located:
    """A hung call that nothing named the VM of is found to be in the VM ``uuid``; it began at ``since`` (monotonic seconds)."""

    uuid: str
    since: float


@dataclass(frozen=True, slots=True)
class HungCallReturned:
    """A hung call that began at ``since`` has returned, and no VM's recovery says so: ``uuid`` is "" where none was found, else it has gone."""

    uuid: str
    since: float


Action = Ask | CheckHealth | Abandon | Recovered | Located | HungCallReturned


class Reaction(Enum):
    """What follows an observation once it has been learned."""

    NOTHING = auto()
    CHECK_HEALTH = auto()
    PLAN = auto()
    CHECK_IF_DUE = auto()


class Choice(Enum):
    """Which VMs the next call of a round asks."""

    EVERYONE = auto()
    UNSKIPPED = auto()
    HEALTHY = auto()
    BATCH = auto()
    PROBE = auto()


_R = Reaction
TABLE: Final[dict[State, dict[type[Observation], Reaction]]] = {
    State.STARTING: {
        RoundBegan: _R.CHECK_HEALTH,
        HealthCheck: _R.PLAN,
        Answered: _R.NOTHING,
        Failed: _R.NOTHING,
        Ticked: _R.CHECK_IF_DUE,
        EventSeen: _R.NOTHING,
        ConnectionChanged: _R.NOTHING,
        BudgetChanged: _R.NOTHING,
    },
    State.CLOSED: {
        RoundBegan: _R.PLAN,
        HealthCheck: _R.PLAN,
        Answered: _R.PLAN,
        Failed: _R.PLAN,
        Ticked: _R.CHECK_IF_DUE,
        EventSeen: _R.NOTHING,
        ConnectionChanged: _R.PLAN,
        BudgetChanged: _R.PLAN,
    },
    State.PROBING: {
        RoundBegan: _R.CHECK_HEALTH,
        HealthCheck: _R.PLAN,
        Answered: _R.PLAN,
        Failed: _R.PLAN,
        Ticked: _R.CHECK_IF_DUE,
        EventSeen: _R.CHECK_HEALTH,
        ConnectionChanged: _R.PLAN,
        BudgetChanged: _R.PLAN,
    },
    State.DEGRADED: {
        RoundBegan: _R.CHECK_HEALTH,
        HealthCheck: _R.PLAN,
        Answered: _R.PLAN,
        Failed: _R.PLAN,
        Ticked: _R.CHECK_IF_DUE,
        EventSeen: _R.CHECK_HEALTH,
        ConnectionChanged: _R.PLAN,
        BudgetChanged: _R.PLAN,
    },
    State.OPEN: {
        RoundBegan: _R.CHECK_HEALTH,
        HealthCheck: _R.PLAN,
        Answered: _R.CHECK_HEALTH,
        Failed: _R.CHECK_HEALTH,
        Ticked: _R.CHECK_IF_DUE,
        EventSeen: _R.CHECK_HEALTH,
        ConnectionChanged: _R.NOTHING,
        BudgetChanged: _R.NOTHING,
    },
}
"""State x observation: what follows. ``BatchAnswered``, ``Reconnected`` and ``HungElsewhere`` have no reaction of their own."""

PLANS: Final[dict[State, tuple[Choice, ...]]] = {
    State.STARTING: (),
    State.CLOSED: (Choice.EVERYONE, Choice.UNSKIPPED),
    State.PROBING: (Choice.UNSKIPPED, Choice.PROBE),
    State.DEGRADED: (Choice.HEALTHY, Choice.BATCH),
    State.OPEN: (),
}
"""Which VMs a round asks in each state: the first choice that has any VM left in this round."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: how long a call may stay in one VM, and the shortest and longest pause between probes."""

    stall_timeout: float
    first_pause: float
    longest_pause: float

    def stall_timeout_of(self, process: str) -> float:
        """How long a call may stay in a VM: twice as long where its process is seen to be fine, which a busy host's is."""
        return self.stall_timeout * (2 if process and process not in STOPPED else 1)
