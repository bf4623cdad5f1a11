"""Fields that a KVM host reports and nobody wants cost next to nothing."""

from __future__ import annotations

import json

import pytest

from bench.counts import calls
from tests.support.kvm_host import answer
from virtflow.producer.records.vm_snapshot import Reading, Tally, vm_snapshot

ALLOWED = 1.2
UUID = "5f0b4a6e-0f57-4d0c-9a43-6d0f6f2a8b01"


def steps(data: dict[str, object]) -> int:
    """Calls that cleaning one VM's answer makes, when its fields are known."""
    reading, tally = Reading(UUID, "kvm", json.loads(json.dumps(data))), Tally()
    vm_snapshot(reading, tally)
    count = calls(lambda: vm_snapshot(reading, tally))
    assert tally.unknown_fields == 0
    return count


@pytest.mark.parametrize("vcpus", [1, 8, 64])
@pytest.mark.parametrize("later", [False, True], ids=["libvirt 9.0", "libvirt 12.4, all groups"])
def test_kvms_fields_cost_at_most_a_fifth_more(vcpus: int, later: bool) -> None:  # noqa: FBT001, a parameter
    """With them an answer has five times as many fields."""
    whole, plain = answer(vcpus, later=later), answer(vcpus, kvm=False, later=False)
    assert len(whole) >= len(plain) + 42 * vcpus
    assert steps(whole) <= ALLOWED * steps(plain)
