"""Counts a remote_read request's fields before the protobuf library builds them: a megabyte of empty queries is half a million objects.

Only what the library would build is counted. Fields that it skips cost it nothing but are counted as well, so that the work is bounded by
``FIELDS`` whatever the bytes are. Source: protobuf's encoding ("Message Structure").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from virtflow.schemas.errors import InputError

FIELDS: Final = 8_192
"""All fields of a request: 16 queries of 64 matchers with three fields each, and their hints."""
MATCHERS: Final = 64
"""Matchers of one query."""
ACCEPTED_BYTES: Final = 64
"""Of the list of answers that a client takes: there are two kinds."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED: Final = {FIXED64: 8, FIXED32: 4}
_QUERY, _ACCEPTED = 1, 2
"""Numbers of a request's fields."""
_MATCHER, _HINTS = 3, 4
"""Numbers of a query's fields."""
_VARINT_BYTES: Final = 10
_FIELD_BITS: Final = 3


class ProtocolError(InputError):
    """A request that is none, or that holds more than anybody needs."""


class Counter:
    """What one request holds so far."""

    def __init__(self, queries: int) -> None:
        """At most so many queries are taken."""
        self._most = queries
        self._fields = 0

    def request(self, body: bytes) -> None:
        """Raises ``ProtocolError`` where a plain body is no message, or beyond a limit."""
        queries = accepted = 0
        for number, start, end in self._parts(body, 0, len(body)):
            if number == _QUERY:
                queries += 1
                if queries > self._most:
                    raise ProtocolError(f"more than {self._most} queries, at most {self._most} are taken at once (history.serve_queries)")
                self._query(body, start, end)
            elif number == _ACCEPTED:
                accepted += max(end - start, 1)
                if accepted > ACCEPTED_BYTES:
                    raise ProtocolError(f"more than {ACCEPTED_BYTES} bytes of accepted answers")

    def _query(self, body: bytes, start: int, end: int) -> None:
        matchers = 0
        for number, first, last in self._parts(body, start, end):
            matchers += number == _MATCHER
            if matchers > MATCHERS:
                raise ProtocolError(f"more than {MATCHERS} matchers, at most {MATCHERS} are taken")
            if number in {_MATCHER, _HINTS}:
                for _ in self._parts(body, first, last):
                    pass

    def _parts(self, body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number, and where it begins and ends, of each field that holds bytes; both are 0 for the others."""
        while at < end:
            self._fields += 1
            if self._fields > FIELDS:
                raise ProtocolError(f"more than {FIELDS} fields")
            key, at = _varint(body, at, end)
            kind = key & 7
            if kind == BYTES:
                size, at = _varint(body, at, end)
                start, at = at, at + size
                if at > end:
                    raise ProtocolError("the body is no ReadRequest: a field is cut off")
                yield key >> _FIELD_BITS, start, at
            else:
                at = _skipped(body, at, end, kind)
                yield key >> _FIELD_BITS, 0, 0


def _skipped(body: bytes, at: int, end: int, kind: int) -> int:
    """Where the next field begins after a number."""
    if kind == VARINT:
        return _varint(body, at, end)[1]
    if kind not in _FIXED:
        raise ProtocolError(f"the body is no ReadRequest: a field of kind {kind}")
    if at + _FIXED[kind] > end:
        raise ProtocolError("the body is no ReadRequest: a field is cut off")
    return at + _FIXED[kind]


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for place in range(at, min(end, at + _VARINT_BYTES)):
        byte = body[place]
        value |= (byte & 0x7F) << (7 * (place - at))
        if byte < 0x80:  # noqa: PLR2004, seven bits a byte
            return value, place + 1
    raise ProtocolError("the body is no ReadRequest: a number is cut off")
