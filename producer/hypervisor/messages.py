"""What the sampling thread and the threads that call libvirt say to each other: plain values, no libvirt, no I/O.

Observations come from the threads: a worker is open, a call has returned, libvirt announced an event. Actions go to them: open a worker,
submit a query, retire a worker. Workers and calls are known by numbers, so that what decides never holds a thread or a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from virtflow.producer.types import HypervisorEvent

Query = Callable[[Any], Any]
"""What a worker's thread calls with libvirt's connection. One that returns an iterator of (UUID, value) is streamed as ``Progress``."""

# -- observations


@dataclass(frozen=True, slots=True)
class Opened:
    """A worker's connection is open; ``libvirt_version`` is the daemon's, as its own number (11003000), 0 where it does not say."""

    worker: int
    libvirt_version: int = 0


@dataclass(frozen=True, slots=True)
class OpenFailed:
    """A worker's connection could not be opened; the worker has ended."""

    worker: int
    error: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker's connection is closed, though no call has failed for it."""

    worker: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A streamed query has got so far: what it found of one VM."""

    call: int
    uuid: str
    value: Any


@dataclass(frozen=True, slots=True)
class Returned:
    """A call has returned: ``began`` (monotonic) and ``started`` (Unix seconds) are when libvirt was called.

    ``error`` is libvirt's, ``alive`` whether the connection still stands.
    """

    call: int
    began: float
    started: float
    seconds: float
    result: Any = None
    error: BaseException | None = None
    alive: bool = True


@dataclass(frozen=True, slots=True)
class VersionsFound:
    """The versions of libvirt and of the hypervisor in words; "" for one that libvirt does not say."""

    libvirt: str
    hypervisor: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """It is time to stop."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Message = Opened | OpenFailed | Lost | Progress | Returned | VersionsFound | HypervisorEvent | Interrupted | Tick

# -- actions


@dataclass(frozen=True, slots=True)
class Open:
    """Begin to open a worker of that name: ``Opened`` or ``OpenFailed`` follows, or nothing for as long as libvirt does not answer."""

    worker: int
    name: str


@dataclass(frozen=True, slots=True)
class Submit:
    """Have the worker make a call: ``Returned`` follows, or nothing for as long as the call hangs."""

    worker: int
    call: int
    query: Query


@dataclass(frozen=True, slots=True)
class Retire:
    """Let the worker close its connection and end as soon as its thread is free."""

    worker: int


@dataclass(frozen=True, slots=True)
class FindVersions:
    """Ask for the versions by a connection of its own: ``VersionsFound`` follows."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Hand an event to whoever follows the VMs' events."""

    event: HypervisorEvent


Action = Open | Submit | Retire | FindVersions | Announce
