"""What a decoded record's envelope may hold: each bound, from both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from virtflow.schemas.ranges import is_uuid, out_of_range
from virtflow.schemas.records import NodeSnapshot, NodeStatus, Record, VmEvent, VmInventory, VmMetrics, VmMigration

UUID = "01c4627c-7455-4be4-b014-9523f6d7e739"
NOW = 1_795_476_000.0
NODE: Mapping[str, Any] = {"node": "n", "boot_id": "b", "sequence": 1}
VM: Mapping[str, Any] = {"uuid": UUID, "name": "web"}
TIMED: Mapping[str, Any] = {"collected": NOW, "interval": 15.0}
RECORDS: dict[str, Callable[..., Record]] = {
    "snapshot": lambda **fields: NodeSnapshot(**{**NODE, **TIMED, **fields}),
    "status": lambda **fields: NodeStatus(**{**NODE, **TIMED, **fields}),
    "metrics": lambda **fields: VmMetrics(**{**NODE, **VM, **TIMED, **fields}),
    "inventory": lambda **fields: VmInventory(**{**NODE, **VM, **fields}),
    "event": lambda **fields: VmEvent(**{**NODE, "uuid": UUID, "time": NOW, "kind": "reboot", **fields}),
    "migration": lambda **fields: VmMigration(**{"uuid": UUID, **fields}),
}
BOUNDS: dict[str, tuple[list[Any], list[Any], set[str]]] = {
    "node": (["n", "n" * 256], ["", "n" * 257], {"snapshot", "status", "metrics", "inventory", "event"}),
    "boot_id": (["b", "b" * 256], ["", "b" * 257], {"snapshot", "status", "metrics", "inventory", "event"}),
    "sequence": ([0, 2**53], [-1, 2**53 + 1], {"snapshot", "status", "metrics", "inventory", "event"}),
    "part": ([0, 100_000], [-1, 100_001], {"snapshot", "status", "metrics", "inventory"}),
    "collected": ([946_684_800.0, 7_258_118_400.0], [946_684_799.0, 7_258_118_401.0, float("nan")], {"snapshot", "status", "metrics"}),
    "interval": ([0.001, 86_400.0], [0.0, 86_401.0, float("inf"), float("nan")], {"snapshot", "status", "metrics"}),
    "time": ([946_684_800.0, 7_258_118_400.0], [946_684_799.0, 7_258_118_401.0], {"event"}),
    "uuid": ([UUID], ["", UUID[:-1], UUID.upper()], {"metrics", "inventory", "event", "migration"}),
}
CASES = [(record, field) for field, (_, _, records) in BOUNDS.items() for record in sorted(records)]


@pytest.mark.parametrize("record", RECORDS)
def test_a_good_envelope_is_in_range(record: str) -> None:
    assert out_of_range(RECORDS[record]()) == ""


@pytest.mark.parametrize(("record", "field"), CASES)
def test_a_bound_belongs_to_the_range_and_what_is_beyond_does_not(record: str, field: str) -> None:
    good, bad, _ = BOUNDS[field]
    assert [value for value in good if out_of_range(RECORDS[record](**{field: value}))] == []
    assert [value for value in bad if not out_of_range(RECORDS[record](**{field: value}))] == []


@pytest.mark.parametrize(("field", "words"), [("node", "node name of 257"), ("boot_id", "boot id of 257"), ("uuid", "uuid 'xxxx")])
def test_the_reason_names_the_field(field: str, words: str) -> None:
    assert words in out_of_range(RECORDS["metrics"](**{field: "x" * 257}))


@pytest.mark.parametrize("at", range(36))
def test_every_character_of_a_uuid_counts(at: int) -> None:
    """A dash for a digit, a digit for a dash, and what is neither."""
    other = "0" if UUID[at] == "-" else "-"
    assert is_uuid(UUID)
    for character in (other, "g", "A", " "):
        assert not is_uuid(UUID[:at] + character + UUID[at + 1 :])


@pytest.mark.parametrize(
    "text", ["", "d4e232be", UUID.upper(), UUID.replace("-", "+"), UUID + "0", "-" * 36, "../../../../etc/passwd/............."]
)
def test_what_is_no_uuid(text: str) -> None:
    assert not is_uuid(text)
