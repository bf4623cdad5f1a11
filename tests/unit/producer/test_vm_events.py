"""libvirt's callbacks become records: every kind, and the real ones of the lab's recording."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.recorded_events import MIGRATED, recorded_events
from virtflow.producer.records.vm_event import counted_as, job_statistics, vm_event
from virtflow.producer.types import HypervisorEvent
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.jobs import detail_word, lifecycle_word
from virtflow.schemas.records import VmEvent

KINDS = [
    ("lifecycle", (4, 1), {"event": 4, "detail": 1}),
    ("reboot", (), {}),
    ("watchdog", (1,), {"event": 1}),
    (
        "io_error_reason",
        ("/srv/a.img", "virtio-disk0", 1, "enospc"),
        {"path": "/srv/a.img", "device": "virtio-disk0", "event": 1, "text": "enospc"},
    ),
    ("control_error", (), {}),
    ("balloon_change", (146432,), {"size_bytes": 149946368}),
    ("device_added", ("virtio-disk1",), {"device": "virtio-disk1"}),
    ("device_removed", ("net0",), {"device": "net0"}),
    ("device_removal_failed", ("net0",), {"device": "net0"}),
    ("tray_change", ("sata0-0-0", 1), {"device": "sata0-0-0", "detail": 1}),
    ("agent_lifecycle", (2, 1), {"event": 2, "detail": 1}),
    ("migration_iteration", (3,), {"iteration": 3}),
    ("metadata_change", (2, "http://example.org/x"), {"event": 2, "text": "http://example.org/x"}),
    ("block_job_2", ("vda", 2, 3), {"device": "vda", "event": 2, "detail": 3}),
    ("block_threshold", ("vda", None, 16, 4), {"device": "vda", "path": "", "size_bytes": 16, "excess_bytes": 4}),
    ("memory_failure", (1, 2, 0), {"event": 1, "detail": 2}),
    (
        "job_completed",
        ({"operation": 5, "downtime": 105, "errmsg": "x\x1b[2J", "success": True, "data_total": -1},),
        {"job": {"operation": 5, "downtime": 105, "success": 1}, "text": "x\ufffd[2J"},
    ),
    ("job_gone", (1, 6, "cancelled"), {"state": 1, "reason": 6, "text": "cancelled"}),
    ("state", (3, 11), {"state": 3, "reason": 11}),
    ("migration_status", ("cancelling",), {"text": "cancelling"}),
    ("a_kind_of_tomorrow", (1, "x"), {}),
]


def fields(event: VmEvent) -> dict[str, object]:
    absent = VmEvent(uuid="")
    told = {name: getattr(event, name) for name in VmEvent.__struct_fields__[6:]}
    return {name: value for name, value in told.items() if name != "kind" and value != getattr(absent, name)}


@pytest.mark.parametrize(("kind", "details", "expected"), KINDS)
def test_each_kind_of_callback(kind: str, details: tuple[Any, ...], expected: dict[str, Any]) -> None:
    """Only what the callback said is in the record, in base units."""
    event = vm_event(HypervisorEvent(MIGRATED, "web-1", kind, details, 1795476250.5), "node1", "b00t", 7)
    assert (event.uuid, event.name, event.node, event.boot_id, event.sequence, event.kind) == (MIGRATED, "web-1", "node1", "b00t", 7, kind)
    assert fields(event) == {name: value for name, value in expected.items() if value != ""}
    codec = Codec()
    assert codec.decode(codec.encode(event), VmEvent) == event


@given(st.sampled_from([kind for kind, _, _ in KINDS]), st.lists(st.one_of(st.none(), st.integers(), st.text(), st.floats()), max_size=5))
def test_no_arguments_whatever_break_it(kind: str, details: list[object]) -> None:
    """A newer libvirt may hand over what it likes."""
    event = vm_event(HypervisorEvent(MIGRATED, "\ud800\n" * 500, kind, tuple(details), 1795476250.5), "node1", "b00t", 0)
    codec = Codec()
    assert codec.decode(codec.encode(event), VmEvent) == event


def test_the_recording_is_read_in_full() -> None:
    """Every callback of the recording becomes an event of its kind."""
    events = recorded_events()
    assert Counter(map(counted_as, events)) == {
        "job": 9,
        "balloon_change": 6,
        "migration_iteration": 6,
        "agent_lifecycle": 4,
        "lifecycle_started": 2,
        "lifecycle_suspended": 2,
        "lifecycle_resumed": 3,
        "lifecycle_defined": 1,
        "lifecycle_stopped": 2,
        "lifecycle_shutdown": 1,
        "control_error": 1,
        "job_completed": 1,
    }
    assert next(event for event in events if event.kind == "job_completed").job["memory_bps"] == 26768641


def test_only_numbers_of_a_job_are_kept() -> None:
    assert job_statistics({"a": 1, "b": "x", "c": -2, "d": 2**63, "e": True}) == {"a": 1, "e": 1}


def test_words() -> None:
    """Numbers of a newer libvirt stay numbers."""
    assert (lifecycle_word(5), detail_word(5, 3), lifecycle_word(99), detail_word(5, 99)) == ("stopped", "migrated", "99", "99")
