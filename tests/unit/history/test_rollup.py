"""Roll-ups against truths counted by hand: increases over restarts and migrations, gaps, states, coverage."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.support.history_lives import counters_of
from virtflow.history.maintenance.authority import judge, not_authoritative, without
from virtflow.history.maintenance.counters import processes_of
from virtflow.history.maintenance.rollup import days_of, hours_of
from virtflow.history.writer.rows.sample_rows import sample_rows
from virtflow.schemas.fields import BlockMetrics
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.states import PAUSED, PAUSED_MIGRATION, RUNNING

VM = "11111111-2222-4333-8444-555555555555"
HOUR = 1_790_000_000 // 3_600 * 3_600


def sample(at: float, *, node: str = "a", sequence: int | None = None, **values: Any) -> VmMetrics:  # noqa: ANN401, any field
    return VmMetrics(
        uuid=VM,
        name="vm",
        node=node,
        boot_id=f"boot-{node}",
        sequence=int(at - HOUR + 100_000) if sequence is None else sequence,
        collected=at,
        **{"interval": 10.0, "monitor_collected": at, "state": RUNNING, "state_reason": 1, **values},
    )


def cpu(points: list[tuple[float, float]], node: str = "a") -> list[VmMetrics]:
    return [sample(HOUR + at, node=node, cpu_seconds_total=value) for at, value in points]


def of_kind(samples: list[VmMetrics], kind: str = "vm") -> pa.Table:
    rows = sample_rows(samples)
    return rows.filter(pa.compute.equal(rows.column("kind"), kind))


def increase(samples: list[VmMetrics], before: pa.Table | None = None, name: str = "vm_cpu_seconds_total") -> list[float]:
    rows = of_kind(samples)
    starts = processes_of(before, judge(rows, before).starts)
    found: list[float] = hours_of("vm", rows, before, starts).column(f"{name}_increase").to_pylist()
    return found


@pytest.mark.parametrize(
    ("points", "truth"),
    [
        ([(0, 5.0), (10, 7.0), (20, 12.0)], 7.0),
        ([(0, 5.0), (10, 7.0), (20, 1.0), (30, 4.0)], 6.0),
        ([(0, 100.0), (10, 0.0), (20, 0.0)], 0.0),
        ([(0, 5.0)], 0.0),
        ([(0, 5.0), (3_000, 900.0)], 895.0),
    ],
    ids=["growth", "a reboot", "a reset to nothing", "the first sample alone", "a gap within the hour"],
)
def test_increase_is_what_was_used(points: list[tuple[float, float]], truth: float) -> None:
    assert increase(cpu(points)) == [pytest.approx(truth)]


def test_increase_goes_on_over_the_hour_s_edge() -> None:
    """What grew between the last sample of an hour and the first of the next belongs to the later one, also when rolled up apart."""
    samples = cpu([(3_580, 10.0), (3_590, 12.0), (3_600, 15.0), (3_610, 16.0)])
    assert increase(samples) == [pytest.approx(2.0), pytest.approx(4.0)]
    assert increase(samples[2:], counters_of(of_kind(samples[:2]))) == [pytest.approx(4.0)]


def test_increase_over_an_hour_without_the_value() -> None:
    """A monitor that did not answer for an hour loses nothing: the counter's last value is carried on."""
    first = counters_of(of_kind(cpu([(0, 10.0), (10, 12.0)])))
    silent = of_kind([sample(HOUR + 3_600), sample(HOUR + 3_610)])
    assert hours_of("vm", silent, first).column("vm_cpu_seconds_total_increase").to_pylist() == [None]
    assert increase(cpu([(7_200, 30.0), (7_210, 31.0)]), counters_of(silent, first)) == [pytest.approx(19.0)]


def test_a_migration_adds_what_both_nodes_counted() -> None:
    """The new node's process began at 0: its first value is growth, even where it is larger than the old node's last."""
    samples = cpu([(0, 100.0), (10, 110.0)]) + cpu([(20, 200.0), (30, 205.0)], "b")
    assert increase(samples) == [pytest.approx(10.0 + 200.0 + 5.0)]


