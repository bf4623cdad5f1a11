"""Prometheus' chunks: times by the difference of their differences, values by what changes in their bits.

A chunk is made of all its samples at once: each gives up to four fields of bits, and all fields are laid end to end. Every changed value
begins a window of its own, which costs a few bits more than Prometheus' reuse of the last window and is as valid.
Source: Prometheus' ``tsdb/chunkenc/xor.go`` (after Facebook's Gorilla).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

CHUNK_SAMPLES: Final = 480
"""Prometheus makes chunks of 120 and reads up to 65,535."""
_CLASSES: Final = ((14, 0b10, 2), (17, 0b110, 3), (20, 0b1110, 4))
"""Sizes of a difference of differences in bits, with the prefix that says so and the prefix's length."""
_LONGEST: Final = (64, 0b1111, 4)
_MOST_LEADING: Final = 31

Numbers = np.ndarray[Any, np.dtype[Any]]


def chunks(times: Numbers, values: Numbers) -> Iterator[tuple[int, int, bytes]]:
    """First and last time in milliseconds, and bytes, of each chunk of a series."""
    for start in range(0, len(times), CHUNK_SAMPLES):
        part, of_part = times[start : start + CHUNK_SAMPLES], values[start : start + CHUNK_SAMPLES]
        yield int(part[0]), int(part[-1]), encode(part, of_part)


def encode(times: Numbers, values: Numbers) -> bytes:
    """One chunk of one to 65,535 samples; ``times`` are whole milliseconds."""
    times = times.astype(np.int64)
    raw = values.astype(np.float64).view(np.uint64)
    head = struct.pack(">H", len(times)) + _zigzag(int(times[0])) + struct.pack(">Q", int(raw[0]))
    if len(times) == 1:
        return head
    deltas = np.diff(times)
    head += _unsigned(int(deltas[0]))
    moments = _time_fields(np.diff(deltas))
    changed = _value_fields(raw)
    # Per sample: prefix and rest of the time, prefix and rest of the value; the second sample's time stands in the head.
    count = len(times) - 1
    numbers, sizes = np.zeros((count, 4), np.uint64), np.zeros((count, 4), np.int64)
    numbers[1:, :2], sizes[1:, :2] = moments
    numbers[:, 2:], sizes[:, 2:] = changed
    return head + _packed(numbers.ravel(), sizes.ravel())


def _time_fields(differences: Numbers) -> tuple[Numbers, Numbers]:
    """Prefix and rest for each difference of differences; none of the rest where it is 0."""
    prefix, prefix_bits = np.zeros(len(differences), np.uint64), np.ones(len(differences), np.int64)
    bits = np.zeros(len(differences), np.int64)
    left = differences != 0
    for size, word, length in (*_CLASSES, _LONGEST):
        half = 1 << (size - 1)
        fits = left if size == _LONGEST[0] else left & (differences >= 1 - half) & (differences <= half)
        prefix[fits], prefix_bits[fits], bits[fits] = word, length, size
        left &= ~fits
    return np.stack([prefix, differences.astype(np.uint64)], 1), np.stack([prefix_bits, bits], 1)


def _value_fields(raw: Numbers) -> tuple[Numbers, Numbers]:
    """Prefix and rest for each value after the first: a 0 where it is the same, else a window and the bits in it."""
    changes = raw[1:] ^ raw[:-1]
    same = changes == 0
    some = np.where(same, np.uint64(1), changes)
    leading = np.minimum(64 - _bit_length(some), _MOST_LEADING)
    trailing = _bit_length(some & (~some + np.uint64(1))) - 1
    bits = 64 - leading - trailing
    # 64 significant bits do not fit into six and are written as 0.
    window = np.uint64(0b11 << 11) | (leading.astype(np.uint64) << np.uint64(6)) | (bits.astype(np.uint64) & np.uint64(63))
    prefix = np.where(same, np.uint64(0), window)
    numbers = np.stack([prefix, some >> trailing.astype(np.uint64)], 1)
    return numbers, np.stack([np.where(same, 1, 13), np.where(same, 0, bits)], 1)


def _bit_length(numbers: Numbers) -> Numbers:
    """How many bits each number needs; halves of 32 bits are exact as doubles."""
    high, low = (numbers >> np.uint64(32)).astype(np.float64), (numbers & np.uint64(0xFFFFFFFF)).astype(np.float64)
    return np.where(high > 0, np.frexp(high)[1] + 32, np.frexp(low)[1]).astype(np.int64)


def _packed(numbers: Numbers, sizes: Numbers) -> bytes:
    """Numbers of so many bits each, end to end, the highest bit first."""
    starts = np.cumsum(sizes) - sizes
    owner = np.repeat(np.arange(len(sizes)), sizes)
    place = sizes[owner] - 1 - (np.arange(len(owner)) - starts[owner])
    bits = (numbers[owner] >> place.astype(np.uint64)) & np.uint64(1)
    return np.packbits(bits.astype(np.uint8)).tobytes()


def _zigzag(value: int) -> bytes:
    return _unsigned((value << 1) ^ (value >> 63))


def _unsigned(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value >= 0x80:  # noqa: PLR2004, seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
