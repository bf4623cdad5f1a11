"""The current truth: order, expiry, and who speaks for a VM."""

from __future__ import annotations

from tests.support.vm_samples import INTERVAL, WALL, fleet, inventory, sample, series_of, status, text_of, uuid
from virtflow.schemas.order import Freshness
from virtflow.schemas.records import NodeHealth

REMEMBER_SECONDS = 3600.0

CPU = f'vm_cpu_seconds_total{{uuid="{uuid(1)}",name="vm-1"}}'
NAN = float("nan")


def test_the_newest_sample_is_shown() -> None:
    """By sequence, whatever the order of arrival; repetitions have no effect."""
    vms = fleet()
    assert vms.take_metrics(sample(sequence=5), 0.0) is Freshness.NEW
    assert vms.take_metrics(sample(sequence=4), 1.0) is Freshness.STALE
    assert vms.take_metrics(sample(sequence=5), 1.0) is Freshness.DUPLICATE
    assert series_of(vms)[CPU] == "17.5"


def test_a_clock_that_jumps_changes_nothing() -> None:
    """A host an hour back goes on being shown, and its age is its clock's matter."""
    vms = fleet()
    vms.take_metrics(sample(sequence=1), 0.0)
    vms.take_metrics(sample(sequence=2, collected=WALL - 3600), INTERVAL)
    series = series_of(vms, INTERVAL)
    assert series[CPU] == "14.5"
    assert series[f'vm_sample_age_seconds{{uuid="{uuid(1)}",name="vm-1"}}'] == "3600.000"


def test_a_vm_vanishes_after_three_of_its_own_intervals() -> None:
    """Each VM by its own, counted from the arrival."""
    vms = fleet()
    vms.take_metrics(sample(1), 100.0)
    vms.take_metrics(sample(2, interval=1.0), 100.0)
    assert len(text_of(vms, 102.9).split(f'vm_state{{uuid="{uuid(2)}"')) == 2
    assert uuid(2) not in text_of(vms, 103.0)
    assert uuid(1) in text_of(vms, 129.9)
    assert text_of(vms, 130.0) == ""


def test_a_late_duplicate_does_not_bring_a_vm_back() -> None:
    """A vanished VM's order is remembered for a while; a newer sample brings it back."""
    vms = fleet()
    vms.take_metrics(sample(sequence=7), 0.0)
    vms.take_inventory(inventory(), 0.0)
    assert text_of(vms, 60.0) == ""
    assert vms.take_metrics(sample(sequence=7), 61.0) is Freshness.DUPLICATE
    assert vms.take_metrics(sample(sequence=6), 61.0) is Freshness.STALE
    assert text_of(vms, 61.0) == ""
    assert vms.take_metrics(sample(sequence=8), 62.0) is Freshness.NEW
    assert CPU in series_of(vms, 62.0)


def test_nothing_of_a_vanished_vm_is_kept_for_ever() -> None:
    """Neither its order nor its inventory, nor the inventory of a VM that never came."""
    vms = fleet()
    vms.take_metrics(sample(1), 0.0)
    vms.take_inventory(inventory(1), 0.0)
    vms.take_inventory(inventory(2), 0.0)
    vms.expire(30.0)
    assert set(vms._vms) == {uuid(1), uuid(2)}
    vms.expire(30.0 + REMEMBER_SECONDS)
    assert vms._vms == {}


def test_monitor_values_vanish_and_their_age_goes_on() -> None:
    """A sample without the monitor groups shows none of their values, and how long ago they last answered."""
    vms = fleet()
    vms.take_metrics(sample(), 0.0)
    vms.take_metrics(sample(sequence=1, monitor_collected=NAN, guest_memory_free_bytes=-1, blocks=[]), 10.0)
    series = series_of(vms, 10.0, WALL + 12.0)
    assert not any(name.startswith(("vm_guest_memory", "vm_block_read")) for name in series)
    assert series[f'vm_monitor_age_seconds{{uuid="{uuid(1)}",name="vm-1"}}'] == "12.000"
    assert series[f'vm_sample_age_seconds{{uuid="{uuid(1)}",name="vm-1"}}'] == "2.000"


def test_an_age_is_absent_until_the_monitor_has_answered() -> None:
    vms = fleet()
    vms.take_metrics(sample(monitor_collected=NAN), 0.0)
    assert "vm_monitor_age_seconds" not in text_of(vms)


def test_the_node_where_it_runs_speaks() -> None:
    """While a VM arrives it is paused there: the source is shown until the destination runs. One sample per series at all times."""
    vms = fleet()
    vms.take_metrics(sample(sequence=1), 0.0)
    vms.take_metrics(sample(node="node-2", boot_id="b2", state=3, state_reason=2, cpu_seconds_total=0.0, collected=WALL + 99), 1.0)
    assert series_of(vms, 1.0)[CPU] == "13.5"
    vms.take_metrics(sample(node="node-2", boot_id="b2", sequence=1, cpu_seconds_total=0.25, collected=WALL + 100), 2.0)
    assert series_of(vms, 2.0)[CPU] == "0.25"
    vms.take_metrics(sample(node="node-2", boot_id="b2", sequence=2, cpu_seconds_total=0.5, collected=WALL + 101), 31.0)
    assert series_of(vms, 31.0)[CPU] == "0.5"


def test_the_other_node_speaks_when_the_first_falls_silent() -> None:
    """A claim ends with its own three intervals."""
    vms = fleet()
    vms.take_metrics(sample(collected=WALL + 5), 0.0)
    vms.take_metrics(sample(node="node-2", boot_id="b2", cpu_seconds_total=99.0, state=3), 20.0)
    assert series_of(vms, 29.0)[CPU] == "12.5"
    assert series_of(vms, 30.0)[CPU] == "99.0"


