"""How much the history's writer takes at a time: less while memory is short, and nothing while hardly any is left."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from virtflow.runtime.memory import RESERVE_BYTES, Memory, Pressure, release

MOST_MESSAGES: Final = 1_000
"""Read at a time at most."""
LEAST_MESSAGES: Final = 10
EXPANSION: Final = 40
"""Rows are made of messages in this many times their bytes (measured: 28 to 35, with two disks and two network interfaces in each sample)."""
TYPICAL_BYTES: Final = 1_024.0
"""Of a message, before any was read."""
LEAST_BYTES: Final = 65_536
"""Messages of so many bytes make a batch, however short memory is."""


class BatchLimit:
    """The size of the next batch. Belongs to the writer's thread."""

    def __init__(self, most_bytes: int, memory: Pressure) -> None:
        """``most_bytes`` of messages make a batch where memory is not short."""
        self._most_bytes = most_bytes
        self._memory = memory
        self._message_bytes = TYPICAL_BYTES

    @property
    def problem(self) -> str:
        """Why nothing more is read, "" while memory is not short."""
        return self._memory.problem

    def is_short(self) -> bool:
        """Whether nothing more may be read now."""
        return self._memory.look()

    def bytes(self) -> float:
        """How many bytes of messages make a batch: fewer where there is no room for the rows of more."""
        self._memory.look()
        return min(self._most_bytes, max(LEAST_BYTES, (self._memory.left - RESERVE_BYTES) / EXPANSION))

    def messages(self, waiting_bytes: int) -> int:
        """How many messages to read at a time, while ``waiting_bytes`` of the batch have been read: hardly more than what is missing of it."""
        missing = (self.bytes() - waiting_bytes) / self._message_bytes
        return int(max(LEAST_MESSAGES, min(MOST_MESSAGES, missing)))

    def note(self, message_bytes: float) -> None:
        """The messages of the last read had so many bytes on average: the next ones are expected to be as large."""
        self._message_bytes = max(1.0, message_bytes)


def own_memory() -> Pressure:
    """The memory of this process. What Arrow and the C library keep for themselves is given back before it is called short."""
    return Pressure(Memory().room, _release)


def _release() -> None:
    pa.default_memory_pool().release_unused()
    release()
