"""What has been stored already: repeated samples and events, and inventories and migrations that tell nothing new.

A filter judges a batch when it is about to be committed, against the table: of samples and events it reads the hours that the batch
touches, each once, however old they are or far ahead. What it judged to be new counts as known once the commit is made, so that the same
records are judged alike when a commit failed and they come again. When partitions change hands all is learned again, since another
writer may have stored more.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.storage.delta import File, Opened
from virtflow.history.storage.table_schemas import EVENT_ROWS, INVENTORY_ROWS, MIGRATION_ROWS, SAMPLES, TIME
from virtflow.history.writer.rows.avro_columns import together
from virtflow.history.writer.rows.record_rows import Written, moment_of
from virtflow.schemas.records import VmEvent, VmInventory, VmMetrics

RUNS: Final = 1_000_000
"""Runs of sequences remembered, one for each VM, producer run and hour where nothing is missing; beyond that the hours used longest ago are forgotten."""
CHANGES: Final = 32
"""What is remembered of one VM's inventories or migrations: the newest of them, by their own times."""
HOUR_SECONDS: Final = 3_600
MICROSECONDS: Final = 1_000_000

Key = tuple[str, str, str, int]
"""VM, node, producer run, and the hour of the samples (since 1970)."""
Range = tuple[int, int]
Run = tuple[Key, int, int]
"""Sequences from and to of one VM and producer run in one hour."""
Numbers = np.ndarray[Any, np.dtype[Any]]


class Filter(Protocol):
    """Says which records are new."""

    def begin(self, opened: Opened) -> None:
        """What was known of the table may be outdated."""

    def new(self, records: Sequence[Any]) -> Sequence[bool]:
        """Which records are new; raises ``StorageError`` where the table can't be read. Nothing is known of them before ``stored``."""

    def stored(self) -> None:
        """What was last judged is in the table."""


class Runs:
    """Which sequences of one VM and producer run are known, as runs of numbers in order, none next to another."""

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
        place = bisect_right(self.ranges, number, key=_first) - 1
        return place >= 0 and number <= self.ranges[place][1]

    def add(self, first: int, last: int) -> None:
        """Makes ``first`` to ``last`` known."""
        if self.ranges and self.ranges[-1][1] + 1 == first:  # what comes nearly always: the next ones
            self.ranges[-1] = self.ranges[-1][0], last
            return
        begin = bisect_left(self.ranges, first - 1, key=_last)
        end = bisect_right(self.ranges, last + 1, key=_first)
        if begin < end:
            first, last = min(first, self.ranges[begin][0]), max(last, self.ranges[end - 1][1])
        self.ranges[begin:end] = [(first, last)]


def _first(run: Range) -> int:
    return run[0]


def _last(run: Range) -> int:
    return run[1]


