"""The one queue on which everything arrives that other threads have to say: finished calls, connections, events, the word to stop.

The sampling thread alone reads it and alone decides; the others only put.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from virtflow.producer.hypervisor.connection import Lane


@dataclass(slots=True, eq=False)
class Call:
    """One call to libvirt on a lane: when it began (both clocks), and once ``ended`` its result or its error.

    ``started`` is Unix seconds and goes into records; ``began`` is the monotonic clock's and orders results.
    """

    lane: Lane
    purpose: str
    started: float
    began: float
    seconds: float = 0.0
    ended: bool = False
    result: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A lane's connection is ready."""

    lane: Lane


@dataclass(frozen=True, slots=True)
class OpenFailed:
    """A lane's connection could not be opened; the lane is over."""

    lane: Lane
    error: BaseException


@dataclass(frozen=True, slots=True)
class Happened:
    """libvirt announced something about a VM: ``what`` names the event, ``detail`` its numbers."""

    uuid: str
    name: str
    what: str
    detail: tuple[object, ...] = ()
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class Woken:
    """Nothing but the word to look again: it is time to stop."""


Message = Call | Opened | OpenFailed | Happened | Woken


@dataclass(slots=True)
class Inbox:
    """What the other threads put, in the order of its arrival."""

    _queue: SimpleQueue[Message] = field(default_factory=SimpleQueue)

    def put(self, message: Message) -> None:
        """Hand a message over; never waits, and may be called in a signal handler."""
        self._queue.put(message)

    def take(self, until: float) -> Message | None:
        """The next message, or None when the monotonic clock reaches ``until`` first."""
        left = until - time.monotonic()
        try:
            return self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
        except Empty:
            return None
