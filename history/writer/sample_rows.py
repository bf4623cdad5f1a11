"""Samples as columns, and as the rows they become: one per VM, then one per device, kind by kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from virtflow.history.storage.table_schemas import SAMPLES, columns_of
from virtflow.history.writer.arrow import array_of, days, times
from virtflow.history.writer.avro_columns import Columns, Numbers, Wanted, dictionary
from virtflow.schemas.fields import BlockMetrics, NetworkMetrics, VcpuMetrics
from virtflow.schemas.records import VmMetrics

_DEVICES: Final[tuple[tuple[str, type[Struct], str, str], ...]] = (
    ("vcpu", VcpuMetrics, "vcpus", "vcpu"),
    ("network", NetworkMetrics, "networks", "device"),
    ("block", BlockMetrics, "blocks", "device"),
)
"""Kind of row, record, the field of a sample that lists them, and the field that tells one from another."""
_KEYS: Final = ("uuid", "name", "node", "boot_id", "sequence", "part", "collected", "interval", "monitor_collected")
_TYPES: Final[dict[type, str]] = {int: "long", float: "double", str: "string"}


def _wanted(record: type[Struct], kind: str, keys: Sequence[str]) -> dict[str, str]:
    hints = get_type_hints(record)
    return {name: _TYPES[hints[name]] for name in (*keys, *(column.metric.field for column in columns_of(kind)))}


WANTED: Final[Wanted] = _wanted(VmMetrics, "vm", _KEYS) | {
    attribute: _wanted(record, kind, [key]) for kind, record, attribute, key in _DEVICES
}
"""The fields of a sample that rows are made of."""


def columns_of_samples(samples: Sequence[VmMetrics]) -> Columns:
    """Samples, field by field."""
    columns = _columns(samples, WANTED)
    for _, _, attribute, _ in _DEVICES:
        kept = WANTED[attribute]
        lists = [getattr(sample, attribute) for sample in samples]
        owners = np.repeat(np.arange(len(lists)), [len(devices) for devices in lists])
        columns.lists[attribute] = (owners, _columns([each for devices in lists for each in devices], kept))
    return columns


def _columns(records: Sequence[Struct], kept: str | Wanted) -> Columns:
    columns = Columns(len(records))
    for name, kind in kept.items() if isinstance(kept, Mapping) else ():
        values = [getattr(record, name) for record in records]
        if kind == "string":
            columns.words[name] = pa.array(values, pa.string()).dictionary_encode()
        elif isinstance(kind, str):
            columns.numbers[name] = np.array(values, np.int64 if kind == "long" else np.float64)
    return columns


def sample_rows(samples: Iterable[VmMetrics]) -> pa.Table:
    """The rows of the samples, kind by kind and within it by VM, device and time: one per VM, then one per device."""
    return rows_of(columns_of_samples(list(samples)))


def rows_of(samples: Columns) -> pa.Table:
    """As ``sample_rows``, of samples that are columns already."""
    vm, moment = _ranks(samples.words["uuid"]), samples.numbers["collected"]
    order = np.lexsort((moment, vm))
    keys = _keys(samples)
    nothing = dictionary([""], np.zeros(samples.count, np.int32))
    parts = [_rows("vm", keys | {"device": nothing}, samples.numbers, (order, order))]
    for kind, _, attribute, key in _DEVICES:
        owners, devices = samples.lists[attribute]
        names = _named(devices.numbers[key]) if key in devices.numbers else devices.words[key]
        order = np.lexsort((moment[owners], _ranks(names), vm[owners]))
        parts.append(_rows(kind, keys | {"device": names}, devices.numbers, (owners[order], order)))
    return pa.concat_tables([part for part in parts if part.num_rows] or parts[:1], promote_options="default").select(SAMPLES.schema.names)


def _keys(samples: Columns) -> dict[str, pa.Array]:
    """What every row of a sample carries, device or not."""
    numbers = samples.numbers
    words: dict[str, pa.Array] = {name: samples.words[name] for name in ("uuid", "name", "node", "boot_id")}
    return words | {
        "day": days(numbers["collected"]),
        "time": times(numbers["collected"]),
        "sequence": pa.array(numbers["sequence"]),
        "interval_seconds": array_of(numbers["interval"], pa.float64()),
        "monitor_time": times(numbers["monitor_collected"]),
    }


def _rows(kind: str, keys: dict[str, pa.Array], numbers: Mapping[str, Numbers], order: tuple[Numbers, Numbers]) -> pa.Table:
    """Rows of one kind: a sample's keys and the kind's own metrics, each in its order; the other kinds' columns are left to be null."""
    of_sample, own = (pa.array(rows) for rows in order)
    columns: dict[str, pa.Array] = {name: key.take(own if name == "device" else of_sample) for name, key in keys.items()}
    columns["kind"] = dictionary([kind], np.zeros(len(own), np.int32))
    for column in columns_of(kind):
        columns[column.name] = array_of(numbers[column.metric.field][order[1]], column.type)
    fields = [field for field in SAMPLES.schema if field.name in columns or kind == "vm"]
    filled = [_column(columns[field.name], field) if field.name in columns else pa.nulls(len(own), field.type) for field in fields]
    return pa.table(filled, schema=pa.schema(fields))


def _column(values: pa.Array, field: pa.Field) -> pa.Array:
    return values if values.type == field.type else values.cast(field.type)


def _named(numbers: Numbers) -> pa.DictionaryArray:
    """Numbers as words."""
    found, codes = np.unique(numbers, return_inverse=True)
    return dictionary([str(number) for number in found.tolist()], codes)


def _ranks(words: pa.DictionaryArray) -> Numbers:
    """A number for each word, which are in the order of the words."""
    places = pc.rank(words.dictionary, tiebreaker="dense").to_numpy()
    return np.asarray(places[words.indices.to_numpy()]) if len(places) else np.zeros(len(words), np.int64)
