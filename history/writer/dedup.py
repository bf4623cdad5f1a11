"""What has been stored already: repeated samples and events, and inventories and migrations that tell nothing new.

A filter knows two things apart: what is in the table, and what waits to be committed, by partition. When a partition is taken
away, or its commit is void, what waited is forgotten, so that the same records count as new when they come again.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import pyarrow.compute as pc

from virtflow.history.storage.delta import Opened
from virtflow.history.storage.table_schemas import EVENT_ROWS, INVENTORY_ROWS, MIGRATION_ROWS, SAMPLES
from virtflow.history.writer.record_rows import Written
from virtflow.schemas.records import VmEvent, VmInventory, VmMetrics

RANGES: Final = 64
"""Runs of sequences remembered for one VM and producer run; usually there is one."""
KEYS: Final = 1_000_000
"""VMs and producer runs remembered; beyond that the oldest are forgotten."""

Key = tuple[str, str, str]
Range = tuple[int, int]
Run = tuple[Key, int, int]
"""Sequences from and to of one VM and producer run."""
Numbers = np.ndarray[Any, np.dtype[Any]]


class Filter(Protocol):
    """Says which records are new."""

    def fresh(self, part: str, record: Any) -> bool:  # noqa: ANN401, each table has its own record
        """Whether the record is new; from now on it is not, as long as ``part`` is neither stored nor forgotten."""

    def stored(self, part: str) -> None:
        """What waited of the partition is in the table."""

    def forget(self, part: str) -> None:
        """What waited of the partition is not going to be in the table."""

    def load(self, opened: Opened, seconds: float) -> None:
        """Learns what is in the table: of samples and events those of the last ``seconds`` that are there."""


class Runs:
    """Which sequences of one VM and producer run are known, as a few runs of numbers."""

    __slots__ = ("ranges",)

    def __init__(self) -> None:
        """None are."""
        self.ranges: list[Range] = []

    @property
    def highest(self) -> int:
        """The highest that is known, -1 where none is."""
        return self.ranges[-1][1] if self.ranges else -1

    def has(self, number: int) -> bool:
        """Whether it is known."""
        return any(first <= number <= last for first, last in reversed(self.ranges))

    def add(self, first: int, last: int) -> None:
        """Makes ``first`` to ``last`` known. With too many gaps the lowest run is forgotten."""
        ranges = self.ranges
        if ranges and ranges[-1][1] + 1 == first:
            ranges[-1] = (ranges[-1][0], last)
            return
        apart = [(a, b) for a, b in ranges if b + 1 < first or last + 1 < a]
        touching = [each for each in ranges if each not in apart]
        merged = (min([first, *(a for a, _ in touching)]), max([last, *(b for _, b in touching)]))
        self.ranges = sorted([*apart, merged])[-RANGES:]


class Sequences:
    """Repeats among samples and events: the same VM, node, producer run and sequence."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._known: OrderedDict[Key, Runs] = OrderedDict()
        self._waiting: defaultdict[str, set[tuple[Key, int]]] = defaultdict(set)

    def fresh(self, part: str, record: VmMetrics | VmEvent) -> bool:
        """As ``Filter`` says."""
        key = (record.uuid, record.node, record.boot_id)
        known = self._known.get(key)
        waiting, entry = self._waiting[part], (key, record.sequence)
        if entry in waiting or (known is not None and known.has(record.sequence)):
            return False
        waiting.add(entry)
        return True

    def stored(self, part: str) -> None:
        """As ``Filter`` says."""
        for key, number in sorted(self._waiting.pop(part, ())):
            self.learn(key, number, number)

    def sort_out(self, keys: Sequence[Key], of: Numbers, numbers: Numbers) -> tuple[Numbers, list[Run]]:
        """Which of many samples are new, and those as runs. ``of`` says whose each is, ``numbers`` are their sequences."""
        order = np.lexsort((numbers, of))
        owners, sequences = of[order], numbers[order]
        same = owners[1:] == owners[:-1]
        new = np.ones(len(order), bool)
        new[1:] = ~same | (sequences[1:] != sequences[:-1])
        begins = np.flatnonzero(np.append(True, ~same)[: len(order)])
        for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(order)], strict=False):
            known = self._known.get(keys[owners[begin]])
            if known is not None and sequences[begin] <= known.highest:
                new[begin:end] &= [not known.has(number) for number in sequences[begin:end].tolist()]
        fresh = np.empty(len(order), bool)
        fresh[order] = new
        owners, sequences = owners[new], sequences[new]
        cut = np.append(True, (owners[1:] != owners[:-1]) | (sequences[1:] != sequences[:-1] + 1))[: len(owners)]
        firsts, lasts = sequences[cut].tolist(), sequences[np.append(cut[1:], True)[: len(owners)]].tolist()
        return fresh, [(keys[owner], *bounds) for owner, *bounds in zip(owners[cut].tolist(), firsts, lasts, strict=True)]

    def forget(self, part: str) -> None:
        """As ``Filter`` says."""
        self._waiting.pop(part, None)

    def load(self, opened: Opened, seconds: float) -> None:
        """As ``Filter`` says. Reads the key's columns only."""
        now = time.time()
        newest = max((file.last for file in opened.files() if file.last <= now), default=None)
        if newest is None:
            return
        wanted = pc.field("time") >= _moment(newest - seconds)
        if opened.table is SAMPLES:
            wanted &= pc.field("kind") == "vm"
        found = opened.dataset().to_table(columns=["uuid", "node", "boot_id", "sequence"], filter=wanted)
        found = found.sort_by([(name, "ascending") for name in ("uuid", "node", "boot_id", "sequence")])
        columns = (found.column(name).to_pylist() for name in ("uuid", "node", "boot_id", "sequence"))
        for virtual_machine, node, boot_id, number in zip(*columns, strict=True):
            self.learn((virtual_machine, node, boot_id), number, number)

    def learn(self, key: Key, first: int, last: int) -> None:
        """Makes sequences known as stored."""
        runs = self._known.get(key)
        if runs is None:
            runs = self._known[key] = Runs()
            if len(self._known) > KEYS:
                self._known.popitem(last=False)
        runs.add(first, last)


