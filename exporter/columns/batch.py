"""Many messages with samples at once: which of them differ in numbers alone from what a table holds, and these numbers into the table.

All others are left over: what does not fit its schema, a VM that is not in the table, another node, name or run, another state or device,
values of a guest's agent, and what is not newer than the message before it. Where one message of a VM is left over, all of the batch are,
so that they are taken in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Final

import numpy as np

from virtflow.exporter.columns.layout import GUEST, STATES, TIMES, WORDS
from virtflow.exporter.columns.table import COUNT, FIRST_PLACE, DeviceTable, Table, name_keys, number_keys
from virtflow.schemas.avro.codec import CONFLUENT_HEADER, SINGLE_OBJECT_MAGIC, SINGLE_OBJECT_SIZE, Codec
from virtflow.schemas.avro.cursors import Cursors, Fields, Numbers, Step
from virtflow.schemas.errors import UndecodableError
from virtflow.schemas.order import INTERVALS_ALIVE
from virtflow.schemas.ranges import EARLIEST_SECONDS, INTERVAL_SECONDS, LATEST_SECONDS, PARTS, SEQUENCE, UUID_LENGTH
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.topics import MAX_MESSAGE_BYTES

_NOWHERE: Final = -1


@dataclass(frozen=True, slots=True)
class _Items:
    """The devices of one kind in all messages of a part: the message that each belongs to, its place in the table, and its values."""

    table: DeviceTable
    owners: Numbers
    places: Numbers
    numbers: dict[str, Numbers]


@dataclass(frozen=True, slots=True)
class _Part:
    """The messages of one schema: their numbers in the batch, the places of their VMs, whether they differ in numbers alone, and the values."""

    numbers: Numbers
    places: Numbers
    good: Numbers
    fields: Fields
    items: list[_Items]


class Batch:
    """Messages with samples, in the order of their arrival, seen against one table."""

    def __init__(self, table: Table, codec: Codec, steps: dict[bytes, tuple[Step, ...] | None], values: Sequence[bytes]) -> None:
        """``steps`` remembers how messages with each header are read. Nothing is changed yet."""
        self._table = table
        self._codec = codec
        self._steps = steps
        self._values = values
        count = len(values)
        self._places: Numbers = np.full(count, _NOWHERE)
        self._good: Numbers = np.zeros(count, bool)
        self._times = {name: np.zeros(count) for name in TIMES}
        self._order = {name: np.zeros(count, np.int64) for name in ("sequence", "part")}
        self._parts = list(self._read())
        for part in self._parts:
            self._places[part.numbers], self._good[part.numbers] = part.places, part.good
            for columns in (self._times, self._order):
                for name, column in columns.items():
                    column[part.numbers] = part.fields.numbers[name]
        self._left: Numbers = np.zeros(len(table.vms) + 1, bool)
        """Which VMs' messages are left over; the last one stands for messages of no VM in the table."""
        self._by_vm = self._in_turn()
        self._left[_NOWHERE] = True

    def unknown(self) -> list[int]:
        """The messages of no VM in the table: read them, and ``leave`` the VMs that they are of, before ``others`` is asked."""
        return np.flatnonzero(self._places == _NOWHERE).tolist()

    def leave(self, places: Iterable[int]) -> None:
        """Leaves all messages of these VMs over."""
        self._left[list(places)] = True

    def others(self) -> list[int]:
        """The other messages that are left over."""
        return np.flatnonzero(self._left[self._places] & (self._places != _NOWHERE)).tolist()

    def take(self, arrived: Sequence[float]) -> None:
        """Puts what is not left over into the table; ``arrived`` is when each message came, on the fleet's clock."""
        kept = self._by_vm[~self._left[self._places[self._by_vm]]]
        if not len(kept):
            return
        places = self._places[kept]
        newest = kept[np.append(places[1:] != places[:-1], [True])]
        self._renew(newest, kept, arrived)
        chosen = np.zeros(len(self._values), bool)
        chosen[newest] = True
        table = self._table
        for part in self._parts:
            rows = chosen[part.numbers]
            for name, column in table.numbers.items():
                column[part.places[rows]] = part.fields.numbers[name][rows]
            for items in part.items:
                there = rows[items.owners]
                for name in items.table.kind.numbers:
                    items.table.numbers[name][items.places[there]] = items.numbers[name][there]

    def _renew(self, newest: Numbers, kept: Numbers, arrived: Sequence[float]) -> None:
        """Tells the VMs which messages are their newest samples, and when their monitors answered last."""
        table, values, codec = self._table, self._values, self._codec
        columns = (self._places, self._order["sequence"], self._order["part"], self._times["collected"], self._times["interval"])
        rows = zip(newest.tolist(), *(column[newest].tolist() for column in columns), strict=True)
        for row, place, sequence, part, collected, interval in rows:
            sample, vm = table.samples[place], table.vms[place]
            assert sample is not None
            assert vm is not None
            unread = partial(codec.decode, values[row], VmMetrics)
            vm.expires = arrived[row] + INTERVALS_ALIVE * interval
            sample.renew(unread, (sequence, part), (collected, interval), vm.expires)
        with np.errstate(invalid="ignore"):
            monitored = kept[self._times["monitor_collected"][kept] > 0]
        for place, answered in zip(self._places[monitored].tolist(), self._times["monitor_collected"][monitored].tolist(), strict=True):
            vm = table.vms[place]
            assert vm is not None
            vm.monitor_collected = answered

    def _read(self) -> Iterable[_Part]:
        by_header: dict[bytes, list[int]] = {}
        for number, value in enumerate(self._values):
            by_header.setdefault(_header(value), []).append(number)
        for header, numbers in by_header.items():
            steps = self._steps_of(header)
            if steps is not None:
                yield self._part(np.array(numbers), Cursors([self._values[number] for number in numbers], len(header)), steps)

    def _steps_of(self, header: bytes) -> tuple[Step, ...] | None:
        if header not in self._steps:
            try:
                name, schema, size = self._codec.written(header)
            except UndecodableError:
                return None
            whole = name == VmMetrics.__name__ and size == len(header)
            self._steps[header] = self._table.layout.steps(schema) if whole else None
        return self._steps[header]

    def _part(self, numbers: Numbers, cursors: Cursors, steps: tuple[Step, ...]) -> _Part:
        fields, good = cursors.fields(steps)
        places = self._named(cursors, fields, good)
        good &= places != _NOWHERE
        table, values = self._table, fields.numbers
        _complete(values, table, len(numbers))
        good &= _true(values)
        for name in STATES:
            good &= values[name] == table.numbers[name][places]
        guests = fields.lists.get(GUEST)
        if guests is not None:
            good[guests[0]] = False
        items = [_items(of_kind, cursors, fields, places, good) for of_kind in table.kinds]
        return _Part(numbers, places, good, fields, items)

    def _named(self, cursors: Cursors, fields: Fields, good: Numbers) -> Numbers:
        """The places of the VMs that messages name, of those that fit their schema."""
        (start, length), (last, last_length) = fields.texts[WORDS[0]], fields.texts[WORDS[-1]]
        named = good & (length == UUID_LENGTH)
        ends = np.where(named, last + last_length, start)
        data, known = cursors.data, self._table.places
        pieces = [data[first:end] for first, end in zip(start.tolist(), ends.tolist(), strict=True)]
        return np.fromiter(map(known.get, pieces, repeat(_NOWHERE)), np.int64, len(pieces))

    def _in_turn(self) -> Numbers:
        """The messages of VMs in the table, VM by VM in their order; a VM is left over with one that is not good or not newer than before."""
        known = np.flatnonzero(self._places != _NOWHERE)
        known = known[np.argsort(self._places[known], kind="stable")]
        places = self._places[known]
        first = np.append([True], places[1:] != places[:-1])[: len(known)]
        sequence, part = (self._order[name][known] for name in ("sequence", "part"))
        sequence_before, part_before = (
            np.where(first, self._table.numbers[name][places], np.roll(column, 1))
            for name, column in (("sequence", sequence), ("part", part))
        )
        newer = (sequence > sequence_before) | ((sequence == sequence_before) & (part > part_before))
        self._left[places[~(newer & self._good[known])]] = True
        return known


