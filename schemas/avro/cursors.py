"""Many Avro messages of one schema at once, a field at a time: cursors over their bytes, without an object per message.

A cursor for each message moves over the field that is next in the schema, all cursors together. What does not fit ends with its cursor
elsewhere than at the end of its message: such a message is left to the decoder that reads them one by one and says what is wrong.
Nothing is taken for good here that the other would refuse, provided that the texts are UTF-8 (``Cursors.are_texts``).
Source: the Avro specification ("Binary Encoding"): numbers are zigzag in sevens of bits, lowest first, the top bit of a byte says that more
follow; a list is its length, its items, and a 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np

from virtflow.schemas.avro.schema import Schema

Numbers = np.ndarray[Any, np.dtype[Any]]

ITEMS_AT_MOST: Final = 1_024
"""A message with a longer list is read by itself."""
_PADDING: Final = 16
_ASCII: Final = 0x80
_TOPS: Final = np.uint64(0x8080808080808080)
_LOWS: Final = np.uint64(0x7F7F7F7F7F7F7F7F)
_ONE: Final = np.uint64(1)
_THREE: Final = np.uint64(3)
_ALL: Final = np.uint64(0xFFFFFFFFFFFFFFFF)
_NONE: Final = np.uint64(0)
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
class Fields:
    """Fields of many records: numbers by name, texts by name as their beginnings and lengths, lists by name with the record of each item."""

    count: int
    numbers: dict[str, Numbers] = field(default_factory=dict)
    texts: dict[str, tuple[Numbers, Numbers]] = field(default_factory=dict)
    passed: dict[str, tuple[Numbers, Numbers]] = field(default_factory=dict)
    """As ``texts``, of those that are not kept."""
    lists: dict[str, tuple[Numbers, Fields]] = field(default_factory=dict)
    passed_lists: dict[str, tuple[Numbers, Fields]] = field(default_factory=dict)
    """Lists with texts that are not kept."""


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


class Cursors:
    """Messages of one schema, end to end."""

    def __init__(self, values: Sequence[bytes], header: int) -> None:
        """``header`` is the size of what stands before each record."""
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        self.data: Final = b"".join([*values, bytes(_PADDING)])
        """All messages, one behind the other: what places in them count."""
        self._ends = np.cumsum(sizes)
        self._at = self._ends - sizes + header
        self._bytes = np.frombuffer(self.data, np.uint8)
        self._words = np.ndarray((len(self.data) - 7,), "<u8", self.data, strides=(1,))
        self._far = len(self.data) - 8
        """Where the cursor of a message is put that does not fit: no message ends there."""

    def fields(self, steps: tuple[Step, ...]) -> tuple[Fields, Numbers]:
        """The fields of all messages, and which messages fit their schema to the last byte; those of the others mean nothing."""
        found, at = self._record(steps, self._at)
        return found, at == self._ends

    def beginnings(self, start: Numbers, length: Numbers, word: int) -> Numbers:
        """Eight bytes of each text as a number, from its ``word``-th eight bytes on; zero behind its end."""
        left = np.clip(length - 8 * word, 0, 8)
        words = self._words[np.minimum(start + 8 * word, self._far)]
        return np.where(left > 0, words & (_ALL >> ((8 - left).astype(np.uint64) << _THREE)), _NONE)

    def are_texts(self, start: Numbers, length: Numbers, fit: Numbers) -> Numbers:
        """Which texts are UTF-8, of the messages that fit."""
        good = np.ones(len(start), bool)
        if not len(start):
            return good
        start, end = np.where(fit, start, 0), np.where(fit, start + length, 0)
        for some in np.flatnonzero(self._beyond_ascii[end] != self._beyond_ascii[start]).tolist():
            good[some] = text_of(self.data[start[some] : end[some]]) is not None
        return good

    def _record(self, steps: tuple[Step, ...], at: Numbers) -> tuple[Fields, Numbers]:
        read = Fields(len(at))
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

    def _items(self, step: Step, at: Numbers) -> tuple[Numbers, Fields, Numbers]:
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
        return np.concatenate([*owners, active]), joined(parts), at

    @cached_property
    def _beyond_ascii(self) -> Numbers:
        """How many bytes before each one are none of ASCII."""
        return np.concatenate([[0], np.cumsum(self._bytes >= _ASCII)])


def joined(parts: Sequence[Fields]) -> Fields:
    """The first, second ... items as one."""
    parts = [part for part in parts if part.count]
    if not parts:
        return Fields(0)
    read = Fields(sum(part.count for part in parts))
    for name in parts[0].numbers:
        read.numbers[name] = np.concatenate([part.numbers[name] for part in parts])
    for texts_of, of_parts in ((read.texts, [part.texts for part in parts]), (read.passed, [part.passed for part in parts])):
        for name in of_parts[0]:
            start, length = zip(*(texts[name] for texts in of_parts), strict=True)
            texts_of[name] = (np.concatenate(start), np.concatenate(length))
    # Items of lists within lists belong to records that now stand behind those of the parts before.
    before = np.cumsum([0, *(part.count for part in parts)])
    for lists, of_lists in ((read.lists, [part.lists for part in parts]), (read.passed_lists, [part.passed_lists for part in parts])):
        for name in of_lists[0]:
            owners, items = zip(*(each[name] for each in of_lists), strict=True)
            places = [each + first for each, first in zip(owners, before, strict=False)]
            lists[name] = (np.concatenate(places), joined(items))
    return read


def text_of(value: bytes) -> str | None:
    """The text of bytes; None where they are no UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
