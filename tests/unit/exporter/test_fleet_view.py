"""The view of the fleet: rates from two looks, changes that it notices, and the hour that it keeps."""

from __future__ import annotations

from math import isnan

import pytest

from tests.support.fleet_samples import busy, described, migration, seen_twice, taken, updated
from tests.support.vm_samples import INTERVAL, WALL, fleet, sample, status, uuid
from virtflow.exporter.views.fleet_view import FleetView

NAN = float("nan")


def test_rates_come_with_the_second_sample() -> None:
    vms = fleet()
    view = FleetView(vms)
    vms.take_metrics(busy(10, 0), 0.0)
    seen = updated(view, 0.0).vm(uuid(10))
    assert seen is not None
    assert isnan(seen.totals.cpu_cores)
    vms.take_metrics(busy(10, 1), INTERVAL)
    updated(view, INTERVAL)
    assert seen.totals.cpu_cores == pytest.approx(0.5)
    assert seen.totals.window_seconds == INTERVAL


def test_a_look_that_comes_late_has_the_mean_of_the_time_between() -> None:
    """Samples that nobody looked at cost nothing, and their growth is not lost."""
    vms = fleet()
    view = FleetView(vms)
    for round_ in range(7):
        vms.take_metrics(busy(10, round_), round_ * INTERVAL)
        if round_ in {0, 6}:
            updated(view, round_ * INTERVAL)
    seen = view.vm(uuid(10))
    assert seen is not None
    assert seen.totals.cpu_cores == pytest.approx(0.5)
    assert seen.totals.window_seconds == 60.0


def test_a_vm_on_another_node_begins_again() -> None:
    view = seen_twice(fleet(), 1)
    view.fleet.take_metrics(busy(0, 9, node="node-9", collected=WALL + 500, monitor_collected=WALL + 500), 15.0)
    updated(view, 15.0)
    seen = view.vm(uuid(0))
    assert seen is not None
    assert seen.node == "node-9"
    assert isnan(seen.totals.receive_bytes)


def test_rates_of_a_silent_monitor_last_three_intervals() -> None:
    """The network's go on; the others' are unknown from then on."""
    view = seen_twice(fleet(), 30)
    seen = view.vm(uuid(20))
    assert seen is not None
    before = seen.totals
    for round_ in range(2, 7):
        view.fleet.take_metrics(busy(20, round_, monitor_collected=NAN, cpu_seconds_total=NAN, vcpus=[], blocks=[]), round_ * INTERVAL)
        updated(view, round_ * INTERVAL)
        assert seen.totals.receive_bytes == pytest.approx(before.receive_bytes)
        if round_ <= 4:
            assert seen.totals.cpu_cores == before.cpu_cores
            assert seen.totals.write_latency == before.write_latency
        else:
            assert isnan(seen.totals.cpu_cores)
            assert isnan(seen.totals.write_latency)


def test_the_revision_grows_with_whatever_is_shown() -> None:
    view = seen_twice(fleet(), 3)

    def grows(now: float) -> bool:
        before = view.revision
        return updated(view, now).revision > before

    assert not grows(10.0)
    view.fleet.take_metrics(busy(1, 2), 20.0)
    assert grows(20.0)
    assert not grows(20.0)
    view.fleet.take_inventory(described(1, sequence=1, title="Another"), 20.0)
    assert grows(20.0)
    view.fleet.take_node(status("node-1", 2), 20.0)
    assert grows(20.0)
    view.fleet.take_migration(migration(1), 20.0)
    assert grows(20.0)
    assert grows(45.0)  # two VMs have expired
    assert len(view.vms()) == 1


def test_what_vanished_is_forgotten_and_may_come_back() -> None:
    view = seen_twice(fleet(), 2)
    updated(view, 100.0)
    assert view.vms() == []
    assert view.vm(uuid(0)) is None
    view.fleet.take_metrics(busy(0, 9), 101.0)
    assert len(updated(view, 101.0).vms()) == 1


def record(view: FleetView, now: float) -> None:
    updated(view, now)
    for _ in view.recording(now):
        pass


def test_the_hour_has_the_mean_of_each_minute() -> None:
    """Also of samples between that nobody looked at; where none came, what was known last."""
    vms = fleet()
    view = FleetView(vms)
    seconds = {0: 0.0, 1: 10.0, 6: 60.0, 12: 120.0}
    for round_ in range(13):
        cpu = 100.0 + (round_ * 10 if round_ <= 6 else 60 + (round_ - 6) * 5)
        vms.take_metrics(sample(sequence=round_, cpu_seconds_total=cpu, interval=60.0), round_ * INTERVAL)
        if round_ in seconds:
            record(view, seconds[round_])
    seen = view.vm(uuid(1))
    assert seen is not None
    assert seen.ring is not None
    assert seen.ring.column("cpu_cores", 2)[-3:] == [None, pytest.approx(1.0), pytest.approx(0.5)]
    record(view, 180.0)
    assert seen.ring.column("cpu_cores", 3)[-1] == pytest.approx(0.5)
    assert seen.ring.column("memory_used", 3)[-1] == 536_870_912.0


def test_no_sample_is_kept_beyond_its_time_in_the_fleet() -> None:
    """What is kept of a VM between two looks is its counters: the record itself goes with the next one."""
    view = seen_twice(fleet(), 1)
    seen = view.vm(uuid(0))
    assert seen is not None
    newer = busy(0, 5)
    taken(view.fleet, [newer], 20.0)
    assert seen.record is newer
