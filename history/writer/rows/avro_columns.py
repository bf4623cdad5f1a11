"""Many Avro messages of one schema at once, a field at a time: from their bytes to columns, without an object per message.

A cursor for each message moves over the field that is next in the schema, all cursors together. What does not fit ends with its cursor
elsewhere than at the end of its message: such a message is left to the decoder that reads them one by one and says what is wrong.
Nothing is taken for good here that the other would refuse (held by a test on damaged messages).
Source: the Avro specification ("Binary Encoding"): numbers are zigzag in sevens of bits, lowest first, the top bit of a byte says that more
follow; a list is its length, its items, and a 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa

from virtflow.schemas.avro.schema import Schema

Numbers = np.ndarray[Any, np.dtype[Any]]

ITEMS_AT_MOST: Final = 1_024
"""A message with a longer list is read by itself."""
ABSENT: Final[dict[str, float | int | str]] = {"long": -1, "double": float("nan"), "string": ""}
_PADDING: Final = 16
_ASCII: Final = 0x80
_MOST_DIFFERENT: Final = 2**62
_TOPS: Final = np.uint64(0x8080808080808080)
_LOWS: Final = np.uint64(0x7F7F7F7F7F7F7F7F)
_ONE: Final = np.uint64(1)
_THREE: Final = np.uint64(3)
_JOIN: Final = tuple(
    (np.uint64(low), np.uint64(high), np.uint64(shift))
    for low, high, shift in (
        (0x007F007F007F007F, 0x7F007F007F007F00, 1),
        (0x00003FFF00003FFF, 0x3FFF00003FFF0000, 2),
        (0x000000000FFFFFFF, 0x0FFFFFFF00000000, 4),
    )
)


Wanted = Mapping[str, "str | Wanted"]
"""Names and types of the fields that are wanted; a list's type is the fields of its items."""


@dataclass(frozen=True, slots=True)
class Step:
    """One field: its name, its type (``long``, ``double``, ``string`` or ``array``), whether it is kept, and an array's own fields."""

    name: str
    type: str
    kept: bool
    items: tuple[Step, ...] = ()

    @property
    def has_texts(self) -> bool:
        """Whether it is text or has any in its items."""
        return self.type == "string" or any(each.has_texts for each in self.items)


@dataclass(slots=True)
class Columns:
    """Fields of many records: numbers by name, words by name as an Arrow dictionary, lists by name with the record each item belongs to."""

    count: int
    numbers: dict[str, Numbers] = field(default_factory=dict)
    words: dict[str, pa.DictionaryArray] = field(default_factory=dict)
    lists: dict[str, tuple[Numbers, Columns]] = field(default_factory=dict)

    def chosen(self, rows: Numbers) -> Columns:
        """Those records for which ``rows`` is true, in their order."""
        taken = pa.array(np.flatnonzero(rows))
        place = np.cumsum(rows) - 1
        lists = {}
        for name, (owners, items) in self.lists.items():
            there = rows[owners]
            lists[name] = (place[owners[there]], items.chosen(there))
        numbers = {name: values[rows] for name, values in self.numbers.items()}
        return Columns(len(taken), numbers, {name: words.take(taken) for name, words in self.words.items()}, lists)

    def complete(self, wanted: Wanted) -> None:
        """Adds the wanted fields that the records' schema did not have: absent, as if they had been and said so."""
        for name, kind in wanted.items():
            if isinstance(kind, Mapping):
                _, items = self.lists.setdefault(name, (np.zeros(0, np.int64), Columns(0)))
                items.complete(kind)
            elif kind == "string":
                self.words.setdefault(name, dictionary([""], np.zeros(self.count, np.int32)))
            else:
                self.numbers.setdefault(name, np.full(self.count, ABSENT[kind]))


def dictionary(words: Sequence[str], codes: Numbers) -> pa.DictionaryArray:
    """Words by their number among ``words``."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(words, pa.string()))


def together(columns: Sequence[pa.DictionaryArray]) -> tuple[list[tuple[str, ...]], Numbers]:
    """The different combinations of words that records have, and each record's place among them."""
    joined, different = np.zeros(len(columns[0]), np.int64), 1
    for each in columns:
        size = max(1, len(each.dictionary))
        if different * size > _MOST_DIFFERENT:
            known, joined = np.unique(joined, return_inverse=True)
            different = len(known)
        joined, different = joined * size + each.indices.to_numpy(), different * size
    _, first, codes = np.unique(joined, return_index=True, return_inverse=True)
    words = (each.take(pa.array(first)).to_pylist() for each in columns)
    return list(zip(*words, strict=True)), codes


