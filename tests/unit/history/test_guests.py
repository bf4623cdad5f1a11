"""What guests' agents tell, from the record to rows, roll-ups, SQL and remote_read."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.support.guest_samples import told
from tests.support.history_lives import Kept, vm_uuid
from virtflow.history.query.range import Range, series
from virtflow.history.query.sql import Query
from virtflow.history.remote_read.protocol.wire import Asked, Match, Matcher
from virtflow.history.remote_read.reading.labels import label_names
from virtflow.history.remote_read.reading.reader import Reader
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import COLUMNS, HOURLY, SAMPLES, device_of
from virtflow.history.writer.rows.sample_rows import sample_rows
from virtflow.runtime.settings import History, Settings
from virtflow.schemas.catalogue.types import Guest
from virtflow.schemas.records import GuestFilesystemMetrics, GuestMetrics, VmMetrics

VM = vm_uuid(1)
START = 1_790_000_000 // 86_400 * 86_400
STEP = 600
ROOT = GuestFilesystemMetrics(mountpoint="/", fstype="ext4", device="vda1", size_bytes=1_000, free_bytes=700)
DATA = GuestFilesystemMetrics(mountpoint="/srv/\u00e4 b", fstype="xfs", size_bytes=2**60, free_bytes=0)


def sample(number: int, *guest: GuestMetrics) -> VmMetrics:
    """The sample of that number, ten minutes after the one before."""
    at = float(START + number * STEP)
    return VmMetrics(
        uuid=VM,
        name="web",
        node="n",
        boot_id="b",
        sequence=number,
        collected=at,
        interval=float(STEP),
        state=1,
        state_reason=1,
        guest=[*guest],
    )


def rows_of(kind: str, rows: pa.Table, *names: str) -> list[list[Any]]:
    return [list(row.values()) for row in rows.filter(pc.equal(rows.column("kind"), kind)).select([*names]).to_pylist()]


def test_the_columns_are_those_of_the_catalogue() -> None:
    """Every number that an agent tells but for what counts its own faults; a new row there is a new column here."""
    assert [(column.name, column.kind, str(column.type)) for column in COLUMNS if isinstance(column.metric.source, Guest)] == [
        ("vm_guest_cpus", "vm", "int64"),
        ("vm_guest_load1", "vm", "double"),
        ("vm_guest_load5", "vm", "double"),
        ("vm_guest_load15", "vm", "double"),
        ("vm_guest_agent_up", "vm", "int64"),
        ("vm_guest_filesystem_size_bytes", "filesystem", "int64"),
        ("vm_guest_filesystem_free_bytes", "filesystem", "int64"),
    ]


def test_a_sample_s_guest_becomes_columns_and_its_filesystems_rows() -> None:
    """Absent stays null, what is no number too; of several entries the first counts."""
    samples = [
        sample(0, told(filesystems=[DATA, ROOT]), told(cpus=9, filesystems=[ROOT])),
        sample(1),
        sample(2, GuestMetrics(agent_up=0, load1=math.inf)),
    ]
    rows = sample_rows(samples)
    assert rows_of("vm", rows, "vm_guest_cpus", "vm_guest_load1", "vm_guest_load15", "vm_guest_agent_up") == [
        [2, 0.5, 0.125, 1],
        [None, None, None, None],
        [None, None, None, 0],
    ]
    names = ("device", "sequence", "vm_guest_filesystem_size_bytes", "vm_guest_filesystem_free_bytes", "vm_guest_cpus")
    assert rows_of("filesystem", rows, *names) == [
        ["/\text4\tvda1", 0, 1_000, 700, None],
        ["/srv/\u00e4 b\txfs\t", 0, 2**60, 0, None],
    ]


def test_labels_that_hold_tabs_stay_apart() -> None:
    """Two filesystems that would be one if their labels were only put end to end."""
    assert device_of(("/a\tb", "c", "")) == "/a\ufffdb\tc\t"
    assert device_of(("/a", "b", "c")) == "/a\tb\tc"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Two hours: the root filesystem fills by 100 bytes a sample, the other is there in the first half hour only."""
    history = Kept(tmp_path_factory.mktemp("guests"))
    samples = []
    for number in range(12):
        root = GuestFilesystemMetrics(mountpoint="/", fstype="ext4", device="vda1", size_bytes=2_000, free_bytes=1_500 - 100 * number)
        found = [root, DATA] if number < 3 else [root]
        samples.append(sample(number, told(filesystems=found, cpus=2 + number % 2, load1=number / 4)))
    history.rolled([samples])
    return history


