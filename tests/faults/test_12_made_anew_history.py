"""Fault 12, the history's part: a VM is made again under its old name within one interval. Two identities in SQL and in reports, no counter joins them."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import pytest

from tests.support.command import virtflow
from tests.support.figures import figure
from tests.support.vm_samples import sample, uuid
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.records import VmMetrics

DAY = 86_400
START = float((int(time.time()) // DAY - 3) * DAY + 2 * 3_600)
"""A full hour that is over, so that it is rolled up."""
INTERVAL = 600.0
ROUNDS = 6
OLD, NEW = uuid(1), uuid(2)


def lives() -> list[VmMetrics]:
    """An hour of the old VM, whose counters are large, and an hour of the new one, which begin at 0; 10 s of CPU in each interval of both."""
    found = []
    for number, sequence in [(1, sequence) for sequence in range(ROUNDS)] + [(2, sequence) for sequence in range(ROUNDS, 2 * ROUNDS)]:
        at = START + sequence * INTERVAL
        used = 5_000.0 + 10.0 * sequence if number == 1 else 10.0 * (sequence - ROUNDS)
        found.append(sample(number, sequence, name="web", interval=INTERVAL, collected=at, monitor_collected=at, cpu_seconds_total=used))
    return found


def ask(path: Path, *words: str) -> list[dict[str, str]]:
    done = virtflow("history", words[0], "--history", str(path), "--format", "csv", *words[1:])
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_two_vms_of_one_name_are_two_in_sql_and_in_reports(tmp_path: Path) -> None:
    path, samples = tmp_path / "history", lives()
    store = Store(History(path=str(path)))
    writer = TableWriter(store.make(SAMPLES), Sequences())
    writer.begin(["p"])
    for offset, one in enumerate(samples):
        writer.take("p", offset, one)
    writer.commit()
    done = virtflow("history", "compact", "--history", str(path))
    assert done.returncode == 0, done.stderr

    raw = ask(
        path,
        "query",
        "SELECT uuid, count(*) AS rows, max(vm_cpu_seconds_total) AS most FROM vms WHERE name = 'web' GROUP BY uuid ORDER BY uuid",
    )
    assert [(row["uuid"], int(row["rows"]), float(row["most"])) for row in raw] == [(OLD, ROUNDS, 5_050.0), (NEW, ROUNDS, 50.0)]
    hours = ask(
        path,
        "query",
        "SELECT uuid, sum(vm_cpu_seconds_total_increase) AS used FROM hourly WHERE kind = 'vm' AND name = 'web' GROUP BY uuid ORDER BY uuid",
    )
    assert [(row["uuid"], float(row["used"])) for row in hours] == [(OLD, 50.0), (NEW, 50.0)]
    month = time.strftime("%Y-%m", time.gmtime(START))
    report = ask(path, "report", "usage", "--month", month, "--by", "vm")
    assert {next(word for word in row.values() if word in {OLD, NEW}) for row in report} == {OLD, NEW}
    assert [float(row["cpu_hours"]) for row in report] == pytest.approx([50.0 / 3_600] * 2, abs=1e-3)
    figure(12, "rows in a report by VM, each with its own CPU time", len(report))
