"""From records to rows: pure, a column at a time. Absent is null, never 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct

from virtflow.history.storage.table_schemas import EVENT_ROWS, INVENTORY_ROWS, MIGRATION_ROWS, SAMPLES, Table
from virtflow.history.writer.rows.arrow import array_of, days, times
from virtflow.history.writer.rows.sample_rows import sample_rows
from virtflow.schemas.records import VmEvent, VmInventory, VmMetrics, VmMigration


class ArrivedMigration(VmMigration, frozen=True, gc=False, kw_only=True):
    """A migration of which no moment is known: heard of from its destination first. Its row has the time at which the broker got it."""

    arrived: float


Fields = dict[str, Sequence[Any]]
Written = VmMetrics | VmEvent | VmMigration | VmInventory


def record_rows(table: Table, records: Sequence[Written]) -> pa.Table:
    """One row per record, at its moment; lists and maps as JSON."""
    if not records:
        return table.schema.empty_table()
    fields = _fields(VmMigration if table is MIGRATION_ROWS else type(records[0]), records)
    for name, values in fields.items():
        if isinstance(values[0], list | dict):
            fields[name] = [_json(value) for value in values]
    return _table(table, fields, [moment_of(record) for record in records])


ROWS: Final[dict[str, Callable[[Sequence[Any]], pa.Table]]] = {
    SAMPLES.name: sample_rows,
    **{table.name: partial(record_rows, table) for table in (EVENT_ROWS, MIGRATION_ROWS, INVENTORY_ROWS)},
}


def moment_of(record: Written) -> float:
    """When what the record tells was so, in Unix seconds; NaN where it does not say."""
    match record:
        case VmMetrics() | VmInventory():
            return record.collected
        case VmEvent():
            return record.time
        case VmMigration():
            words = ("updated", "ended", "resumed", "paused", "started")
            moments = [float(getattr(record, f"{word}_timestamp_seconds")) for word in words]
            arrived = record.arrived if isinstance(record, ArrivedMigration) else math.nan
            return next((moment for moment in moments if not math.isnan(moment)), arrived)


def _fields(record: type[Struct], items: Sequence[Struct]) -> Fields:
    """The records' fields as columns."""
    names = record.__struct_fields__
    columns = zip(*(msgspec.structs.astuple(item)[: len(names)] for item in items), strict=True)
    return dict(zip(names, columns, strict=True)) if items else dict.fromkeys(names, ())


def _table(table: Table, fields: Fields, moments: Sequence[float]) -> pa.Table:
    seconds = np.array(moments, np.float64)
    columns = [days(seconds), times(seconds)]
    columns += [_array(fields[field.name], field.type) for field in list(table.schema)[2:]]
    return pa.table(columns, schema=table.schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Values as an Arrow array: -1, NaN and "", which stand for absent, become null."""
    if pa.types.is_string(kind):
        return pa.array([value or None for value in values], kind)
    return array_of(np.array(values, np.int64 if pa.types.is_integer(kind) else np.float64), kind)


def _json(value: Any) -> str | None:  # noqa: ANN401, a list or a map
    return msgspec.json.encode(value, order="deterministic").decode() if value else None
