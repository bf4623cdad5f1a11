"""`virtflow history query` with SQL that means harm: memory, time and the answer are bounded, and a file is replaced whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.command import PROGRAM, environment, one_line_error, virtflow
from tests.support.history_years import DAY, hours_of_vm, write_years

NOW = int(time.time()) // DAY * DAY
MIB = 1 << 20
OWN_BYTES = 700 * MIB
"""What the programs take beside the query's memory: two processes' libraries, stacks and arenas."""
STEP = ", a{} AS (SELECT * FROM a{} UNION ALL SELECT * FROM a{})"
DOUBLING = "WITH a0 AS (SELECT 1 AS n)" + "".join(STEP.format(number, number - 1, number - 1) for number in range(1, 31))
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], check=False).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A day of one VM."""
    path = tmp_path_factory.mktemp("limits") / "history"
    write_years(path, {1: hours_of_vm(1, NOW - 2 * DAY, NOW - DAY)})
    return str(path)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT length(repeat('x', 4000000000))",
        "SELECT repeat('x', 4000000000)",
        "SELECT list_sum(range(1000000000))",
        "SELECT list(n) FROM range(1000000000) AS t(n)",
        "SELECT max(length(repeat(n::VARCHAR, 100000000))) FROM range(64) AS t(n)",
    ],
)
def test_a_query_takes_its_memory_and_no_more(history: str, sql: str) -> None:
    """Counted by the kernel, over all processes of the command; the reason names the setting."""
    words = [str(PROGRAM), "history", "query", "--history", history, "--memory", str(256 * MIB), "--timeout", "120", sql]
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "history.query_memory_bytes" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert int(done.stdout.splitlines()[-1]) < 256 * MIB + OWN_BYTES


