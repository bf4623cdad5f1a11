"""Messages decoded many at once become the rows that they become one by one, damaged ones included."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.support.guest_samples import told
from tests.support.history import fleet_samples
from tests.support.strategies import records
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.history.writer.dedup import Key, Sequences
from virtflow.history.writer.rows.sample_rows import sample_rows
from virtflow.history.writer.sample_batch import RawSamples
from virtflow.history.writer.validation import Intake
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.records import GuestMetrics, VmMetrics

CODEC = Codec()
NOW = float(int(time.time()))
SETTINGS = History(raw_days=36_500)
GUESTS: tuple[list[GuestMetrics], ...] = ([], [told()], [told(filesystems=[], load1=math.nan)], [told(cpus=-1), told()])
"""None, a whole answer, one in which something is missing, and more entries than there should be."""
WHOLE = [
    CODEC.encode(replace(sample, guest=GUESTS[number % len(GUESTS)]))
    for number, sample in enumerate(fleet_samples(2, 8, range(3), start=NOW - 60))
]


class Counted(Intake):
    """An intake whose own decoder's work is counted, and what is left out."""

    def __init__(self) -> None:
        """With this module's settings."""
        super().__init__(CODEC, SETTINGS, OwnMetrics("history"))
        self.one_by_one = 0
        self.left_out: Counter[str] = Counter()

    def judged(self, *words: Any) -> tuple[Any | None, str]:  # noqa: ANN401, as the class has it
        """As always."""
        self.one_by_one += 1
        return super().judged(*words)

    def skipped(self, table: Any, reason: str, count: int) -> None:  # noqa: ANN401, as the class has it
        """Remembered."""
        super().skipped(table, reason, count)
        if count:
            self.left_out[reason] += count


def at_once(messages: Sequence[bytes | None]) -> tuple[pa.Table, Counted]:
    intake = Counted()
    raw = RawSamples(intake, Sequences())
    rows = raw.rows([(message, NOW) for message in messages])
    raw.stored()
    return rows, intake


def one_by_one(messages: Sequence[bytes | None]) -> tuple[pa.Table, Counter[str]]:
    """The same by the decoder of single messages, repeats left out."""
    intake, left_out = Counted(), Counter[str]()
    samples: dict[tuple[str, str, str, int], VmMetrics] = {}
    for message in messages:
        sample, reason = intake.judged(SAMPLES, message, NOW)
        if sample is None:
            left_out[reason] += 1
        elif samples.setdefault((sample.uuid, sample.node, sample.boot_id, sample.sequence), sample) is not sample:
            left_out["repeated"] += 1
    return sample_rows(samples.values()) if samples else SAMPLES.schema.empty_table(), left_out


def alike(rows: pa.Table) -> list[str]:
    """Rows in an order of their own, NaN like NaN."""
    return sorted(
        repr({name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()})
        for row in rows.to_pylist()
    )


def agree(messages: Sequence[bytes | None]) -> None:
    """But for repeats that differ: which of them is stored is not said."""
    seen: set[tuple[str, str, str, int]] = set()
    different = []
    for message in messages:
        sample, _ = Counted().judged(SAMPLES, message, NOW)
        key = sample and (sample.uuid, sample.node, sample.boot_id, sample.sequence)
        if key is None or key not in seen:
            different.append(message)
        if key is not None:
            seen.add(key)
    rows, intake = at_once(different)
    expected, left_out = one_by_one(different)
    assert alike(rows) == alike(expected)
    assert intake.left_out == left_out


def test_whole_messages_need_no_second_look() -> None:
    rows, intake = at_once(WHOLE)
    expected, _ = one_by_one(WHOLE)
    assert rows.cast(expected.schema).equals(expected)
    assert intake.one_by_one == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_lists_within_lists_of_which_some_are_empty(order: tuple[int, int]) -> None:
    """One entry has no filesystem and no address, the other has some."""
    sample, entries = CODEC.decode(WHOLE[0], VmMetrics), (told(), told(filesystems=[], addresses=[]))
    agree([CODEC.encode(replace(sample, guest=[entries[place] for place in order]))])


