"""Whether a data file's footer says what is true. Pages have checksums, a footer has none: one changed byte may rename a column or move a bound.

A column that is called something else is null to every reader, and a row group whose bounds are wrong is passed over. Both files can be read
from begin to end without an error. Source of the fields: Parquet's ``FileMetaData``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MAGIC_BYTES: Final = 4

Columns = Mapping[str, pa.DataType | None]
"""The columns of a table, and the type of each where it is known."""


def damage(parquet: pq.ParquetFile, columns: Columns) -> str:
    """What is wrong with a file of a table with these ``columns``, "" where nothing is. Reads all of its pages.

    Raises what the library does where it can't read on.
    """
    return (
        _schema(parquet, columns)
        or next((why for group in range(parquet.num_row_groups) if (why := _group(parquet, group))), "")
        or _order(parquet)
    )


def _schema(parquet: pq.ParquetFile, columns: Columns) -> str:
    """Columns that the table does not have, or has as another type."""
    for field in parquet.schema_arrow:
        if field.name not in columns:
            return f"has a column {field.name!r}, which the table does not have"
        wanted = columns[field.name]
        if wanted is not None and _plain(field.type) != wanted:
            return f"has {field.type} in the column {field.name}, not {wanted}"
    return ""


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type as the tables have it: other writers' words may be dictionaries or large."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) else kind


def _order(parquet: pq.ParquetFile) -> str:
    """Columns' pages that overlap: two columns would be read from one place."""
    end = MAGIC_BYTES
    for chunk in _chunks(parquet):
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        if start < end or not start <= chunk.data_page_offset < start + chunk.total_compressed_size:
            return f"has the pages of the column {chunk.path_in_schema} where others are"
        end = start + chunk.total_compressed_size
    return ""


def _chunks(parquet: pq.ParquetFile) -> Iterator[Any]:
    for group in range(parquet.num_row_groups):
        found = parquet.metadata.row_group(group)
        yield from (found.column(number) for number in range(found.num_columns))


def _group(parquet: pq.ParquetFile, number: int) -> str:
    """What the footer says wrongly of a row group: its rows, names, types, and the bounds of its values."""
    # Reading comes first: it raises where the library would end the process when it is asked for a chunk that contradicts itself.
    rows = pa.Table.from_batches(parquet.iter_batches(row_groups=[number], use_threads=False), parquet.schema_arrow)
    group = parquet.metadata.row_group(number)
    if rows.num_rows != group.num_rows:
        return f"has {rows.num_rows} rows in a group of {group.num_rows}"
    return next((why for place in range(group.num_columns) if (why := _chunk(group.column(place), parquet.schema.column(place), rows))), "")


def _chunk(chunk: Any, column: Any, rows: pa.Table) -> str:  # noqa: ANN401, pyarrow is untyped
    """What it says wrongly of a column in a row group."""
    if (chunk.path_in_schema, chunk.physical_type) != (column.path, column.physical_type):
        return f"calls one column {column.path} and {chunk.path_in_schema}"
    if chunk.num_values != rows.num_rows:
        return f"says of {rows.num_rows} rows that {chunk.num_values} are in the column {column.path}"
    return _bounds(chunk, rows.column(column.path))


def _bounds(chunk: Any, values: pa.ChunkedArray) -> str:  # noqa: ANN401, pyarrow is untyped
    said = chunk.statistics
    if said is None:
        return ""
    if said.has_null_count and said.null_count != values.null_count:
        return f"says that {said.null_count} values of {chunk.path_in_schema} are absent, and {values.null_count} are"
    found = pc.min_max(values).as_py()
    if said.has_min_max and found["min"] is not None and not said.min <= found["min"] <= found["max"] <= said.max:
        return f"has values of {chunk.path_in_schema} beyond the bounds that it says"
    return ""
