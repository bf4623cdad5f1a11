"""Messages that can't be decoded: each becomes a dead letter. ``processors/dead_letters/limit.py`` decides when there are too many.

A dead letter keeps the original's key and bytes; its headers say where it came from and why it was refused.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from virtflow.schemas.errors import UndecodableError
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
