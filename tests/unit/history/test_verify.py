"""``history verify`` finds what changed on the disk, also where the file can still be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.support.history_lives import Kept, record, vm_uuid
from tests.support.history_truth import SECOND, Seen
from tests.support.long import length
from virtflow.history.maintenance.verify import DAMAGED, verify
from virtflow.history.storage.errors import StorageError
from virtflow.history.storage.footer import Columns, damage
from virtflow.history.storage.table_schemas import COUNTERS, DAILY, HOURLY, SAMPLES, Table

START = 1_790_000_000
ROUNDS = 300


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A VM's hours with values that hardly compress."""
    kept, dice = Kept(tmp_path_factory.mktemp("verify")), Random(1)  # noqa: S311, values, not secrets
    told = [
        {("vm", ""): {"vm_cpu_seconds_total": at + dice.random(), "vm_memory_rss_bytes": float(dice.randrange(2**40))}}
        for at in range(ROUNDS)
    ]
    seen = [Seen((START + at * 60) * SECOND, "a", "run", at, 60.0, 1, 1, told=values) for at, values in enumerate(told)]
    kept.rolled([[record(vm_uuid(1), each) for each in seen]])
    return kept


def damaged(history: Kept) -> list[str]:
    """The files that are named."""
    return [found.file for found in verify(history.store, lambda *_: None)]


