"""The views of SQL: each has the columns that rows of its kind fill, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.history_tenants import write_tenants
from virtflow.history.query.sql import Query
from virtflow.history.storage.delta import Store
from virtflow.runtime.settings import History

START = 1_790_002_800.0
OF_SAMPLES = ["day", "time", "uuid", "kind", "device", "name", "node", "boot_id", "sequence", "interval_seconds", "monitor_time"]
OF_PERIODS = ["day", "time", "uuid", "kind", "device", "name", "node", "first_time", "last_time", "nodes", "samples", "monitor_samples"]
OF_PERIODS += ["covered_seconds", "coverage", "monitor_covered_seconds", "monitor_coverage"]
OF_VMS = {"vm_network_devices", "vm_block_devices"}
LABELS = ["mountpoint", "fstype"]
SPREAD = [f"vm_guest_filesystem_{what}_bytes_{end}" for what in ("size", "free") for end in ("avg", "min", "max", "known_seconds")]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """Two hours of VMs with devices of all kinds, rolled up."""
    settings = History(path=str(tmp_path_factory.mktemp("views")))
    write_tenants(Path(settings.path), START)
    with Query(Store(settings), settings) as query:
        yield query


def columns(asked: Query, view: str) -> list[str]:
    return [*asked.run(f"SELECT * FROM {view} LIMIT 0").schema.names]  # noqa: S608, the test's own


@pytest.mark.parametrize(
    ("view", "has"),
    [
        ("vcpus", [*OF_SAMPLES, "vm_vcpu_state", "vm_vcpu_seconds_total", "vm_vcpu_wait_seconds_total", "vm_vcpu_delay_seconds_total"]),
        ("filesystems", [*OF_SAMPLES, "vm_guest_filesystem_size_bytes", "vm_guest_filesystem_free_bytes", *LABELS]),
        ("filesystems_hourly", [*OF_PERIODS, *SPREAD, *LABELS]),
        ("filesystems_daily", [*OF_PERIODS, *SPREAD, *LABELS]),
    ],
)
def test_a_view_has_the_columns_of_its_kind(asked: Query, view: str, has: list[str]) -> None:
    assert columns(asked, view) == has


def test_each_metric_is_in_the_view_of_its_kind_alone(asked: Query) -> None:
    every = columns(asked, "samples")
    views = {view: columns(asked, view) for view in ("vms", "vcpus", "networks", "blocks", "filesystems")}
    for view, prefix in (("networks", "vm_network_"), ("blocks", "vm_block_")):
        assert views[view] == [*OF_SAMPLES, *(name for name in every if name.startswith(prefix) and name not in OF_VMS)]
    assert "device" not in views["vms"]
    found = [name for names in views.values() for name in names if name.startswith("vm_")]
    assert sorted(found) == sorted(name for name in every if name.startswith("vm_"))


@pytest.mark.parametrize("view", ["vms", "vcpus", "networks", "blocks", "filesystems"])
def test_a_view_has_the_rows_of_its_kind(asked: Query, view: str) -> None:
    of_view = asked.run(f"SELECT kind, count(*) AS rows FROM {view} GROUP BY kind").to_pylist()  # noqa: S608, the test's own
    of_table = asked.run("SELECT kind, count(*) AS rows FROM samples WHERE kind || 's' = ? GROUP BY kind", [view]).to_pylist()
    assert of_view == of_table != []
