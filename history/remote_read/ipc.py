"""Protocol between `history serve` and its reading processes: frames over two pipes.

    server -> process: Begin, once, then Read, Values or Had, one at a time
    process -> server: Ready, once; for each job Head and Pieces, Names or Whether, then Done; or Failed, at any point

A side that receives a frame it does not understand ends the process.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

from virtflow.runtime.process.frames import Kinds
from virtflow.runtime.settings import Settings

PIECE_BYTES: Final = 1 << 19


class Failure(StrEnum):
    """Why a job has no answer."""

    REFUSED = "refused"
    UNKNOWN_LABEL = "unknown_label"
    LATE = "late"
    UNAVAILABLE = "unavailable"
    MEMORY = "memory"
    DEFECT = "defect"


class Begin(Struct, frozen=True, tag=True):
    """The settings to read with."""

    settings: Settings


class Read(Struct, frozen=True, tag=True):
    """One remote_read request's body for a tenant ("": everything), which may take so long from now on."""

    tenant: str
    seconds: float
    body: bytes


class Values(Struct, frozen=True, tag=True):
    """The values of a label between two times (Unix seconds)."""

    tenant: str
    seconds: float
    label: str
    start: float
    end: float
    most: int


class Had(Struct, frozen=True, tag=True):
    """Whether a series has ever had a value of a label."""

    tenant: str
    seconds: float
    label: str
    value: str


class Ready(Struct, frozen=True, tag=True):
    """The process can be asked."""


class Head(Struct, frozen=True, tag=True):
    """An answer begins: streamed chunks or samples, and what is in it."""

    chunks: bool
    queries: int
    samples: int
    wanted: list[tuple[str, str]]
    """Labels and values that all queries want, where none has a series."""


class Piece(Struct, frozen=True, tag=True):
    """The next bytes of an answer."""

    data: bytes


class Names(Struct, frozen=True, tag=True):
    """The values of a label."""

    names: list[str]


class Whether(Struct, frozen=True, tag=True):
    """Yes or no."""

    yes: bool


class Done(Struct, frozen=True, tag=True):
    """The job is over."""


class Failed(Struct, frozen=True, tag=True):
    """The job is over without an answer, or in the middle of one."""

    why: Failure
    text: str


Job = Read | Values | Had
ToProcess = Begin | Read | Values | Had
FromProcess = Ready | Head | Piece | Names | Whether | Done | Failed

TO_PROCESS: Final[Kinds[ToProcess]] = Kinds(ToProcess)
FROM_PROCESS: Final[Kinds[FromProcess]] = Kinds(FromProcess)
