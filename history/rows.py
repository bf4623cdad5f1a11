"""From records to rows: pure, a column at a time. Absent is null, never 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct

from virtflow.history.layout import EVENT_ROWS, INVENTORY_ROWS, MIGRATION_ROWS, SAMPLES, SECONDS, TIME, Table, columns_of
from virtflow.schemas.fields import BlockMetrics, NetworkMetrics, VcpuMetrics
from virtflow.schemas.records import VmEvent, VmInventory, VmMetrics, VmMigration

MICROSECONDS: Final = 1e6
LONGEST_SECONDS: Final = 1e12
DAY_SECONDS: Final = 86_400
Fields = dict[str, Sequence[Any]]
Order = np.ndarray[Any, np.dtype[np.intp]]
Written = VmMetrics | VmEvent | VmMigration | VmInventory


def sample_rows(samples: Iterable[VmMetrics]) -> pa.Table:
    """The rows of the samples, kind by kind and within it by VM, device and time: one per VM, then one per device."""
    ordered = sorted(samples, key=_by_vm)
    fields = _fields(VmMetrics, ordered)
    keys = _keys(fields)
    parts = [_rows("vm", {**keys, "device": pa.repeat(pa.scalar(""), len(ordered))}, fields, None)]
    vm = keys["uuid"].dictionary_encode().indices.to_numpy()
    for kind, record, attribute in _DEVICES:
        lists = fields[attribute]
        parents = np.repeat(np.arange(len(ordered)), [len(devices) for devices in lists])
        values = _fields(record, [device for devices in lists for device in devices])
        names = pa.array(map(str, values[record.__struct_fields__[_device_index(record)]]), pa.string())
        order = np.lexsort((parents, names.dictionary_encode().indices.to_numpy(), vm[parents])) if len(parents) else parents
        chosen = pa.array(parents[order])
        key = {name: column.take(chosen) for name, column in keys.items()} | {"device": names.take(pa.array(order))}
        parts.append(_rows(kind, key, values, order))
    return pa.concat_tables([part for part in parts if part.num_rows] or parts[:1], promote_options="default").select(SAMPLES.schema.names)


_DEVICES: Final[tuple[tuple[str, type[Struct], str], ...]] = (
    ("vcpu", VcpuMetrics, "vcpus"),
    ("network", NetworkMetrics, "networks"),
    ("block", BlockMetrics, "blocks"),
)


def record_rows(table: Table, records: Sequence[Written]) -> pa.Table:
    """One row per record, at its moment; lists and maps as JSON."""
    if not records:
        return table.schema.empty_table()
    fields = _fields(type(records[0]), records)
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
            moments = (record.updated_timestamp_seconds, record.ended_timestamp_seconds, record.started_timestamp_seconds)
            return next((moment for moment in moments if not math.isnan(moment)), math.nan)


def _by_vm(sample: VmMetrics) -> tuple[str, float]:
    return sample.uuid, sample.collected


def _device_index(record: type[Struct]) -> int:
    """Where a device's own name stands among its record's fields."""
    return record.__struct_fields__.index("vcpu" if record is VcpuMetrics else "device")


def _fields(record: type[Struct], items: Sequence[Struct]) -> Fields:
    """The records' fields as columns."""
    columns = zip(*map(msgspec.structs.astuple, items), strict=True)
    return dict(zip(record.__struct_fields__, columns, strict=False)) if items else dict.fromkeys(record.__struct_fields__, ())


def _keys(fields: Fields) -> dict[str, pa.Array]:
    """What every row of a sample carries, device or not."""
    times = np.array(fields["collected"], np.float64)
    keys = {name: pa.array(fields[name], pa.string()) for name in ("uuid", "name", "node", "boot_id")}
    return keys | {
        "day": _days(times),
        "time": _times(times),
        "sequence": pa.array(fields["sequence"], pa.int64()),
        "interval_seconds": _array(fields["interval"], pa.float64()),
        "monitor_time": _times(np.array(fields["monitor_collected"], np.float64)),
    }


def _rows(kind: str, key: dict[str, pa.Array], fields: Fields, order: Order | None) -> pa.Table:
    """Rows of one kind: its key and its own metrics, brought into ``order``; the other kinds' columns are left to be null."""
    columns = dict(key, kind=pa.repeat(pa.scalar(kind), len(key["uuid"])))
    for column in columns_of(kind):
        columns[column.name] = _array(fields[column.metric.field], column.type, order)
    names = [name for name in SAMPLES.schema.names if name in columns] if kind != "vm" else SAMPLES.schema.names
    count = len(key["uuid"])
    filled = [columns[name] if name in columns else pa.nulls(count, SAMPLES.schema.field(name).type) for name in names]
    return pa.table(filled, schema=pa.schema([SAMPLES.schema.field(name) for name in names]))


def _table(table: Table, fields: Fields, moments: Sequence[float]) -> pa.Table:
    times = np.array(moments, np.float64)
    columns = [_days(times), _times(times)]
    columns += [_array(fields[field.name], field.type) for field in list(table.schema)[2:]]
    return pa.table(columns, schema=table.schema)


def _array(values: Sequence[Any], kind: pa.DataType, order: Order | None = None) -> pa.Array:
    """Values as an Arrow array: -1, NaN and "", which stand for absent, become null."""
    if pa.types.is_string(kind):
        return pa.array([value or None for value in values], kind)
    numbers = np.array(values, np.int64 if pa.types.is_integer(kind) else np.float64)
    if order is not None:
        numbers = numbers[order]
    if kind == SECONDS:
        return decimals(numbers)
    return pa.array(numbers, kind, mask=np.isnan(numbers) if pa.types.is_floating(kind) else numbers < 0)


def decimals(seconds: np.ndarray[Any, np.dtype[Any]]) -> pa.Array:
    """Seconds to the microsecond; null for NaN and for what is beyond any counter. No value is negative."""
    with np.errstate(invalid="ignore"):
        there = (seconds >= 0) & (seconds < LONGEST_SECONDS)
    halves = np.zeros((len(seconds), 2), np.int64)
    halves[:, 0] = np.rint(np.where(there, seconds, 0.0) * MICROSECONDS).astype(np.int64)
    return pa.Array.from_buffers(SECONDS, len(seconds), [pa.array(there).buffers()[1], pa.py_buffer(halves)])


def _times(seconds: np.ndarray[Any, np.dtype[np.float64]]) -> pa.Array:
    absent = np.isnan(seconds)
    micros = np.rint(np.where(absent, 0.0, seconds) * MICROSECONDS).astype(np.int64)
    return pa.array(micros, pa.int64(), mask=absent).cast(TIME)


def _days(seconds: np.ndarray[Any, np.dtype[np.float64]]) -> pa.Array:
    return pa.array(np.floor(seconds / DAY_SECONDS).astype(np.int32), pa.int32()).cast(pa.date32())


def _json(value: Any) -> str | None:  # noqa: ANN401, a list or a map
    return msgspec.json.encode(value, order="deterministic").decode() if value else None
