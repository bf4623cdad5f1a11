"""Prometheus' remote_read on the wire: requests in, answers as samples or as streamed chunks out.

Written by hand, since it is a dozen fields: protobuf's varints and length-delimited fields, snappy's block format around them, and
for streamed answers frames of a length, a CRC-32C and a message each.
Sources: Prometheus' ``prompb/remote.proto`` and ``prompb/types.proto``, and ``storage/remote/chunked.go``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import cramjam
import crc32c
import numpy as np

from virtflow.history.remote_read.xor_chunks import chunks
from virtflow.schemas.errors import InputError

REQUEST_BYTES: Final = 1 << 20
FRAME_BYTES: Final = 1 << 20
"""A frame of a streamed answer is closed when it is so large."""
VARINT_BYTES: Final = 10

Numbers = np.ndarray[Any, np.dtype[Any]]


class ProtocolError(InputError):
    """A request that is none."""


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


def read_request(body: bytes) -> ReadRequest:
    """The request in a body; raises ``ProtocolError`` where it is none."""
    try:
        plain = bytes(cramjam.snappy.decompress_raw(_of_bounded_size(body)))
    except (cramjam.DecompressionError, ValueError, OverflowError) as error:
        raise ProtocolError(f"the body is not compressed with snappy: {error}") from error
    queries, accepted = [], []
    for number, value in _fields(plain):
        if number == 1:
            queries.append(_query(_bytes(value)))
        elif number == 2:  # noqa: PLR2004, the field's number
            accepted += [Answer(each) for each in _numbers(value) if each in {0, 1}]
    return ReadRequest(tuple(queries), tuple(accepted) or (Answer.SAMPLES,))


def samples_answer(results: Iterable[Iterable[Series]]) -> bytes:
    """A ``ReadResponse``, compressed: one result for each query."""
    response = b"".join(_part(1, b"".join(_part(1, _labels(series) + _samples(series)) for series in result)) for result in results)
    return bytes(cramjam.snappy.compress_raw(response))


def chunk_frames(results: Iterable[Iterable[Series]]) -> Iterator[bytes]:
    """The frames of a streamed answer: for each query its series in the order of their labels."""
    for index, result in enumerate(results):
        waiting, size = [], 0
        for series in result:
            message = _part(1, _labels(series) + b"".join(_chunk(*chunk) for chunk in chunks(series.times, series.values)))
            waiting.append(message)
            size += len(message)
            if size >= FRAME_BYTES:
                yield _frame(b"".join(waiting), index)
                waiting, size = [], 0
        if waiting:
            yield _frame(b"".join(waiting), index)


def write_request(request: ReadRequest) -> bytes:
    """A request's body: what ``read_request`` reads."""
    parts = []
    for query in request.queries:
        body = _number(1, query.start) + _number(2, query.end)
        body += b"".join(_part(3, _number(1, m.how) + _part(2, m.name.encode()) + _part(3, m.value.encode())) for m in query.matchers)
        if query.hints is not None:
            h = query.hints
            body += _part(
                4, _number(1, h.step) + _part(2, h.func.encode()) + _number(3, h.start) + _number(4, h.end) + _number(7, h.window)
            )
        parts.append(_part(1, body))
    accepted = b"".join(_varint(each) for each in request.accepted)
    return bytes(cramjam.snappy.compress_raw(b"".join(parts) + _part(2, accepted)))


def _of_bounded_size(body: bytes) -> bytes:
    """The body, unless it says that it becomes too large: snappy begins with the size."""
    size, _ = _read_varint(body, 0)
    if size > REQUEST_BYTES:
        raise ProtocolError(f"a request of {size} bytes, at most {REQUEST_BYTES} are read")
    return body


def _query(data: bytes) -> Asked:
    start = end = 0
    matchers: list[Matcher] = []
    hints = None
    for number, value in _fields(data):
        match number:
            case 1:
                start = _signed(value)
            case 2:
                end = _signed(value)
            case 3:
                matchers.append(_matcher(_bytes(value)))
            case 4:
                hints = _hints(_bytes(value))
    return Asked(start, end, tuple(matchers), hints)


def _matcher(data: bytes) -> Matcher:
    found: dict[int, int | bytes] = dict(_fields(data))
    how = found.get(1, 0)
    if how not in set(Match):
        raise ProtocolError(f"a matcher of type {how!r}")
    return Matcher(Match(_signed(how)), _text(found.get(2, b"")), _text(found.get(3, b"")))


@dataclass
class _Raw:
    """Hints while they are read."""

    numbers: dict[int, int] = field(default_factory=dict)
    func: str = ""


def _hints(data: bytes) -> Hints:
    raw = _Raw()
    for number, value in _fields(data):
        if number == 2:  # noqa: PLR2004, the field's number
            raw.func = _text(value)
        elif number in {1, 3, 4, 7}:
            raw.numbers[number] = _signed(value)
    step, start, end, window = (raw.numbers.get(number, 0) for number in (1, 3, 4, 7))
    return Hints(step, raw.func, start, end, window)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number and value; raises ``ProtocolError`` where it is none."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        size = {1: 8, 5: 4}.get(wire)
        if wire == 0:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if wire == 2:  # noqa: PLR2004, length-delimited
            size, at = _read_varint(data, at)
        if size is None or at + size > len(data):
            raise ProtocolError("the body is no ReadRequest")
        yield number, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(VARINT_BYTES):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # noqa: PLR2004, the last byte's mark
            return value, at
    raise ProtocolError("the body ends inside a number")


def _signed(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ProtocolError("bytes where a number belongs")
    return value - (1 << 64) if value >= 1 << 63 else value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ProtocolError("a number where bytes belong")
    return value


def _text(value: int | bytes) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("a text that is no UTF-8") from error


def _numbers(value: int | bytes) -> list[int]:
    """A repeated number, packed or not."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _read_varint(value, at)
        found.append(number)
    return found


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
