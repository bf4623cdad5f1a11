"""What libvirt announces about a VM as a ``VmEvent``: pure, one small function per kind of callback.

Arguments are the callback's own, without connection, domain and the opaque at the end. Source of their order and meaning:
libvirt's ``virConnectDomainEvent*Callback`` types, as libvirt-python hands them on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from virtflow.producer.types import HypervisorEvent
from virtflow.schemas.catalogue.types import ABSENT_LONG, LONG_MAX
from virtflow.schemas.jobs import Kind, lifecycle_word
from virtflow.schemas.records import VmEvent
from virtflow.schemas.text import printable

TEXT_LENGTH: Final = 256
JOB_FIELDS: Final = 64
"""More fields than a job's statistics have; the rest is skipped."""
BYTES_PER_KIBIBYTE: Final = 1024

Details = tuple[object, ...]
Fields = dict[str, Any]


def vm_event(happened: HypervisorEvent, node: str, boot_id: str, sequence: int) -> VmEvent:
    """The record of what happened; an argument that is missing or of another type than expected is absent in it.

    An event of a kind that is not known by name keeps its kind and nothing else.
    """
    fields = _FIELDS.get(happened.what, _nothing)(happened.detail)
    return VmEvent(
        uuid=happened.uuid,
        name=printable(happened.name),
        node=node,
        boot_id=boot_id,
        sequence=sequence,
        time=happened.time,
        kind=happened.what,
        **fields,
    )


def counted_as(event: VmEvent) -> str:
    """The event's kind as it is counted: for the life cycle, with the word for what happened."""
    return f"{event.kind}_{lifecycle_word(event.event)}" if event.kind == Kind.LIFECYCLE else event.kind


def job_statistics(found: Mapping[str, object]) -> dict[str, int]:
    """The numbers among a job's statistics, under libvirt's names: what is text or can't be true is left out."""
    numbers = [(key, value) for key, value in found.items() if type(value) is int and 0 <= value <= LONG_MAX]
    flags = [(key, int(value)) for key, value in found.items() if isinstance(value, bool)]
    return dict((numbers + flags)[:JOB_FIELDS])


def _number(details: Details, place: int) -> int:
    value = details[place] if place < len(details) else None
    return value if type(value) is int and 0 <= value <= LONG_MAX else ABSENT_LONG


def _text(details: Details, place: int) -> str:
    value = details[place] if place < len(details) else None
    return printable(value, TEXT_LENGTH) if isinstance(value, str) else ""


def _nothing(_: Details) -> Fields:
    return {}


def _two(d: Details) -> Fields:
    return {"event": _number(d, 0), "detail": _number(d, 1)}


def _one(d: Details) -> Fields:
    return {"event": _number(d, 0)}


def _iteration(d: Details) -> Fields:
    return {"iteration": _number(d, 0)}


def _balloon(d: Details) -> Fields:
    kib = _number(d, 0)
    return {"size_bytes": kib * BYTES_PER_KIBIBYTE if 0 <= kib <= LONG_MAX // BYTES_PER_KIBIBYTE else ABSENT_LONG}


def _device(d: Details) -> Fields:
    return {"device": _text(d, 0)}


def _tray(d: Details) -> Fields:
    return {"device": _text(d, 0), "detail": _number(d, 1)}


def _io_error(d: Details) -> Fields:
    return {"path": _text(d, 0), "device": _text(d, 1), "event": _number(d, 2), "text": _text(d, 3)}


def _block_job(d: Details) -> Fields:
    return {"device": _text(d, 0), "event": _number(d, 1), "detail": _number(d, 2)}


def _threshold(d: Details) -> Fields:
    return {"device": _text(d, 0), "path": _text(d, 1), "size_bytes": _number(d, 2), "excess_bytes": _number(d, 3)}


def _metadata(d: Details) -> Fields:
    return {"event": _number(d, 0), "text": _text(d, 1)}


def _job(d: Details) -> Fields:
    found = d[0] if d and isinstance(d[0], dict) else {}
    errmsg = found.get("errmsg")
    return {"job": job_statistics(found), "text": printable(errmsg, TEXT_LENGTH) if isinstance(errmsg, str) else ""}


def _job_gone(d: Details) -> Fields:
    return {"state": _number(d, 0), "reason": _number(d, 1), "text": _text(d, 2)}


def _status(d: Details) -> Fields:
    return {"text": _text(d, 0)}


_FIELDS: Final[Mapping[str, Callable[[Details], Fields]]] = {
    Kind.LIFECYCLE: _two,
    "reboot": _nothing,
    "watchdog": _one,
    "io_error_reason": _io_error,
    "control_error": _nothing,
    "balloon_change": _balloon,
    "device_added": _device,
    "device_removed": _device,
    "device_removal_failed": _device,
    "tray_change": _tray,
    "agent_lifecycle": _two,
    Kind.ITERATION: _iteration,
    Kind.COMPLETED: _job,
    "metadata_change": _metadata,
    "block_job_2": _block_job,
    "block_threshold": _threshold,
    "memory_failure": _two,
    Kind.JOB: _job,
    Kind.JOB_GONE: _job_gone,
    Kind.STATE: _job_gone,
    Kind.STATUS: _status,
}
