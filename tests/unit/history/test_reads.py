"""How often a question reads tables: once for what one read can tell."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.history_guests import HOURS, START
from tests.support.history_lives import store_rolled, vm_uuid
from virtflow.history.remote_read.reading.reader import Reader
from virtflow.history.storage.delta import Opened, Store
from virtflow.history.storage.table_schemas import HOURLY, Table
from virtflow.runtime.settings import History, Settings
from virtflow.schemas.fields import BlockMetrics, NetworkMetrics
from virtflow.schemas.records import GuestFilesystemMetrics, GuestMetrics, VmMetrics


class CountedRows:
    """A dataset that counts how often it is read."""

    def __init__(self, rows: Any, table: Table, reads: Counter[str]) -> None:  # noqa: ANN401, pyarrow is untyped
        """``reads`` counts by the table's name."""
        self._rows, self._table, self._reads = rows, table, reads

    def scanner(self, **wanted: Any) -> Any:  # noqa: ANN401, as Arrow's
        self._reads[self._table.name] += 1
        return self._rows.scanner(**wanted)


class CountedTable(Opened):
    """A table whose reads are counted."""

    def dataset(self) -> CountedRows:
        assert isinstance(self._store, CountingStore)
        return CountedRows(super().dataset(), self.table, self._store.reads)


class CountingStore(Store):
    """A store that counts the reads of its tables."""

    def __init__(self, settings: History) -> None:
        """Nothing is read yet."""
        super().__init__(settings)
        self.reads: Counter[str] = Counter()

    def open(self, table: Table) -> Opened:
        return CountedTable(self, table, super().open(table).delta)


def devices_of_all_kinds(path: Path) -> History:
    """The roll-ups of two VMs with a NIC, a disk and a filesystem each, some of one name."""
    settings = History(path=str(path), hourly_days=36_500)
    samples = [
        VmMetrics(
            uuid=vm_uuid(vm),
            name=f"vm-{vm}",
            node="kvm1",
            boot_id="run",
            sequence=hour,
            collected=float(START + hour * 3_600),
            interval=3_600.0,
            state=1,
            state_reason=1,
            networks=[NetworkMetrics(device=f"vnet{vm}", receive_bytes_total=hour)],
            blocks=[BlockMetrics(device="vda", read_bytes_total=hour)],
            guest=[
                GuestMetrics(
                    agent_up=1,
                    filesystems=[GuestFilesystemMetrics(mountpoint="/", fstype="ext4", device=f"vda{vm}", size_bytes=100, free_bytes=50)],
                )
            ],
        )
        for vm in (1, 2)
        for hour in range(3)
    ]
    store_rolled(Store(settings), samples)
    return settings


@pytest.mark.parametrize(
    ("label", "values", "reads"),
    [
        ("device", ["vda", "vda1", "vda2", "vnet1", "vnet2"], {HOURLY.name: 1}),
        ("mountpoint", ["/"], {HOURLY.name: 1}),
        ("no_such_label", [], {}),
    ],
)
def test_a_label_s_values_are_one_read_whatever_kinds_have_it(tmp_path: Path, label: str, values: list[str], reads: dict[str, int]) -> None:
    settings = devices_of_all_kinds(tmp_path)
    store = CountingStore(settings)
    assert Reader(store, Settings(history=settings)).values(label, START, START + HOURS * 3_600) == values
    assert store.reads == reads
