"""The bytes of a journal's segment: a header, then records that are found again behind damage. Pure, no I/O.

A segment is ``magic, version, checksum of both``, then records of ``mark, key length, message length, number, key, message,
checksum``. The checksum covers the whole record. Where a record is damaged, the next one is searched for by its mark, so a flipped bit
or a write that was cut off costs the records it hit. The numbers count from 0 in a segment, so a gap says how many were lost.

The checksum starts from a random *nonce* that is a part of the file's name. What a VM's owner chooses (a title, a guest's text) is a
part of messages, and cannot pass as a record by holding a mark: whoever writes it does not know the nonce.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

VERSION: Final = 2
MAGIC: Final = b"virtflow events "
_VERSION: Final = struct.Struct(">H")
_CHECKSUM: Final = struct.Struct(">I")


def header_of(version: int) -> bytes:
    """The header of a segment; every later version begins with one like it."""
    words = MAGIC + _VERSION.pack(version)
    return words + _CHECKSUM.pack(zlib.crc32(words))


HEADER: Final = header_of(VERSION)
MARK: Final = b"\xf5vj\xfe"
"""No UTF-8 text holds it."""
_HEAD: Final = struct.Struct(">4sHII")
OVERHEAD: Final = _HEAD.size + _CHECKSUM.size
"""Bytes of a record beside its key and its message."""
RECORD_BYTES: Final = 1 << 20
"""No message is larger: a length beyond it is damage."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a segment holds: (key, message) of each whole record in order, and how many records were damaged."""

    records: list[tuple[bytes, bytes]]
    lost: int


def version_of(data: bytes) -> int:
    """The version that a segment's header names; 0 where the header is missing or damaged."""
    end = len(MAGIC) + _VERSION.size
    if not data.startswith(MAGIC) or len(data) < end:
        return 0
    version: int = _VERSION.unpack_from(data, len(MAGIC))[0]
    return version if data.startswith(header_of(version)) else 0


def record(number: int, key: bytes, message: bytes, nonce: int) -> bytes:
    """The bytes of a record, the ``number``-th of its segment."""
    data = _HEAD.pack(MARK, len(key), len(message), number) + key + message
    return data + _CHECKSUM.pack(zlib.crc32(data, nonce))


def read(data: bytes, nonce: int) -> Found:
    """The whole records of a segment, header included, and the number of damaged ones.

    The number is exact up to the last whole record. Behind it, a record whose mark is damaged counts with the one before it, and
    what a truncation took away as a whole leaves no trace.
    """
    records: list[tuple[bytes, bytes]] = []
    lost = number = 0
    at = whole = len(HEADER)
    while 0 <= at < len(data):
        end = _end(data, at)
        if end > 0 and zlib.crc32(data[at : end - _CHECKSUM.size], nonce) == _CHECKSUM.unpack_from(data, end - _CHECKSUM.size)[0]:
            _, key_length, _, found = _HEAD.unpack_from(data, at)
            begin = at + _HEAD.size
            records.append((data[begin : begin + key_length], data[begin + key_length : end - _CHECKSUM.size]))
            lost += max(0, found - number)
            number = found + 1
            at = whole = end
        else:
            at = data.find(MARK, at + 1)
    return Found(records, lost + _damaged_tail(data, whole))


def _end(data: bytes, at: int) -> int:
    """Where the record that begins at ``at`` ends; 0 where none can begin there."""
    if not data.startswith(MARK, at) or at + OVERHEAD > len(data):
        return 0
    _, key_length, length, _ = _HEAD.unpack_from(data, at)
    end: int = at + OVERHEAD + key_length + length
    return end if length <= RECORD_BYTES and end <= len(data) else 0


def _damaged_tail(data: bytes, at: int) -> int:
    """How many records there were from ``at`` on, none of which is whole."""
    if at >= len(data):
        return 0 < len(data) < len(HEADER)
    return data.count(MARK, at) + (not data.startswith(MARK, at))
