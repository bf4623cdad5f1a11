"""The capacity report by filesystem: how full, how fast, and until when; and which ones are warned of."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.history_guests import HOUR, HOURS, MONTH, START, month
from tests.support.history_lives import vm_uuid
from virtflow.cli.history import history
from virtflow.history.query.filesystems import filling
from virtflow.history.query.report import FILESYSTEM, Report, report
from virtflow.history.storage.delta import Opened, Store
from virtflow.history.storage.table_schemas import HOURLY, INVENTORY_ROWS, Table
from virtflow.runtime.settings import History


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, History]:
    return month(tmp_path_factory.mktemp("filesystems"))


def test_rows_say_how_full_and_when_it_is_full(kept: tuple[Store, History]) -> None:
    """The most urgent first; what does not grow is never full, and comes last, the fullest first."""
    rows = report(*kept, Report("capacity", MONTH, FILESYSTEM)).to_pylist()
    assert [(row["name"], row["mountpoint"], row["fstype"], row["device"], row["project"]) for row in rows] == [
        ("vm-3", "/", "btrfs", "", ""),
        ("vm-1", "/srv/d\u00e4ta", "xfs", "vdb", "p1"),
        ("vm-3", "C:\\", "NTFS", "\\\\?\\Volume{1}\\", ""),
        ("vm-2", "/", "ext4", "vda1", "p2"),
        ("vm-1", "/", "ext4", "vda1", "p1"),
        ("vm-2", "/var", "ext4", "vda2", "p2"),
    ]
    assert {row["node"] for row in rows} == {"kvm1"}
    told = [[row[name] for name in ("size_gib", "used_share", "used_share_growth", "days_until_full")] for row in rows]
    last = HOURS - 1
    assert told == [
        pytest.approx([64, (60 + 0.125 * 23) / 64, 0.125 * 23 / 64, (4 - 0.125 * 23) / 3], rel=1e-6),
        pytest.approx([100, (10 + 0.25 * last) / 100, 0.25 * last / 100, (90 - 0.25 * last) / 6], rel=1e-6),
        pytest.approx([480, (240 + 0.5 * last) / 480, 0.5 * last / 480, (240 - 0.5 * last) / 12], rel=1e-6),
        [40, pytest.approx(38 / 40), 0, None],
        [40, pytest.approx(20 / 40), 0, None],
        [1024, pytest.approx((500 - last) / 1024), pytest.approx(-last / 1024), None],
    ]
    ends = [row["reported_until"] for row in rows]
    assert ends[0] == datetime.fromtimestamp(START + 24 * HOUR, UTC)
    assert set(ends[1:]) == {datetime.fromtimestamp(START + HOURS * HOUR, UTC)}


def test_what_fills_is_warned_of_while_it_is_reported(kept: tuple[Store, History]) -> None:
    """Soon full, or nearly full already; not the one that went away on the first day."""
    found = filling(report(*kept, Report("capacity", MONTH, FILESYSTEM)))
    assert [(each.row["uuid"], each.row["mountpoint"]) for each in found] == [
        (vm_uuid(1), "/srv/d\u00e4ta"),
        (vm_uuid(3), "C:\\"),
        (vm_uuid(2), "/"),
    ]
    assert str(found[0]) == "vm-1 /srv/d\u00e4ta (xfs, vdb): 69.8% of 100.0 GiB used, +59.8% in the month, full in 5.0 days"
    assert str(found[2]) == "vm-2 / (ext4, vda1): 95.0% of 40.0 GiB used, +0.0% in the month, no growth"


def test_a_month_without_filesystems_is_an_empty_report(kept: tuple[Store, History]) -> None:
    rows = report(*kept, Report("capacity", "2026-02", FILESYSTEM))
    assert rows.num_rows == 0
    assert filling(rows) == []


def test_days_say_what_hours_did(tmp_path: Path) -> None:
    """Where the hours are gone: the last day's average, and the same trend."""
    store, _ = month(tmp_path)
    rows = report(store, History(path=str(tmp_path), hourly_days=1), Report("capacity", MONTH, FILESYSTEM)).to_pylist()
    (row,) = [row for row in rows if row["device"] == "vdb"]
    assert row["days_until_full"] == pytest.approx((90 - 0.25 * (HOURS - 1 - 11.5)) / 6)
    assert row["used_share"] == pytest.approx((10 + 0.25 * (HOURS - 1 - 11.5)) / 100)


@pytest.mark.parametrize("by", ["vm", FILESYSTEM])
def test_a_capacity_report_opens_each_table_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """For its rows and for the filesystems that it warns of: both are of one state of the tables."""
    month(tmp_path)
    opened: Counter[str] = Counter()
    real = Store.open

    def counted(store: Store, table: Table) -> Opened:
        opened[table.name] += 1
        return real(store, table)

    monkeypatch.setattr(Store, "open", counted)
    words = ["report", "capacity", "--month", MONTH, "--history", str(tmp_path), "--by", by]
    done = CliRunner().invoke(history, words, env={"VIRTFLOW_HISTORY_HOURLY_DAYS": "36500"})
    assert done.exit_code == 0
    assert "filesystems that are nearly full, or soon will be: 3" in done.stderr
    assert opened == {HOURLY.name: 1, INVENTORY_ROWS.name: 1}
