"""Protocol between producer and helper process: length-prefixed MessagePack frames of bounded size, over two pipes.

    producer -> helper process: Start, once, then Ask
    helper process -> producer: Up, once libvirt has answered; then Answered, Happened, and a Beat every second; Ended, if still possible

A side that receives a frame it does not understand ends the connection, and with it the helper process.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from msgspec import Struct

from virtflow.producer.records.guest_devices import Look
from virtflow.runtime.process import frames
from virtflow.schemas.guest import GuestReason
from virtflow.schemas.records import GuestSample

FRAME_BYTES: Final = 4 * 1024 * 1024
"""No frame is larger: a list of all VMs is the largest, an agent's cleaned answer takes 100 KiB at most."""
LISTED_VMS: Final = 5_000
BEAT_SECONDS: Final = 1.0


class Command(StrEnum):
    """The calls that can be requested. The guest agent's commands come first, in the order of a poll cycle."""

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
    """Parameters of the process: the connection's URI, libvirt's agent timeout, and the period that ``PERIOD`` sets."""

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
    """Request for one call for one VM; the answer has the same ``number``."""

    number: int
    command: Command
    uuid: str = ""


class Up(Struct, frozen=True, tag=True):
    """The process is connected; ``commands`` are those that this libvirt supports."""

    commands: list[Command]


class Listed(Struct, frozen=True, array_like=True):
    """A VM of the host."""

    uuid: str
    name: str
    running: bool


class Answered(Struct, frozen=True, tag=True, omit_defaults=True):
    """A call has returned after ``seconds``: with its result, or with a ``GuestReason`` and libvirt's error text.

    ``started`` is when the call was made, in Unix seconds. ``balloon_driver``: whether the guest's balloon driver reports statistics.
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
    """A libvirt event about a VM: ``what`` is ``agent`` or ``lifecycle``, ``event`` is libvirt's event number."""

    uuid: str
    what: str
    event: int


class Beat(Struct, frozen=True, tag=True):
    """The process's main thread is alive."""


class Ended(Struct, frozen=True, tag=True):
    """The process ends now: the connection to ``libvirt`` failed or is lost, or the process is out of ``memory``; ``text`` has the details."""

    why: str
    text: str


ToProcess = Start | Ask
FromProcess = Up | Answered | Happened | Beat | Ended


def encoded(frame: ToProcess | FromProcess) -> bytes:
    """The frame as bytes, prefixed with its length; raises ``BrokenFrameError`` where that is too much."""
    return frames.encoded(frame, FRAME_BYTES)


class Reader:
    """Parses frames from a byte stream that arrives in arbitrary pieces."""

    def __init__(self, *, of_process: bool) -> None:
        """``of_process``: the frames are those that the helper process sends."""
        self._kinds: frames.Kinds[ToProcess | FromProcess] = frames.Kinds(FromProcess if of_process else ToProcess, FRAME_BYTES)
        self._buffer = bytearray()

    def frames(self, data: bytes) -> Iterator[ToProcess | FromProcess]:
        """The frames that ``data`` completes; raises ``BrokenFrameError`` for bytes that are not a frame."""
        self._buffer += data
        return self._kinds.completed(self._buffer)