@given(st.lists(records(VmMetrics), max_size=4))
def test_any_record(samples: list[VmMetrics]) -> None:
    agree([CODEC.encode(sample) for sample in samples])


DAMAGE = st.tuples(st.sampled_from(["flip", "cut", "insert", "repeat"]), st.integers(0, 10_000), st.binary(min_size=1, max_size=9))


def damaged(message: bytes, how: str, place: int, more: bytes) -> bytes:
    at = place % len(message)
    match how:
        case "flip":
            return message[:at] + bytes([message[at] ^ more[0]]) + message[at + 1 :]
        case "cut":
            return message[:at]
        case "insert":
            return message[:at] + more + message[at:]
    return message + more


@given(st.lists(st.tuples(st.sampled_from(WHOLE), DAMAGE), min_size=1, max_size=20))
def test_damaged_messages_among_whole_ones(pairs: list[tuple[bytes, tuple[str, int, bytes]]]) -> None:
    agree([*WHOLE[:3], *(damaged(message, *how) for message, how in pairs), *WHOLE[3:6]])


@pytest.mark.parametrize("value", [None, b"", b"\xc3", b"\xc3\x01", b"\x00\x00\x00\x00\x01", b"\x99" * 40, b"\0" * 1_100_000])
def test_what_is_no_message(value: bytes | None) -> None:
    agree([WHOLE[0], value, WHOLE[1]])


def test_repeats_are_left_out_within_and_after() -> None:
    intake = Counted()
    raw = RawSamples(intake, Sequences())
    first = raw.rows([(message, NOW) for message in [*WHOLE[:6], *WHOLE[:3]]])
    assert first.num_rows == sample_rows([CODEC.decode(message, VmMetrics) for message in WHOLE[:6]]).num_rows
    assert raw.rows([(message, NOW) for message in WHOLE[:6]]).num_rows == first.num_rows  # not stored yet
    raw.stored()
    assert raw.rows([(message, NOW) for message in WHOLE[:6]]).num_rows == 0


def test_older_schemas_are_read_at_once_too() -> None:
    """A released schema's records, whose missing fields are absent."""
    import io
    import json
    from pathlib import Path

    import fastavro
    import msgspec

    from virtflow.schemas.avro.codec import SINGLE_OBJECT_MAGIC, schema_fingerprint

    schema = json.loads((Path(__file__).parents[2] / "schemas" / "released" / "1" / "VmMetrics.avsc").read_text())
    messages = []
    for message in WHOLE:
        out = io.BytesIO()
        fastavro.schemaless_writer(
            out, fastavro.parse_schema(schema, named_schemas={}), msgspec.to_builtins(CODEC.decode(message, VmMetrics))
        )
        messages.append(SINGLE_OBJECT_MAGIC + bytes.fromhex(schema_fingerprint(schema)) + out.getvalue())
    both = [*WHOLE[:4], *messages[4:]]
    rows, intake = at_once(both)
    assert intake.one_by_one == 0
    assert alike(rows) == alike(one_by_one(both)[0])


SEEN = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), max_size=40)


@given(SEEN, SEEN)
def test_repeats_are_sorted_out_at_once_as_one_by_one(stored: list[tuple[str, int]], come: list[tuple[str, int]]) -> None:
    """Which of many samples are new, and that all of them are known afterwards."""
    keys: list[Key] = [("vm", "node", boot, 0) for boot in "ab"]
    known, left = Sequences(), set(stored)
    for boot, number in stored:
        known.learn(("vm", "node", boot, 0), number, number)
    owners, numbers = np.array(["ab".index(boot) for boot, _ in come], np.int64), np.array([number for _, number in come], np.int64)
    fresh, runs = known.deduplicate(keys, owners, numbers)
    expected = []
    for each in come:
        expected.append(each not in left)
        left.add(each)
    assert fresh.tolist() == expected
    for run in runs:
        known.learn(*run)
    assert sum(last - first + 1 for _, first, last in runs) == sum(expected)
    assert not known.deduplicate(keys, owners, numbers)[0].any()
