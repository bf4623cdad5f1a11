"""Rates from the samples' own times: resets, migrations and clocks are no spikes, silence is no zero."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.support.vm_samples import INTERVAL, WALL
from tests.support.vm_windows import at, counting, moved
from virtflow.adapter.samples.rates import Point, newest, rates
from virtflow.adapter.samples.series import Labels, reader_of
from virtflow.adapter.samples.window import Sample
from virtflow.schemas.catalogue.metrics import BY_NAME
from virtflow.schemas.fields import NetworkMetrics

CPU = reader_of(BY_NAME["vm_cpu_seconds_total"])
RECEIVED = reader_of(BY_NAME["vm_network_receive_bytes_total"])
MEMORY = reader_of(BY_NAME["vm_memory_rss_bytes"])
NAN = float("nan")


def cpu(samples: list[Sample], now: float | None = None) -> float | None:
    """The VM's CPU rate right after the last sample."""
    found = rates(samples, CPU, samples[-1].arrived if now is None else now)
    return found[()].value if found else None


def network(sequence: int, **bytes_of: int) -> Sample:
    return at(sequence, networks=[NetworkMetrics(device=name, receive_bytes_total=value) for name, value in bytes_of.items()])


def key(device: str) -> Labels:
    return (("device", device),)


def test_a_rate_is_growth_over_the_samples_own_time() -> None:
    """Not over the time of arrival: the third sample came late."""
    late = [*counting([0.0, 5.0]), replace(at(2, cpu_seconds_total=15.0), arrived=2 * INTERVAL + 8)]
    assert rates(late, CPU, 28.0) == {(): Point(0.75, WALL + 2 * INTERVAL, 2 * INTERVAL)}


def test_one_sample_has_no_rate() -> None:
    assert cpu(counting([5.0])) is None


def test_a_missing_round_is_no_gap() -> None:
    """The counter went on: the step covers two intervals."""
    assert cpu([at(0, cpu_seconds_total=0.0), at(2, cpu_seconds_total=10.0)]) == 0.5


def test_a_reset_is_left_out() -> None:
    """Neither its fall nor what was counted since is taken, and the time of the step is not either."""
    assert cpu(counting([100.0, 105.0, 1.0, 6.0])) == 0.5


def test_a_reset_at_the_end_keeps_the_rate_before() -> None:
    assert cpu(counting([100.0, 105.0, 1.0])) == 0.5


def test_a_migration_is_no_gap_and_no_spike() -> None:
    """The run on the source counts until the destination's has a step, then the destination's alone."""
    source, destination = counting([1000.0, 1005.0]), counting([3.0, 11.0])
    assert cpu(source + moved(destination[:1], 2)) == 0.5
    assert cpu(source + moved(destination, 2)) == 0.8


def test_network_devices_that_a_migration_renames_are_counted_once() -> None:
    source = [network(0, vnet3=0), network(1, vnet3=1_000)]
    destination = [network(0, vnet7=0), network(1, vnet7=2_000)]
    assert {key: one.value for key, one in rates(source + moved(destination[:1], 2), RECEIVED, 20.0).items()} == {key("vnet3"): 100.0}
    assert {key: one.value for key, one in rates(source + moved(destination, 2), RECEIVED, 30.0).items()} == {key("vnet7"): 200.0}


def test_a_producer_that_restarts_keeps_the_rate() -> None:
    """Its first sample after the restart has no step yet."""
    before, after = counting([0.0, 5.0]), counting([20.0])
    assert cpu(before + moved(after, 3, node="node-1")) == 0.5


@pytest.mark.parametrize("jump", [-3600.0, -9.9, -6.0, 60.0, 3600.0])
def test_a_clock_that_was_set_is_no_spike_and_no_lull(jump: float) -> None:
    """By hours or by most of an interval, forward or back: the step is left out."""
    samples = counting([0.0, 5.0, 10.0, 15.0])
    for place in (2, 3):
        record = samples[place].record
        moment = WALL + place * INTERVAL + jump
        samples[place] = replace(samples[place], record=replace(record, collected=moment, monitor_collected=moment))
    assert cpu(samples) == 0.5


def test_silence_is_no_value() -> None:
    """Three intervals after the last sample arrived there is none, whatever the window holds."""
    samples = counting([0.0, 5.0])
    assert cpu(samples, samples[-1].arrived + 3 * INTERVAL - 0.1) == 0.5
    assert cpu(samples, samples[-1].arrived + 3 * INTERVAL) is None


def test_monitor_groups_that_are_not_answered_vanish_by_their_own_age() -> None:
    """Samples without them keep the VM alive, not its CPU rate."""
    answered = counting([0.0, 5.0])
    silent = [at(sequence, cpu_seconds_total=NAN, monitor_collected=NAN) for sequence in range(2, 6)]
    assert cpu(answered + silent[:2]) == 0.5
    assert cpu(answered + silent) is None


def test_the_same_answer_twice_is_one() -> None:
    """A round that carries the monitor groups of the round before adds no step."""
    repeated = at(2, cpu_seconds_total=5.0, monitor_collected=WALL + INTERVAL)
    assert cpu([*counting([0.0, 5.0]), repeated]) == 0.5


def test_a_device_counts_from_its_second_sample_until_it_is_gone() -> None:
    samples = [network(0, a=0), network(1, a=100), network(2, a=200, b=10**9), network(3, a=300, b=10**9 + 50)]
    assert {key: one.value for key, one in rates(samples[:3], RECEIVED, 20.0).items()} == {key("a"): 10.0}
    assert {key: one.value for key, one in rates(samples, RECEIVED, 30.0).items()} == {key("a"): 10.0, key("b"): 5.0}
    gone = [*samples, network(4, b=10**9 + 100), network(5, b=10**9 + 150), network(6, b=10**9 + 200)]
    assert set(rates(gone, RECEIVED, 60.0)) == {key("b")}


def test_a_gauge_is_the_newest_value_that_is_not_too_old() -> None:
    samples = [at(0, memory_rss_bytes=1), at(1, memory_rss_bytes=2), at(2, memory_rss_bytes=-1, monitor_collected=NAN)]
    assert newest(samples, MEMORY, 20.0) == {(): Point(2.0, WALL + INTERVAL)}
    assert newest(samples, MEMORY, 10.0 + 3 * INTERVAL) == {}
