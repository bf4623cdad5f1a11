"""Samples as columns, and as the rows they become: one per VM, then one per device, kind by kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from virtflow.history.storage.parquet import own_words
from virtflow.history.storage.table_schemas import KINDS, SAMPLES, Column, columns_of, device_of
from virtflow.history.writer.rows.arrow import array_of, days, times
from virtflow.history.writer.rows.avro_columns import ABSENT, Columns, dictionary, together
from virtflow.schemas.avro.cursors import Numbers, Wanted
from virtflow.schemas.catalogue.guest_agent import FILESYSTEM_LABELS
from virtflow.schemas.catalogue.types import Guest
from virtflow.schemas.fields import BlockMetrics, NetworkMetrics, VcpuMetrics
from virtflow.schemas.records import GuestFilesystemMetrics, GuestMetrics, VmMetrics

_DEVICES: Final[tuple[tuple[str, type[Struct], str, str], ...]] = (
    ("vcpu", VcpuMetrics, "vcpus", "vcpu"),
    ("network", NetworkMetrics, "networks", "device"),
    ("block", BlockMetrics, "blocks", "device"),
)
"""Kind of row, record, the field of a sample that lists them, and the field that tells one from another."""
_KEYS: Final = ("uuid", "name", "node", "boot_id", "sequence", "part", "collected", "interval", "monitor_collected")
_TYPES: Final[dict[type, str]] = {int: "long", float: "double", str: "string"}
_GUEST, _FILESYSTEMS, _FILESYSTEM = "guest", "filesystems", "filesystem"
_OF_AGENT: Final[tuple[Column, ...]] = tuple(column for column in columns_of("vm") if isinstance(column.metric.source, Guest))
"""The columns of a VM's row that its guest's agent fills."""
_AGENT_NAMES: Final = frozenset(column.name for column in _OF_AGENT)
_SOURCES: Final[dict[str, list[tuple[str, str, pa.DataType]]]] = {
    kind: [(column.name, column.name if column.name in _AGENT_NAMES else column.metric.field, column.type) for column in columns_of(kind)]
    for kind in KINDS.values()
}
"""The columns of each kind's rows, what their numbers are called, and their types."""


def _wanted(record: type[Struct], columns: Iterable[Column], keys: Sequence[str]) -> dict[str, str]:
    hints = get_type_hints(record)
    return {name: _TYPES[hints[name]] for name in (*keys, *(column.metric.field for column in columns))}


_GUEST_WANTED: Final[dict[str, str]] = _wanted(GuestMetrics, _OF_AGENT, ())
WANTED: Final[Wanted] = {
    **_wanted(VmMetrics, (column for column in columns_of("vm") if column not in _OF_AGENT), _KEYS),
    **{attribute: _wanted(record, columns_of(kind), [key]) for kind, record, attribute, key in _DEVICES},
    _GUEST: {**_GUEST_WANTED, _FILESYSTEMS: _wanted(GuestFilesystemMetrics, columns_of(_FILESYSTEM), FILESYSTEM_LABELS)},
}
"""The fields of a sample that rows are made of."""
ENCODED: Final = pa.schema(
    [field.with_type(pa.dictionary(pa.int32(), pa.string())) if field.type == pa.string() else field for field in SAMPLES.schema]
)
"""The columns of rows before they are written: Parquet stores words as dictionaries too, and takes them as they are."""


def columns_of_samples(samples: Sequence[VmMetrics]) -> Columns:
    """Samples, field by field."""
    return _columns(samples, WANTED)


def _columns(records: Sequence[Struct], kept: Wanted) -> Columns:
    columns = Columns(len(records))
    for name, kind in kept.items():
        values = [getattr(record, name) for record in records]
        if isinstance(kind, Mapping):
            owners = np.repeat(np.arange(len(values)), np.array([len(items) for items in values], np.int64))
            columns.lists[name] = (owners, _columns([each for items in values for each in items], kind))
        elif kind == "string":
            columns.words[name] = pa.array(values, pa.string()).dictionary_encode()
        else:
            columns.numbers[name] = np.array(values, np.int64 if kind == "long" else np.float64)
    return columns