def _items(table: DeviceTable, cursors: Cursors, fields: Fields, places: Numbers, good: Numbers) -> _Items:
    """The devices of one kind; messages with others than the table has are no longer ``good``."""
    of_kind, none = table.kind.devices, np.zeros(0, np.int64)
    owners, found = fields.lists.get(of_kind.attribute, (none, Fields(0)))
    counts = np.bincount(owners, minlength=len(places))
    table.of_vm.grow(int(places.max(initial=0)) + 1)
    good &= counts == table.of_vm.numbers[COUNT][places]
    there = np.flatnonzero(good[owners])
    mine = owners[there]
    at = table.of_vm.numbers[FIRST_PLACE][places[mine]] + _turns(mine)
    if len(there):
        if table.kind.named:
            start, length = (column[there] for column in found.texts[of_kind.label])
            keys = name_keys(length, [cursors.beginnings(start, length, word) for word in range(2)])
        else:
            keys = number_keys(found.numbers[of_kind.label][there])
        good[mine[~table.same(at, keys)]] = False
    return _Items(table, mine, at, {name: _column(found, name, kind)[there] for name, kind in table.kind.numbers.items()})


def _turns(owners: Numbers) -> Numbers:
    """Of each item the number of items of the same owner before it."""
    order = np.argsort(owners, kind="stable")
    in_order = owners[order]
    first = np.flatnonzero(np.append([True], in_order[1:] != in_order[:-1])[: len(owners)])
    turns = np.zeros(len(owners), np.int64)
    turns[order] = np.arange(len(owners)) - np.repeat(first, np.diff(np.append(first, len(owners))))
    return turns


