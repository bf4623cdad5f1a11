"""What a Prometheus would have stored had it scraped every sample: expositions of the exporter's text, and its marks where a series ends."""

from __future__ import annotations

import re
import struct
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Final

import cramjam
import numpy as np

from virtflow.exporter.render.vm import VmText
from virtflow.schemas.records import VmMetrics

STALE: Final = float(np.array([0x7FF0000000000002], np.uint64).view(np.float64)[0])
_LINE: Final = re.compile(r"(\w+)\{(.*)\} (\S+)$")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Labels = tuple[tuple[str, str], ...]
Stored = dict[Labels, list[tuple[int, float]]]


def scraped(samples: Iterable[VmMetrics], names: Iterable[str], intervals: int = 3) -> Stored:
    """The points of every series, in milliseconds; ``samples`` of each VM are in the order of their time."""
    text = VmText(names)
    stored: Stored = {}
    shown: dict[str, tuple[VmMetrics, set[Labels]]] = {}
    for sample in samples:
        lines = text.lines(sample, text.identity(sample, None), None, ())
        now = {_labels(line): float(value) for part in lines for line in part.splitlines() for value in [line.rpartition(" ")[2]]}
        at = int(sample.collected * 1e6) // 1000
        before = shown.get(sample.uuid)
        if before is not None:
            ended = int(before[0].collected * 1e6) // 1000 + round(before[0].interval * 1000 * intervals)
            gap = ended < at
            for labels in before[1] if gap else before[1] - set(now):
                stored[labels].append((ended if gap else at, STALE))
        for labels, value in now.items():
            stored.setdefault(labels, []).append((at, value))
        shown[sample.uuid] = sample, set(now)
    for sample, series in shown.values():
        for labels in series:
            stored[labels].append((int(sample.collected * 1e6) // 1000 + round(sample.interval * 1000 * intervals), STALE))
    return stored


def write(url: str, stored: Mapping[Labels, list[tuple[int, float]]]) -> None:
    """Sends the points to a Prometheus' remote_write receiver; each series at once, which it takes while all lie within half an hour."""
    body = b"".join(_part(1, _series(labels, points)) for labels, points in stored.items())
    headers = {
        "Content-Encoding": "snappy",
        "Content-Type": "application/x-protobuf",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }
    request = urllib.request.Request(f"{url}/api/v1/write", bytes(cramjam.snappy.compress_raw(body)), headers)  # noqa: S310, our own
    with urllib.request.urlopen(request, timeout=60):  # noqa: S310, our own
        pass


def _labels(line: str) -> Labels:
    found = _LINE.match(line)
    assert found, line
    labels = {name: _unescaped(value) for name, value in _LABEL.findall(found[2])}
    return tuple(sorted({"__name__": found[1], **{name: value for name, value in labels.items() if value}}.items()))


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), value)


def _series(labels: Labels, points: list[tuple[int, float]]) -> bytes:
    body = b"".join(_part(1, _part(1, name.encode()) + _part(2, value.encode())) for name, value in labels)
    return body + b"".join(_part(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(at)) for at, value in points)


def _part(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