def sample_rows(samples: Iterable[VmMetrics]) -> pa.Table:
    """The rows of the samples, kind by kind and within it by VM, device and time: one per VM, then one per device."""
    return rows_of(columns_of_samples(list(samples))).cast(SAMPLES.schema)


def rows_of(samples: Columns) -> pa.Table:
    """As ``sample_rows``, of samples that are columns already; words stay dictionaries, as ``ENCODED`` has them."""
    vm, moment = _ranks(samples.words["uuid"]), samples.numbers["collected"]
    order = np.lexsort((moment, vm))
    keys = _keys(samples)
    nothing = dictionary([""], np.zeros(samples.count, np.int32))
    guests = _guests(samples)
    parts = [_rows("vm", keys | {"device": nothing}, {**samples.numbers, **_of_agents(samples.count, *guests)}, (order, order))]
    for kind, owners, names, numbers in (*_devices(samples), *_filesystems(*guests)):
        order = np.lexsort((moment[owners], _ranks(names), vm[owners]))
        parts.append(_rows(kind, keys | {"device": names}, numbers, (owners[order], order)))
    return pa.concat_tables([part for part in parts if part.num_rows] or parts[:1])


_Devices = tuple[str, Numbers, pa.DictionaryArray, Mapping[str, Numbers]]
"""A kind of devices: the sample that each is of, what tells it from the others, and its numbers."""


def _devices(samples: Columns) -> Iterator[_Devices]:
    for kind, _, attribute, key in _DEVICES:
        owners, devices = samples.lists[attribute]
        yield kind, owners, _named(devices.numbers[key]) if key in devices.numbers else own_words(devices.words[key]), devices.numbers


def _guests(samples: Columns) -> tuple[Numbers, Columns]:
    """What guests' agents reported, and of which samples; of a sample with several entries the first, as everywhere."""
    owners, guests = samples.lists[_GUEST]
    first = np.zeros(len(owners), bool)
    first[np.unique(owners, return_index=True)[1]] = True
    return (owners, guests) if first.all() else (owners[first], guests.chosen(first))


def _of_agents(count: int, owners: Numbers, guests: Columns) -> dict[str, Numbers]:
    """The agents' numbers of ``count`` samples, absent where there is no agent, by the names of their columns; none without any agent."""
    found: dict[str, Numbers] = {}
    for column in _OF_AGENT if len(owners) else ():
        numbers = guests.numbers[column.metric.field]
        found[column.name] = np.full(count, ABSENT[_GUEST_WANTED[column.metric.field]], numbers.dtype)
        found[column.name][owners] = numbers
    return found


def _filesystems(owners: Numbers, guests: Columns) -> Iterator[_Devices]:
    of_guests, filesystems = guests.lists[_FILESYSTEMS]
    if len(of_guests):
        labels = [filesystems.words[label] for label in FILESYSTEM_LABELS]
        yield _FILESYSTEM, owners[of_guests], _labelled(labels), filesystems.numbers


def _labelled(labels: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    """The labels of devices that have several, as ``device_of`` joins them."""
    words, codes = together(labels)
    return dictionary([device_of(of_one) for of_one in words], codes)


def _keys(samples: Columns) -> dict[str, pa.Array]:
    """What every row of a sample carries, device or not."""
    numbers = samples.numbers
    words: dict[str, pa.Array] = {name: own_words(samples.words[name]) for name in ("uuid", "name", "node", "boot_id")}
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
    for name, field, kind_of in _SOURCES[kind]:
        if field in numbers or field not in _AGENT_NAMES:  # no sample of them has an agent
            columns[name] = array_of(numbers[field][order[1]], kind_of)
    # One array of nulls serves all columns of its type: of a row most columns are other kinds'.
    nulls = {kind_of: pa.nulls(len(own), kind_of) for kind_of in {field.type for field in ENCODED if field.name not in columns}}
    filled = [_column(columns[field.name], field) if field.name in columns else nulls[field.type] for field in ENCODED]
    return pa.table(filled, schema=ENCODED)


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
