"""Messages that can't be decoded: each becomes a dead letter, and too many of them stop the processors.

A dead letter keeps the original's key and bytes; its headers say where it came from and why it was refused. A few of them
are errors of single producers. If they are a large share of all messages, the processors are at fault (a bad release, a wrong topic), and
moving every message to the dead letters would only hide that. Then processing stops, and unhandled messages stay unacknowledged.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct

from virtflow.schemas.errors import StopForGoodError, UndecodableError
from virtflow.schemas.topics import DEAD_LETTERS, Topic

VALUE_BYTES: Final = 900_000
KEY_BYTES: Final = 10_000
"""What is kept of a message that is too large for the dead letters' topic; the header ``size`` tells how large it was."""

DEFECT: Final = "defect"
"""The reason of a message whose handling failed because of a defect in the processors."""


class Message(Struct, frozen=True, gc=False):
    """A message as it was taken from a topic. ``timestamp`` is the one of the broker or the producer, in Unix seconds."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    timestamp: float


class Result(Struct, frozen=True, gc=False):
    """A message to be produced."""

    topic: Topic
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


def dead_letter(message: Message, error: Exception, now: float) -> Result:
    """The dead letter of ``message``, refused with ``error`` at ``now`` (Unix seconds).

    Headers, all of them text: topic, partition, offset, reason, detail, time, size.
    """
    headers = {
        "topic": message.topic,
        "partition": str(message.partition),
        "offset": str(message.offset),
        "reason": reason_of(error),
        "detail": error.detail if isinstance(error, UndecodableError) else f"{type(error).__name__}: {error}"[:200],
        "time": f"{now:.3f}",
        "size": str(len(message.value)),
    }
    return Result(
        DEAD_LETTERS,
        message.key[:KEY_BYTES],
        message.value[:VALUE_BYTES],
        tuple((name, text.encode("utf-8", "replace")) for name, text in headers.items()),
    )


def reason_of(error: Exception) -> str:
    """Why a message was refused, in a word."""
    return error.reason.value if isinstance(error, UndecodableError) else DEFECT


class TooManyUndecodableError(StopForGoodError):
    """So many of the last messages can't be decoded that continuing would lose data silently."""


class Window:
    """The share of undecodable messages among the last ``size`` ones."""

    def __init__(self, size: int, share: float) -> None:
        """The limit is ``share`` of ``size`` messages (both from the settings)."""
        self._limit = share * size
        self._share = share
        self._last: deque[bool] = deque(maxlen=size)
        self._bad = 0

    def note(self, message: Message, *, undecodable: bool) -> None:
        """Counts a message; raises ``TooManyUndecodableError``, which names it, when it reaches the limit."""
        if len(self._last) == self._last.maxlen:
            self._bad -= self._last.popleft()
        self._last.append(undecodable)
        self._bad += undecodable
        if undecodable and self._bad >= self._limit:
            raise TooManyUndecodableError(
                f"{self._bad} of the last {len(self._last)} messages can't be decoded (limit: {self._share:.0%} of {self._last.maxlen}); "
                f"stopped before {message.topic}[{message.partition}] offset {message.offset}, which is not acknowledged; "
                "see the reasons in the dead letters, and fix the producer or the release"
            )
