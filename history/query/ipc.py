"""Protocol between ``limited`` and the process that asks: frames over two pipes.

asking side -> process: Asking, once
process -> asking side: Began, once the tables are open; then Rows and Done, or Failed, at any point
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

from virtflow.runtime.process.frames import Kinds
from virtflow.runtime.settings import History

PIECE_BYTES: Final = 1 << 20


class Shape(StrEnum):
    """What an answer's columns may be: whatever Parquet can hold, or what can be shown as text."""

    COLUMNS = "columns"
    TEXT = "text"


class Asking(Struct, frozen=True, tag=True):
    """One SELECT over the tables, of one project's rows ("": of all)."""

    history: History
    project: str
    sql: str
    shape: Shape


class Began(Struct, frozen=True, tag=True):
    """The query runs."""


class Rows(Struct, frozen=True, tag=True):
    """The next bytes of the answer as an Arrow stream."""

    data: bytes


class Done(Struct, frozen=True, tag=True):
    """The answer is whole."""


class Failed(Struct, frozen=True, tag=True):
    """There is no answer, for this reason; ``setting`` has the fields of a ``SettingError``."""

    text: str
    setting: dict[str, str] = {}


FromProcess = Began | Rows | Done | Failed
ASKING: Final[Kinds[Asking]] = Kinds(Asking)
FROM_PROCESS: Final[Kinds[FromProcess]] = Kinds(FromProcess)
