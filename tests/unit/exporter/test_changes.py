"""The log of changes: each difference once, nothing for what stays, and a place from which a client goes on."""

from __future__ import annotations

import pytest

from tests.support.fleet_samples import busy, migration, node_of
from tests.support.vm_samples import INTERVAL, fleet, sample, status, uuid
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.views.changes import Changes, What, event_of, place_of
from virtflow.schemas.records import NodeHealth

NEVER = -1


def opened() -> Fleet:
    vms = fleet()
    vms.changes.open()
    return vms


def told(vms: Fleet) -> list[tuple[What, str, str, str, str]]:
    return [(one.kind, one.name or one.node, one.before, one.after, one.reason) for one in vms.changes.after(0)]


def test_what_stays_is_no_news() -> None:
    vms = opened()
    for sequence in range(5):
        vms.take_metrics(sample(sequence=sequence), sequence * INTERVAL)
        vms.take_node(status(sequence=sequence), sequence * INTERVAL)
        vms.expire(sequence * INTERVAL)
    assert told(vms) == [(What.VM_APPEARED, "vm-1", "", "running", ""), (What.NODE_APPEARED, "node-1", "", "", "")]


def test_nothing_is_kept_before_the_fleet_is_known() -> None:
    vms = fleet()
    vms.take_metrics(sample(), 0.0)
    assert told(vms) == []
    vms.changes.open()
    vms.take_metrics(sample(sequence=1, state=3, state_reason=1), 1.0)
    assert told(vms) == [(What.VM_STATE, "vm-1", "running", "paused", "user")]


def test_a_stuck_vm_is_news_twice() -> None:
    """When it stops to answer and when it answers again; that it can't be probed is neither."""
    vms = opened()
    for sequence, responsive in enumerate((1, 0, 0, -1, 0, 1, 1)):
        vms.take_metrics(sample(sequence=sequence, responsive=responsive), float(sequence))
    assert [kind for kind, *_ in told(vms)] == [What.VM_APPEARED, What.VM_STUCK, What.VM_STUCK, What.VM_ANSWERS]


def test_a_vm_that_vanishes_and_one_that_moves() -> None:
    vms = opened()
    vms.take_metrics(sample(), 0.0)
    vms.take_metrics(sample(2, node="a"), 0.0)
    vms.take_metrics(sample(2, node="b", collected=1_700_000_100.0), 25.0)
    vms.expire(30.0)
    vms.expire(31.0)
    assert told(vms)[2:] == [(What.VM_MOVED, "vm-2", "a", "b", ""), (What.VM_VANISHED, "vm-1", "running", "", "")]


def test_two_nodes_that_run_one_vm() -> None:
    """A conflict once it lasts longer than a hand-over, and its end."""
    vms = opened()
    for sequence in range(6):
        now = sequence * INTERVAL
        vms.take_metrics(sample(sequence=sequence, node="a"), now)
        vms.take_metrics(sample(sequence=sequence, node="b"), now)
    for sequence in range(6, 12):
        vms.take_metrics(sample(sequence=sequence, node="b"), sequence * INTERVAL)
        vms.expire(sequence * INTERVAL)
    kinds = [kind for kind, *_ in told(vms)]
    assert kinds.count(What.VM_CONFLICT) == 1
    assert kinds.count(What.VM_CONFLICT_OVER) == 1


def test_migrations_begin_and_end_once() -> None:
    """Their progress is no news; one that was never seen to begin has only an end."""
    vms = opened()
    vms.take_migration(migration(1, revision=1), 0.0)
    vms.take_migration(migration(1, revision=2, progress_ratio=0.5), 1.0)
    vms.take_migration(migration(1, "completed", revision=3), 2.0)
    vms.take_migration(migration(1, "completed", revision=3), 2.0)
    vms.take_migration(migration(2, "failed", revision=9, reason="unreachable"), 3.0)
    assert told(vms) == [
        (What.MIGRATION_STARTED, "vm-00001", "node-1", "node-2", ""),
        (What.MIGRATION_ENDED, "vm-00001", "node-1", "node-2", "completed"),
        (What.MIGRATION_ENDED, "vm-00002", "node-1", "node-2", "failed unreachable"),
    ]


def test_nodes_go_down_and_come_back() -> None:
    vms = opened()
    vms.take_node(status(), 0.0)
    vms.take_node(status(sequence=1, health=NodeHealth(up=0)), 10.0)
    vms.take_node(status(sequence=2, health=NodeHealth(up=0)), 20.0)
    vms.take_node(status(sequence=3), 30.0)
    vms.expire(60.0)
    vms.expire(61.0)
    vms.take_node(status(sequence=4), 62.0)
    vms.expire(1e6)
    assert [(kind, reason) for kind, _, _, _, reason in told(vms)] == [
        (What.NODE_APPEARED, ""),
        (What.NODE_DOWN, "no libvirt"),
        (What.NODE_UP, ""),
        (What.NODE_DOWN, "silent"),
        (What.NODE_UP, ""),
        (What.NODE_FORGOTTEN, "silent"),
    ]


def filled(count: int, kept: int) -> Changes:
    changes = Changes(kept)
    changes.open()
    for number in range(count):
        changes.vm(None, busy(number, 0), float(number))
    return changes


def test_the_log_is_bounded_and_says_what_it_lost() -> None:
    changes = filled(10, kept=4)
    assert changes.newest == 10
    assert [one.number for one in changes.after(0)] == [7, 8, 9, 10]
    assert [one.number for one in changes.after(8)] == [9, 10]
    assert list(changes.after(10)) == []
    assert [changes.lost(number) for number in (0, 5, 6, 10)] == [True, True, False, False]


def test_listeners_hear_of_each_change() -> None:
    changes, heard = filled(0, kept=4), []
    changes.listeners.add(lambda: heard.append(changes.newest))
    changes.vm(None, busy(1, 0), 0.0)
    assert heard == [1]


@pytest.mark.parametrize(
    ("word", "place"), [("run1-7", 7), ("run1-0", 0), ("other-7", None), ("run1-x", None), ("run1--7", None), ("7", None), ("", None)]
)
def test_ids_belong_to_one_run(word: str, place: int | None) -> None:
    assert place_of(word, "run1") == place


def test_events_are_told_in_words() -> None:
    vms = opened()
    vms.take_metrics(sample(), 0.0)
    vms.take_metrics(sample(sequence=1, state=5, state_reason=2), 1.0)
    vms.take_metrics(sample(sequence=2, state=1, state_reason=0), 2.0)
    vms.take_migration(migration(1, "failed", reason="x", source="", destination="b"), 3.0)
    events = [event_of(change, "r", 1_000.0) for change in vms.changes.after(0)]
    assert [event.text for event in events] == [
        "appeared, running",
        "running → shut off (destroyed)",
        "shut off → running",
        "migration from ? to b: failed x",
    ]
    assert (events[1].id, events[1].time, events[1].uuid, events[1].node) == ("r-2", 1_001.0, uuid(1), "node-1")
    assert node_of(0) == "node-1"
