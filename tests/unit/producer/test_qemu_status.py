"""QEMU's details are JSON of a stranger: only a status is taken from them."""

from __future__ import annotations

import pytest

from virtflow.producer.hypervisor.qemu_events import status_of


@pytest.mark.parametrize(
    ("details", "status"),
    [
        ('{"status": "cancelled"}', "cancelled"),
        ('{"status": 7}', "7"),
        ("{}", ""),
        (None, ""),
        ("[1]", ""),
        ("not json", ""),
        ('{"status": "' + "x" * 99 + '"}', "x" * 32),
    ],
)
def test_status_of(details: str | None, status: str) -> None:
    assert status_of(details) == status
