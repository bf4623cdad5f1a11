"""Samples as messages until they are committed: bytes wait in memory, not objects, and become rows all at once.

What the fast decoder leaves over, poison and schemas it does not know, goes through the other one, message by message. Nothing is counted
or remembered before it is stored: a commit that failed is made again from the same messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from virtflow.history.storage.delta import Opened
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.history.writer.dedup import HOUR_SECONDS, Key, Sequences
from virtflow.history.writer.rows.avro_columns import Columns, Messages, together
from virtflow.history.writer.rows.sample_rows import ENCODED, WANTED, columns_of_samples, rows_of
from virtflow.history.writer.validation import Intake
from virtflow.schemas.avro.codec import SINGLE_OBJECT_MAGIC, SINGLE_OBJECT_SIZE
from virtflow.schemas.avro.cursors import Numbers, Step, steps_of
from virtflow.schemas.errors import UndecodableError
from virtflow.schemas.ranges import EARLIEST_SECONDS, INTERVAL_SECONDS, LATEST_SECONDS, PARTS, SEQUENCE, is_uuid
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.text import NAME_LENGTH
from virtflow.schemas.topics import MAX_MESSAGE_BYTES

Raw = tuple[bytes | None, float]
"""A message and when it arrived at the broker (Unix seconds)."""
_CONFLUENT_SIZE: Final = 5


class RawSamples:
    """From waiting messages to rows; a ``Filter`` that lets every message wait and sorts out repeats when rows are made."""

    def __init__(self, intake: Intake, known: Sequences) -> None:
        """``known`` are the samples that are stored."""
        self._intake = intake
        self._known = known
        self._steps: dict[bytes, tuple[Step, ...] | None] = {}
        self._left_out: Counter[str] = Counter()

    def begin(self, opened: Opened) -> None:
        """As ``Filter`` says."""
        self._known.begin(opened)

    def new(self, records: Sequence[Raw]) -> Sequence[bool]:
        """As ``Filter`` says; which are new is seen when they are decoded."""
        return [True] * len(records)

    def stored(self) -> None:
        """As ``Filter`` says; what the last rows were made of is known and counted from now on."""
        self._known.stored()
        for reason, count in self._left_out.items():
            self._intake.skipped(SAMPLES, reason, count)
        self._left_out = Counter()

    def rows(self, waiting: Sequence[Raw]) -> pa.Table:
        """The rows of those samples among the messages that are new and fit to be stored, as ``ENCODED`` has them.

        Raises ``StorageError`` as ``new`` does.
        """
        self._left_out = Counter()
        chunks = list(self._columns(waiting))
        fresh = self._fresh(chunks)
        parts = np.split(fresh, np.cumsum([chunk.count for chunk in chunks], dtype=np.int64))
        tables = [rows_of(chunk.chosen(new)) for chunk, new in zip(chunks, parts, strict=False) if new.any()]
        self._left_out["repeated"] += len(fresh) - int(fresh.sum())
        return pa.concat_tables(tables) if tables else ENCODED.empty_table()

    def _columns(self, waiting: Sequence[Raw]) -> Iterator[Columns]:
        """All samples that can be stored, those of each schema together, and at last those that were read one by one."""
        by_header: dict[bytes, list[int]] = {}
        for number, (value, _) in enumerate(waiting):
            by_header.setdefault(_header(value), []).append(number)
        left: list[int] = []
        for header, numbers in by_header.items():
            steps = self._steps_of(header)
            if steps is None:
                left += numbers
                continue
            columns, fit = Messages([waiting[number][0] or b"" for number in numbers], len(header)).columns(steps)
            columns.complete(WANTED)
            places = np.array(numbers)
            true = _true(columns)
            left += [*places[~fit].tolist(), *places[fit][~true].tolist()]
            yield self._fit(columns.chosen(true), np.array([waiting[number][1] for number in places[fit][true].tolist()]))
        if records := [record for number in sorted(left) if (record := self._one(*waiting[number])) is not None]:
            yield columns_of_samples(records)

    def _one(self, value: bytes | None, arrived: float) -> VmMetrics | None:
        record, reason = self._intake.judged(SAMPLES, value, arrived)
        if reason:
            self._left_out[reason] += 1
        return record

    def _steps_of(self, header: bytes) -> tuple[Step, ...] | None:
        if header not in self._steps:
            try:
                name, schema, size = self._intake.codec.written(header)
            except UndecodableError:
                return None
            fits = name == VmMetrics.__name__ and size == len(header)
            self._steps[header] = steps_of(schema, WANTED) if fits else None
        return self._steps[header]

    def _fit(self, samples: Columns, arrived: Numbers) -> Columns:
        """Those of a time that can be stored."""
        moments = samples.numbers["collected"]
        future, late = self._intake.untimely(SAMPLES, moments, arrived)
        self._left_out.update({"future": int(future.sum()), "too_late": int(late.sum())})
        return samples.chosen(~future & ~late)

    def _fresh(self, chunks: Sequence[Columns]) -> Numbers:
        """Which samples are new, of all chunks in a row."""
        numbers: dict[Key, int] = {}
        owners, sequences = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for chunk in chunks:
            keys, codes = _keys(chunk)
            places = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
            owners.append(places[codes] if len(keys) else codes)
            sequences.append(chunk.numbers["sequence"])
        return self._known.judge(list(numbers), np.concatenate(owners), np.concatenate(sequences))


def _header(value: bytes | None) -> bytes:
    """What says how a message was written; nothing where it is none or too large."""
    if value is None or len(value) > MAX_MESSAGE_BYTES:
        return b""
    return value[:SINGLE_OBJECT_SIZE] if value[:2] == SINGLE_OBJECT_MAGIC else value[:_CONFLUENT_SIZE]


def _true(samples: Columns) -> Numbers:
    """Which samples' envelopes can be true: the rules of ``schemas.ranges``."""
    numbers = samples.numbers
    sequence, part, interval, collected = (numbers[name] for name in ("sequence", "part", "interval", "collected"))
    true = (sequence >= 0) & (sequence <= SEQUENCE) & (part >= 0) & (part <= PARTS)
    true &= (interval > 0) & (interval <= INTERVAL_SECONDS) & (collected >= EARLIEST_SECONDS) & (collected <= LATEST_SECONDS)
    for name in ("uuid", "node", "boot_id"):
        words = samples.words[name]
        good = [is_uuid(word) if name == "uuid" else 0 < len(word) <= NAME_LENGTH for word in words.dictionary.to_pylist()]
        true &= np.array(good, bool)[words.indices.to_numpy()]
    return np.asarray(true)


def _keys(samples: Columns) -> tuple[list[Key], Numbers]:
    """The different VMs, nodes, producer runs and hours, and the place of each sample's among them."""
    keys, codes = together([samples.words[name] for name in ("uuid", "node", "boot_id")])
    hours = np.floor(samples.numbers["collected"] / HOUR_SECONDS).astype(np.int64)
    if not len(hours):
        return [], codes
    first = int(np.min(hours))
    span = int(np.max(hours)) - first + 1
    joined, places = np.unique(codes * span + (hours - first), return_inverse=True)
    owners, after = np.divmod(joined, span)
    return [(*keys[owner], first + hour) for owner, hour in zip(owners.tolist(), after.tolist(), strict=True)], places
