"""Any record, drawn from its own type: what the property tests are fed with."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

from virtflow.schemas.ranges import EARLIEST_SECONDS, LATEST_SECONDS
from virtflow.schemas.records import RECORDS, NodeSnapshot, NodeStatus, Record, VmEvent, VmInventory, VmMetrics, VmMigration

LONGS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(max_size=20)
NAMES = st.text(min_size=1, max_size=20)
TIMES = st.floats(EARLIEST_SECONDS, LATEST_SECONDS)
TRUE_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "uuid": st.uuids().map(str),
    "node": NAMES,
    "boot_id": NAMES,
    "source": NAMES,
    "sequence": st.integers(0, 2**53),
    "part": st.integers(0, 100),
    "collected": TIMES,
    "time": TIMES,
    "interval": st.floats(0.1, 3600),
}
"""Fields of an envelope that are checked on reading: only true ones survive a round trip."""


def of_type(info: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a record's field, any that Avro can carry."""
    match info:
        case inspect.IntType():
            return LONGS
        case inspect.FloatType():
            return st.floats()
        case inspect.StrType():
            return TEXTS
        case inspect.ListType(item_type=item):
            return st.lists(of_type(item), max_size=3)
        case inspect.DictType(value_type=value):
            return st.dictionaries(TEXTS, of_type(value), max_size=3)
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{f.name: _field(f) for f in fields})
        case _:
            raise TypeError(f"no strategy for {info!r}")


def _field(field: inspect.Field) -> st.SearchStrategy[Any]:
    of_libvirt = field.name == "time" and isinstance(field.type, inspect.IntType)
    return TRUE_FIELDS[field.name] if field.name in TRUE_FIELDS and not of_libvirt else of_type(field.type)


def records(kind: type[Record]) -> st.SearchStrategy[Any]:
    """Records of one kind whose envelope is true."""
    return of_type(inspect.type_info(kind))


ANY_RECORD: st.SearchStrategy[Record] = st.one_of(*map(records, RECORDS))

UUID = "d4e232be-ede6-48cb-9c15-42cde320a1fc"
EXAMPLES: tuple[Record, ...] = (
    NodeSnapshot(node="n", boot_id="b", sequence=0),
    VmMetrics(uuid=UUID),
    VmInventory(uuid=UUID),
    NodeStatus(node="n"),
    VmEvent(uuid=UUID),
    VmMigration(uuid=UUID),
)


def same(left: Any, right: Any) -> bool:  # noqa: ANN401, plain data
    """Whether plain data is equal, where NaN equals NaN."""
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