@pytest.mark.parametrize("table", [SAMPLES, HOURLY, DAILY, COUNTERS], ids=lambda table: table.name)
def test_one_changed_byte_in_a_column_is_found(history: Kept, table: Table) -> None:
    """In the last byte of its last page, of the first column and some others; the file is named, and is whole again afterwards."""
    file = history.store.open(table).files()[0].path
    path = Path(history.settings.path) / table.name / file
    whole = path.read_bytes()
    group = pq.read_metadata(path).row_group(0)
    chunks = [group.column(number) for number in range(0, group.num_columns, group.num_columns // 3)]
    assert damaged(history) == []
    not_found = []
    for chunk in chunks:
        changed = bytearray(whole)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        changed[start + chunk.total_compressed_size - 1] ^= 0x55
        path.write_bytes(changed)
        if damaged(history) != [file]:
            not_found.append(chunk.path_in_schema)
    path.write_bytes(whole)
    assert not_found == []
    assert damaged(history) == []


def footer(whole: bytes) -> int:
    """Where a file's footer begins: before its last eight bytes stands how long it is."""
    return len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")


def renamed(whole: bytes) -> bytes:
    """A column that has another name of the same length; in the footer it stands once in the schema and once in each row group."""
    return whole.replace(b"vm_memory_rss_bytes", b"vm_memory_rss_bytez")


def zeroed(whole: bytes) -> bytes:
    return whole[: footer(whole)] + bytes(100) + whole[footer(whole) + 100 :]


def cut_in_the_middle(whole: bytes) -> bytes:
    """The footer's middle is gone, its end and the file's length are not."""
    middle = (footer(whole) + len(whole)) // 2
    return whole[: middle - 20] + bytes(20) + whole[middle:]


def narrowed(whole: bytes) -> bytes:
    """The greatest VM's UUID of each row group is said to be smaller than any: whoever looks for one passes the group over."""
    at = footer(whole)
    return whole[:at] + whole[at:].replace(vm_uuid(1).encode(), b"0" * 36)


@pytest.mark.parametrize("table", [SAMPLES, HOURLY, DAILY], ids=lambda table: table.name)
@pytest.mark.parametrize("harm", [renamed, zeroed, cut_in_the_middle, narrowed])
def test_a_damaged_footer_is_found_and_the_file_named(history: Kept, table: Table, harm: Callable[[bytes], bytes]) -> None:
    """Of a file that has its length; most of these can be read from begin to end."""
    file = history.store.open(table).files()[0].path
    path = Path(history.settings.path) / table.name / file
    whole = path.read_bytes()
    changed = harm(whole)
    assert len(changed) == len(whole)
    assert changed != whole
    path.write_bytes(changed)
    try:
        assert damaged(history) == [file]
    finally:
        path.write_bytes(whole)
    assert damaged(history) == []


def test_what_a_reader_would_not_notice(history: Kept) -> None:
    """Why a footer is compared with what it tells of: a filter finds nothing, and a column is empty, without an error."""
    opened = history.store.open(SAMPLES)
    file = opened.files()[0]
    path = Path(history.settings.path) / SAMPLES.name / file.path
    whole = path.read_bytes()
    try:
        path.write_bytes(narrowed(whole))
        assert opened.read(["uuid"], pc.field("uuid") == vm_uuid(1), [file]).num_rows == 0
        path.write_bytes(renamed(whole))
        assert opened.read(["vm_memory_rss_bytes"], None, [file]).column(0).null_count == file.rows
    finally:
        path.write_bytes(whole)


def test_a_file_of_another_length_is_named(history: Kept) -> None:
    file = history.store.open(HOURLY).files()[0].path
    path = Path(history.settings.path) / HOURLY.name / file
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(8) + whole[4:])
    (found,) = verify(history.store, lambda *_: None)
    path.write_bytes(whole)
    assert (found.file, found.why) == (file, f"has {len(whole) + 8} bytes, the log says {len(whole)}")


LOG_WORDS = [
    (rb"maxValues\": {\"time\": \"2026-09-2", rb"maxValues\": {\"time\": \"2026-09-0"),
    (rb"maxValues\": {\"time\": \"2026", rb"maxValues\": {\"time\": \"9026"),
    (rb"minValues", rb"minValuez"),
    (rb'"stats"', rb'"stuts"'),
    (rb'"partitionValues":{"day":"2026-09', rb'"partitionValues":{"day":"2026-08'),
    (rb"kind\": \"vm\"}, \"maxValues", rb"kind\": \"wm\"}, \"maxValues"),
]
"""One byte of a log entry: the entry is JSON as before, and readers pass the file over, or upkeep takes it for one of another time."""


@pytest.mark.parametrize(("there", "changed"), LOG_WORDS)
def test_what_the_log_says_wrongly_of_a_file_is_found(tmp_path: Path, there: bytes, changed: bytes) -> None:
    """The file itself is whole."""
    history = Kept(tmp_path)
    history.write([record(vm_uuid(1), Seen((START + at * 60) * SECOND, "a", "run", at, 60.0, 1, 1)) for at in range(10)])
    (file,) = history.store.open(SAMPLES).files()
    entry = max((tmp_path / SAMPLES.name / "_delta_log").glob("*.json"))
    whole = entry.read_bytes()
    assert damaged(history) == []
    assert whole.count(there) == 1
    entry.write_bytes(whole.replace(there, changed))
    assert damaged(history) == [file.path]


def test_a_commit_that_does_something_else_is_named(tmp_path: Path) -> None:
    """An offset, and a file that is taken out of the table: with one byte changed the next records are left out, or rows counted twice."""
    history = Kept(tmp_path)
    rows = [[record(vm_uuid(1), Seen((START + at * 60) * SECOND, "a", "run", at, 60.0, 1, 1))] for at in range(3)]
    history.rolled(rows)
    assert damaged(history) == []
    changed = 0
    for entry in sorted(tmp_path.glob("*/_delta_log/*.json")):
        whole = entry.read_bytes()
        for there, other in ((rb'"version":(\d)', rb'"version":7\1'), (rb'("remove":{"path":"day=\S*?)[0-9a-f](\.parquet)', rb"\1g\2")):
            harmed = re.sub(there, other, whole, count=1)
            if harmed != whole:
                entry.write_bytes(harmed)
                assert f"_delta_log/{entry.name}" in damaged(history), (entry, there)
                entry.write_bytes(whole)
                changed += 1
    assert changed > 5


@pytest.mark.parametrize("text", [b"1", b"[]", b'{"commitInfo":5}', b'{"commitInfo":{"virtflow.actions":[]}}'])
def test_an_entry_that_is_json_and_no_commit_is_named(tmp_path: Path, text: bytes) -> None:
    history = Kept(tmp_path)
    history.write([record(vm_uuid(1), Seen(START * SECOND, "a", "run", 1, 60.0, 1, 1))])
    entry = max((tmp_path / SAMPLES.name / "_delta_log").glob("*.json"))
    entry.write_bytes(text)
    assert f"_delta_log/{entry.name}" in damaged(history)


def test_a_checkpoint_that_ends_the_table_library_is_named(tmp_path: Path) -> None:
    """Of a page that begins before the file the library panics, which is no error of Python's."""
    history = Kept(tmp_path)
    history.write([record(vm_uuid(1), Seen(START * SECOND, "a", "run", 1, 60.0, 1, 1))])
    history.store.open(SAMPLES).delta.create_checkpoint()
    (checkpoint,) = (tmp_path / SAMPLES.name / "_delta_log").glob("*.parquet")
    whole, group = checkpoint.read_bytes(), pq.read_metadata(checkpoint).row_group(0)
    changed = whole[: footer(whole)] + negated(
        whole[footer(whole) :], [group.column(at).data_page_offset for at in range(group.num_columns)]
    )
    assert len(changed) == len(whole)
    checkpoint.write_bytes(changed)
    assert set(damaged(history)) == {"_delta_log", f"_delta_log/{checkpoint.name}"}
    with pytest.raises(StorageError, match="the table library failed"):
        history.store.open(SAMPLES)


def negated(text: bytes, numbers: Sequence[int]) -> bytes:
    """A footer in which numbers of more than a byte are below zero: there the lowest bit is the sign."""
    for number in numbers:
        left, coded = 2 * number, bytearray()
        while left:
            coded.append(left & 0x7F | (0x80 if left > 0x7F else 0))
            left >>= 7
        if len(coded) > 1:
            text = text.replace(bytes(coded), bytes([coded[0] | 1, *coded[1:]]))
    return text


def is_named(path: Path, columns: Columns) -> bool:
    """Whether `verify` names the file, without the others, which take most of its time."""
    try:
        return bool(damage(pq.ParquetFile(path, page_checksum_verification=True), columns))
    except DAMAGED:
        return True


@pytest.mark.parametrize("table", [SAMPLES, HOURLY], ids=lambda table: table.name)
def test_no_changed_byte_of_a_footer_that_a_reader_takes_is_missed(history: Kept, table: Table) -> None:
    """Whatever is not named changes nothing of what readers get. Readers are asked in the order of columns, since some damage ends a process."""
    opened = history.store.open(table)
    file = opened.files()[0]
    path = Path(history.settings.path) / table.name / file.path
    whole, dice = path.read_bytes(), Random(2)  # noqa: S311, places, not secrets
    places = dice.sample(range(footer(whole), len(whole)), length(150, 3_000))
    before = opened.only([file]).to_table(use_threads=False)
    named = 0
    try:
        for place in sorted(places):
            changed = bytearray(whole)
            changed[place] ^= dice.choice([0x01, 0x55, 0xFF])
            path.write_bytes(changed)
            if is_named(path, opened.columns()):
                named += 1
                continue
            rows = opened.only([file])
            assert rows.to_table(use_threads=False).equals(before), place
            assert rows.count_rows(filter=pc.field("uuid") == vm_uuid(1)) == before.num_rows, place
    finally:
        path.write_bytes(whole)
    assert named > len(places) // 3