def test_a_guest_s_counter_moves_with_it() -> None:
    samples = [
        sample(HOUR + at, node=node, guest_memory_major_faults_total=value)
        for at, node, value in ((0, "a", 100), (10, "a", 110), (20, "b", 115), (30, "b", 116))
    ]
    assert increase(samples, name="vm_guest_memory_major_faults_total") == [16]


def test_two_nodes_that_speak_at_once_add_nothing_twice() -> None:
    """Around a hand-over the nodes' clocks differ and their samples interleave: neither counts as new each time."""
    samples = cpu([(0, 100.0), (10, 101.0), (20, 102.0)]) + cpu([(5, 3.0), (15, 4.0), (25, 5.0)], "b")
    assert increase(samples) == [pytest.approx(2.0 + 3.0 + 2.0)]


def test_a_vm_that_comes_back_is_a_new_process() -> None:
    samples = cpu([(0, 100.0), (10, 101.0)]) + cpu([(20, 1.0), (30, 2.0), (40, 3.0)], "b") + cpu([(200, 150.0), (210, 151.0)])
    assert increase(samples) == [pytest.approx(1.0 + (1.0 + 2.0) + (150.0 + 1.0))]


def test_the_arriving_side_of_a_migration_does_not_speak() -> None:
    there = [sample(HOUR + at, node="b", state=PAUSED, state_reason=PAUSED_MIGRATION, cpu_seconds_total=0.5) for at in (0, 10)]
    rows = of_kind(cpu([(0, 10.0), (10, 11.0)]) + there)
    counted = without(rows, not_authoritative(rows))
    assert counted.column("node").to_pylist() == ["a", "a"]
    assert without(rows, not_authoritative(of_kind(there))).num_rows == rows.num_rows, "alone on its node, it speaks"


def test_a_vm_that_stands_still_for_its_migration_speaks_where_it_ran() -> None:
    """There and back: each time the last of what its process has counted is on the node that it leaves."""
    still: dict[str, Any] = {"state": PAUSED, "state_reason": PAUSED_MIGRATION}
    there = [sample(HOUR + at, node="b", cpu_seconds_total=0.1, **still) for at in (21, 31)]
    back = [sample(HOUR + at, node="a", cpu_seconds_total=0.1, **still) for at in (62, 72)]
    leaves = [sample(HOUR + 20, cpu_seconds_total=13.0, **still), sample(HOUR + 30, cpu_seconds_total=14.0, **still)]
    rows = of_kind(cpu([(0, 10.0), (10, 12.0)]) + leaves + there + cpu([(41, 2.0), (51, 3.0)], "b") + back + cpu([(81, 1.0)]))
    counted = without(rows, not_authoritative(rows))
    assert sorted(counted.column("vm_cpu_seconds_total").to_pylist()) == [1, 2, 3, 10, 12, 13, 14]


def test_a_repeated_sample_counts_once() -> None:
    samples = cpu([(0, 1.0), (10, 2.0)])
    (row,) = hours_of("vm", of_kind(samples + samples)).to_pylist()
    assert (row["samples"], row["covered_seconds"]) == (2, 20.0)


def test_gauges_states_and_coverage() -> None:
    samples = [sample(HOUR + 10 * n, memory_rss_bytes=value) for n, value in enumerate((10, -1, 40))]
    samples.append(sample(HOUR + 30, state=PAUSED, state_reason=1, memory_rss_bytes=1))
    (row,) = hours_of("vm", of_kind(samples)).to_pylist()
    assert (row["vm_memory_rss_bytes_avg"], row["vm_memory_rss_bytes_min"], row["vm_memory_rss_bytes_max"]) == (17.0, 1, 40)
    assert (row["vm_state_running_minutes"], row["vm_state_paused_minutes"]) == (0.5, pytest.approx(1 / 6))
    assert row["coverage"] == pytest.approx(40 / 3_600)
    assert row["vm_guest_memory_total_bytes_avg"] is None, "never seen is not zero"