def steps_of(schema: Schema, wanted: Wanted) -> tuple[Step, ...] | None:
    """How to read a schema's records; None where it has types that only the other decoder reads, or not those that are wanted."""
    steps = []
    for each in schema["fields"]:
        name, kind = each["name"], each["type"]
        asked = wanted.get(name)
        match kind:
            case "int" | "long":
                step = Step(name, "long", asked is not None)
            case "double" | "string":
                step = Step(name, kind, asked is not None)
            case {"type": "array", "items": {"type": "record"} as items}:
                inner = steps_of(items, asked if isinstance(asked, Mapping) else {})
                if not inner:
                    return None
                step = Step(name, "array", asked is not None, inner)
            case _:
                return None
        if step.kept and asked != step.type and not (step.items and isinstance(asked, Mapping)):
            return None
        steps.append(step)
    return tuple(steps)


class Messages:
    """Messages of one schema, end to end."""

    def __init__(self, values: Sequence[bytes], header: int) -> None:
        """``header`` is the size of what stands before each record."""
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        data = b"".join([*values, bytes(_PADDING)])
        self._ends = np.cumsum(sizes)
        self._at = self._ends - sizes + header
        self._bytes = np.frombuffer(data, np.uint8)
        self._words = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
        self._far = len(data) - 8
        """Where the cursor of a message is put that does not fit: no message ends there."""

    def columns(self, steps: tuple[Step, ...]) -> tuple[Columns, Numbers]:
        """The records of those messages that fit their schema to the last byte, and which those are."""
        found, at = self._record(steps, self._at)
        fit = at == self._ends
        columns = self._worded(found, fit)
        return columns.chosen(fit), fit

    def _record(self, steps: tuple[Step, ...], at: Numbers) -> tuple[_Read, Numbers]:
        read = _Read(len(at))
        for step in steps:
            match step.type:
                case "long":
                    values, at = self._long(at, kept=step.kept)
                    if step.kept:
                        read.numbers[step.name] = values
                case "double":
                    if step.kept:
                        read.numbers[step.name] = self._words[at].view(np.float64)
                    at = np.minimum(at + 8, self._far)
                case "string":
                    length, start = self._long(at, kept=True)
                    at = self._after(start, length)
                    (read.texts if step.kept else read.passed)[step.name] = (start, length)
                case _:
                    owners, items, at = self._items(step, at)
                    if step.kept:
                        read.lists[step.name] = (owners, items)
                    elif step.has_texts:
                        read.passed_lists[step.name] = (owners, items)
        return read, at

    def _long(self, at: Numbers, *, kept: bool) -> tuple[Numbers, Numbers]:
        """The numbers at the cursors, and the cursors after them. What takes more than eight bytes does not fit."""
        words = self._words[at]
        ends = ~words & _TOPS
        used = ends ^ (ends - _ONE)  # all bits up to the last byte's top one
        after = np.minimum(at + (np.bitwise_count(used) >> 3), self._far)
        after[ends == 0] = self._far
        if not kept:
            return after, after
        words &= used & _LOWS
        for low, high, shift in _JOIN:
            words = (words & low) | ((words & high) >> shift)
        return ((words >> _ONE) ^ -(words & _ONE)).view(np.int64), after

    def _after(self, start: Numbers, length: Numbers) -> Numbers:
        """The cursors behind texts."""
        return np.where((length < 0) | (length > self._far - start), self._far, start + length)

    def _items(self, step: Step, at: Numbers) -> tuple[Numbers, _Read, Numbers]:
        """The items of a list, those of all messages that are the first, then the second ones; and the cursors after the lists."""
        counts, at = self._long(at, kept=True)
        wrong = (counts < 0) | (counts > ITEMS_AT_MOST)
        at[wrong], counts[wrong] = self._far, 0
        filled = active = np.flatnonzero(counts)
        owners, parts = [], []
        while len(active):
            part, at[active] = self._record(step.items, at[active])
            owners.append(active)
            parts.append(part)
            active = active[(counts[active] > len(parts)) & (at[active] < self._far)]
        end, after = self._long(at[filled], kept=True)
        at[filled] = np.where(end == 0, after, self._far)
        return np.concatenate([*owners, active]), _joined(parts), at

    def _worded(self, read: _Read, fit: Numbers) -> Columns:
        """The records with their words; messages in which a word is no UTF-8 are taken out of ``fit``."""
        columns = Columns(read.count, read.numbers)
        for texts in read.passed.values():
            fit &= self._are_texts(*texts, fit)
        for name, texts in read.texts.items():
            columns.words[name], good = self._dictionary(*texts, fit)
            fit &= good
        for lists, kept in ((read.lists, True), (read.passed_lists, False)):
            for name, (owners, items) in lists.items():
                of_items = fit[owners]
                worded = self._worded(items, of_items)
                fit[owners[~of_items]] = False
                if kept:
                    columns.lists[name] = (owners, worded)
        return columns

    @cached_property
    def _beyond_ascii(self) -> Numbers:
        """How many bytes before each one are none of ASCII."""
        return np.concatenate([[0], np.cumsum(self._bytes >= _ASCII)])

    def _are_texts(self, start: Numbers, length: Numbers, fit: Numbers) -> Numbers:
        """Which texts that are not kept are UTF-8; the others' messages are refused all the same."""
        good = np.ones(len(start), bool)
        if not len(start):
            return good
        start, end = np.where(fit, start, 0), np.where(fit, start + length, 0)
        some = np.flatnonzero(self._beyond_ascii[end] != self._beyond_ascii[start])
        if len(some):
            _, good[some] = self._dictionary(start[some], length[some], fit[some])
        return good

    def _dictionary(self, start: Numbers, length: Numbers, fit: Numbers) -> tuple[pa.DictionaryArray, Numbers]:
        """Texts as an Arrow dictionary, and which of them are UTF-8; those that don't fit are empty."""
        length = np.where(fit, length, 0)
        offsets = np.zeros(len(length) + 1, np.int64)
        np.cumsum(length, out=offsets[1:])
        places = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)
        buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(self._bytes[places])]
        encoded = pa.Array.from_buffers(pa.binary(), len(length), buffers).dictionary_encode()
        texts = [_text(value) for value in encoded.dictionary.to_pylist()]
        words = pa.DictionaryArray.from_arrays(encoded.indices, pa.array([text or "" for text in texts], pa.string()))
        if None not in texts:
            return words, np.ones(len(length), bool)
        return words, np.array([text is not None for text in texts])[encoded.indices.to_numpy()]


