"""``history verify`` finds what changed on the disk, also where the file can still be read."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from tests.support.history_lives import Kept, record, vm_uuid
from tests.support.history_truth import SECOND, Seen
from virtflow.history.maintenance.verify import verify
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
    return [damage.file for damage in verify(history.store, lambda *_: None)]


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
