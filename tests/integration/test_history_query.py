"""Asking the tables: SQL that can do no harm, ranges, reports, and where a VM was; as a user does, on tables with a known truth."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.command import one_line_error, virtflow
from tests.support.history_lives import Kept, record
from tests.support.history_truth import SECOND, Seen
from tests.support.history_years import DAY, HOUR, Hour, hours_of_vm, vm_uuid, write_years
from virtflow.history.query.limits import QueryError
from virtflow.history.query.report import Report, report
from virtflow.history.query.sql import Query
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import INVENTORY_ROWS
from virtflow.history.writer.dedup import Changes
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.records import VmInventory

MONTH = time.strftime("%Y-%m", time.gmtime(time.time() - 60 * DAY))
START = int(time.mktime(time.strptime(f"{MONTH}-01", "%Y-%m-%d"))) - time.timezone
END = START + 28 * DAY
MOVED = START + 10 * DAY


@pytest.fixture(scope="module")
def vms() -> dict[int, list[Hour]]:
    return {number: hours_of_vm(number, START, END) for number in (1, 2)}


@pytest.fixture(scope="module")
def history(vms: dict[int, list[Hour]], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A month of two VMs; the second one has another owner from the tenth day on."""
    path = tmp_path_factory.mktemp("month") / "history"
    writer = TableWriter(write_years(path, vms).make(INVENTORY_ROWS), Changes())
    writer.begin(["p"])
    told = [(1, START, "red", "anna"), (2, START, "red", "bert"), (2, MOVED, "blue", "carl")]
    for offset, (number, at, project, owner) in enumerate(told):
        vm = VmInventory(uuid=vm_uuid(number), name=f"vm-{number}", node="n", collected=float(at), project=project, user=owner)
        writer.take("p", offset, vm)
    writer.commit()
    return str(path)


def ask(history: str, *words: str, env: Mapping[str, str] | None = None) -> str:
    done = virtflow("history", words[0], "--history", history, *words[1:], env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_parquet('https://example.org/x.parquet')",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "CREATE TABLE x AS SELECT 1",
        "INSERT INTO hourly SELECT * FROM hourly",
        "DROP VIEW vms",
        "ATTACH '/tmp/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "SELECT 1; SELECT 2",
        "SELECT getenv('HOME')",
        "SELECT * FROM sys",
        "this is no SQL",
        "",
    ],
)
def test_sql_reads_the_tables_and_nothing_else(history: str, sql: str) -> None:
    """Whatever else it tries ends with the reason, and nothing is done."""
    settings = History(path=history, query_seconds=5.0)
    with Query(Store(settings), settings) as query, pytest.raises(QueryError, match=r"."):
        query.run(sql)


def test_sql_stays_within_memory_time_and_rows(history: str) -> None:
    """As a command: one line, exit code 1."""
    endless = "SELECT count(*) FROM range(100000000000) a, range(100) b"
    assert "took more than 1 s" in one_line_error(virtflow("history", "query", "--history", history, "--timeout", "1", endless), 1)
    settings = History(path=history, query_memory_bytes=64 << 20, query_rows=10)
    with Query(Store(settings), settings) as query:
        with pytest.raises(QueryError, match="query_memory_bytes"):
            query.run("SELECT list(range) FROM range(100000000)")
        with pytest.raises(QueryError, match="more than 10 rows"):
            query.run("SELECT * FROM range(100)")


def test_a_filter_on_any_column_finds_its_rows(history: str) -> None:
    """Columns without bounds in the log are not taken for empty ones."""
    counted = "SELECT count(*) AS n FROM hourly WHERE node = 'node-1' AND name = 'vm-1'"
    assert rows(ask(history, "query", "--format", "csv", counted)) == [{"n": str(28 * 24)}]


def test_every_format_holds_the_same(history: str, tmp_path: Path) -> None:
    sql = "SELECT time, vm_cpu_seconds_total_increase AS grown FROM hourly WHERE name = 'vm-1' ORDER BY time LIMIT 3"
    as_json = json.loads(ask(history, "query", "--format", "json", sql))
    assert [float(row["grown"]) for row in rows(ask(history, "query", "--format", "csv", sql))] == [row["grown"] for row in as_json]
    ask(history, "query", "--format", "parquet", "--output", str(tmp_path / "x.parquet"), sql)
    assert pq.read_table(tmp_path / "x.parquet").column("grown").to_pylist() == [row["grown"] for row in as_json]
    assert ask(history, "query", sql).splitlines()[0].split() == ["TIME", "GROWN"]


def test_a_range_picks_its_tier(history: str, vms: dict[int, list[Hour]]) -> None:
    words = ("range", "vm_cpu_seconds_total", "--vm", "vm-1", "--from", str(START), "--format", "csv")
    hourly = rows(ask(history, *words, "--to", str(START + DAY), "--step", "1h"))
    assert [float(row["increase"]) for row in hourly] == pytest.approx([hour.cpu_seconds for hour in vms[1][:24]])
    six = rows(ask(history, *words, "--to", str(START + DAY), "--step", "6h"))
    assert [float(row["increase"]) for row in six] == pytest.approx(
        [math.fsum(h.cpu_seconds for h in vms[1][n : n + 6]) for n in (0, 6, 12, 18)]
    )
    daily = rows(ask(history, *words, "--to", str(START + 3 * DAY), "--step", "1d"))
    expected = [math.fsum(hour.cpu_seconds for hour in vms[1][24 * n : 24 * n + 24]) for n in range(3)]
    assert [float(row["increase"]) for row in daily] == pytest.approx(expected)


