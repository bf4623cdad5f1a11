"""The codec against anything: what it wrote it reads back, what is damaged it refuses, and it never crashes."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.long import length
from tests.support.strategies import ANY_RECORD, EXAMPLES, same
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.primitives import LONG, TEXT, TEXTS_KEPT
from virtflow.schemas.avro.schema import UnsafeSchemaError, schema_of, vet
from virtflow.schemas.errors import Reason, UndecodableError
from virtflow.schemas.records import RECORDS, NodeHealth, NodeSnapshot, Record

SINGLE_OBJECT_SIZE = 10

CODEC = Codec()


@cache
def parsed(kind: type[Record]) -> Any:  # noqa: ANN401, fastavro has no types
    """The schema of a record's type as fastavro keeps it; parsing costs more than writing a record."""
    return fastavro.parse_schema(schema_of(kind))


@settings(max_examples=50)
@given(ANY_RECORD)
def test_what_was_written_is_read_back(record: Record) -> None:
    decoded = CODEC.decode(CODEC.encode(record), type(record))
    assert same(msgspec.to_builtins(record), msgspec.to_builtins(decoded))


@settings(max_examples=200)
@given(ANY_RECORD)
def test_the_bytes_are_those_of_avros_own_writer(record: Record) -> None:
    """Our writers are generated from the records' types; a library that goes by the schema writes the same."""
    expected = io.BytesIO()
    fastavro.schemaless_writer(expected, parsed(type(record)), msgspec.to_builtins(record))
    assert CODEC.encode(record)[SINGLE_OBJECT_SIZE:] == expected.getvalue()


@pytest.mark.parametrize("bits", range(65))
def test_integers_of_every_size_are_avros(bits: int) -> None:
    """A power of two and those beside it, of either sign."""
    for number in (sign * ((1 << bits) + beside) for sign in (1, -1) for beside in (-1, 0, 1)):
        if -(2**63) <= number < 2**63:
            expected = io.BytesIO()
            fastavro.schemaless_writer(expected, "long", number)
            assert LONG[number] == expected.getvalue()
        else:
            with pytest.raises(OverflowError):
                LONG[number]


def test_kept_names_are_bounded() -> None:
    """Names come from outside: however many there are, only some are kept, and none that is long."""
    names = [f"vm-{number}" for number in range(TEXTS_KEPT + 1_000)]
    assert [TEXT[name] for name in names] == [LONG[len(name)] + name.encode() for name in names]
    long = "x" * 10_000
    assert TEXT[long] == LONG[10_000] + long.encode()
    assert len(TEXT) <= 16_384
    assert long not in TEXT


@settings(max_examples=length(20, 50))
@given(ANY_RECORD, st.integers(1, 2**32 - 1))
def test_the_registrys_framing_carries_the_same(record: Record, number: int) -> None:
    """With an id configured the header is Confluent's, and a reader that resolves it reads the same record."""
    kind = type(record)
    framed = Codec({kind.__name__: number}).encode(record)
    assert framed[0] == 0
    assert int.from_bytes(framed[1:5], "big") == number
    decoded = Codec(fetch={number: schema_of(kind)}.get).decode(framed, kind)
    assert same(msgspec.to_builtins(record), msgspec.to_builtins(decoded))


@settings(max_examples=50)
@given(ANY_RECORD, st.data())
def test_a_truncated_message_is_refused(record: Record, data: st.DataObject) -> None:
    encoded = CODEC.encode(record)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(UndecodableError):
        CODEC.decode(encoded[:cut], type(record))


@settings(max_examples=50)
@given(ANY_RECORD, st.binary(min_size=1, max_size=50))
def test_trailing_bytes_are_refused(record: Record, more: bytes) -> None:
    """Avro readers pass them by; they say that the message is not what it seems."""
    with pytest.raises(UndecodableError) as caught:
        CODEC.decode(CODEC.encode(record) + more, type(record))
    assert caught.value.reason is Reason.TRAILING_BYTES


