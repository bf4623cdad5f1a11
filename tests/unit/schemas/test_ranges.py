"""What a decoded envelope may hold."""

from __future__ import annotations

from typing import Any

import pytest

from virtflow.schemas.ranges import is_uuid, out_of_range
from virtflow.schemas.records import NodeSnapshot, VmMetrics

UUID = "d4e232be-ede6-48cb-9c15-42cde320a1fc"
GOOD: dict[str, Any] = {"node": "n", "boot_id": "b", "sequence": 0, "collected": 1.7e9, "interval": 10.0}


def test_a_good_envelope_passes() -> None:
    assert not out_of_range(NodeSnapshot(**GOOD))
    assert not out_of_range(VmMetrics(uuid=UUID, **GOOD))


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("node", "", "node"),
        ("node", "x" * 257, "node"),
        ("boot_id", "", "boot id"),
        ("sequence", -1, "sequence"),
        ("sequence", 2**60, "sequence"),
        ("part", -1, "part"),
        ("collected", 0.0, "collected"),
        ("collected", 1e18, "collected"),
        ("collected", float("nan"), "collected"),
        ("interval", 0.0, "interval"),
        ("interval", float("inf"), "interval"),
    ],
)
def test_each_field_is_checked(field: str, value: object, word: str) -> None:
    """The refusal names the field."""
    assert word in out_of_range(NodeSnapshot(**(GOOD | {field: value})))


@pytest.mark.parametrize(
    "text",
    ["", "d4e232be", UUID.upper(), UUID[:-1] + "g", UUID.replace("-", "+"), UUID + "0", "-" * 36, "../../../../etc/passwd/............."],
)
def test_what_is_no_uuid(text: str) -> None:
    assert not is_uuid(text)
