"""What a list or a watch of the API server says, from bytes to objects. Pure.

Source: the API's "efficient detection of changes": a list has a resource version, a watch goes on from there with a JSON object for each
line, ERROR with a Status of code 410 means that the version is too old, BOOKMARK brings a newer version alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct, field

from virtflow.adapter.objects import Object
from virtflow.schemas.errors import InputError

LINE_BYTES: Final = 16 * 2**20
"""Longest line of a watch: etcd holds objects of 1.5 MB at most, several times less than their JSON can be."""


class Change(StrEnum):
    """The types of a watch's events."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    ERROR = "ERROR"


class WatchEndedError(InputError):
    """The watch can't go on; ``anew``: the objects have to be listed again."""

    def __init__(self, message: str, *, anew: bool) -> None:
        """``message`` is the server's."""
        super().__init__(message)
        self.anew = anew


class Page(Struct, frozen=True, rename={"continue_": "continue"}):
    """The metadata of a list: its version, and where its next page begins."""

    resourceVersion: str = ""  # noqa: N815, the API's own name
    continue_: str = ""


class Listed(Struct, frozen=True):
    """A page of a list; a list of metadata that is empty has no items at all (null)."""

    metadata: Page = field(default_factory=Page)
    items: list[Object] | None = None


class Event(Struct, frozen=True):
    """An event of a watch, its object not decoded yet."""

    type: Change
    object: msgspec.Raw = msgspec.Raw(b"{}")


class _Status(Struct, frozen=True):
    code: int = 0
    message: str = ""


_LISTED: Final = msgspec.json.Decoder(Listed)
_EVENT: Final = msgspec.json.Decoder(Event)
_OBJECT: Final = msgspec.json.Decoder(Object)
_STATUS: Final = msgspec.json.Decoder(_Status)
GONE: Final = 410


def listed(body: bytes) -> Listed:
    """A page of a list; raises ``WatchEndedError`` where it is none."""
    try:
        return _LISTED.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WatchEndedError(f"a list that can't be read: {error}", anew=True) from error


def event(line: bytes) -> tuple[Change, Object]:
    """The change that a line tells, and its object; raises ``WatchEndedError`` for an error, and for what is no event."""
    try:
        told = _EVENT.decode(line)
        if told.type is Change.ERROR:
            status = _STATUS.decode(told.object)
            raise WatchEndedError(status.message or f"code {status.code}", anew=status.code == GONE)
        return told.type, _OBJECT.decode(told.object)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WatchEndedError(f"an event that can't be read: {error}", anew=True) from error


class Lines:
    """Whole lines from chunks of bytes."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that a chunk completes; raises ``WatchEndedError`` where one grows too long."""
        self._rest += chunk
        if b"\n" in chunk:
            *lines, rest = self._rest.split(b"\n")
            self._rest = rest
            yield from (bytes(line) for line in lines if line.strip())
        if len(self._rest) > LINE_BYTES:
            raise WatchEndedError(f"a line of more than {LINE_BYTES} bytes", anew=True)
