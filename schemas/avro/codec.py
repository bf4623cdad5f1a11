"""Records to bytes and back.

Writing is the encoder's, which is all that some parts need. The reader accepts both framings, decodes with the writer's schema and fills what is
missing afterwards: twice as fast as letting Avro resolve. Avro has no checksum, so sizes, trailing bytes and ranges are
checked, and whatever is refused says why.
Sources: the Avro specification ("Single-object encoding") and Confluent's wire format documentation.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Final, TypeVar

import fastavro
import msgspec
from fastavro.schema import SchemaParseException, UnknownType, fingerprint

from virtflow.schemas.avro.encoder import CONFLUENT_HEADER, CONFLUENT_MAGIC, SINGLE_OBJECT_MAGIC, SINGLE_OBJECT_SIZE, Encoder
from virtflow.schemas.avro.schema import Schema, UnsafeSchemaError, vet
from virtflow.schemas.avro.shipped import shipped_schemas
from virtflow.schemas.errors import Reason, UndecodableError
from virtflow.schemas.ranges import out_of_range
from virtflow.schemas.records import Record
from virtflow.schemas.topics import MAX_MESSAGE_BYTES

__all__ = [
    "CONFLUENT_HEADER",
    "CONFLUENT_MAGIC",
    "SINGLE_OBJECT_MAGIC",
    "SINGLE_OBJECT_SIZE",
    "Codec",
    "Fetch",
    "schema_fingerprint",
    "shipped_schemas",
]

R = TypeVar("R", bound=Record)

# What fastavro is known to raise on bytes that are no record; found by feeding it truncated, random and flipped ones.
_GARBAGE: Final = (
    IndexError,
    ValueError,
    ArithmeticError,
    MemoryError,
    TypeError,
    KeyError,
    AttributeError,
    AssertionError,
    RecursionError,
)
# And what the parsing of a registry's odd schemas raises beside: anybody may register anything.
_ODD: Final = (UnsafeSchemaError, SchemaParseException, UnknownType, *_GARBAGE)

Fetch = Callable[[int], Schema | None]
"""Resolves a registry's id to a schema, or None where the registry does not know it.

Raises ``RegistryUnavailableError`` where it does not answer: whether there is such a schema is not known then.
"""


class _Known:
    """A parsed schema, the record it describes and its fingerprint."""

    __slots__ = ("fingerprint", "parsed", "record_name", "schema")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.parsed = fastavro.parse_schema(schema, named_schemas={})
        self.record_name = str(schema["name"]).rpartition(".")[2]
        self.fingerprint = bytes.fromhex(schema_fingerprint(schema))


@cache
def _shipped() -> tuple[_Known, ...]:
    """The schemas that are shipped, parsed once in a process: that takes milliseconds, and they never change."""
    return tuple(_Known(schema) for _, schema in shipped_schemas())


def schema_fingerprint(schema: Schema) -> str:
    """The schema's CRC-64-AVRO fingerprint in hex, in the byte order of single-object encoding."""
    return str(fingerprint(fastavro.schema.to_parsing_canonical_form(schema), "CRC-64-AVRO"))


