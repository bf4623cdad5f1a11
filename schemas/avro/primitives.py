"""The parts of Avro's binary encoding that records are made of, in plain Python: faster than a general writer, and no library to load.

Source: the Avro specification, "Binary Encoding": a ``long`` is a zigzag number in groups of seven bits, the least significant
first; a ``string`` is its length and its bytes; arrays and maps are blocks of a count and that many items, closed by an empty one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Final, TypeVar

T = TypeVar("T")

JOIN: Final = b"".join
DOUBLE: Final = Struct("<d").pack
END: Final = b"\0"

TEXTS_KEPT: Final = 16_384
TEXT_LENGTH_KEPT: Final = 64
"""Names and UUIDs come again in every round. What is longer, or more than that, is encoded again each time."""

_SMALL: Final = range(-64, 1024)
_LONG_END: Final = 1 << 64
_LAST: Final = [bytes((bits,)) for bits in range(128)]
_MORE: Final = [bytes((bits | 128,)) for bits in range(128)]
_PAIR: Final = [low + high for high in _MORE for low in _MORE]
"""Seven bits of a number that ends there or goes on, and fourteen of one that goes on."""


class _Longs(dict[int, bytes]):
    """Integers as Avro's ``long``. Small ones, most of all "absent", are kept; counters, which never come again, are not."""

    __slots__ = ()

    def __missing__(self, value: int) -> bytes:
        """The bytes of any other one, by its size, because a loop takes twice as long; raises ``OverflowError`` beyond 64 bits."""
        zigzag = value << 1 if value >= 0 else ~(value << 1)
        if zigzag < 1 << 14:
            return (_MORE[zigzag & 127] + _LAST[zigzag >> 7]) if zigzag > 127 else _LAST[zigzag]  # noqa: PLR2004, seven bits
        if zigzag < 1 << 21:
            return _PAIR[zigzag & 0x3FFF] + _LAST[zigzag >> 14]
        if zigzag < 1 << 28:
            return _PAIR[zigzag & 0x3FFF] + _MORE[zigzag >> 14 & 127] + _LAST[zigzag >> 21]
        if zigzag < 1 << 35:
            return _PAIR[zigzag & 0x3FFF] + _PAIR[zigzag >> 14 & 0x3FFF] + _LAST[zigzag >> 28]
        if zigzag < 1 << 42:
            return _PAIR[zigzag & 0x3FFF] + _PAIR[zigzag >> 14 & 0x3FFF] + _MORE[zigzag >> 28 & 127] + _LAST[zigzag >> 35]
        if zigzag >= _LONG_END:
            raise OverflowError(f"{value} is no 64-bit integer")
        return _PAIR[zigzag & 0x3FFF] + _PAIR[zigzag >> 14 & 0x3FFF] + _PAIR[zigzag >> 28 & 0x3FFF] + _tail(zigzag >> 42)


def _tail(bits: int) -> bytes:
    """What is left of a large number after six groups."""
    out = bytearray()
    while bits > 127:  # noqa: PLR2004, seven bits
        out.append(bits & 127 | 128)
        bits >>= 7
    out.append(bits)
    return bytes(out)


class _Texts(dict[str, bytes]):
    """Strings as Avro's ``string``."""

    __slots__ = ()

    def __missing__(self, text: str) -> bytes:
        """The bytes of one that is not kept; raises ``UnicodeEncodeError`` for half a surrogate pair."""
        data = text.encode()
        encoded = LONG[len(data)] + data
        if len(text) <= TEXT_LENGTH_KEPT:
            if len(self) >= TEXTS_KEPT:
                self.clear()
            self[text] = encoded
        return encoded


LONG: Final = _Longs()
TEXT: Final = _Texts()
LONG.update({small: LONG.__missing__(small) for small in _SMALL})


def array(items: Sequence[T], write: Callable[[T], bytes]) -> bytes:
    """Items of one kind as Avro's ``array``."""
    return JOIN([LONG[len(items)], *map(write, items), END]) if items else END


def longs(values: Mapping[str, int]) -> bytes:
    """Integers by name as Avro's ``map`` of ``long``."""
    return JOIN([LONG[len(values)], *[TEXT[key] + LONG[value] for key, value in values.items()], END]) if values else END


def doubles(values: Mapping[str, float]) -> bytes:
    """Numbers by name as Avro's ``map`` of ``double``."""
    return JOIN([LONG[len(values)], *[TEXT[key] + DOUBLE(value) for key, value in values.items()], END]) if values else END