@dataclass(slots=True)
class _Read:
    """What the cursors have passed: as ``Columns``, with texts as their beginnings and lengths."""

    count: int
    numbers: dict[str, Numbers] = field(default_factory=dict)
    texts: dict[str, tuple[Numbers, Numbers]] = field(default_factory=dict)
    passed: dict[str, tuple[Numbers, Numbers]] = field(default_factory=dict)
    """As ``texts``, of those that are not kept."""
    lists: dict[str, tuple[Numbers, _Read]] = field(default_factory=dict)
    passed_lists: dict[str, tuple[Numbers, _Read]] = field(default_factory=dict)
    """Lists with texts that are not kept."""


def _joined(parts: Sequence[_Read]) -> _Read:
    """The first, second ... items as one."""
    parts = [part for part in parts if part.count]
    if not parts:
        return _Read(0)
    read = _Read(sum(part.count for part in parts))
    for name in parts[0].numbers:
        read.numbers[name] = np.concatenate([part.numbers[name] for part in parts])
    for joined, of_parts in ((read.texts, [part.texts for part in parts]), (read.passed, [part.passed for part in parts])):
        for name in of_parts[0]:
            start, length = zip(*(texts[name] for texts in of_parts), strict=True)
            joined[name] = (np.concatenate(start), np.concatenate(length))
    # Items of lists within lists belong to records that now stand behind those of the parts before.
    before = np.cumsum([0, *(part.count for part in parts)])
    for lists, of_lists in ((read.lists, [part.lists for part in parts]), (read.passed_lists, [part.passed_lists for part in parts])):
        for name in of_lists[0]:
            owners, items = zip(*(each[name] for each in of_lists), strict=True)
            places = [each + first for each, first in zip(owners, before, strict=False)]
            lists[name] = (np.concatenate(places), _joined(items))
    return read


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
