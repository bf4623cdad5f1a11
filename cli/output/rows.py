"""How rows of the history are shown: a table for people, CSV, JSON or Parquet for programs."""

from __future__ import annotations

import json
import math
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final

import click

from virtflow.cli.output.table import print_table
from virtflow.schemas.errors import EnvironmentProblemError

FORMATS: Final = ("table", "csv", "json", "parquet")
output_switch: Final = click.option(
    "--output", "output", metavar="FILE", type=click.Path(path_type=Path), help="Where to write; standard output when left out."
)
format_switch: Final = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to write it: for people or for programs."
)


def show(rows: Any, form: str, output: Path | None) -> None:  # noqa: ANN401, an Arrow table
    """Writes rows as ``form``; Parquet only to a file or a pipe."""
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a terminal: name a file with --output")
    if output is None:
        _write(rows, form, sys.stdout.buffer)
        return
    try:
        with output.open("wb") as out:
            _write(rows, form, out)
    except OSError as error:
        raise EnvironmentProblemError(
            thing="output file", value=str(output), why=error.strerror or str(error), fix="name another --output"
        ) from error


def _write(rows: Any, form: str, out: IO[bytes]) -> None:  # noqa: ANN401, an Arrow table
    match form:
        case "parquet":
            import pyarrow.parquet as pq

            pq.write_table(rows, out, compression="zstd")
        case "csv":
            from pyarrow import csv

            csv.write_csv(_text_times(rows), out)
        case "json":
            text = json.dumps([{name: _json(value) for name, value in row.items()} for row in rows.to_pylist()], indent=2)
            out.write(text.encode() + b"\n")
        case _ if out is sys.stdout.buffer:
            print_table(*_cells(rows))
        case _:
            from virtflow.cli.output.table import plain

            head, lines, right = _cells(rows)
            out.write(plain(head, lines, right).encode() + b"\n")
    out.flush()


def _cells(rows: Any) -> tuple[list[str], list[list[str]], frozenset[int]]:  # noqa: ANN401, an Arrow table
    head = [name.upper().replace("_", " ") for name in rows.schema.names]
    lines = [[cell(value) for value in row.values()] for row in rows.to_pylist()]
    right = frozenset(n for n, field in enumerate(rows.schema) if str(field.type).startswith(("int", "double", "float", "decimal", "uint")))
    return head, lines, right


def cell(value: Any) -> str:  # noqa: ANN401, any column's value
    """A value for people: absent is a dash, times are UTC, numbers short."""
    match value:
        case None:
            return "-"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S").removesuffix(".000000")
        case float() | Decimal():
            return "-" if math.isnan(value) else f"{value:,.3f}".rstrip("0").rstrip(".")
    return str(value)


def _json(value: Any) -> Any:  # noqa: ANN401, any column's value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


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
