"""remote_read on the wire: requests from anybody are read within limits, answers are one frame a series."""

from __future__ import annotations

import struct

import cramjam
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.history.remote_read.protocol import wire
from virtflow.history.remote_read.protocol.counted import ProtocolError
from virtflow.history.remote_read.protocol.messages import ReadRequestMessage
from virtflow.history.remote_read.protocol.wire import (
    Answer,
    Asked,
    Hints,
    Match,
    Matcher,
    ReadRequest,
    Series,
    chunk_frames,
    read_request,
    write_request,
)

WHOLE = st.integers(-(2**63), 2**63 - 1)
MATCHERS = st.builds(Matcher, st.sampled_from(Match), st.text(max_size=40), st.text(max_size=40))
HINTS = st.builds(Hints, WHOLE, st.text(max_size=10), WHOLE, WHOLE, WHOLE)
QUERIES = st.builds(Asked, WHOLE, WHOLE, st.lists(MATCHERS, max_size=5).map(tuple), st.none() | HINTS)
REQUESTS = st.builds(
    ReadRequest, st.lists(QUERIES, max_size=4).map(tuple), st.lists(st.sampled_from(Answer), min_size=1, max_size=2).map(tuple)
)


@given(REQUESTS)
def test_what_is_written_is_read(request: ReadRequest) -> None:
    assert read_request(write_request(request)) == request


@given(st.binary(max_size=300))
def test_bytes_of_anybody_are_a_request_or_refused(plain: bytes) -> None:
    for body in (plain, bytes(cramjam.snappy.compress_raw(plain))):
        try:
            found = read_request(body)
        except ProtocolError:
            continue
        assert len(found.queries) <= 16


def compressed(message: object) -> bytes:
    return bytes(cramjam.snappy.compress_raw(message.SerializeToString()))  # type: ignore[attr-defined]


def test_more_than_anybody_needs_is_refused() -> None:
    many = ReadRequestMessage()
    for _ in range(17):
        many.queries.add()
    with pytest.raises(ProtocolError, match="more than 16 queries"):
        read_request(compressed(many))
    crowded = ReadRequestMessage()
    query = crowded.queries.add()
    for _ in range(65):
        query.matchers.add(name="a")
    with pytest.raises(ProtocolError, match="more than 64 matchers"):
        read_request(compressed(crowded))
    long = ReadRequestMessage()
    long.queries.add().matchers.add(name="name", value="x" * 16_385)
    with pytest.raises(ProtocolError, match="characters"):
        read_request(compressed(long))
    with pytest.raises(ProtocolError, match="at most 1048576"):
        read_request(bytes(cramjam.snappy.compress_raw(b"\0" * (2 << 20))))


CROWDED = {
    "queries": b"\x0a\x00" * 524_288,
    "packed answers": b"\x12\xfc\xff\x3f" + b"\x01" * (1_048_576 - 4),
    "answers one by one": b"\x10\x01" * 524_288,
    "matchers": b"\x0a\xfc\xff\x3f" + b"\x1a\x00" * 524_286,
    "hints": b"\x0a\xfc\xff\x3f" + b"\x22\x00" * 524_286,
    "unknown fields": b"\x78\x01" * 524_288,
    "unknown fields of a query": b"\x0a\xfc\xff\x3f" + b"\x78\x01" * 524_286,
    "unknown fields of hints": b"\x0a\xfc\xff\x3f\x22\xf8\xff\x3f" + b"\x78\x01" * 524_284,
    "groups": b"\x0b" * 524_288 + b"\x0c" * 524_288,
}
"""A megabyte each, 50 KB as they are sent: half a million things that cost the library an object, or a turn of its loop."""


@pytest.mark.parametrize("kind", CROWDED)
def test_crowds_are_counted_before_anything_is_made_of_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = bytes(cramjam.snappy.compress_raw(CROWDED[kind]))
    assert len(body) < 60_000
    monkeypatch.setattr(wire, "ReadRequestMessage", Untouched)
    with pytest.raises(ProtocolError):
        read_request(body)


class Untouched:
    """A message that is not to be made."""

    def ParseFromString(self, body: bytes) -> None:  # noqa: N802, the library's name
        """Not called."""
        raise AssertionError(len(body))


def test_fields_of_later_versions_are_skipped() -> None:
    message = ReadRequestMessage(accepted_response_types=[9, 1])
    assert read_request(compressed(message) + b"") == ReadRequest((), (Answer.CHUNKS,))
    later = bytes(cramjam.snappy.compress_raw(b"\xfa\x01\x03abc"))
    assert read_request(later) == ReadRequest(())


def test_a_matcher_of_no_known_kind_is_refused() -> None:
    message = ReadRequestMessage()
    message.queries.add().matchers.add(type=7, name="a")
    with pytest.raises(ProtocolError, match="type 7"):
        read_request(compressed(message))


def test_each_series_is_one_frame_whatever_its_length() -> None:
    """Of several in a frame a current Prometheus reads the first; a second frame of one series it takes for another series."""
    lengths = (1, 2_000, 300_000)
    series = [
        Series((("n", str(length)),), np.arange(length, dtype=np.int64) * 10_000, np.random.default_rng(1).random(length))
        for length in lengths
    ]
    frames = list(chunk_frames([series, series[:1]]))
    assert len(frames) == 4
    for frame in frames:
        size, at = _varint(frame)
        assert len(frame) == at + 4 + size
        assert frame[at + 4] == 0x0A  # the first field: a series
        length, start = _varint(frame[at + 5 :])
        rest = frame[at + 5 + start + length :]
        assert rest in {b"\x10\x00", b"\x10\x01"}  # and the query's number, nothing else
        assert struct.unpack(">I", frame[at : at + 4])


def _varint(data: bytes) -> tuple[int, int]:
    value = 0
    for at, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * at)
        if byte < 0x80:
            return value, at + 1
    raise AssertionError("no number")
