"""Frames between a process and its child, over a pipe: MessagePack of bounded size, each with its length before it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, Generic, TypeVar

import msgspec

from virtflow.schemas.errors import InputError

Frame = TypeVar("Frame", bound=msgspec.Struct)
FRAME_BYTES: Final = 16 << 20
"""No frame is larger, unless a protocol says less."""
LENGTH: Final = struct.Struct(">I")
_ENCODER: Final = msgspec.msgpack.Encoder()


class BrokenFrameError(InputError):
    """Bytes on the pipe that are no frame."""


def encoded(frame: msgspec.Struct, most: int = FRAME_BYTES) -> bytes:
    """The frame as bytes, with its length before it; raises ``BrokenFrameError`` where that is too much."""
    body = _ENCODER.encode(frame)
    if len(body) > most:
        raise BrokenFrameError(f"a {type(frame).__name__} of {len(body)} bytes")
    return LENGTH.pack(len(body)) + body


def write(out: int, data: bytes) -> None:
    """Writes all bytes of a frame to a descriptor, however many of them each call takes."""
    left = memoryview(data)
    while left:
        left = left[os.write(out, left) :]


def length(head: bytes, most: int = FRAME_BYTES) -> int:
    """How many bytes follow; raises ``BrokenFrameError``."""
    (count,) = LENGTH.unpack(head)
    if count > most:
        raise BrokenFrameError(f"a frame of {count} bytes")
    return int(count)


class Kinds(Generic[Frame]):
    """The frames that one side sends."""

    def __init__(self, union: Any, most: int = FRAME_BYTES) -> None:  # noqa: ANN401, a union of types
        """``union`` of all of them, with tags; none has more than ``most`` bytes."""
        self._most = most
        self._decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(union)

    def decoded(self, body: bytes) -> Frame:
        """A frame; raises ``BrokenFrameError``."""
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BrokenFrameError(f"no frame: {error}") from error

    def received(self, pipe: BinaryIO) -> Iterator[Frame]:
        """The frames of a pipe that is read in turn, until its other side is gone."""
        while len(head := pipe.read(LENGTH.size)) == LENGTH.size:
            count = length(head, self._most)
            if len(body := pipe.read(count)) < count:
                return
            yield self.decoded(body)

    def completed(self, buffer: bytearray) -> Iterator[Frame]:
        """The frames that are whole in a buffer of what has arrived so far; they are taken out of it."""
        while len(buffer) >= LENGTH.size:
            end = LENGTH.size + length(bytes(buffer[: LENGTH.size]), self._most)
            if len(buffer) < end:
                return
            body = bytes(memoryview(buffer)[LENGTH.size : end])
            del buffer[:end]
            yield self.decoded(body)