def _column(fields: Fields, name: str, kind: str) -> Numbers:
    """A column of devices; absent where the schema does not have it."""
    column = fields.numbers.get(name)
    return column if column is not None else _absent(kind, fields.count)


def _complete(values: dict[str, Numbers], table: Table, count: int) -> None:
    """Adds the fields that the schema does not have: absent; what orders samples has a default of its own."""
    types = {**table.layout.numbers, **dict.fromkeys(STATES, "long")}
    for name, kind in types.items():
        if name not in values:
            values[name] = _absent(kind, count)
    if "part" not in values:
        values["part"] = np.zeros(count, np.int64)


def _absent(kind: str, count: int) -> Numbers:
    return np.full(count, -1) if kind == "long" else np.full(count, np.nan)


def _true(values: dict[str, Numbers]) -> Numbers:
    """Which samples' numbers can be true: the rules of ``schemas.ranges``; the words are compared with those that were found to be."""
    sequence, part, interval, collected = (values[name] for name in ("sequence", "part", "interval", "collected"))
    with np.errstate(invalid="ignore"):
        true = (sequence >= 0) & (sequence <= SEQUENCE) & (part >= 0) & (part <= PARTS)
        true &= (interval > 0) & (interval <= INTERVAL_SECONDS) & (collected >= EARLIEST_SECONDS) & (collected <= LATEST_SECONDS)
    return np.asarray(true)


def _header(value: bytes) -> bytes:
    """What says how a message was written; nothing where it is too large to be read."""
    if len(value) > MAX_MESSAGE_BYTES:
        return b""
    return value[:SINGLE_OBJECT_SIZE] if value[:2] == SINGLE_OBJECT_MAGIC else value[: CONFLUENT_HEADER.size]
