"""Whether a migration ends: arithmetic that never divides by zero and never promises too much."""

from __future__ import annotations

from math import isnan
from typing import Any

import pytest

from tests.support.migration_events import UUID
from virtflow.processors.migrations.convergence import convergence, verdict, with_pass
from virtflow.processors.migrations.job_stats import job_numbers
from virtflow.schemas.catalogue.migration import MIGRATION_METRICS
from virtflow.schemas.catalogue.types import Job, Metric
from virtflow.schemas.records import MigrationPass, VmMigration

PASSES = 5


def migration(passes: tuple[int, ...] = (), result: str = "running", **fields: Any) -> VmMigration:  # noqa: ANN401, of any field
    listed = [MigrationPass(iteration=number, remaining_bytes=remaining) for number, remaining in enumerate(passes, 1)]
    return VmMigration(uuid=UUID, result=result, passes=listed, **fields)


@pytest.mark.parametrize(
    ("remaining", "total", "expected"),
    [(50, 200, 0.75), (0, 200, 1.0), (300, 200, 0.0), (0, 0, None), (-1, 200, None), (5, -1, None)],
)
def test_progress_is_never_above_all_nor_below_nothing(remaining: int, total: int, expected: float | None) -> None:
    """Processed and remaining may add up to more than the total: only what remains counts, against the total."""
    found = convergence(migration(data_remaining_bytes=remaining, data_total_bytes=total, data_processed_bytes=10**12)).progress_ratio
    assert isnan(found) if expected is None else found == expected


@pytest.mark.parametrize(
    ("remaining", "rate", "dirty", "ratio", "seconds"),
    [
        (1000, 100, 50, 0.5, 20.0),
        (1000, 100, 0, 0.0, 10.0),
        (1000, 100, -1, None, 10.0),
        (1000, 100, 100, 1.0, None),
        (1000, 100, 300, 3.0, None),
        (1000, 0, 300, None, None),
        (1000, -1, -1, None, None),
        (-1, 100, 0, 0.0, None),
        (0, 100, 0, 0.0, 0.0),
    ],
)
def test_the_end_is_promised_only_where_there_is_one(
    remaining: int, rate: int, dirty: int, ratio: float | None, seconds: float | None
) -> None:
    """No bandwidth, or memory written to as fast as it is sent: no end, rather than an infinite or negative one."""
    found = convergence(migration(memory_remaining_bytes=remaining, memory_bytes_per_second=rate, memory_dirty_bytes_per_second=dirty))
    assert isnan(found.dirty_ratio) if ratio is None else found.dirty_ratio == ratio
    assert isnan(found.expected_remaining_seconds) if seconds is None else found.expected_remaining_seconds == seconds


@pytest.mark.parametrize(
    ("passes", "expected"),
    [((), -1), ((200,), -1), ((200, 50), -1), ((200, 50, 20), 1), ((200, 50, 50), 0), ((200, 50, 48), 1), ((200, 50, 60, 70), 0)],
)
def test_converging_compares_the_passes(passes: tuple[int, ...], expected: int) -> None:
    """The first pass has all of the memory before it, so that the second has less says nothing."""
    assert convergence(migration(passes)).converging == expected


def test_passes_are_kept_once_and_few() -> None:
    """The first poll of a pass counts, the last few passes are kept, a restart begins again."""
    passes: list[MigrationPass] = []
    for number in range(1, 12):
        passes = with_pass(passes, number, 1000 - number)
        passes = with_pass(passes, number, 5)
    assert [one.iteration for one in passes] == list(range(11 - PASSES, 12))
    assert [one.remaining_bytes for one in passes] == [1000 - one.iteration for one in passes]
    assert with_pass(passes, -1, 5) == with_pass(passes, 12, -1) == passes
    assert with_pass(passes, 1, 7) == [MigrationPass(iteration=1, remaining_bytes=7)]


def test_ups_and_downs_without_a_new_low_are_no_headway() -> None:
    """What remains swings by what the guest does: only a new low counts, and an old one is soon no news."""
    passes: list[MigrationPass] = []
    seen = []
    for iteration, remaining in enumerate([1000, 50, 40, 60, 45, 70, 55, 41, 65, 50, 42, 30, 60, 61, 62, 63, 64], 1):
        passes = with_pass(passes, iteration, remaining)
        seen.append(convergence(VmMigration(uuid=UUID, result="running", passes=passes)).converging)
    assert seen == [-1, -1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0]


def test_one_that_has_ended_promises_nothing() -> None:
    """Completed is all of it; of a failed one the progress stays."""
    fields = {"data_remaining_bytes": 50, "data_total_bytes": 200, "memory_bytes_per_second": 10, "memory_dirty_bytes_per_second": 5}
    done = convergence(migration((9, 8, 7), "completed", **fields))
    assert (done.progress_ratio, done.converging, done.expected_remaining_seconds) == (1.0, -1, 0.0)
    failed = convergence(migration((9, 8, 7), "failed", **fields))
    assert (failed.progress_ratio, failed.converging) == (0.75, -1)
    assert isnan(failed.expected_remaining_seconds)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"result": "failed", "reason": "why"}, "why"),
        ({"result": "cancelled"}, "cancelled"),
        ({"kind": "post_copy"}, "runs at the destination"),
        ({}, "is being prepared"),
        ({"memory_iteration": 3, "memory_bytes_per_second": 0}, "is being prepared"),
        ({"memory_iteration": 3, "memory_bytes_per_second": 10, "dirty_ratio": 1.5}, "will not end by itself"),
        ({"memory_iteration": 3, "memory_bytes_per_second": 10, "converging": 0}, "does not converge"),
        ({"memory_iteration": 1, "memory_bytes_per_second": 10}, "first pass"),
        ({"memory_iteration": 3, "memory_bytes_per_second": 10, "converging": 1}, "converges"),
        ({"memory_iteration": 2, "memory_bytes_per_second": 10}, "under way"),
    ],
)
def test_the_verdict_in_words(fields: dict[str, Any], words: str) -> None:
    assert words in verdict(migration(**fields))


JOB = {metric.source.field: 7 for metric in MIGRATION_METRICS if isinstance(metric.source, Job)}


@pytest.mark.parametrize("metric", [m for m in MIGRATION_METRICS if isinstance(m.source, Job)], ids=lambda m: m.name)
def test_every_job_field_is_converted_by_its_row(metric: Metric) -> None:
    """Units end here: milliseconds, pages and percent become seconds, bytes and ratios."""
    assert isinstance(metric.source, Job)
    factor = {"none": 1, "milliseconds": 0.001, "pages": 4096, "percent": 0.01}[metric.source.conversion.value]
    numbers = job_numbers({**JOB, "memory_page_size": 4096, metric.source.field: 12}, completed=False)
    expected = 12 if metric.source.field == "memory_page_size" else 12 * factor
    assert numbers[metric.field] == pytest.approx(expected)
    assert metric.field not in job_numbers({metric.source.field: -1}, completed=False)


def test_pages_need_a_page_size() -> None:
    """Without one, or beyond what a record holds, bytes are absent rather than wrong."""
    assert "memory_normal_bytes" not in job_numbers({"memory_normal": 5}, completed=False)
    assert "memory_normal_bytes" not in job_numbers({"memory_normal": 2**62, "memory_page_size": 4096}, completed=False)
