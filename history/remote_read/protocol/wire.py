"""Prometheus' remote_read on the wire: requests in, answers as samples or as streamed chunks out.

Requests come from anybody and are read by the protobuf library, within limits. Answers are written by hand, since that is measured: all samples
of a series at once, in snappy's block format, or for streamed answers in frames of a length, a CRC-32C and a message each.
Sources: Prometheus' ``prompb/remote.proto`` and ``prompb/types.proto``, and ``storage/remote/chunked.go``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import cramjam
import crc32c
import numpy as np
from google.protobuf.message import DecodeError

from virtflow.history.remote_read.protocol.counted import Counter, ProtocolError
from virtflow.history.remote_read.protocol.messages import ReadRequestMessage
from virtflow.history.remote_read.protocol.xor_chunks import chunks

REQUEST_BYTES: Final = 1 << 20
QUERIES: Final = 16
"""Queries of one request unless a setting says otherwise; Prometheus asks one."""
TEXT_CHARACTERS: Final = 16_384
"""Of a matcher's name or value: a dashboard's variable with hundreds of names is a pattern of several thousand."""

Numbers = np.ndarray[Any, np.dtype[Any]]


class Match(IntEnum):
    """How a matcher compares."""

    EQUAL = 0
    NOT_EQUAL = 1
    REGEX = 2
    NOT_REGEX = 3


class Answer(IntEnum):
    """How an answer is sent."""

    SAMPLES = 0
    CHUNKS = 1


_MATCHES: Final = frozenset(Match)
_ANSWERS: Final = frozenset(Answer)


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label."""

    how: Match
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Hints:
    """What Prometheus is going to do with the samples: step and window in milliseconds (0: none), the function, from and to."""

    step: int = 0
    func: str = ""
    start: int = 0
    end: int = 0
    window: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: from and to in milliseconds, both included, the matchers, and the hints where there are some."""

    start: int
    end: int
    matchers: tuple[Matcher, ...]
    hints: Hints | None = None


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """All queries of a request, and the kinds of answer that are taken, the best first."""

    queries: tuple[Asked, ...]
    accepted: tuple[Answer, ...] = (Answer.SAMPLES,)


@dataclass(frozen=True, slots=True)
class Series:
    """Labels in their order, and samples: milliseconds, rising, and values."""

    labels: tuple[tuple[str, str], ...]
    times: Numbers
    values: Numbers


def read_request(body: bytes, queries: int = QUERIES) -> ReadRequest:
    """The request in a body, of so many queries at most; raises ``ProtocolError`` where it is none, or holds more than anybody needs."""
    plain, message = _plain(body), ReadRequestMessage()
    Counter(queries).request(plain)
    try:
        message.ParseFromString(plain)
    except DecodeError as error:
        raise ProtocolError(f"the body is no ReadRequest: {error}") from error
    accepted = tuple(Answer(each) for each in message.accepted_response_types if each in _ANSWERS)
    return ReadRequest(tuple(_query(query) for query in message.queries), accepted or (Answer.SAMPLES,))


def samples_answer(results: Iterable[Iterable[Series]]) -> bytes:
    """A ``ReadResponse``, compressed: one result for each query."""
    response = b"".join(_part(1, b"".join(_part(1, _labels(series) + _samples(series)) for series in result)) for result in results)
    return bytes(cramjam.snappy.compress_raw(response))


def chunk_frames(results: Iterable[Iterable[Series]]) -> Iterator[bytes]:
    """The frames of a streamed answer, one for each series, in the order of their labels within a query.

    Of several series in a frame Prometheus from 2.55 on reads the first alone, and a second frame of the same series it takes for another
    series, which makes the label set appear twice. So a frame is one whole series: 4 MB for a month of ten-second samples, of the 50 MB that
    Prometheus takes (``chunked_read_limit``).
    """
    for index, result in enumerate(results):
        for series in result:
            data = b"".join(_chunk(*chunk) for chunk in chunks(series.times, series.values))
            yield _frame(_part(1, _labels(series) + data), index)


def write_request(request: ReadRequest) -> bytes:
    """A request's body: what ``read_request`` reads."""
    message = ReadRequestMessage(accepted_response_types=list(request.accepted))
    for query in request.queries:
        told = message.queries.add(start_timestamp_ms=query.start, end_timestamp_ms=query.end)
        for m in query.matchers:
            told.matchers.add(type=m.how, name=m.name, value=m.value)
        if query.hints is not None:
            h = query.hints
            told.hints.step_ms, told.hints.func, told.hints.range_ms = h.step, h.func, h.window
            told.hints.start_ms, told.hints.end_ms = h.start, h.end
    return bytes(cramjam.snappy.compress_raw(message.SerializeToString()))


def _plain(body: bytes) -> bytes:
    """The body without its compression, of which the first bytes say how much it becomes."""
    try:
        size = int(cramjam.snappy.decompress_raw_len(body))
        if size > REQUEST_BYTES:
            raise ProtocolError(f"a request of {size} bytes, at most {REQUEST_BYTES} are read")
        return bytes(cramjam.snappy.decompress_raw(body))
    except (cramjam.DecompressionError, ValueError, OverflowError) as error:
        raise ProtocolError(f"the body is not compressed with snappy: {error}") from error


def _query(query: Any) -> Asked:  # noqa: ANN401, the library's messages are untyped
    hints = None
    if query.HasField("hints"):
        told = query.hints
        hints = Hints(told.step_ms, told.func, told.start_ms, told.end_ms, told.range_ms)
    return Asked(query.start_timestamp_ms, query.end_timestamp_ms, tuple(_matcher(each) for each in query.matchers), hints)


def _matcher(matcher: Any) -> Matcher:  # noqa: ANN401, the library's messages are untyped
    if matcher.type not in _MATCHES:
        raise ProtocolError(f"a matcher of type {matcher.type}")
    if max(len(matcher.name), len(matcher.value)) > TEXT_CHARACTERS:
        raise ProtocolError(f"a matcher of more than {TEXT_CHARACTERS} characters")
    return Matcher(Match(matcher.type), matcher.name, matcher.value)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:  # noqa: PLR2004, seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _part(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _labels(series: Series) -> bytes:
    return b"".join(_part(1, _part(1, name.encode()) + _part(2, value.encode())) for name, value in series.labels)


def _samples(series: Series) -> bytes:
    """All samples at once: where every time takes the same number of bytes, as all of this century do, they are rows of bytes."""
    times = series.times.astype(np.uint64)
    if not len(times):
        return b""
    width = len(_varint(int(times[-1])))
    if len(_varint(int(times[0]))) != width:
        return b"".join(
            _part(2, b"\x09" + struct.pack("<d", value) + _number(2, int(at))) for at, value in zip(times, series.values, strict=True)
        )
    rows = np.empty((len(times), 12 + width), np.uint8)
    rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 11] = 0x12, 10 + width, 0x09, 0x10
    rows[:, 3:11] = series.values.astype("<f8").view(np.uint8).reshape(-1, 8)
    for byte in range(width):
        rows[:, 12 + byte] = (times >> np.uint64(7 * byte)).astype(np.uint8) & 0x7F | (0x80 if byte < width - 1 else 0)
    return rows.tobytes()


def _chunk(first: int, last: int, data: bytes) -> bytes:
    return _part(2, _number(1, first) + _number(2, last) + _number(3, 1) + _part(4, data))


def _frame(message: bytes, index: int) -> bytes:
    body = message + _number(2, index)
    return _varint(len(body)) + struct.pack(">I", crc32c.crc32c(body)) + body
