"""Increases are exact against a truth worked out sample by sample, however the samples are cut into hours and runs."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from tests.support.history_lives import counters_of
from virtflow.history.maintenance.rollup import hours_of
from virtflow.history.writer.dedup import Runs
from virtflow.history.writer.rows.sample_rows import sample_rows
from virtflow.schemas.records import VmMetrics

START = 1_790_000_000 // 3_600 * 3_600
UUIDS = tuple(f"{n:08d}-2222-4333-8444-555555555555" for n in range(3))
STEPS = st.lists(st.tuples(st.sampled_from(UUIDS), st.integers(1, 1_500), st.integers(0, 500), st.integers(0, 9)), min_size=1, max_size=80)


def samples_and_truth(steps: list[tuple[str, int, int, int]]) -> tuple[list[VmMetrics], dict[str, int]]:
    """Samples of counters that grow, fall back to 0 now and then, or are absent; and what was used in all since the first."""
    at, counters, truth, samples = START, dict.fromkeys(UUIDS, 1_000), dict.fromkeys(UUIDS, 0), []
    seen: set[str] = set()
    held: dict[str, int] = dict.fromkeys(UUIDS, 0)
    for number, (uuid, wait, grown, chance) in enumerate(steps):
        at += wait
        if chance == 0:
            counters[uuid] = 0
            held[uuid] = 0
        counters[uuid] += grown
        held[uuid] += grown
        absent = chance == 1
        value = -1 if absent else counters[uuid]
        if not absent:
            truth[uuid] += held[uuid] if uuid in seen else 0
            held[uuid] = 0
            seen.add(uuid)
        samples.append(
            VmMetrics(
                uuid=uuid,
                node="n",
                boot_id="b",
                sequence=number,
                collected=float(at),
                interval=10.0,
                guest_memory_swap_in_bytes_total=value,
            )
        )
    return samples, truth


def test_truth_is_counted_right() -> None:
    samples, truth = samples_and_truth([(UUIDS[0], 10, 5, 5), (UUIDS[0], 10, 7, 5), (UUIDS[0], 10, 3, 0)])
    assert [sample.guest_memory_swap_in_bytes_total for sample in samples] == [1_005, 1_012, 3]
    assert truth[UUIDS[0]] == 10


@given(STEPS)
def test_hours_add_up_to_the_truth(steps: list[tuple[str, int, int, int]]) -> None:
    """Rolled up hour by hour, each with only the hours before it, as the upkeep does."""
    samples, truth = samples_and_truth(resets_that_show(steps))
    rows = sample_rows(samples)
    rows = rows.filter(pc.equal(rows.column("kind"), "vm"))
    at_once = hours_of("vm", rows)
    done: list[pa.Table] = []
    before: pa.Table | None = None
    for hour in sorted(pc.floor_temporal(rows.column("time"), unit="hour").unique().to_pylist()):
        of_hour = rows.filter(
            pc.equal(pc.floor_temporal(rows.column("time"), unit="hour"), pa.scalar(hour, rows.schema.field("time").type))
        )
        done.append(hours_of("vm", of_hour, before))
        before = counters_of(of_hour, before)
    column = "vm_guest_memory_swap_in_bytes_total_increase"
    for table in (at_once, pa.concat_tables(done)):
        sums = dict.fromkeys(UUIDS, 0)
        for row in table.to_pylist():
            sums[row["uuid"]] += row[column] or 0
        assert sums == truth


def resets_that_show(steps: list[tuple[str, int, int, int]]) -> list[tuple[str, int, int, int]]:
    """A counter that restarts and overtakes its old value between two samples can't be told from one that grew: such steps are left out."""
    shown: list[tuple[str, int, int, int]] = []
    for step in steps:
        samples, _ = samples_and_truth([*shown, step])
        own = [s.guest_memory_swap_in_bytes_total for s in samples if s.uuid == step[0] and s.guest_memory_swap_in_bytes_total >= 0]
        restarted = any(s[0] == step[0] and s[3] == 0 for s in shown) or step[3] == 0
        if not restarted or step[3] != 0 or (len(own) > 1 and own[-1] < own[-2]) or len(own) == 1:
            shown.append(step if step[3] != 1 or not restarted else (*step[:3], 5))
    return shown


@given(st.lists(st.integers(0, 200), max_size=200))
def test_runs_know_what_was_added(numbers: list[int]) -> None:
    runs, known = Runs(), set()
    for number in numbers:
        assert runs.has(number) == (number in known)
        runs.add(number, number)
        known.add(number)
    assert math.fsum(last - first + 1 for first, last in runs.ranges) == len(known)
