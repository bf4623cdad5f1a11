"""Rows of the history for people: units by the names of columns, and the numbers themselves on request."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from virtflow.cli.output.rows import Units, cell, show, unit_of

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("vm_memory_rss_bytes", 1_610_612_736, "1.5 GiB"),
        ("block_read_bytes", Decimal(2048), "2 KiB"),
        ("vm_block_read_bytes_total_increase", 1536.0, "1.5 KiB"),
        ("allocated_bytes_growth", -2048, "-2 KiB"),
        ("vm_cpu_seconds_total", 7_384.0, "2 h 3 min"),
        ("cpu_seconds", 3.2, "3.2 s"),
        ("vm_guest_memory_updated_timestamp_seconds", 1_700_000_000, "2023-11-14 22:13:20"),
        ("cpu_hours", 1234.5678, "1,234.568"),
        ("samples", 1_000_000, "1000000"),
        ("bytes_ratio", 0.25, "0.25"),
        ("vm_memory_rss_bytes", None, "-"),
        ("vm_memory_rss_bytes", math.nan, "-"),
        ("vm_memory_rss_bytes", math.inf, "inf"),
        ("seconds", "text", "text"),
        ("bytes", True, "True"),
        ("time", AT, "2026-03-01 12:00:00"),
        ("", 1_610_612_736, "1610612736"),
    ],
)
def test_units_are_those_of_the_column(name: str, value: object, text: str) -> None:
    assert cell(value, name) == text


@pytest.mark.parametrize(("name", "unit"), [("bytesize", ""), ("BYTES", "bytes"), ("a_seconds_known", "seconds"), ("seconds_count", "")])
def test_a_unit_is_a_word_of_the_name(name: str, unit: str) -> None:
    assert unit_of(name) == unit


def written(rows: pa.Table, units: Units, folder: Path, form: str = "table") -> str:
    show(rows, form, folder / "out", units)
    return (folder / "out").read_text()


def test_values_of_a_range_have_the_unit_of_its_metric(tmp_path: Path) -> None:
    rows = pa.table({"name": ["a"], "samples": [3], "avg": [2048.0]})
    assert written(rows, Units(metric="vm_memory_rss_bytes"), tmp_path).split()[-3:] == ["3", "2", "KiB"]
    assert written(rows, Units(raw=True, metric="vm_memory_rss_bytes"), tmp_path).split()[-2:] == ["3", "2,048"]


def test_programs_get_numbers(tmp_path: Path) -> None:
    rows = pa.table({"size_bytes": [2048]})
    assert written(rows, Units(), tmp_path, "csv").splitlines() == ['"size_bytes"', "2048"]


def test_no_rows_are_said(tmp_path: Path) -> None:
    assert written(pa.table({"a": pa.array([], pa.int64())}), Units(), tmp_path) == "no rows (a)\n"
