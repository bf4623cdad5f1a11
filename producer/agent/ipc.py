"""What the producer and the process apart say to each other: length-prefixed MessagePack of bounded size, over two pipes.

    producer -> process apart: Start, once, then Ask
    process apart -> producer: Up, once libvirt answered; then Answered, Happened, and a Beat every second; Ended, if it still can

Each side ends the other's life rather than read a frame it does not understand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from virtflow.producer.agent.domain_xml import Look
from virtflow.schemas.errors import InputError
from virtflow.schemas.guest import GuestReason
from virtflow.schemas.records import GuestSample

FRAME_BYTES: Final = 4 * 1024 * 1024
"""No frame is larger: a list of all VMs is the largest, an agent's cleaned answer takes 100 KiB at most."""
LISTED_VMS: Final = 5_000
BEAT_SECONDS: Final = 1.0
_LENGTH: Final = struct.Struct(">I")


class Command(StrEnum):
    """What may be asked of libvirt. The agent's commands come first, in the order of a turn."""

    OS = "os"
    HOSTNAME = "hostname"
    FILESYSTEMS = "filesystems"
    INTERFACES = "interfaces"
    CPUS = "cpus"
    LOAD = "load"
    LOOK = "look"
    LEASE = "lease"
    ARP = "arp"
    PERIOD = "period"
    MEMORY = "memory"
    LIST = "list"


AGENT: Final = (Command.OS, Command.HOSTNAME, Command.FILESYSTEMS, Command.INTERFACES, Command.CPUS, Command.LOAD)
"""Those that the guest answers."""


class Start(Struct, frozen=True, tag=True):
    """How to work: the connection, libvirt's waiting for an agent, and the period that ``PERIOD`` sets."""

    uri: str
    keepalive_seconds: int
    keepalive_count: int
    connect_timeout_seconds: float
    timeout_seconds: int
    memory_bytes: int
    period_seconds: int
    pseudo_filesystems: bool
    container_filesystems: bool = False


class Ask(Struct, frozen=True, tag=True):
    """Make this call for this VM; ``number`` comes back with its answer."""

    number: int
    command: Command
    uuid: str = ""


class Up(Struct, frozen=True, tag=True):
    """Connected; ``commands`` are those that this libvirt knows."""

    commands: list[Command]


class Listed(Struct, frozen=True, array_like=True):
    """A VM of the host."""

    uuid: str
    name: str
    running: bool


class Answered(Struct, frozen=True, tag=True, omit_defaults=True):
    """A call has come back after ``seconds``: with what was asked for, or with a ``GuestReason`` and libvirt's words.

    ``started`` is when it was made, in Unix seconds. ``balloon_driver`` is whether the guest's balloon driver tells statistics.
    """

    number: int
    started: float
    seconds: float
    reason: GuestReason | None = None
    text: str = ""
    sample: GuestSample | None = None
    look: Look | None = None
    vms: list[Listed] | None = None
    balloon_driver: bool = False


class Happened(Struct, frozen=True, tag=True):
    """libvirt announced something of a VM: ``what`` is ``agent`` or ``lifecycle``, ``event`` the event's own number."""

    uuid: str
    what: str
    event: int


class Beat(Struct, frozen=True, tag=True):
    """The process's main thread is alive."""


class Ended(Struct, frozen=True, tag=True):
    """The process ends now: ``libvirt`` could not be reached or is lost, or it is out of ``memory``; ``text`` says it in words."""

    why: str
    text: str


ToProcess = Start | Ask
FromProcess = Up | Answered | Happened | Beat | Ended


class BrokenFrameError(InputError):
    """Bytes on the pipe that are no frame."""


_ENCODER: Final = msgspec.msgpack.Encoder()


def encoded(frame: ToProcess | FromProcess) -> bytes:
    """The frame's bytes, its length first."""
    body = _ENCODER.encode(frame)
    if len(body) > FRAME_BYTES:
        raise BrokenFrameError(f"a {type(frame).__name__} of {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


class Reader:
    """Frames out of a stream of bytes, however it is cut."""

    def __init__(self, *, of_process: bool) -> None:
        """``of_process``: the frames are those that the process apart sends."""
        self._decoder: msgspec.msgpack.Decoder[ToProcess | FromProcess] = msgspec.msgpack.Decoder(FromProcess if of_process else ToProcess)
        self._buffer = bytearray()

    def frames(self, data: bytes) -> Iterator[ToProcess | FromProcess]:
        """The frames that ``data`` completes; raises ``BrokenFrameError`` for bytes that are none."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > FRAME_BYTES:
                raise BrokenFrameError(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(memoryview(self._buffer)[_LENGTH.size : end])
            del self._buffer[:end]
            try:
                yield self._decoder.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise BrokenFrameError(f"no frame: {error}") from error
