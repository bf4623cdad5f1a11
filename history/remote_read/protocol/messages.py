"""The protobuf messages of a remote_read request, described here so that the protobuf library reads them; no compiler is needed.

Only fields that are used have a name; what else a request holds is skipped by the library, as protobuf has it.
Sources: Prometheus' ``prompb/remote.proto`` and ``prompb/types.proto``.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "virtflow.remote_read"
"""Not Prometheus' own, so that its generated code may live in the same process."""

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_INT64: Final = _FIELD.TYPE_INT64
_INT32: Final = _FIELD.TYPE_INT32
_STRING: Final = _FIELD.TYPE_STRING

_MESSAGES: Final[dict[str, list[tuple[int, str, int | str, bool]]]] = {
    "LabelMatcher": [(1, "type", _INT32, False), (2, "name", _STRING, False), (3, "value", _STRING, False)],
    "ReadHints": [
        (1, "step_ms", _INT64, False),
        (2, "func", _STRING, False),
        (3, "start_ms", _INT64, False),
        (4, "end_ms", _INT64, False),
        (7, "range_ms", _INT64, False),
    ],
    "Query": [
        (1, "start_timestamp_ms", _INT64, False),
        (2, "end_timestamp_ms", _INT64, False),
        (3, "matchers", "LabelMatcher", True),
        (4, "hints", "ReadHints", False),
    ],
    "ReadRequest": [(1, "queries", "Query", True), (2, "accepted_response_types", _INT32, True)],
}
"""Number, name, type and whether it is repeated; enumerations are numbers, of which any may come."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="virtflow/remote_read.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field_name, kind, repeated in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                field.type = _FIELD.Type.ValueType(kind)
    return file


_POOL: Final = descriptor_pool.DescriptorPool()
_POOL.Add(_file())
ReadRequestMessage: Final[Any] = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.ReadRequest"))
