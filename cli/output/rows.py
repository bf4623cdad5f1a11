"""How rows of the history are shown: a table for people, CSV, JSON or Parquet for programs."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from textwrap import indent
from typing import IO, Any, Final, NamedTuple

import click

from virtflow.cli.output.files import replacing
from virtflow.cli.output.say import say_data
from virtflow.cli.output.table import print_table, printable, whole
from virtflow.cli.output.times import shown_times
from virtflow.exporter.page.formats import clock, duration, size
from virtflow.schemas.errors import EnvironmentProblemError

BATCH_ROWS: Final = 10_000
DIGITS: Final = 40
"""As many as the database's largest integers have, and one more."""
NUMBERS: Final = ("int", "double", "float", "decimal", "uint")
FORMATS: Final = ("table", "csv", "json", "parquet")
output_switch: Final = click.option(
    "--output", "output", metavar="FILE", type=click.Path(path_type=Path), help="Where to write; standard output when left out."
)
format_switch: Final = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to write it: for people or for programs."
)
raw_switch: Final = click.option("--raw", is_flag=True, help="Numbers as they are in the table: no KiB, no hours.")


class Units(NamedTuple):
    """How numbers are written in a table: as they are (``raw``), or by the unit in a column's name; ``values`` of ``metric`` have the metric's."""

    raw: bool = False
    metric: str = ""
    values: tuple[str, ...] = ("value", "avg", "min", "max", "last", "increase")

    def name(self, column: str) -> str:
        """The name that has a column's unit; "" for none."""
        return "" if self.raw else self.metric if column in self.values else column


def show(rows: Any, form: str, output: Path | None, units: Units = Units()) -> None:  # noqa: ANN401, B008, an Arrow table, and a constant
    """Writes rows as ``form``; Parquet only to a file or a pipe. A file is replaced when all is written, and left as it was otherwise."""
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a terminal: name a file with --output")
    if output is None:
        _print(rows, form, units)
        return
    try:
        with replacing(output) as out:
            _write(rows, form, out, units)
    except OSError as error:
        raise EnvironmentProblemError(
            thing="output file", value=str(output), why=error.strerror or str(error), fix="name another --output"
        ) from error


def _print(rows: Any, form: str, units: Units) -> None:  # noqa: ANN401, an Arrow table
    """To standard output; where that is a terminal nothing in the rows can steer it."""
    if form == "table":
        print_table(*_cells(shown_times(rows), units))
    elif sys.stdout.isatty():
        written = io.BytesIO()
        _write(rows, form, written, units)
        say_data(written.getvalue())
    else:
        _write(rows, form, sys.stdout.buffer, units)


def _write(rows: Any, form: str, out: IO[bytes], units: Units) -> None:  # noqa: ANN401, an Arrow table
    match form:
        case "parquet":
            _write_parquet(rows, out)
        case "csv":
            from pyarrow import csv

            csv.write_csv(_numbers(_text_times(shown_times(rows))), out)
        case "json":
            _write_json(shown_times(rows), out)
        case _:
            out.write(whole(*_cells(shown_times(rows), units)).encode() + b"\n")
    out.flush()


def _write_parquet(rows: Any, out: IO[bytes]) -> None:  # noqa: ANN401, an Arrow table
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.write_table(rows, out, compression="zstd")
    except pa.ArrowException as error:
        why = " ".join(str(error).split())[:200]
        raise EnvironmentProblemError(
            thing="format", value="parquet", why=why, fix="cast the column in the query, or take another --format"
        ) from error