def test_hours_have_average_least_and_most(kept: Kept) -> None:
    rows = kept.store.open(HOURLY).dataset().to_table().sort_by([("kind", "ascending"), ("device", "ascending"), ("time", "ascending")])
    ends = ("avg", "min", "max", "known_seconds")
    free = [f"vm_guest_filesystem_free_bytes_{end}" for end in ends]
    assert rows_of("filesystem", rows, "device", *free) == [
        ["/\text4\tvda1", 1_250.0, 1_000, 1_500, 3_600.0],
        ["/\text4\tvda1", 650.0, 400, 900, 3_600.0],
        ["/srv/\u00e4 b\txfs\t", 0.0, 0, 0, 1_800.0],
    ]
    load, cpus = [f"vm_guest_load1_{end}" for end in ends], [f"vm_guest_cpus_{end}" for end in ends[:3]]
    assert rows_of("vm", rows, *load, *cpus) == [[0.625, 0.0, 1.25, 3_600.0, 2.5, 2, 3], [2.125, 1.5, 2.75, 3_600.0, 2.5, 2, 3]]


def test_the_views_have_the_labels_as_columns(kept: Kept) -> None:
    asked = "SELECT DISTINCT mountpoint, fstype, device FROM {} ORDER BY mountpoint"
    with Query(kept.store, kept.settings) as query:
        for view in ("filesystems", "filesystems_hourly", "filesystems_daily"):
            found = query.run(asked.format(view)).to_pylist()
            assert [tuple(row.values()) for row in found] == [("/", "ext4", "vda1"), ("/srv/\u00e4 b", "xfs", "")], view


def test_a_range_of_one_metric_has_every_filesystem(kept: Kept) -> None:
    asked = Range("vm_guest_filesystem_free_bytes", ("web",), START, START + 7_200, 0)
    points = series(kept.store, kept.settings, asked).points
    assert points.schema.names == ["time", "uuid", "name", "mountpoint", "fstype", "device", "value"]
    found = [tuple(row[name] for name in ("mountpoint", "fstype", "device")) for row in points.to_pylist()]
    assert found == [("/", "ext4", "vda1")] * 12 + [("/srv/\u00e4 b", "xfs", "")] * 3
    hours = series(kept.store, kept.settings, Range("vm_guest_filesystem_free_bytes", ("web",), START, START + 7_200, 3_600)).points
    assert [(row["mountpoint"], row["avg"]) for row in hours.to_pylist()] == [("/", 1_250.0), ("/", 650.0), ("/srv/\u00e4 b", 0.0)]


def test_remote_read_has_the_labels_of_metrics(kept: Kept) -> None:
    """An empty label is none; a filesystem ends at the first sample without it, here at its 30th minute."""
    settings = Settings(history=kept.settings)
    assert {"mountpoint", "fstype", "device"} <= label_names(settings)
    reader = Reader(kept.store, settings)
    asked = Asked(START * 1000, (START + 7_200) * 1000, (Matcher(Match.EQUAL, "__name__", "vm_guest_filesystem_free_bytes"),))
    root, data = reader.read(asked)
    own = {"__name__": "vm_guest_filesystem_free_bytes", "uuid": VM, "name": "web"}
    assert dict(root.labels) == own | {"mountpoint": "/", "fstype": "ext4", "device": "vda1"}
    assert dict(data.labels) == own | {"mountpoint": "/srv/\u00e4 b", "fstype": "xfs"}
    assert root.values[:12].tolist() == [1_500.0 - 100 * number for number in range(12)]
    assert (data.times // 1000 - START).tolist() == [0, 600, 1_200, 1_800]
    assert [math.isnan(value) for value in data.values] == [False, False, False, True]
    assert reader.values("mountpoint", START, START + 7_200) == ["/", "/srv/\u00e4 b"]
    assert reader.values("device", START, START + 7_200) == ["vda1"]
    assert reader.values("vcpu", START, START + 7_200) == []


def test_a_table_from_before_reads_on(tmp_path: Path) -> None:
    """A history that was made without these columns: they are added, null in the old rows, and new rows stand beside them."""
    names = [column.name for column in COLUMNS if isinstance(column.metric.source, Guest)]
    old = replace(SAMPLES, schema=pa.schema([field for field in SAMPLES.schema if field.name not in names]))
    opened = Store(History(path=str(tmp_path))).make(old)
    before = sample_rows([sample(0)]).select(old.schema.names)
    opened.commit([opened.write_file(str(before.column("day")[0]), [before])], {})
    history = Kept(tmp_path)
    history.write([sample(1, told())])
    rows = history.store.open(SAMPLES).dataset().to_table().sort_by([("time", "ascending"), ("device", "ascending")])
    found = rows.select(["kind", "vm_guest_cpus", "vm_guest_filesystem_free_bytes"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        ("vm", None, None),
        ("vm", 2, None),
        ("filesystem", None, 2**32),
        ("filesystem", None, 0),
    ]