def test_two_nodes_that_run_one_vm_are_a_conflict_when_it_lasts() -> None:
    """Not during a hand-over, and not any more once one of them stops."""
    conflict = f'vm_conflict{{uuid="{uuid(1)}",name="vm-1"}}'
    vms = fleet()
    shown = []
    for step in range(5):
        now = step * INTERVAL
        vms.take_metrics(sample(sequence=step), now)
        vms.take_metrics(sample(sequence=step, node="node-2", boot_id="b2"), now + 1)
        shown.append(series_of(vms, now + 2)[conflict])
    assert shown == ["0", "0", "0", "1", "1"]
    vms.take_metrics(sample(sequence=9), 69.0)
    assert series_of(vms, 72.0)[conflict] == "0"


def test_a_renamed_vm_has_one_name() -> None:
    """All of its series change at once."""
    vms = fleet()
    vms.take_metrics(sample(), 0.0)
    vms.take_metrics(sample(sequence=1, name="new"), 1.0)
    assert 'name="vm-1"' not in text_of(vms, 1.0)
    assert series_of(vms, 1.0)[CPU.replace("vm-1", "new")] == "13.5"


def test_the_inventory_brings_vm_info_and_labels() -> None:
    """Before and after the first sample; without it there is no vm_info."""
    vms = fleet(("name", "project"))
    vms.take_metrics(sample(), 0.0)
    assert 'project=""' in text_of(vms)
    assert "vm_info" not in text_of(vms)
    vms.take_inventory(inventory(), 0.0)
    text = text_of(vms)
    assert 'project=""' not in text
    assert text.count("vm_info{") == 1
    vms.forget_inventory(uuid(1))
    assert "vm_info" not in text_of(vms)
    vms.take_inventory(inventory(2), 0.0)
    vms.take_metrics(sample(2), 1.0)
    assert "vm_info" in text_of(vms)


def test_the_newer_inventory_counts() -> None:
    """Of one node by its order; of two nodes that of the one which speaks."""
    vms = fleet()
    vms.take_metrics(sample(node="node-2"), 0.0)
    vms.take_inventory(inventory(sequence=3, title="old", collected=WALL + 999), 0.0)
    assert vms.take_inventory(inventory(sequence=2, title="older"), 0.0) is Freshness.STALE
    assert vms.take_inventory(inventory(node="node-2", title="here"), 0.0) is Freshness.NEW
    assert vms.take_inventory(inventory(sequence=4, title="there", collected=WALL + 1000), 0.0) is Freshness.STALE
    assert 'title="here"' in text_of(vms)


def test_a_silent_node_is_down_and_later_forgotten() -> None:
    """After three of its intervals; what it said of its health then is not repeated."""
    vms = fleet()
    vms.take_node(status(), 0.0)
    assert series_of(vms, 29.0)['virtflow_node_up{node="node-1"}'] == "1"
    silent = series_of(vms, 30.0)
    assert silent['virtflow_node_up{node="node-1"}'] == "0"
    assert not any(name.startswith("virtflow_node_vms") for name in silent)
    assert any(name.startswith("virtflow_node_info") for name in silent)
    vms.take_node(status(sequence=1), 31.0)
    assert series_of(vms, 32.0)['virtflow_node_up{node="node-1"}'] == "1"
    assert text_of(vms, 61.0 + 3600.0) == ""


def test_a_node_whose_libvirt_is_away_is_down_and_speaks() -> None:
    """A heartbeat with up = 0 keeps the rest of its health."""
    vms = fleet()
    vms.take_node(status(health=NodeHealth(up=0, reconnects_total=3)), 0.0)
    series = series_of(vms)
    assert series['virtflow_node_up{node="node-1"}'] == "0"
    assert series['virtflow_node_reconnects_total{node="node-1"}'] == "3"


def test_a_node_of_an_earlier_run_is_stale() -> None:
    """A producer that was started again counts from 0; late messages of the run before have no effect."""
    vms = fleet()
    vms.take_node(status(sequence=9), 0.0)
    assert vms.take_node(status(boot_id="boot-2", sequence=0), 1.0) is Freshness.NEW
    assert vms.take_node(status(sequence=10), 2.0) is Freshness.STALE


OUTLIVES = [Freshness.STALE, Freshness.STALE, Freshness.NEW, Freshness.NEW]
"""What the rounds of a producer are that goes on after a second one of its node has ended."""


def test_a_vm_is_exported_again_of_a_producer_that_outlives_a_second_one_of_its_node() -> None:
    vms = fleet()
    vms.take_metrics(sample(sequence=9), 0.0)
    vms.take_metrics(sample(boot_id="boot-2", sequence=0), 1.0)
    assert [vms.take_metrics(sample(sequence=number), 2.0) for number in (10, 11, 12, 13)] == OUTLIVES


def test_a_node_is_exported_again_of_a_producer_that_outlives_a_second_one_of_it() -> None:
    vms = fleet()
    vms.take_node(status(sequence=9), 0.0)
    vms.take_node(status(boot_id="boot-2", sequence=0), 1.0)
    assert [vms.take_node(status(sequence=number), 2.0) for number in (10, 11, 12, 13)] == OUTLIVES


def test_a_node_can_be_dropped() -> None:
    vms = fleet()
    vms.take_node(status(), 0.0)
    vms.forget_node("node-1")
    assert text_of(vms) == ""