def test_a_range_is_drawn(history: str) -> None:
    words = ("range", "vm_memory_rss_bytes", "--vm", "vm-1", "--vm", "vm-2", "--from", str(START), "--to", str(START + 7 * DAY))
    drawn = ask(history, *words, "--plot")
    assert "vm-2" in drawn
    assert any("\u2801" <= char <= "\u28ff" for char in drawn)


def test_a_bill_uses_the_owner_of_its_time(history: str, vms: dict[int, list[Hour]]) -> None:
    """Until the tenth day the second VM is red's, from then on blue's."""
    usage = {row["project"]: row for row in rows(ask(history, "report", "usage", "--month", MONTH, "--by", "project", "--format", "csv"))}
    blue = math.fsum(hour.cpu_seconds for hour in vms[2] if hour.start >= MOVED) / HOUR
    red = math.fsum(hour.cpu_seconds for number in (1, 2) for hour in vms[number]) / HOUR - blue
    assert float(usage["blue"]["cpu_hours"]) == pytest.approx(blue)
    assert float(usage["red"]["cpu_hours"]) == pytest.approx(red)
    assert float(usage["blue"]["memory_gib_hours"]) == pytest.approx(4.0 * 18 * 24)
    peak = max(a.cpu_seconds + b.cpu_seconds for a, b in zip(vms[1], vms[2], strict=True) if a.start < MOVED) / HOUR
    later = max(hour.cpu_seconds for hour in vms[1] if hour.start >= MOVED) / HOUR
    assert float(usage["red"]["cpu_cores_peak"]) == pytest.approx(max(peak, later))


@pytest.mark.parametrize("by", ["project", "owner", "node", "vm"])
@pytest.mark.parametrize("kind", ["usage", "capacity"])
def test_reports_add_up_whatever_they_are_by(history: str, vms: dict[int, list[Hour]], kind: str, by: str) -> None:
    settings = History(path=history)
    found = report(Store(settings), settings, Report(kind, MONTH, by)).to_pylist()
    assert len(found) == {"project": 2, "owner": 3, "node": 2, "vm": 2}[by]
    if kind == "usage":
        total = math.fsum(hour.cpu_seconds for hours in vms.values() for hour in hours) / HOUR
        assert math.fsum(row["cpu_hours"] for row in found) == pytest.approx(total)


def test_where_a_vm_was(history: str) -> None:
    (place,) = json.loads(ask(history, "where", str(START + 100), "--vm", "vm-1", "--json"))
    assert (place["node"], place["state"], place["source"]) == ("node-1", "running", "hourly")
    nowhere = virtflow("history", "where", str(START - 100 * DAY), "--vm", "vm-1", "--history", history)
    assert nowhere.returncode == 1
    assert "nothing is known" in nowhere.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("range", "vm_cpu_seconds", "--vm", "vm-1"), "did you mean vm_cpu_seconds_total"),
        (("range", "vm_state", "--vm", "nobody"), "knows no VM named 'nobody'"),
        (("range", "vm_state", "--vm", "vm-1", "--from", "1d", "--to", "2d"), "ends before it begins"),
        (("report", "usage", "--month", "2026-13"), "is no month"),
    ],
)
def test_wrong_questions_say_what_is_wrong(history: str, words: tuple[str, ...], why: str) -> None:
    assert why in one_line_error(virtflow("history", *words, "--history", history), 1)


def test_no_tables_is_one_line(tmp_path: Path) -> None:
    line = one_line_error(virtflow("history", "query", "--history", str(tmp_path), "SELECT 1 FROM samples"), 1)
    assert "history.path" in line
    assert str(tmp_path) in line
    assert "history write" in one_line_error(virtflow("history", "compact", "--history", str(tmp_path)), 1)


def test_times_with_microseconds_and_hostile_names_are_shown(tmp_path: Path) -> None:
    """As every real history has them: in CSV each cell is what was stored, for samples and for roll-ups."""
    name, at = 'a","b\n=1+1\u00e9', time.time() // 600 * 600 - 1_200 + 0.123456
    kept = Kept(tmp_path)
    told = {("vm", ""): {"vm_cpu_seconds_total": 1.5}}
    seen = [Seen(round((at + 60 * number) * SECOND), "n", "run", number, 60.0, 1, 1, told=told) for number in range(3)]
    kept.rolled([[record(vm_uuid(1), each, name) for each in seen]])
    words = ("range", "vm_cpu_seconds_total", "--vm", vm_uuid(1), "--from", "1d", "--format", "csv")
    raw = rows(ask(str(tmp_path), *words, "--step", "raw"))
    assert [row["name"] for row in raw] == [name] * 3
    moments = [datetime.fromisoformat(row["time"]).timestamp() for row in raw]
    assert moments == pytest.approx([each.at / SECOND for each in seen], abs=1e-6)
    assert {row["value"] for row in raw} == {"1.5"}
    assert sum(float(row["increase"]) for row in rows(ask(str(tmp_path), *words, "--step", "60"))) == 0
    (hour, *_) = rows(ask(str(tmp_path), "query", "--format", "csv", "SELECT time, first_time FROM hourly WHERE kind = 'vm' ORDER BY time"))
    assert hour["time"].endswith("00:00Z")
    assert datetime.fromisoformat(hour["first_time"]).timestamp() == pytest.approx(at, abs=1e-6)
