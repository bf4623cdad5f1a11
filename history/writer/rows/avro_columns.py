"""Many Avro messages of one schema at once, as columns of Arrow: ``Cursors`` reads them, here their texts become words.

Nothing is taken for good here that the decoder of single messages would refuse (held by a test on damaged messages).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from virtflow.schemas.avro.cursors import Cursors, Fields, Numbers, Step, Wanted, text_of

ABSENT: Final[dict[str, float | int | str]] = {"long": -1, "double": float("nan"), "string": ""}
_MOST_DIFFERENT: Final = 2**62


@dataclass(slots=True)
class Columns:
    """Fields of many records: numbers by name, words by name as an Arrow dictionary, lists by name with the record each item belongs to."""

    count: int
    numbers: dict[str, Numbers] = field(default_factory=dict)
    words: dict[str, pa.DictionaryArray] = field(default_factory=dict)
    lists: dict[str, tuple[Numbers, Columns]] = field(default_factory=dict)

    def chosen(self, rows: Numbers) -> Columns:
        """Those records for which ``rows`` is true, in their order; all of them are not copied."""
        if rows.all():
            return self
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
    # A dictionary array gives up its words one by one, which takes many times as long.
    words = (each.dictionary.take(each.indices.take(pa.array(first))).to_pylist() for each in columns)
    return list(zip(*words, strict=True)), codes


class Messages(Cursors):
    """Messages of one schema, end to end."""

    def columns(self, steps: tuple[Step, ...]) -> tuple[Columns, Numbers]:
        """The records of those messages that fit their schema to the last byte, and which those are."""
        found, fit = self.fields(steps)
        columns = self._worded(found, fit)
        return columns.chosen(fit), fit

    def _worded(self, read: Fields, fit: Numbers) -> Columns:
        """The records with their words; messages in which a word is no UTF-8 are taken out of ``fit``."""
        columns = Columns(read.count, read.numbers)
        for texts in read.passed.values():
            fit &= self.are_texts(*texts, fit)
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

    def _dictionary(self, start: Numbers, length: Numbers, fit: Numbers) -> tuple[pa.DictionaryArray, Numbers]:
        """Texts as an Arrow dictionary, and which of them are UTF-8; those that don't fit are empty."""
        length = np.where(fit, length, 0)
        offsets = np.zeros(len(length) + 1, np.int64)
        np.cumsum(length, out=offsets[1:])
        places = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)
        buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(self._bytes[places])]
        encoded = pa.Array.from_buffers(pa.binary(), len(length), buffers).dictionary_encode()
        texts = [text_of(value) for value in encoded.dictionary.to_pylist()]
        words = pa.DictionaryArray.from_arrays(encoded.indices, pa.array([text or "" for text in texts], pa.string()))
        if None not in texts:
            return words, np.ones(len(length), bool)
        return words, np.array([text is not None for text in texts])[encoded.indices.to_numpy()]
