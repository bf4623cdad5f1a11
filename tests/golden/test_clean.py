"""What becomes of recorded answers of a real libvirt, field by field. ``VIRTFLOW_WRITE_GOLDEN=1`` writes it again, to be read before it is committed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from virtflow.producer.records.vm_snapshot import Tally, vm_snapshot
from virtflow.producer.replay import Recording

DATA = Path(__file__).with_name("data")


@pytest.mark.parametrize("name", ["lab-recording", "odd-recording", "kvm-recording"])
def test_recorded_answers_become_the_expected_records(name: str) -> None:
    """Every VM of the recording, without what is absent; and what was skipped."""
    recording, tally = Recording(DATA / f"{name}.jsonl"), Tally()
    vms = sorted((vm_snapshot(reading, tally, kvm=True) for reading in recording.round().readings), key=lambda vm: vm.uuid)
    found = {
        "vms": [_present(msgspec.to_builtins(vm)) for vm in vms],
        "unknown_fields": tally.unknown_fields,
        "drops": dict(tally.drops),
        "passed_by": dict(recording.passed_by),
    }
    golden = DATA / f"{name}.json"
    if os.environ.get("VIRTFLOW_WRITE_GOLDEN"):
        golden.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=True) + "\n")
    assert found == json.loads(golden.read_text())


def _present(value: object) -> object:
    """The value without fields that are absent, so that a new row of the catalogue changes no expectation."""
    if isinstance(value, dict):
        return {key: _present(each) for key, each in value.items() if each not in (-1, "", []) and each == each}  # noqa: PLR0124, NaN
    return [_present(each) for each in value] if isinstance(value, list) else value
