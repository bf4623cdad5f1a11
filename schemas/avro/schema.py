"""Avro schemas from the record types: one source, so that a record and its schema can't differ.

Rules: every field has a default; integers are ``long``; no nullable unions, no recursive and no zero-size types. JSON knows
no NaN, so a double's default is written -1 in the schema file: to a reader, both mean absent.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from virtflow.schemas.catalogue.metrics import BY_COLUMN, BY_NAME
from virtflow.schemas.catalogue.types import ABSENT_LONG, MIGRATION_PREFIX, NAME_PREFIX, Scope

NAMESPACE = "virtflow"
MAX_DEPTH = 16
"""How deep a foreign schema may nest; ours nest nine deep."""

Schema = dict[str, Any]

_PREFIXES = {
    "VmMetrics": (NAME_PREFIX[Scope.VM],),
    "VcpuMetrics": (NAME_PREFIX[Scope.VCPU],),
    "NetworkMetrics": (NAME_PREFIX[Scope.NETWORK],),
    "BlockMetrics": (NAME_PREFIX[Scope.BLOCK],),
    "KvmMetrics": (NAME_PREFIX[Scope.KVM],),
    "GuestMetrics": ("vm_guest_",),
    "GuestFilesystemMetrics": ("vm_guest_filesystem_",),
    "VmMigration": (MIGRATION_PREFIX,),
    "NodeHealth": ("virtflow_node_",),
}


def schema_of(record: type[msgspec.Struct]) -> Schema:
    """The Avro schema of a record type, as the JSON object of its ``.avsc`` file."""
    return _record(inspect.type_info(record), set())


def _record(info: inspect.Type, named: set[str]) -> Schema:
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"no record: {info!r}")
    name = info.cls.__name__
    named.add(name)
    doc = (info.cls.__doc__ or "").split("\n\n")[0]
    fields = [_field(field, named) | _doc(info.cls, field.name) for field in info.fields]
    return {"type": "record", "name": name, "namespace": NAMESPACE, "doc": " ".join(doc.split()), "fields": fields}


def _doc(record: type, field: str) -> Schema:
    """What the catalogue says of a field in base units, for those who read the topics."""
    rows = BY_NAME | BY_COLUMN
    metric = next((rows[name] for prefix in _PREFIXES.get(record.__name__, ()) if (name := prefix + field) in rows), None)
    return {"doc": metric.help} if metric else {}


def _field(field: inspect.Field, named: set[str]) -> Schema:
    default = field.default if isinstance(field.default, int | str) else _absent(field.type)
    return {"name": field.name, "type": _type(field.type, named), "default": default}


def _type(info: inspect.Type, named: set[str]) -> object:
    match info:
        case inspect.IntType():
            return "long"
        case inspect.FloatType():
            return "double"
        case inspect.StrType():
            return "string"
        case inspect.ListType(item_type=item):
            return {"type": "array", "items": _type(item, named)}
        case inspect.DictType(value_type=value):
            return {"type": "map", "values": _type(value, named)}
        case inspect.StructType(cls=cls):
            return cls.__name__ if cls.__name__ in named else _record(info, named)
        case _:
            raise TypeError(f"no Avro type for {info!r}")


def _absent(info: inspect.Type) -> object:
    """The default that says absent, as JSON can write it."""
    match info:
        case inspect.IntType():
            return ABSENT_LONG
        case inspect.FloatType():
            return float(ABSENT_LONG)
        case inspect.ListType():
            return []
        case inspect.StructType(fields=fields):
            return {field.name: _absent(field.type) for field in fields}
        case inspect.DictType():
            return {}
        case _:
            return ""


class UnsafeSchemaError(Exception):
    """A foreign schema holds a type that can crash or flood a reader."""


_SIZED = frozenset({"boolean", "int", "long", "float", "double", "bytes", "string"})


def vet(schema: object) -> None:
    """Raises ``UnsafeSchemaError`` unless a foreign schema is a record's, every type in it takes at least a byte and none contains itself."""
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise UnsafeSchemaError(f"{str(schema)[:80]} is no record")
    _vet(schema, set(), depth=0)


def _vet(schema: object, known: set[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UnsafeSchemaError(f"nested deeper than {MAX_DEPTH}")
    match schema:
        case str() if schema in _SIZED or schema in known or schema.rpartition(".")[2] in known:
            return
        case {"type": "record", "name": str(name), "fields": [_, *_] as fields}:
            for field in fields:
                if not isinstance(field, dict) or not isinstance(field.get("name"), str):
                    raise UnsafeSchemaError(f"field {str(field)[:80]} is not read")
                _vet(field.get("type"), known, depth + 1)
            known.add(name.rpartition(".")[2])
        case {"type": "array", "items": items}:
            _vet(items, known, depth + 1)
        case {"type": "map", "values": values}:
            _vet(values, known, depth + 1)
        case {"type": "enum", "name": str(name)}:
            known.add(name.rpartition(".")[2])
        case {"type": str(inner)} if inner in _SIZED:
            return
        case _:
            raise UnsafeSchemaError(f"type {str(schema)[:80]} is not read")
