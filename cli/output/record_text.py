"""Records as people and programs read them: one line each, absent fields left out."""

from __future__ import annotations

import math
import time
from typing import Any, Final

import msgspec

from virtflow.cli.output.table import printable
from virtflow.schemas import jobs
from virtflow.schemas.catalogue.types import ABSENT_LONG
from virtflow.schemas.records import NodeSnapshot, NodeStatus, Record, VmEvent, VmMigration
from virtflow.schemas.states import reason_word, state_word

ENVELOPE: Final = frozenset({"uuid", "name", "node", "boot_id", "sequence", "part", "collected", "interval", "monitor_collected"})
FIELDS_SHOWN: Final = 12
LINE_LENGTH: Final = 240


def present(value: Any) -> Any:  # noqa: ANN401, JSON
    """A record's builtins without what is absent: JSON knows no NaN, and -1 and "" only say that nothing was said."""
    if isinstance(value, dict):
        kept = {name: present(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if not _absent(item)}
    return [present(item) for item in value] if isinstance(value, list) else value


def _absent(value: object) -> bool:
    if isinstance(value, float) and math.isnan(value):
        return True
    return (isinstance(value, int) and value == ABSENT_LONG) or value in ("", [], {})


def as_json(record: Record) -> dict[str, Any]:
    """The record as a JSON object, without what is absent."""
    found: dict[str, Any] = present(msgspec.to_builtins(record))
    return found


def clock(seconds: float) -> str:
    """Unix seconds as local date and time to the millisecond; "" for none."""
    if math.isnan(seconds):
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) + f".{int(seconds % 1 * 1000):03d}"


def line(record: Record) -> str:
    """One line for people; names are made printable."""
    match record:
        case VmEvent():
            words = [record.node, record.name or record.uuid, _event(record)]
        case VmMigration():
            from virtflow.processors.migrations.convergence import verdict

            way = f"{record.source or '?'} -> {record.destination or '?'}"
            words = [record.name or record.uuid, way, record.result, verdict(record)]
        case NodeStatus():
            words = [record.node, f"round {record.sequence}", _health(record)]
        case NodeSnapshot():
            words = [record.node, f"round {record.sequence}", f"up {record.health.up}", f"{len(record.vms)} VMs"]
        case _:
            fields = {name: value for name, value in as_json(record).items() if name not in ENVELOPE and not isinstance(value, list | dict)}
            told = " ".join(f"{name}={value}" for name, value in list(fields.items())[:FIELDS_SHOWN])
            words = [getattr(record, "node", ""), getattr(record, "name", ""), told]
    return "  ".join(printable(word, LINE_LENGTH) for word in words if word)


def _health(status: NodeStatus) -> str:
    fields = as_json(status).get("health", {})
    return " ".join(f"{name}={value}" for name, value in list(fields.items())[:FIELDS_SHOWN] if not isinstance(value, list | dict))


def _event(event: VmEvent) -> str:
    if event.kind == jobs.Kind.LIFECYCLE:
        return f"{jobs.lifecycle_word(event.event)} ({jobs.detail_word(event.event, event.detail)})"
    if event.kind in {jobs.Kind.STATE, jobs.Kind.JOB_GONE} and event.state >= 0:
        return f"{event.kind} {state_word(event.state)} ({reason_word(event.state, event.reason)})"
    fields = as_json(event)
    told = [f"{name}={fields[name]}" for name in ("event", "detail", "iteration", "device", "path", "size_bytes", "text") if name in fields]
    if event.job:
        told.append(f"{jobs.operation_word(event.job.get('operation', 0))} {event.job.get('time_elapsed', 0) / 1000:.1f} s")
    return " ".join([event.kind, *told])