class Sequences:
    """Repeats among samples and events: the same VM, node, producer run and sequence, of the same hour."""

    def __init__(self, runs: int = RUNS) -> None:
        """Nothing is known; about ``runs`` runs of sequences are remembered."""
        self._most = runs
        self._opened: Opened | None = None
        self._known: defaultdict[int, dict[Key, Runs]] = defaultdict(dict)
        self._looked: OrderedDict[int, None] = OrderedDict()
        """The hours of the table that were looked at, those used last at the end."""
        self._size = 0
        self._judged: list[Run] = []

    def begin(self, opened: Opened) -> None:
        """As ``Filter`` says."""
        self._opened = opened
        self._known.clear()
        self._looked.clear()
        self._size = 0

    def new(self, records: Sequence[VmMetrics | VmEvent]) -> Sequence[bool]:
        """As ``Filter`` says."""
        places: dict[Key, int] = {}
        owners = [places.setdefault(_key(record), len(places)) for record in records]
        numbers = np.array([record.sequence for record in records], np.int64)
        fresh: list[bool] = self.judge(list(places), np.array(owners, np.int64), numbers).tolist()
        return fresh

    def judge(self, keys: Sequence[Key], of: Numbers, numbers: Numbers) -> Numbers:
        """As ``new``, of many samples: ``of`` says whose each is, ``numbers`` are their sequences."""
        self._look({hour for *_, hour in keys})
        fresh, self._judged = self.deduplicate(keys, of, numbers)
        return fresh

    def stored(self) -> None:
        """As ``Filter`` says."""
        for run in self._judged:
            self.learn(*run)
        self._judged = []

    def deduplicate(self, keys: Sequence[Key], of: Numbers, numbers: Numbers) -> tuple[Numbers, list[Run]]:
        """Which of many samples are new, going by what is known, and those as runs."""
        order = np.lexsort((numbers, of))
        owners, sequences = of[order], numbers[order]
        same = owners[1:] == owners[:-1]
        new = np.ones(len(order), bool)
        new[1:] = ~same | (sequences[1:] != sequences[:-1])
        begins = np.flatnonzero(np.append(True, ~same)[: len(order)])
        for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(order)], strict=False):
            key = keys[owners[begin]]
            known = self._known[key[3]].get(key)
            if known is not None and sequences[begin] <= known.highest:
                new[begin:end] &= [not known.has(number) for number in sequences[begin:end].tolist()]
        fresh = np.empty(len(order), bool)
        fresh[order] = new
        return fresh, _runs(keys, owners[new], sequences[new])

    def learn(self, key: Key, first: int, last: int) -> None:
        """Makes sequences known as stored."""
        runs = self._known[key[3]].setdefault(key, Runs())
        before = len(runs.ranges)
        runs.add(first, last)
        self._size += len(runs.ranges) - before

    def _look(self, hours: AbstractSet[int]) -> None:
        """Learns what is in the table of these hours, where that is not known yet."""
        missing = sorted(hours - self._looked.keys())
        files = self._opened.files() if missing and self._opened is not None else []
        for hour in missing:
            begin, end = hour * HOUR_SECONDS, (hour + 1) * HOUR_SECONDS
            touched = [file for file in files if file.first < end and file.last >= begin]
            if touched and self._opened is not None:
                for run in _stored_runs(self._opened, touched, hour):
                    self.learn(*run)
            self._looked[hour] = None
        for hour in hours:
            self._looked.move_to_end(hour)
        while self._size > self._most and (oldest := next(iter(self._looked))) not in hours:
            del self._looked[oldest]
            self._size -= sum(len(runs.ranges) for runs in self._known.pop(oldest, {}).values())