class Changes:
    """Repeats among inventories and migrations: the same as the VM's one before."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._known: dict[str, tuple[Any, ...]] = {}
        self._waiting: defaultdict[str, dict[str, tuple[Any, ...]]] = defaultdict(dict)

    def fresh(self, part: str, record: Written) -> bool:
        """As ``Filter`` says."""
        said = _said(record)
        before = self._waiting[part].get(record.uuid) or self._known.get(record.uuid)
        self._waiting[part][record.uuid] = said
        return said != before

    def stored(self, part: str) -> None:
        """As ``Filter`` says."""
        self._known.update(self._waiting.pop(part, {}))

    def forget(self, part: str) -> None:
        """As ``Filter`` says."""
        self._waiting.pop(part, None)

    def load(self, opened: Opened, seconds: float) -> None:
        """As ``Filter`` says; all that was ever told of a VM counts, since it may not change for years."""
        del seconds
        rows = opened.dataset().to_table().sort_by([("uuid", "ascending"), ("time", "ascending"), *_TIES[opened.table.name]])
        for row in rows.to_pylist():
            self._known[row["uuid"]] = tuple(row[name] for name in _TOLD[opened.table.name])


_PLACES: Final = {"day", "time", "boot_id", "sequence", "uuid", "seen"}
_TOLD: Final = {table.name: tuple(name for name in table.schema.names if name not in _PLACES) for table in (INVENTORY_ROWS, MIGRATION_ROWS)}
_TIES: Final = {
    INVENTORY_ROWS.name: [("boot_id", "ascending"), ("sequence", "ascending")],
    MIGRATION_ROWS.name: [("revision", "ascending")],
}


def _said(record: Written) -> tuple[Any, ...]:
    """What a record tells, in the form the table gives it back."""
    table = INVENTORY_ROWS if isinstance(record, VmInventory) else MIGRATION_ROWS
    return tuple(_plain(getattr(record, name)) for name in _TOLD[table.name])


def _plain(value: Any) -> Any:  # noqa: ANN401, any field's value
    if isinstance(value, list):
        return msgspec.json.encode(value, order="deterministic").decode() if value else None
    if isinstance(value, str):
        return value or None
    return None if value != value or value == -1 else value  # noqa: PLR0124, only NaN differs from itself


def _moment(seconds: float) -> Any:  # noqa: ANN401, an Arrow scalar
    import pyarrow as pa

    return pa.scalar(int(seconds * 1_000_000), pa.timestamp("us", tz="UTC"))


def filters() -> dict[str, Filter]:
    """A filter for each table that is written from a topic."""
    return {SAMPLES.name: Sequences(), EVENT_ROWS.name: Sequences(), MIGRATION_ROWS.name: Changes(), INVENTORY_ROWS.name: Changes()}