def test_a_day_is_its_hours() -> None:
    """Averages weigh by samples, increases and minutes add up, coverage is of the day."""
    samples = [sample(HOUR + at, memory_rss_bytes=value, cpu_seconds_total=at) for at, value in ((0, 1), (10, 1), (3_600, 10))]
    hours = hours_of("vm", of_kind(samples))
    (day,) = days_of("vm", hours).to_pylist()
    assert day["vm_memory_rss_bytes_avg"] == pytest.approx(4.0)
    assert day["vm_cpu_seconds_total_increase"] == pytest.approx(3_600.0)
    assert (day["samples"], day["covered_seconds"]) == (3, 30.0)
    assert day["coverage"] == pytest.approx(30 / 86_400)


def test_devices_have_rows_of_their_own() -> None:
    disks = [[BlockMetrics(device="vda", read_bytes_total=n), BlockMetrics(device="vdb", read_bytes_total=10 * n)] for n in range(3)]
    samples = [sample(HOUR + 10 * n, blocks=blocks) for n, blocks in enumerate(disks)]
    rows = hours_of("block", of_kind(samples, "block")).to_pylist()
    assert [(row["device"], row["vm_block_read_bytes_total_increase"]) for row in rows] == [("vda", 2), ("vdb", 20)]


def test_averages_weigh_by_time() -> None:
    """Half an hour of 8 GiB each second, half an hour of 4 GiB each half minute: 6 GiB, whichever had more samples."""
    often = [sample(HOUR + at, interval=1.0, memory_rss_bytes=8 << 30) for at in range(1_800)]
    rarely = [sample(HOUR + at, interval=30.0, memory_rss_bytes=4 << 30) for at in range(1_800, 3_600, 30)]
    (row,) = hours_of("vm", of_kind(often + rarely)).to_pylist()
    assert row["vm_memory_rss_bytes_avg"] == pytest.approx(6 << 30)
    assert (row["coverage"], row["vm_state_running_minutes"]) == (pytest.approx(1.0), pytest.approx(60.0))


def test_a_silent_monitor_shows_in_its_own_coverage() -> None:
    """State goes on, memory is known for half of the time: its hour says so."""
    known = [sample(HOUR + at, memory_balloon_current_bytes=100) for at in range(0, 1_800, 10)]
    silent = [sample(HOUR + at, monitor_collected=float("nan")) for at in range(1_800, 3_600, 10)]
    (row,) = hours_of("vm", of_kind(known + silent)).to_pylist()
    assert (row["coverage"], row["monitor_coverage"]) == (1.0, 0.5)
    assert (row["vm_memory_balloon_current_bytes_avg"], row["vm_memory_balloon_current_bytes_known_seconds"]) == (100.0, 1_800.0)


@pytest.mark.parametrize("hours", [3, 5])
def test_no_rate_is_beyond_what_is_possible(hours: int) -> None:
    """One core of load, on both sides of a gap: its growth belongs to the later hour, its rate does not."""
    before = counters_of(of_kind(cpu([(at, float(at)) for at in range(0, 3_600, 10)])))
    later = cpu([(at, float(at)) for at in range(3_600 * (hours + 1), 3_600 * (hours + 2), 10)])
    rows = hours_of("vm", of_kind(later), before)
    assert rows.column("vm_cpu_seconds_total_increase").to_pylist() == [pytest.approx(3_600.0 * (hours + 1))]
    assert rows.column("vm_cpu_seconds_total_rate").to_pylist() == [pytest.approx(1.0, rel=0.01)]


def test_a_definition_left_behind_never_counts() -> None:
    """The VM went from a to b, which falls silent: "shut off (migrated)" on a is not where the VM is; shut off for another reason is."""
    moved = cpu([(0, 10.0)]) + cpu([(30, 1.0)], "b")
    for reason, counts in ((4, 0), (1, 1)):
        left = sample(HOUR + 300, state=5, state_reason=reason)
        rows = of_kind([*moved, left])
        assert without(rows, not_authoritative(rows)).num_rows == 2 + counts
