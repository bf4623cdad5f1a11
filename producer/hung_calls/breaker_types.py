"""Which VMs' monitors are asked, when a call may never come back: the decision, without libvirt, clock or thread.

Theory of operation. A call that enters a VM whose QEMU does not answer never returns, and holds one of libvirtd's workers until
the VM recovers, whatever becomes of us. So a call that has stayed in one VM for too long is *captured*: left alone, never retried,
and counted together with those that an earlier run of ours left behind, and with openings of connections that hang. Nothing is begun
unless it could be lost too and the count still stay within the cap (``slots``). How many may still be lost says what the host allows:

    STARTING   nobody has looked yet        look at all VMs before any of them is asked
    CALM       nothing lost, nobody skipped ask everyone in one call: the whole price while all is well
    SEARCHING  two or more may be lost      look; ask all that are not skipped, trusted ones first; probe skipped ones, one by one
    GUARDED    one more may be lost         look; ask only trusted VMs; where there are none, one that nothing is known of
    SILENT     none may be lost             look; ask nobody

A *look* never waits: libvirt's ``controlInfo`` of each VM ("occupied" and for how long) and, where it can be read, the state of
QEMU's main thread in the process table. It names suspects, which are skipped, and sees them move, which ends it. A captured call
vouches for the VMs before its culprit, because libvirt asks in the order it was given. Where nobody names the culprit, the VMs of
the call are asked again in small portions, so that a further capture costs few of them, as long as calls may be lost. The last call
that may be lost is kept for trusted VMs, which all lose their values with it: it is spent on a VM of which nothing is known only
while there is no trusted one, or where all that is lost was lost by an earlier run (then in small portions, as nobody has been
trusted yet). Whoever is not skipped and may not be asked is *not probed*.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

NEVER: Final = float("inf")
STOPPED: Final = frozenset("TtD")
"""States of QEMU's main thread in which it answers nobody: stopped, traced, waiting for storage."""
PORTIONS: Final = 64
"""In how many portions VMs are asked of which one is stuck and nobody says which: up to that many VMs, one by one."""
GUARDED_PORTIONS: Final = 8
"""In how many portions VMs of which nothing is known are asked when a single call may be lost."""
ASKS_PER_ROUND: Final = 256


class Host(Enum):
    """What the host allows."""

    STARTING = auto()
    CALM = auto()
    SEARCHING = auto()
    GUARDED = auto()
    SILENT = auto()


class Standing(Enum):
    """What is thought of a VM's monitor."""

    UNKNOWN = auto()
    TRUSTED = auto()
    SKIPPED = auto()


# -- observations


@dataclass(frozen=True, slots=True)
class RoundBegan:
    """A round has begun with these VMs, in libvirt's order; nothing new is asked after ``until``."""

    uuids: tuple[str, ...]
    until: float


@dataclass(frozen=True, slots=True)
class Started:
    """The call is under way; before, it only waited for a connection."""

    call: int


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A call has come back: VMs whose QEMU answered, and VMs that libvirt could only tell its own part of."""

    call: int
    full: AbstractSet[str]
    partial: AbstractSet[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Failed:
    """A call has come back with an error; ``lost`` when its connection is gone."""

    call: int
    lost: bool


@dataclass(frozen=True, slots=True)
class Looked:
    """For how long (seconds) each VM looked at has been occupied, 0 when it is not; the process states that can be read."""

    occupied: Mapping[str, float] = field(default_factory=dict)
    processes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moved:
    """Something happened to the VM: it is worth to look."""

    uuid: str


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The connection to libvirt is a new one: what other calls hold is not known any more."""


@dataclass(frozen=True, slots=True)
class Openings:
    """Connections that are being opened: the one that asks, other ones, and of all those that hang, past their deadline."""

    own: int = 0
    others: int = 0
    hanging: int = 0


Observation = RoundBegan | Started | Ticked | Answered | Failed | Looked | Moved | Reconnected | Openings

