"""What the writer's files hold: the columns and the words of their own rows, and no others."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from tests.support.history import fleet_samples
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.sample_batch import RawSamples
from virtflow.history.writer.table_writer import TableWriter
from virtflow.history.writer.validation import Intake
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.records import VmMetrics

HOUR = 3_600
NOW = time.time() // HOUR * HOUR + HOUR / 2
SAMPLED = list(fleet_samples(1, 6, range(2), start=NOW - 60))
UUIDS = sorted({sample.uuid for sample in SAMPLED})


def write(path: Path, *batches: Iterable[VmMetrics]) -> None:
    """Stores samples, a commit for each batch."""
    settings = History(path=str(path))
    raw = RawSamples(Intake(Codec(), settings, OwnMetrics("history")), Sequences())
    writer = TableWriter(Store(settings).make(SAMPLES), raw, raw.rows)
    offset = writer.begin(["p"])["p"] or 0
    for batch in batches:
        for sample in batch:
            writer.take("p", offset, (Codec().encode(sample), sample.collected))
            offset += 1
        writer.commit()


def files(path: Path) -> list[Any]:
    """The files in the order of their rows, with UUIDs as the dictionaries that are in the files."""
    found = Store(History(path=str(path))).open(SAMPLES).files()
    paths = [path / "samples" / file.path for file in sorted(found, key=lambda file: file.first)]
    return [pq.ParquetFile(each, read_dictionary=["uuid"]) for each in paths]


def words(file: Any) -> list[str]:  # noqa: ANN401, pyarrow is untyped
    """The UUIDs that a file holds, whether a row has them or not."""
    return sorted({word for chunk in file.read(columns=["uuid"]).column("uuid").chunks for word in chunk.dictionary.to_pylist()})


def test_no_word_of_a_record_that_was_left_out_is_in_a_file(tmp_path: Path) -> None:
    too_late = [
        msgspec.structs.replace(sample, collected=sample.collected - 100 * 24 * HOUR) for sample in SAMPLED if sample.uuid == UUIDS[0]
    ]
    repeated = [sample for sample in SAMPLED if sample.uuid == UUIDS[1]]
    write(tmp_path, repeated, [*too_late, *(sample for sample in SAMPLED if sample.uuid != UUIDS[0])])
    assert sorted(words(file) for file in files(tmp_path)) == sorted([[UUIDS[1]], UUIDS[2:]])


def test_each_hours_file_holds_the_words_of_its_own_rows(tmp_path: Path) -> None:
    earlier = [msgspec.structs.replace(sample, collected=sample.collected - HOUR) for sample in SAMPLED if sample.uuid in UUIDS[:2]]
    write(tmp_path, [*earlier, *(sample for sample in SAMPLED if sample.uuid not in UUIDS[:2])])
    assert [words(file) for file in files(tmp_path)] == [UUIDS[:2], UUIDS[2:]]


def test_a_column_without_a_value_is_in_no_file_and_null_to_a_reader(tmp_path: Path) -> None:
    write(tmp_path, SAMPLED)
    (file,) = files(tmp_path)
    assert "vm_guest_load1" not in file.schema_arrow.names
    assert "vm_cpu_seconds_total" in file.schema_arrow.names
    read = Store(History(path=str(tmp_path))).open(SAMPLES).read(["kind", "vm_guest_load1"])
    assert read.num_rows == file.metadata.num_rows
    assert read.column("vm_guest_load1").null_count == read.num_rows


def test_a_file_has_one_schema_and_its_types_are_the_tables(tmp_path: Path) -> None:
    write(tmp_path, SAMPLED)
    (file,) = files(tmp_path)
    assert b"ARROW:schema" not in (file.metadata.metadata or {})
    plain = pq.read_schema(next((tmp_path / "samples").rglob("part-*.parquet")))
    assert {field.name: field.type for field in plain} == {name: SAMPLES.schema.field(name).type for name in plain.names}


def test_a_row_group_is_of_one_kind(tmp_path: Path) -> None:
    write(tmp_path, SAMPLED)
    (file,) = files(tmp_path)
    place = file.schema_arrow.get_field_index("kind")
    groups = [file.metadata.row_group(group).column(place).statistics for group in range(file.num_row_groups)]
    assert [(each.min, each.max) for each in groups] == [(kind, kind) for kind in ("vm", "vcpu", "network", "block")]
