"""Records to bytes: all that a part needs that only writes. Reading is the codec's, with the library for foreign schemas.

Two framings: Confluent's wire format (0x00 and a registry's 4-byte id) and Avro's single-object encoding (0xC3 0x01 and the
schema's CRC-64-AVRO fingerprint, little endian).
Sources: the Avro specification ("Single-object encoding") and Confluent's wire format documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from virtflow.schemas.avro.writers_generated import FINGERPRINTS, WRITERS
from virtflow.schemas.records import Record

CONFLUENT_MAGIC: Final = 0x00
SINGLE_OBJECT_MAGIC: Final = b"\xc3\x01"
CONFLUENT_HEADER: Final = struct.Struct(">BI")
SINGLE_OBJECT_SIZE: Final = 10

_HEADERS: Final = {kind: SINGLE_OBJECT_MAGIC + fingerprint for kind, fingerprint in FINGERPRINTS.items()}
_NAMES: Final = {header: kind.__name__ for kind, header in _HEADERS.items()}

Framed = Callable[[bytes], bytes | None]
"""Makes of a message in single-object encoding what its topic holds; None where that is not known yet."""


def as_it_is(message: bytes) -> bytes | None:
    """The framing of topics without a registry."""
    return message


def reframed(message: bytes, ids: Mapping[str, int]) -> bytes | None:
    """A message in single-object encoding as one of Confluent's wire format; None where its record has no id yet.

    What is no message of a current schema stays as it is.
    """
    name = _NAMES.get(message[:SINGLE_OBJECT_SIZE])
    if name is None:
        return message
    if name not in ids:
        return None
    return CONFLUENT_HEADER.pack(CONFLUENT_MAGIC, ids[name]) + message[SINGLE_OBJECT_SIZE:]


class Encoder:
    """Encodes records by the current schemas."""

    def __init__(self, ids: Mapping[str, int] | None = None) -> None:
        """``ids`` maps record names to a registry's schema ids: those are framed as Confluent's, the others as single objects."""
        self.ids: Mapping[str, int] = {} if ids is None else ids

    def encode(self, record: Record) -> bytes:
        """The record's bytes, header included; raises ``OverflowError`` where an integer has more than 64 bits."""
        kind = type(record)
        registered = self.ids.get(kind.__name__) if self.ids else None
        header = _HEADERS[kind] if registered is None else CONFLUENT_HEADER.pack(CONFLUENT_MAGIC, registered)
        return header + WRITERS[kind](record)
