"""Recordings of what libvirt said: JSON lines, one per VM and round, under libvirt's own keys.

    {"t": seconds, "node": str, "kind": "stats", "vm": name, "uuid": str, "data": {libvirt's own keys}}

A reader passes by other kinds, and lines that are broken or say nothing it knows; it counts both.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from virtflow.producer.records.merge import answered
from virtflow.producer.records.vm_snapshot import Reading
from virtflow.producer.source import Round
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.ranges import EARLIEST_SECONDS, LATEST_SECONDS, is_uuid
from virtflow.schemas.records import VmSnapshot

STATS: Final = "stats"
LINE_BYTES: Final = 16 * 1024 * 1024
"""A longer line is broken; it is skipped without being held in memory."""


def write(found: Round, node: str, out: TextIO) -> int:
    """One line per VM of the round; how many."""
    for reading in found.readings:
        line = {
            "t": round(found.collected, 3),
            "node": node,
            "kind": STATS,
            "vm": reading.name,
            "uuid": reading.uuid,
            "data": reading.data,
        }
        out.write(json.dumps(line) + "\n")
    return len(found.readings)


class Recorded(NamedTuple):
    """A VM's newest line on one node: its time, and the time of the line before it there (NaN for the only one)."""

    time: float
    node: str
    reading: Reading
    before: float = math.nan


class Recording:
    """A ``Source`` that reads a recording: its only round has of each VM the newest line."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises ``EnvironmentProblemError``.

        ``passed_by`` counts lines without a sample by reason; ``newest`` has of each VM the newest line of every node that has one.
        """
        self.passed_by: Counter[str] = Counter()
        self._interrupted = threading.Event()
        by_node: dict[tuple[str, str], Recorded] = {}
        try:
            with path.open("rb") as file:
                for at, node, reading in self._samples(_lines(file)):
                    known = by_node.get((reading.uuid, node))
                    if known is None or known.time <= at:
                        by_node[reading.uuid, node] = Recorded(at, node, reading, known.time if known else math.nan)
        except OSError as error:
            raise EnvironmentProblemError(
                thing="recording",
                value=str(path),
                why=error.strerror or str(error),
                fix="name a file written by `virtflow snapshot --record`",
            ) from error
        if not by_node:
            raise EnvironmentProblemError(
                thing="recording",
                value=str(path),
                why=f"holds no sample ({self.passed_by.total()} lines skipped)",
                fix="name a file written by `virtflow snapshot --record`",
            )
        self.newest = tuple(sorted(by_node.values(), key=lambda line: line.time))
        readings = {line.reading.uuid: line.reading for line in self.newest}
        last = self.newest[-1]
        self._round = Round(last.time, up=True, readings=tuple(readings.values()), node=last.node, drops=dict(self.passed_by))

    def _samples(self, lines: Iterable[bytes]) -> Iterator[tuple[float, str, Reading]]:
        for line in lines:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                self.passed_by["broken_line"] += 1
                continue
            if not isinstance(entry, dict) or entry.get("kind") != STATS:
                self.passed_by["other_kind"] += 1
            elif (sample := _sample(entry)) is None:
                self.passed_by["broken_line"] += 1
            else:
                yield sample

    def round(self) -> Round:
        """The newest sample of every VM; see ``Source``."""
        return self._round

    def wait(self, until: float) -> None:
        """Nothing arrives meanwhile; see ``Source``."""
        self._interrupted.wait(max(0.0, until - time.monotonic()))

    def learn(self, vms: Sequence[VmSnapshot]) -> None:
        """Nothing depends on them; see ``Source``."""

    def interrupt(self) -> None:
        """Return from waiting; see ``Source``."""
        self._interrupted.set()

    def close(self, seconds: float) -> bool:
        """Nothing is open; see ``Source``."""
        del seconds
        return True


def _lines(file: Any) -> Iterator[bytes]:  # noqa: ANN401, a binary file
    """The lines of a file; of one that is too long only the beginning, which is then broken."""
    while line := file.readline(LINE_BYTES):
        yield line
        while not line.endswith(b"\n") and (line := file.readline(LINE_BYTES)):
            pass


def _sample(entry: dict[str, Any]) -> tuple[float, str, Reading] | None:
    at, node, name, uuid, data = (entry.get(key) for key in ("t", "node", "vm", "uuid", "data"))
    if not isinstance(at, int | float) or not math.isfinite(at) or not EARLIEST_SECONDS <= at <= LATEST_SECONDS:
        return None
    if not (isinstance(node, str) and isinstance(name, str) and isinstance(uuid, str) and isinstance(data, dict) and is_uuid(uuid)):
        return None
    return float(at), node, Reading(uuid, name, data, float(at)) if answered(data) else Reading(uuid, name, data)
