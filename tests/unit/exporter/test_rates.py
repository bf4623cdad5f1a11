"""Rates between two samples of a VM: what is known, what is not, and that nothing is ever invented."""

from __future__ import annotations

from math import isnan

import pytest

from tests.support.fleet_samples import GIB, busy
from tests.support.vm_samples import WALL, sample
from virtflow.exporter.views.counters import BLOCKS, CPU, NETWORKS, VCPUS, counters, growth, started_again, total
from virtflow.exporter.views.totals import Memory, held_of, latency, memory_of, plus, rates_between, totals_of
from virtflow.schemas.fields import BlockMetrics, NetworkMetrics
from virtflow.schemas.records import VmMetrics

NAN = float("nan")


def between(before: VmMetrics, after: VmMetrics):  # type: ignore[no-untyped-def]  # noqa: ANN201, the totals
    held = held_of(before, {})
    return totals_of(rates_between(held, held_of(after, held)))


def test_rates_are_growth_per_second_over_all_devices() -> None:
    totals = between(busy(10, 0), busy(10, 1))
    assert totals.cpu_cores == pytest.approx(0.5)
    assert totals.steal_cores == pytest.approx(0.05)
    assert totals.read_bytes == pytest.approx(11 * 1024)
    assert totals.write_bytes == pytest.approx(11 * 512)
    assert (totals.read_requests, totals.write_requests) == (20.0, 10.0)
    assert totals.read_latency == pytest.approx(0.001)
    assert totals.write_latency == pytest.approx(0.005)
    assert totals.receive_bytes == pytest.approx(11 * 1024)
    assert totals.transmit_bytes == pytest.approx(22 * 1024)
    assert totals.dropped_packets == 0.0


def test_a_counter_that_began_again_gives_no_rate() -> None:
    """Its own only, while the VM's CPU time grows; of a new process nothing at all is known."""
    reset = busy(10, 1, networks=[NetworkMetrics(device="vnet10", receive_bytes_total=5, transmit_bytes_total=10**9)])
    totals = between(busy(10, 0), reset)
    assert isnan(totals.receive_bytes)
    assert totals.transmit_bytes > 0
    assert totals.cpu_cores == pytest.approx(0.5)
    restarted = between(busy(10, 0), busy(10, 1, cpu_seconds_total=0.5))
    assert all(isnan(getattr(restarted, field)) for field in restarted.__struct_fields__)


def test_devices_are_told_apart_by_their_names() -> None:
    """One that was plugged in has no rate yet, one that was unplugged none any more; the others keep theirs."""
    before = busy(0, 0, blocks=[BlockMetrics(device="vda", read_bytes_total=100), BlockMetrics(device="vdb", read_bytes_total=7)])
    after = busy(0, 1, blocks=[BlockMetrics(device="vdc", read_bytes_total=10**9), BlockMetrics(device="vda", read_bytes_total=200)])
    rates = growth(BLOCKS, counters(BLOCKS, before), counters(BLOCKS, after))
    assert rates["vda"][0] == 10.0
    assert isnan(rates["vdc"][0])
    assert "vdb" not in rates
    assert total(rates, 0) == 10.0


def test_groups_that_can_hang_have_a_time_of_their_own() -> None:
    """Their rates are of the time between their own calls; a sample without them leaves the earlier counters."""
    first = counters(CPU, sample(cpu_seconds_total=10.0, monitor_collected=WALL))
    later = counters(CPU, sample(sequence=3, cpu_seconds_total=16.0, monitor_collected=WALL + 20.0))
    assert growth(CPU, first, later)[""][0] == pytest.approx(0.3)
    silent = sample(sequence=1, monitor_collected=NAN)
    assert counters(CPU, silent) is None
    held = held_of(sample(), {})
    assert held_of(silent, held)[VCPUS] is held[VCPUS]
    assert held_of(silent, held)[NETWORKS] is not held[NETWORKS]


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_time_that_does_not_go_on_gives_no_rate(seconds: float) -> None:
    assert growth(NETWORKS, counters(NETWORKS, sample()), counters(NETWORKS, sample(sequence=1, collected=WALL + seconds))) == {}


def test_equal_names_are_kept_once() -> None:
    first = counters(BLOCKS, busy(1, 0))
    assert first is not None
    second = counters(BLOCKS, busy(1, 1), first)
    assert second is not None
    assert second.names is first.names


def test_no_process_before_is_no_new_process() -> None:
    assert not started_again(None, counters(CPU, sample()))
    assert started_again(counters(CPU, sample(cpu_seconds_total=2.0)), counters(CPU, sample(cpu_seconds_total=1.0)))


def test_latency_and_sums_of_what_is_known() -> None:
    assert latency(1.0, 4.0) == 0.25
    assert isnan(latency(1.0, 0.0))
    assert isnan(latency(1.0, NAN))
    assert (plus(1.0, NAN), plus(NAN, 2.0), plus(1.0, 2.0)) == (1.0, 2.0, 3.0)
    assert isnan(plus(NAN, NAN))
    assert isnan(total({"a": (NAN,)}, 0))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"guest_memory_total_bytes": 4 * GIB, "guest_memory_usable_bytes": GIB, "guest_memory_free_bytes": 5},
            Memory(3 * GIB, 4 * GIB, "guest"),
        ),
        ({"guest_memory_total_bytes": 4 * GIB, "guest_memory_free_bytes": 3 * GIB}, Memory(GIB, 4 * GIB, "guest")),
        (
            {"guest_memory_total_bytes": 4 * GIB, "guest_memory_free_bytes": 5 * GIB, "memory_balloon_current_bytes": 2 * GIB},
            Memory(536_870_912, 2 * GIB, "host"),
        ),
        ({"memory_balloon_current_bytes": 2 * GIB}, Memory(536_870_912, 2 * GIB, "host")),
        ({"memory_rss_bytes": -1}, Memory(-1, -1, "")),
    ],
    ids=["usable", "free", "more free than there is", "no word of the guest", "nothing"],
)
def test_memory_in_use_by_the_documented_rule(fields: dict[str, int], expected: Memory) -> None:
    assert memory_of(sample(**fields)) == expected


@pytest.mark.parametrize(("age", "source"), [(0, "guest"), (300, "guest"), (301, "host")])
def test_figures_of_a_balloon_that_stands_still_do_not_count(age: int, source: str) -> None:
    told = sample(guest_memory_total_bytes=4 * GIB, guest_memory_usable_bytes=GIB, guest_memory_updated_timestamp_seconds=int(WALL) - age)
    assert memory_of(told).source == source
