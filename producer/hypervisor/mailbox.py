"""The one queue on which everything arrives that other threads have to say: returned calls, connections, events, the word to stop.

Only the sampling thread reads it; all others only put. ``SimpleQueue`` needs no lock, and its ``put`` may be called in a signal handler.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Protocol

from virtflow.producer.hypervisor.messages import Message


class Outlet(Protocol):
    """Where threads put what they have to say."""

    def put(self, message: Message) -> None:
        """Hand a message over; never waits."""


@dataclass(slots=True)
class Inbox:
    """What the other threads put, in the order of its arrival."""

    _queue: SimpleQueue[Message] = field(default_factory=SimpleQueue)

    def put(self, message: Message) -> None:
        """Hand a message over; never waits."""
        self._queue.put(message)

    def take(self, until: float) -> Message | None:
        """The next message, or None when the monotonic clock reaches ``until`` first."""
        left = until - time.monotonic()
        try:
            return self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
        except Empty:
            return None
