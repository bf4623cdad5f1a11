"""What a table's Parquet files look like: how columns are packed, where row groups end, and the statistics that the log holds of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.storage.table_schemas import COLUMNS, COUNTERS

ROW_GROUP_ROWS: Final = 32_768
ROLLED_GROUP_ROWS: Final = 8_192
"""A month of one VM touches a group of each of its days: small ones are read sooner."""
_STATISTICS: Final = ("time", "uuid", "kind")
BY_KIND: Final = (
    frozenset({"kind", COLUMNS[0].name}),
    frozenset({"kind", COLUMNS[0].rolled()[0][0]}),
    frozenset({"kind", COUNTERS.schema.names[-1]}),
)
"""What tells a table of VMs and their devices, raw or rolled up."""


def packing(schema: pa.Schema, *, compact: bool) -> dict[str, Any]:
    """How the columns are encoded: words and intervals by dictionary, whole numbers by difference, all of it zstd.

    Doubles stay as they are: what would compress them (BYTE_STREAM_SPLIT) is unknown to Spark's reader.
    """
    words = [field.name for field in schema if _is_word(field.type) or field.name == "interval_seconds"]
    plain = {field.name: "PLAIN" for field in schema if pa.types.is_floating(field.type) and field.name not in words}
    whole = {field.name: "DELTA_BINARY_PACKED" for field in schema if field.name not in words and field.name not in plain}
    return {
        "compression": "zstd",
        "compression_level": 6 if compact else 1,
        "use_dictionary": words,
        "column_encoding": plain | whole,
        "store_decimal_as_integer": True,
        "write_statistics": with_statistics(schema),
        "write_page_checksum": True,  # `history verify` finds what changed on the disk
        "version": "2.6",
        "data_page_version": "1.0",
        "store_schema": False,  # Parquet's own types say all: a second schema makes each file larger, and opening it slower
    }


def filled(rows: pa.Table) -> list[str]:
    """The columns with any value: the others need not be in a file, and each would cost time in every row group."""
    return [name for name, column in zip(rows.schema.names, rows.columns, strict=True) if column.null_count < rows.num_rows]


def _is_word(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_dictionary(kind))


def row_groups(rows: pa.Table, most: int) -> Iterator[pa.Table]:
    """The rows cut where their kind changes, so that a reader of one kind reads no other's pages, into at most ``most`` each; at least one."""
    ends = [rows.num_rows]
    if any(names.issubset(rows.schema.names) for names in BY_KIND) and rows.num_rows:
        kinds = rows.column("kind").combine_chunks()
        ends = pc.run_end_encode(kinds.indices if pa.types.is_dictionary(kinds.type) else kinds).run_ends.to_pylist()
    for start, end in zip([0, *ends], ends, strict=False):
        for at in range(start, max(end, start + 1), most):
            yield rows.slice(at, min(most, end - at))


def with_own_words(rows: pa.Table) -> pa.Table:
    """The rows of a row group, which holds its dictionaries whole: with no word in a dictionary that none of them has."""
    for place, column in enumerate(rows.columns):
        if pa.types.is_dictionary(column.type):
            rows = rows.set_column(place, rows.schema.field(place), own_words(column.combine_chunks()))
    return rows


def own_words(words: pa.DictionaryArray) -> pa.DictionaryArray:
    """The same words with a dictionary of those alone that occur."""
    used = np.bincount(words.indices.drop_null().to_numpy(), minlength=len(words.dictionary)) > 0
    if used.all():
        return words
    places = (np.cumsum(used, dtype=np.int32) - 1)[pc.fill_null(words.indices, 0).to_numpy()]
    absent = words.is_null().to_numpy(zero_copy_only=False) if words.null_count else None
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32(), mask=absent), words.dictionary.filter(pa.array(used)))


class Statistics:
    """A file's statistics as the log holds them (source: the protocol, "Per-file Statistics")."""

    def __init__(self) -> None:
        """Of no rows."""
        self._rows = 0
        self._least: dict[str, Any] = {}
        self._most: dict[str, Any] = {}

    def add(self, rows: pa.Table) -> None:
        """Takes rows in."""
        self._rows += rows.num_rows
        for name in _STATISTICS:
            if name not in rows.schema.names or not rows.num_rows:
                continue
            found = pc.min_max(_different(rows.column(name))).as_py()
            if found["min"] is not None:
                self._least[name] = min(self._least.get(name, found["min"]), found["min"])
                self._most[name] = max(self._most.get(name, found["max"]), found["max"])

    def text(self) -> str:
        """The JSON text."""
        least, most = ({name: _as_text(value) for name, value in bounds.items()} for bounds in (self._least, self._most))
        return json.dumps({"numRecords": self._rows, "minValues": least, "maxValues": most, "nullCount": dict.fromkeys(least, 0)})


def _different(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A dictionary's words that occur; any other column as it is."""
    if not pa.types.is_dictionary(column.type):
        return column
    return pa.chunked_array([chunk.unique().cast(pa.string()) for chunk in column.chunks], pa.string())


def with_statistics(schema: pa.Schema) -> list[str]:
    """The columns whose bounds are kept. The log says which: a reader must not take a missing bound for one that nothing meets."""
    return [name for name in _STATISTICS if name in schema.names]


def _as_text(value: Any) -> str:  # noqa: ANN401, a word or a moment
    return value if isinstance(value, str) else value.isoformat(timespec="microseconds").replace("+00:00", "Z")