def _write_json(rows: Any, out: IO[bytes]) -> None:  # noqa: ANN401, an Arrow table
    """A list of objects, batch by batch: as Python's objects a table takes many times its size."""
    special: dict[bytes, Callable[[Any], Any]] = {b"json": _json_text, b"number": _json_number}
    readers = [special.get(mark_of(field), _json) for field in rows.schema]
    names = rows.schema.names
    begun = False
    for batch in rows.to_batches(max_chunksize=BATCH_ROWS):
        columns: list[list[Any]] = [column.to_pylist() for column in batch.columns]
        for row in zip(*columns, strict=True):
            told = {name: read(value) for name, read, value in zip(names, readers, row, strict=True)}
            out.write(b",\n" if begun else b"[\n")
            out.write(indent(json.dumps(told, indent=2), "  ").encode())
            begun = True
    out.write(b"\n]\n" if begun else b"[]\n")


def _cells(rows: Any, units: Units) -> tuple[list[str], list[list[str]], frozenset[int]]:  # noqa: ANN401, an Arrow table
    head = [printable(name.upper().replace("_", " ")) for name in rows.schema.names]
    named = zip(map(units.name, rows.schema.names), rows.columns, strict=True)
    columns = [[printable(cell(value, name)) for value in column.to_pylist()] for name, column in named]
    lines = [list(row) for row in zip(*columns, strict=True)]
    right = frozenset(n for n, field in enumerate(rows.schema) if mark_of(field) == b"number" or str(field.type).startswith(NUMBERS))
    return head, lines, right


def cell(value: Any, name: str = "") -> str:  # noqa: ANN401, any column's value
    """A value for people: absent is a dash, times are UTC, numbers short. ``name`` of the column says whether it is bytes or seconds."""
    match value:
        case None:
            return "-"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S").removesuffix(".000000")
        case bool():
            return str(value)
        case int() | float() | Decimal() if unit := unit_of(name):
            return _in_unit(float(value), unit)
        case float() | Decimal():
            return "-" if math.isnan(value) else f"{value:,.3f}".rstrip("0").rstrip(".")
    return str(value)


def unit_of(name: str) -> str:
    """What the numbers of a column are, by its name: ``timestamp``, ``bytes``, ``seconds``, or "" for plain numbers."""
    words = name.lower().split("_")
    if words[-1] in {"ratio", "coverage", "count", "samples", "share"}:
        return ""
    return next((unit for unit in ("timestamp", "bytes", "seconds") if unit in words), "")


def _in_unit(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "-" if math.isnan(value) else str(value)
    if value < 0:
        return f"-{_in_unit(-value, unit)}"
    match unit:
        case "bytes":
            return size(value)
        case "seconds":
            return duration(value)
    return clock(value)


def _json(value: Any) -> Any:  # noqa: ANN401, any column's value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def mark_of(field: Any) -> bytes:  # noqa: ANN401, an Arrow field
    """What the text of a column is: ``json``, ``number``, or nothing but text."""
    mark: bytes = (field.metadata or {}).get(b"virtflow", b"")
    return mark


def _json_number(value: str | None) -> int | None:
    return None if value is None else int(value)


def _json_text(value: str | None) -> Any:  # noqa: ANN401, whatever JSON holds
    """A column that the database has written as JSON already; numbers that JSON does not have are absent."""
    return None if value is None else json.loads(value, parse_constant=lambda _: None)


def _numbers(rows: Any) -> Any:  # noqa: ANN401, an Arrow table
    """Numbers that are told as text become numbers again: CSV puts text in quotes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for index, field in enumerate(rows.schema):
        if mark_of(field) == b"number":
            rows = rows.set_column(index, field.name, pc.cast(rows.column(index), pa.decimal256(DIGITS, 0)))
    return rows


def _text_times(rows: Any) -> Any:  # noqa: ANN401, an Arrow table
    """CSV has no moments: they become text that every reader takes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for index, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            times = rows.column(index)
            whole = pc.all(pc.equal(times, pc.floor_temporal(times, unit="second"))).as_py() in {True, None}
            # What strftime prints as seconds has as many digits as the type: none where every time is whole.
            text = pc.strftime(times.cast(pa.timestamp("s", tz="UTC")) if whole else times, format="%Y-%m-%dT%H:%M:%SZ")
            rows = rows.set_column(index, field.name, text)
    return rows