class Codec(Encoder):
    """Encodes the current schemas, decodes every schema it knows or can fetch."""

    def __init__(self, ids: Mapping[str, int] | None = None, fetch: Fetch | None = None) -> None:
        """``ids`` are a registry's schema ids by record name; see ``Encoder``."""
        super().__init__(ids)
        self._by_fingerprint = {known.fingerprint: known for known in reversed(_shipped())}
        self._by_id: dict[int, _Known] = {}
        self._fetch = fetch

    def decode(self, data: bytes | None, record: type[R]) -> R:
        """The record in ``data``; raises ``UndecodableError`` with the reason when there is none.

        Raises ``RegistryUnavailableError`` where only a registry that does not answer could tell: ask again later.
        """
        known, start = self._writer_of(data or b"")
        if known.record_name != record.__name__:
            raise UndecodableError(Reason.WRONG_RECORD, f"a {known.record_name} where a {record.__name__} belongs")
        stream = io.BytesIO(data or b"")
        stream.seek(start)
        try:
            value = fastavro.schemaless_reader(stream, known.parsed, None)
            decoded = msgspec.convert(value, record)
        except EOFError as error:
            raise UndecodableError(Reason.TRUNCATED, f"ends after {len(data or b'')} bytes inside a {known.record_name}") from error
        except (msgspec.ValidationError, *_GARBAGE) as error:
            raise UndecodableError(Reason.MALFORMED, f"no {known.record_name}: {type(error).__name__}: {str(error)[:120]}") from error
        if stream.read(1):
            raise UndecodableError(Reason.TRAILING_BYTES, f"{len(data or b'') - stream.tell() + 1} bytes after the {known.record_name}")
        if why := out_of_range(decoded):
            raise UndecodableError(Reason.OUT_OF_RANGE, why)
        return decoded

    def written(self, data: bytes) -> tuple[str, Schema, int]:
        """Name and schema of the record that a message holds, and where it begins, by the message's header; raises ``UndecodableError``."""
        known, start = self._writer_of(data)
        return known.record_name, known.schema, start

    def unresolved(self, data: bytes | None) -> bool:
        """Whether a message names a registry's id whose schema is still to be fetched."""
        if not data or data[0] != CONFLUENT_MAGIC or len(data) < CONFLUENT_HEADER.size:
            return False
        return CONFLUENT_HEADER.unpack_from(data)[1] not in self._by_id

    def resolve(self, data: bytes | None) -> None:
        """Learns the schema that a message was written with, so that decoding it asks nobody; raises ``RegistryUnavailableError``."""
        if data and self.unresolved(data):
            with suppress(UndecodableError):
                self._fetched(CONFLUENT_HEADER.unpack_from(data)[1])

    def _writer_of(self, data: bytes) -> tuple[_Known, int]:
        """The schema a message was written with, and where its body starts."""
        if not data:
            raise UndecodableError(Reason.EMPTY, "no bytes")
        if len(data) > MAX_MESSAGE_BYTES:
            raise UndecodableError(Reason.TOO_LARGE, f"{len(data)} bytes, at most {MAX_MESSAGE_BYTES} are read")
        if data[:2] == SINGLE_OBJECT_MAGIC:
            return self._by_single_object(data), SINGLE_OBJECT_SIZE
        if data[0] == CONFLUENT_MAGIC:
            return self._by_registry(data), CONFLUENT_HEADER.size
        raise UndecodableError(Reason.UNKNOWN_MAGIC, f"starts with 0x{data[:2].hex()}, neither 0xc301 nor 0x00")

    def _by_single_object(self, data: bytes) -> _Known:
        if len(data) < SINGLE_OBJECT_SIZE:
            raise UndecodableError(Reason.TRUNCATED, f"{len(data)} bytes are less than a single-object header")
        known = self._by_fingerprint.get(data[2:SINGLE_OBJECT_SIZE])
        if known is None:
            raise UndecodableError(Reason.UNKNOWN_SCHEMA, f"fingerprint {data[2:SINGLE_OBJECT_SIZE].hex()} is none of the shipped schemas")
        return known

    def _by_registry(self, data: bytes) -> _Known:
        if len(data) < CONFLUENT_HEADER.size:
            raise UndecodableError(Reason.TRUNCATED, f"{len(data)} bytes are less than a Confluent header")
        _, schema_id = CONFLUENT_HEADER.unpack_from(data)
        known = self._by_id.get(schema_id) or self._fetched(schema_id)
        if known is None:
            raise UndecodableError(Reason.UNKNOWN_SCHEMA, f"schema id {schema_id} is not known and no registry resolves it")
        return known

    def _fetched(self, schema_id: int) -> _Known | None:
        schema = self._fetch(schema_id) if self._fetch else None
        if schema is None:
            return None
        try:
            vet(schema)
            known = _Known(schema)
        except _ODD as error:
            raise UndecodableError(Reason.UNKNOWN_SCHEMA, f"schema id {schema_id} is refused: {str(error)[:200]}") from error
        self._by_id[schema_id] = known
        return known
