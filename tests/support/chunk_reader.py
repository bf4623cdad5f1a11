"""Reads Prometheus' XOR chunks bit by bit: slow and plain, to judge the fast encoder by (source: ``tsdb/chunkenc/xor.go``)."""

from __future__ import annotations

import struct


class Bits:
    """Bits of a chunk, from the first."""

    def __init__(self, data: bytes) -> None:
        """From the first byte on."""
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def take(self, count: int) -> int:
        """The next ``count`` bits as a number."""
        self._at += count
        return int(self._bits[self._at - count : self._at] or "0", 2)

    def varint(self) -> int:
        """An unsigned varint."""
        value = shift = 0
        while True:
            byte = self.take(8)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7


def decode(data: bytes) -> list[tuple[int, float]]:
    """The samples of a chunk: milliseconds and values."""
    (count,) = struct.unpack(">H", data[:2])
    bits = Bits(data[2:])
    first = bits.varint()
    at, delta = (first >> 1) ^ -(first & 1), 0
    value, leading, trailing = bits.take(64), 0, 0
    samples = [(at, value)]
    for number in range(1, count):
        delta = bits.varint() if number == 1 else delta + difference(bits)
        at += delta
        if bits.take(1):
            if bits.take(1):
                leading, size = bits.take(5), bits.take(6) or 64
                trailing = 64 - leading - size
            value ^= bits.take(64 - leading - trailing) << trailing
        samples.append((at, value))
    return [(moment, struct.unpack(">d", struct.pack(">Q", raw))[0]) for moment, raw in samples]


def difference(bits: Bits) -> int:
    """A difference of differences."""
    for size in (0, 14, 17, 20):
        if not bits.take(1):
            value = bits.take(size) if size else 0
            return value - (1 << size) if size and value > 1 << (size - 1) else value
    value = bits.take(64)
    return value - (1 << 64) if value >= 1 << 63 else value