# -- actions


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask these VMs in one call, in this order; ``everyone`` when they are all there are."""

    call: int
    uuids: tuple[str, ...]
    everyone: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """Look at these VMs; at all when there are none."""

    uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Abandon:
    """Leave the call alone, its thread and connection with it."""

    call: int


Action = Ask | Look | Abandon


class Reaction(Enum):
    """What an observation leads to once it has been learned."""

    NOTHING = auto()
    LOOK = auto()
    PLAN = auto()
    CHECK = auto()


class Choice(Enum):
    """Whom the next call of a round asks."""

    EVERYONE = auto()
    UNSKIPPED = auto()
    TRUSTED = auto()
    PORTION = auto()
    PROBE = auto()


_R = Reaction
TABLE: Final[dict[Host, dict[type[Observation], Reaction]]] = {
    Host.STARTING: {
        RoundBegan: _R.LOOK,
        Looked: _R.PLAN,
        Answered: _R.NOTHING,
        Failed: _R.NOTHING,
        Ticked: _R.CHECK,
        Moved: _R.NOTHING,
        Openings: _R.NOTHING,
    },
    Host.CALM: {
        RoundBegan: _R.PLAN,
        Looked: _R.PLAN,
        Answered: _R.PLAN,
        Failed: _R.PLAN,
        Ticked: _R.CHECK,
        Moved: _R.NOTHING,
        Openings: _R.PLAN,
    },
    Host.SEARCHING: {
        RoundBegan: _R.LOOK,
        Looked: _R.PLAN,
        Answered: _R.PLAN,
        Failed: _R.PLAN,
        Ticked: _R.CHECK,
        Moved: _R.LOOK,
        Openings: _R.PLAN,
    },
    Host.GUARDED: {
        RoundBegan: _R.LOOK,
        Looked: _R.PLAN,
        Answered: _R.PLAN,
        Failed: _R.PLAN,
        Ticked: _R.CHECK,
        Moved: _R.LOOK,
        Openings: _R.PLAN,
    },
    Host.SILENT: {
        RoundBegan: _R.LOOK,
        Looked: _R.PLAN,
        Answered: _R.LOOK,
        Failed: _R.LOOK,
        Ticked: _R.CHECK,
        Moved: _R.LOOK,
        Openings: _R.NOTHING,
    },
}
"""Host state x observation: what follows. ``Started`` and ``Reconnected`` lead to nothing by themselves."""

PLANS: Final[dict[Host, tuple[Choice, ...]]] = {
    Host.STARTING: (),
    Host.CALM: (Choice.EVERYONE, Choice.UNSKIPPED),
    Host.SEARCHING: (Choice.UNSKIPPED, Choice.PROBE),
    Host.GUARDED: (Choice.TRUSTED, Choice.PORTION),
    Host.SILENT: (),
}
"""Whom a round asks in each host state: the first choice that has anybody left in this round."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The cap of calls that may be lost, how long a call may stay in one VM, and the shortest and longest pause between probes."""

    cap: int
    patience: float
    first_pause: float
    longest_pause: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is shown of a VM: whether its monitor answers (None: not known), and whether it may be asked at all."""

    responsive: bool | None
    probed: bool


STUCK: Final = Verdict(responsive=False, probed=True)
RESPONSIVE: Final = Verdict(responsive=True, probed=True)
UNDECIDED: Final = Verdict(responsive=None, probed=True)
NOT_PROBED: Final = Verdict(responsive=None, probed=False)


@dataclass(slots=True)
class VmMonitor:
    """What is known of a VM: its standing, what the last look said, and when it is probed next."""

    standing: Standing = Standing.UNKNOWN
    held: bool = False
    process: str = ""
    since: float = 0.0
    probing: bool = False
    pause: float = 0.0
    due: float = NEVER

    @property
    def stopped(self) -> bool:
        """Whether the process table says that its QEMU answers nobody."""
        return self.process in STOPPED

    @property
    def vouched(self) -> bool:
        """Whether it can be asked at small risk: it answered last time, or the process table says it is fine."""
        return self.standing is Standing.TRUSTED or (self.process != "" and not self.stopped)


@dataclass(slots=True)
class CallOut:
    """A call under way: whom it asks in which order, since when, when it is looked at next, and what looks have seen."""

    number: int
    uuids: tuple[str, ...]
    round: int
    began: float = NEVER
    look_at: float = NEVER
    idle_looks: int = 0
    culprit: str = ""

    @property
    def under_way(self) -> bool:
        """Whether it has its connection; before, it only waits for one."""
        return self.began != NEVER