@given(ANY_RECORD, st.data())
@settings(max_examples=100)
def test_a_flipped_bit_is_refused_or_decodes_but_never_crashes(record: Record, data: st.DataObject) -> None:
    """Avro has no checksum: a flip may decode to another value, which the ranges bound; nothing else may be raised."""
    encoded = bytearray(CODEC.encode(record))
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[bit // 8] ^= 1 << (bit % 8)
    try:
        CODEC.decode(bytes(encoded), type(record))
    except UndecodableError as error:
        assert error.detail  # noqa: PT017, both outcomes are right


@given(st.binary(max_size=300), st.sampled_from(EXAMPLES), st.booleans())
@settings(max_examples=500)
def test_garbage_is_refused_with_a_reason(garbage: bytes, record: Record, framed: bool) -> None:  # noqa: FBT001, drawn
    """Whatever the bytes, also behind a header of ours, the answer is a record or an ``UndecodableError``."""
    header = CODEC.encode(record)[:SINGLE_OBJECT_SIZE] if framed else b""
    try:
        CODEC.decode(header + garbage, type(record))
    except UndecodableError as error:
        assert error.reason in Reason  # noqa: PT017, both outcomes are right


@given(st.sampled_from(EXAMPLES), st.sampled_from(RECORDS))
def test_a_record_of_another_topic_is_refused(written: Record, wanted: type[Record]) -> None:
    if type(written) is wanted:
        return
    with pytest.raises(UndecodableError) as caught:
        CODEC.decode(CODEC.encode(written), wanted)
    assert caught.value.reason is Reason.WRONG_RECORD


def test_a_message_above_the_brokers_limit_is_refused_unread() -> None:
    with pytest.raises(UndecodableError) as caught:
        CODEC.decode(b"\xc3\x01" + b"x" * 10_000_000, NodeSnapshot)
    assert caught.value.reason is Reason.TOO_LARGE


HEADER = b"\0\0\0\0\x07"
"""The registry's framing of id 7."""


def test_only_a_whole_header_of_an_unknown_id_is_unresolved() -> None:
    codec = Codec(fetch=lambda number: schema_of(NodeSnapshot) if number == 7 else None)
    snapshot = CODEC.encode(EXAMPLES[0])
    assert [codec.unresolved(data) for data in (None, b"", snapshot, HEADER[:4])] == [False] * 4
    assert [codec.unresolved(data) for data in (HEADER, HEADER + b"x", b"\0\0\0\x07\0")] == [True] * 3
    for data in (None, snapshot, HEADER[:4], HEADER):
        codec.resolve(data)
    assert [codec.unresolved(data) for data in (HEADER, b"\0\0\0\0\x08")] == [False, True]


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", Reason.EMPTY, "no bytes"),
        (b"\xc3", Reason.UNKNOWN_MAGIC, "starts with 0xc3, neither 0xc301 nor 0x00"),
        (b"\xc3\x02", Reason.UNKNOWN_MAGIC, "starts with 0xc302, neither 0xc301 nor 0x00"),
        (b"\xc3\x01" + b"x" * 7, Reason.TRUNCATED, "9 bytes are less than a single-object header"),
        (b"\xc3\x01" + b"x" * 8, Reason.UNKNOWN_SCHEMA, f"fingerprint {'78' * 8} is none of the shipped schemas"),
        (HEADER[:4], Reason.TRUNCATED, "4 bytes are less than a Confluent header"),
        (HEADER, Reason.UNKNOWN_SCHEMA, "schema id 7 is not known and no registry resolves it"),
    ],
)
def test_what_is_wrong_with_a_header_is_said(data: bytes, reason: Reason, detail: str) -> None:
    with pytest.raises(UndecodableError) as caught:
        CODEC.decode(data, NodeSnapshot)
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


@pytest.mark.parametrize("more", [1, 2, 9])
def test_the_bytes_after_a_record_are_counted(more: int) -> None:
    snapshot = NodeSnapshot(node="node", boot_id="boot", sequence=1, collected=0.0, interval=10.0, health=NodeHealth(), vms=[])
    with pytest.raises(UndecodableError) as caught:
        CODEC.decode(CODEC.encode(snapshot) + b"x" * more, NodeSnapshot)
    assert caught.value.detail == f"{more} bytes after the NodeSnapshot"


@pytest.mark.parametrize("depth", [16, 17])
def test_a_foreign_schema_is_nested_sixteen_deep_at_most(depth: int) -> None:
    """A record in a record: the outermost one is of depth 0."""
    schema: Any = "long"
    for number in range(depth):
        schema = {"type": "record", "name": f"r{number}", "fields": [{"name": "f", "type": schema}]}
    if depth == 16:
        vet(schema)
    else:
        with pytest.raises(UnsafeSchemaError, match="nested deeper than 16"):
            vet(schema)


@pytest.mark.parametrize("items", [[], [{"name": "f"}], ["f"], [{"type": "long"}]], ids=str)
def test_a_foreign_record_without_a_field_that_can_be_read_is_refused(items: list[Any]) -> None:
    """Also within an array, where a record that takes no byte would come without end."""
    record = {"type": "record", "name": "r", "fields": items}
    for schema in (record, {"type": "record", "name": "o", "fields": [{"name": "f", "type": {"type": "array", "items": record}}]}):
        with pytest.raises(UnsafeSchemaError, match="is not read"):
            vet(schema)


def test_names_are_kept_up_to_64_characters() -> None:
    TEXT.clear()
    for size in (64, 65):
        assert TEXT["n" * size] == LONG[size] + b"n" * size
    assert set(TEXT) == {"n" * 64}