@pytest.mark.parametrize(
    "sql",
    [f"{DOUBLING} SELECT count(*) FROM a30", "SELECT count(*) FROM range(100000000000) a, range(100) b"],  # noqa: S608, our own words
    ids=["a plan", "work"],
)
def test_a_query_ends_with_its_time(history: str, sql: str) -> None:
    """Also where the database does not look at the clock. It has memory enough for that time: a fast machine plans a gibibyte in a second."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = one_line_error(virtflow("history", "query", "--history", history, "--memory", str(16 << 30), "--timeout", "1", sql), 1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "history.query_seconds" in line
    # Two threads for a second, and the start of two programs.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30


def test_an_answer_has_so_many_bytes(history: str) -> None:
    few = {"VIRTFLOW_HISTORY_QUERY_BYTES": str(MIB)}
    line = one_line_error(virtflow("history", "query", "--history", history, "SELECT repeat('x', 100000) FROM range(100)", env=few), 1)
    assert "history.query_bytes" in line
    done = virtflow("history", "query", "--history", history, "--format", "csv", "SELECT repeat('x', 1000) AS x FROM range(100)", env=few)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("x" * 1000) == 100


@pytest.mark.parametrize("form", ["table", "csv", "json", "parquet"])
def test_what_fails_leaves_the_file_as_it_was(history: str, tmp_path: Path, form: str) -> None:
    """And leaves no other one behind."""
    kept = tmp_path / "kept"
    kept.write_text("what was there")
    kept.chmod(0o640)
    words = ("history", "query", "--history", history, "--format", form, "--output", str(kept))
    one_line_error(virtflow(*words, "SELECT nothing FROM hourly"), 1)
    one_line_error(virtflow(*words, "SELECT CAST(n AS TINYINT) FROM range(100000) AS t(n)"), 1)
    assert (kept.read_text(), [each.name for each in tmp_path.iterdir()]) == ("what was there", ["kept"])
    assert virtflow(*words, "SELECT 1 AS n").returncode == 0
    assert b"what was there" not in kept.read_bytes()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_a_link_is_followed_and_a_pipe_is_written_to(history: str, tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_text("")
    link.symlink_to(target)
    words = ("history", "query", "--history", history, "--format", "csv")
    assert virtflow(*words, "--output", str(link), "SELECT 1 AS n").returncode == 0
    assert link.is_symlink()
    assert target.read_text() == '"n"\n1\n'
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert virtflow(*words, "--output", str(pipe), "SELECT 2 AS n").returncode == 0
        assert reader.communicate(timeout=60)[0] == b'"n"\n2\n'


VALUES = {
    "list": ("[1, 2, NULL]", [1, 2, None]),
    "empty list": ("[]::INTEGER[]", []),
    "struct": ("{'a': 1, 'b': [DATE '2026-03-01']}", {"a": 1, "b": ["2026-03-01"]}),
    "map": ("MAP {'k': 1}", {"k": 1}),
    "array": ("[1.5, 2.5]::DOUBLE[2]", [1.5, 2.5]),
    "list of infinite dates": ("['infinity'::DATE]", ["infinity"]),
    "interval": ("INTERVAL '1 month 2 days 3 seconds'", "1 month 2 days 00:00:03"),
    "infinite date": ("'infinity'::DATE", "infinity"),
    "date without end": ("'-infinity'::DATE", "-infinity"),
    "infinite time": ("'infinity'::TIMESTAMP", "infinity"),
    "infinite time with a zone": ("'-infinity'::TIMESTAMPTZ", "-infinity"),
    "far date": ("DATE '12026-03-01'", "12026-03-01"),
    "date": ("DATE '2026-03-01'", "2026-03-01"),
    "time with a zone": ("TIMESTAMPTZ '2026-03-01 12:00:00+00'", "2026-03-01T12:00:00Z"),
    "time of day": ("TIME '12:00:00'", "12:00:00"),
    "blob": (r"'\x00a'::BLOB", r"\x00a"),
    "uuid": ("'2f1c4c0e-8a64-4e8f-9a55-0d6f6f0a1b2c'::UUID", "2f1c4c0e-8a64-4e8f-9a55-0d6f6f0a1b2c"),
    "huge": ("170141183460469231731687303715884105727::HUGEINT", 170141183460469231731687303715884105727),
    "bits": ("'101'::BIT", "101"),
    "word of a set": ("'b'::ENUM('a', 'b')", "b"),
    "no number": ("'nan'::DOUBLE", None),
    "nothing": ("NULL", None),
    "text": ("'a\"b,c'", 'a"b,c'),
}
"""What SQL can return, and what JSON has for it."""


def test_every_type_can_be_shown(history: str) -> None:
    """In each format for people and programs; JSON has lists and objects where SQL has."""
    sql = "SELECT " + ", ".join(f'{value} AS "{name}"' for name, (value, _) in VALUES.items())
    words = ("history", "query", "--history", history, "--format")
    done = virtflow(*words, "json", sql)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{name: shown for name, (_, shown) in VALUES.items()}]
    as_csv = virtflow(*words, "csv", sql)
    assert as_csv.returncode == 0, as_csv.stderr
    (row,) = csv.DictReader(io.StringIO(as_csv.stdout))
    assert json.loads(row["struct"]) == {"a": 1, "b": ["2026-03-01"]}
    assert (row["infinite date"], row["interval"], row["text"]) == ("infinity", "1 month 2 days 00:00:03", 'a"b,c')
    table = virtflow(*words, "table", sql)
    assert table.returncode == 0, table.stderr
    assert "infinity" in table.stdout


def test_columns_of_one_name_are_told_apart(history: str, tmp_path: Path) -> None:
    """As the database itself names the columns of a table."""
    sql = 'SELECT 1 AS n, 2 AS n, 3 AS "n_1", 4 AS n, 5 AS "a""b"'
    names = ["n", "n_2", "n_1", "n_3", 'a"b']
    words = ("history", "query", "--history", history, "--format")
    assert json.loads(virtflow(*words, "json", sql).stdout) == [dict(zip(names, (1, 2, 3, 4, 5), strict=True))]
    assert list(csv.reader(io.StringIO(virtflow(*words, "csv", sql).stdout))) == [names, ["1", "2", "3", "4", "5"]]
    assert virtflow(*words, "table", sql).stdout.splitlines()[1].split() == ["1", "2", "3", "4", "5"]
    assert virtflow(*words, "parquet", "--output", str(tmp_path / "x"), sql).returncode == 0
    assert pq.read_table(tmp_path / "x").to_pylist() == [dict(zip(names, (1, 2, 3, 4, 5), strict=True))]


def test_parquet_keeps_lists_and_says_what_it_can_not_hold(history: str, tmp_path: Path) -> None:
    words = ("history", "query", "--history", history, "--format", "parquet", "--output", str(tmp_path / "x"))
    assert virtflow(*words, "SELECT [1, 2] AS list, INTERVAL 1 DAY AS span").returncode == 0
    assert pq.read_table(tmp_path / "x").to_pylist() == [{"list": [1, 2], "span": "1 day"}]
    line = one_line_error(virtflow(*words, "SELECT [INTERVAL 1 DAY] AS spans"), 1)
    assert "parquet" in line
    assert pq.read_table(tmp_path / "x").to_pylist() == [{"list": [1, 2], "span": "1 day"}]


def test_an_order_is_kept(history: str) -> None:
    sql = "SELECT n, [n] AS list FROM range(200000) AS t(n) ORDER BY n DESC"
    done = virtflow("history", "query", "--history", history, "--format", "csv", sql)
    assert [int(row["n"]) for row in csv.DictReader(io.StringIO(done.stdout))] == list(range(199_999, -1, -1))
