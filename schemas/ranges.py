"""What a decoded record may hold. Avro has no checksum: about half of all single-bit flips decode to wrong values."""

from __future__ import annotations

from typing import Final

from virtflow.schemas.records import NodeSnapshot, NodeStatus, Record, VmEvent, VmInventory, VmMetrics, VmMigration
from virtflow.schemas.text import NAME_LENGTH

EARLIEST_SECONDS: Final = 946_684_800.0
"""2000-01-01: nothing was collected before."""
LATEST_SECONDS: Final = 7_258_118_400.0
"""2200-01-01: nothing will have been collected after."""
INTERVAL_SECONDS: Final = 86_400.0
SEQUENCE: Final = 2**53
PARTS: Final = 100_000
UUID_LENGTH: Final = 36

Placed = NodeSnapshot | NodeStatus | VmMetrics | VmInventory
"""Records that carry the place of the round they come from."""


def out_of_range(record: Record) -> str:
    """Why the record's envelope can't be true, in words; "" when it can. Values inside are the normaliser's matter."""
    match record:
        case NodeSnapshot():
            return _node(record) or _order(record) or _times(record)
        case NodeStatus():
            return _node(record) or _order(record) or _times(record)
        case VmMetrics():
            return _uuid(record.uuid) or _node(record) or _order(record) or _times(record)
        case VmInventory():
            return _uuid(record.uuid) or _node(record) or _order(record)
        case VmEvent():
            return _uuid(record.uuid) or _node(record) or _place(record.boot_id, record.sequence, 0) or _time(record.time)
        case VmMigration():
            return _uuid(record.uuid)


def is_uuid(text: str) -> bool:
    """Whether ``text`` is a UUID in libvirt's form: lower case, with dashes."""
    if len(text) != UUID_LENGTH or text[8] != "-" or text[13] != "-" or text[18] != "-" or text[23] != "-":
        return False
    return not text.replace("-", "").strip("0123456789abcdef") and text.count("-") == 4  # noqa: PLR2004, the form's dashes


def _uuid(uuid: str) -> str:
    return "" if is_uuid(uuid) else f"uuid {uuid[:40]!r} is none"


def _node(record: Placed | VmEvent) -> str:
    return "" if 0 < len(record.node) <= NAME_LENGTH else f"node name of {len(record.node)} characters"


def _order(record: Placed) -> str:
    return _place(record.boot_id, record.sequence, record.part)


def _place(boot_id: str, sequence: int, part: int) -> str:
    if not 0 <= sequence <= SEQUENCE:
        return f"sequence {sequence}"
    if not 0 <= part <= PARTS:
        return f"part {part}"
    return "" if 0 < len(boot_id) <= NAME_LENGTH else f"boot id of {len(boot_id)} characters"


def _times(record: NodeSnapshot | NodeStatus | VmMetrics) -> str:
    if why := _time(record.collected):
        return why
    return "" if 0 < record.interval <= INTERVAL_SECONDS else f"interval of {record.interval} s"


def _time(at: float) -> str:
    return "" if EARLIEST_SECONDS <= at <= LATEST_SECONDS else f"collected at {at}"
