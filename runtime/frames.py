"""Frames between a process and its child, over a pipe: MessagePack of bounded size, each with its length before it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, Generic, TypeVar

import msgspec

from virtflow.schemas.errors import InputError

Frame = TypeVar("Frame", bound=msgspec.Struct)
FRAME_BYTES: Final = 16 << 20
"""No frame is larger."""
LENGTH: Final = struct.Struct(">I")
_ENCODER: Final = msgspec.msgpack.Encoder()


class BrokenFrameError(InputError):
    """Bytes on the pipe that are no frame."""


def encoded(frame: msgspec.Struct) -> bytes:
    """The frame as bytes, with its length before it; raises ``BrokenFrameError`` where that is too much."""
    body = _ENCODER.encode(frame)
    if len(body) > FRAME_BYTES:
        raise BrokenFrameError(f"a {type(frame).__name__} of {len(body)} bytes")
    return LENGTH.pack(len(body)) + body


def length(head: bytes) -> int:
    """How many bytes follow; raises ``BrokenFrameError``."""
    (count,) = LENGTH.unpack(head)
    if count > FRAME_BYTES:
        raise BrokenFrameError(f"a frame of {count} bytes")
    return int(count)


class Kinds(Generic[Frame]):
    """The frames that one side sends."""

    def __init__(self, union: Any) -> None:  # noqa: ANN401, a union of types
        """``union`` of all of them, with tags."""
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
            count = length(head)
            if len(body := pipe.read(count)) < count:
                return
            yield self.decoded(body)