def _key(record: VmMetrics | VmEvent) -> Key:
    return record.uuid, record.node, record.boot_id, int(moment_of(record) // HOUR_SECONDS)


def _runs(keys: Sequence[Key], owners: Numbers, sequences: Numbers) -> list[Run]:
    """Sequences as runs, given in the order of their owners, and of each owner's in their own order."""
    cut = np.append(True, (owners[1:] != owners[:-1]) | (sequences[1:] > sequences[:-1] + 1))[: len(owners)]
    firsts, lasts = sequences[cut].tolist(), sequences[np.append(cut[1:], True)[: len(owners)]].tolist()
    return [(keys[owner], *bounds) for owner, *bounds in zip(owners[cut].tolist(), firsts, lasts, strict=True)]


def _stored_runs(opened: Opened, files: Sequence[File], hour: int) -> list[Run]:
    """What some files of a table have of one hour; reads the key's columns only."""
    wanted = (pc.field("time") >= _moment(hour)) & (pc.field("time") < _moment(hour + 1))
    if opened.table is SAMPLES:
        wanted &= pc.field("kind") == "vm"
    found = opened.read((*_IDENTITY, "sequence"), wanted, files)
    if not found.num_rows:
        return []
    of_whom, owners = together([found.column(name).combine_chunks().dictionary_encode() for name in _IDENTITY])
    sequences = found.column("sequence").to_numpy()
    order = np.lexsort((sequences, owners))
    return _runs([(uuid, node, boot_id, hour) for uuid, node, boot_id in of_whom], owners[order], sequences[order])


def _moment(hour: int) -> Any:  # noqa: ANN401, an Arrow scalar
    return pa.scalar(hour * HOUR_SECONDS * MICROSECONDS, TIME)


Place = tuple[int, str, int]
"""What orders a VM's inventories or migrations: time in microseconds, then the producer's run and the sequence, or the revision."""
Told = tuple[Place, int]
"""A record's place, and a hash of what it tells."""


class Changes:
    """Repeats among inventories and migrations: the same as the VM's one before it, by its own time.

    The newest of each VM are remembered. Of one that is older than these the table is asked: it may be a repeat, and it may be new, from a
    host whose clock is behind that of the VM's last host.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self._opened: Opened | None = None
        self._known: dict[str, list[Told]] = {}
        self._shortened: set[str] = set()
        """VMs of which the table has more than is remembered."""
        self._judged: dict[str, list[Told]] = {}
        self._whole: set[str] = set()
        """VMs of which ``_judged`` has all that the table has."""

    def begin(self, opened: Opened) -> None:
        """As ``Filter`` says; all that was ever told of a VM counts, since it may not change for years."""
        self._opened = opened
        self._known, self._shortened = {}, set()
        self._remember(self._stored())

    def new(self, records: Sequence[Written]) -> Sequence[bool]:
        """As ``Filter`` says."""
        self._judged, self._whole = {}, set()
        return [self._is_new(record) for record in records]

    def stored(self) -> None:
        """As ``Filter`` says."""
        self._remember(self._judged)
        self._judged = {}

    def _remember(self, found: dict[str, list[Told]]) -> None:
        self._shortened |= {uuid for uuid, told in found.items() if len(told) > CHANGES}
        self._known |= {uuid: told[-CHANGES:] for uuid, told in found.items()}

    def _stored(self, uuid: str = "") -> dict[str, list[Told]]:
        """What the table has of every VM, or of one, in order."""
        assert self._opened is not None
        table, found = self._opened.table, dict[str, list[Told]]()
        rows = self._opened.read(table.schema.names, pc.field("uuid") == uuid if uuid else None)
        for row in rows.to_pylist():
            told = _row_place(row), hash(tuple(row[name] for name in _TOLD[table.name]))
            insort(found.setdefault(row["uuid"], []), told)
        return found

    def _is_new(self, record: Written) -> bool:
        told = _place(record), hash(_said(record))
        known = self._judged.get(record.uuid) or list(self._known.get(record.uuid, ()))
        if record.uuid in self._shortened and record.uuid not in self._whole and told[0] <= known[0][0]:
            known = self._judged[record.uuid] = sorted({*known, *self._stored(record.uuid).get(record.uuid, [])})
            self._whole.add(record.uuid)
        end = bisect_right(known, told[0], key=_place_of)
        same_place = known[bisect_left(known, told[0], key=_place_of) : end]
        if told[1] in {said for _, said in same_place or known[max(0, end - 1) : end]}:
            return False
        known.insert(end, told)
        self._judged[record.uuid] = known
        return True


def _place_of(told: Told) -> Place:
    return told[0]


def _place(record: Written) -> Place:
    micros = round(moment_of(record) * MICROSECONDS)
    return (micros, record.boot_id, record.sequence) if isinstance(record, VmInventory) else (micros, "", getattr(record, "revision", -1))


def _row_place(row: dict[str, Any]) -> Place:
    micros = (row["time"] - _EPOCH) // _MICROSECOND
    run, number = (row["boot_id"] or "", row["sequence"]) if "boot_id" in row else ("", row["revision"])
    return micros, run, -1 if number is None else number


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_IDENTITY: Final = ("uuid", "node", "boot_id")
_PLACES: Final = {"day", "time", "boot_id", "sequence", "uuid", "seen"}
_TOLD: Final = {table.name: tuple(name for name in table.schema.names if name not in _PLACES) for table in (INVENTORY_ROWS, MIGRATION_ROWS)}


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


def filters() -> dict[str, Filter]:
    """A filter for each table that is written from a topic."""
    return {SAMPLES.name: Sequences(), EVENT_ROWS.name: Sequences(), MIGRATION_ROWS.name: Changes(), INVENTORY_ROWS.name: Changes()}
