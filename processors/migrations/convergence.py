"""Whether a migration converges: pure arithmetic on what its source reports while it runs, and the verdict in words.

A migration sends all memory once, then repeatedly the pages that were written to meanwhile, and ends when the remainder can be sent
within the allowed downtime. So it ends by itself only if memory is sent faster than it is written to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from virtflow.schemas.jobs import Result
from virtflow.schemas.records import NAN, MigrationPass, VmMigration

PASSES: Final = 5
"""The number of newest passes over the memory that are compared: without a new minimum among them there is no progress."""
SHRINKING: Final = 0.98
"""A remainder below this share of the earlier minimum is progress; above it is noise."""


class Convergence(Struct, frozen=True, gc=False):
    """Values derived from the numbers; NaN and -1 where they can't be."""

    progress_ratio: float = NAN
    converging: int = -1
    dirty_ratio: float = NAN
    expected_remaining_seconds: float = NAN


def with_pass(passes: Sequence[MigrationPass], iteration: int, remaining_bytes: int) -> list[MigrationPass]:
    """The last passes with the present one of a poll; the first poll of a pass counts. A restarted migration starts a new list.

    The earlier pass with the least remainder stays in front: the remainder goes up and down, and a new minimum is progress.
    """
    known = list(passes)
    if iteration < 0 or remaining_bytes < 0 or (known and known[-1].iteration == iteration):
        return known
    if known and iteration < known[-1].iteration:
        known = []
    known.append(MigrationPass(iteration=iteration, remaining_bytes=remaining_bytes))
    earlier = known[:-PASSES]
    return [*([min(earlier, key=lambda one: one.remaining_bytes)] if earlier else []), *known[-PASSES:]]


def convergence(migration: VmMigration) -> Convergence:
    """The derived values of a running migration, and those that remain for one that has ended."""
    if migration.result == Result.COMPLETED:
        return Convergence(progress_ratio=1.0, converging=-1, dirty_ratio=NAN, expected_remaining_seconds=0.0)
    progress = _progress(migration.data_remaining_bytes, migration.data_total_bytes)
    if migration.result != Result.RUNNING:
        return Convergence(progress_ratio=progress)
    rate, dirty = migration.memory_bytes_per_second, migration.memory_dirty_bytes_per_second
    ratio = dirty / rate if rate > 0 and dirty >= 0 else NAN
    return Convergence(progress, _converging(migration.passes), ratio, _remaining_seconds(migration.memory_remaining_bytes, rate, dirty))


def _progress(remaining: int, total: int) -> float:
    """Pages that are sent again count twice as processed, so progress is computed from the remainder."""
    if total <= 0 or remaining < 0:
        return NAN
    return 1.0 - min(remaining, total) / total


def _converging(passes: Sequence[MigrationPass]) -> int:
    # The first pass sends all of the memory: a smaller second pass proves nothing.
    repeats = [one.remaining_bytes for one in passes if one.iteration > 1]
    if len(repeats) < 2:  # noqa: PLR2004, one point is no direction
        return -1
    return int(min(repeats[1:]) < SHRINKING * repeats[0])


def _remaining_seconds(remaining: int, rate: int, dirty: int) -> float:
    net = rate - max(dirty, 0)
    return remaining / net if remaining >= 0 and rate > 0 and net > 0 else NAN


def verdict(migration: VmMigration) -> str:
    """The state of a migration in words, and whether it will end."""
    if migration.result != Result.RUNNING:
        return migration.reason or migration.result
    return next(words for holds, words in _VERDICTS if holds(migration))


_VERDICTS: Final[tuple[tuple[Callable[[VmMigration], bool], str], ...]] = (
    (lambda m: m.kind == "post_copy", "runs at the destination, the rest of its memory follows"),
    (lambda m: m.disk_remaining_bytes > 0 and m.memory_processed_bytes <= 0, "copies disks"),
    (lambda m: m.memory_iteration < 0 or m.memory_bytes_per_second <= 0, "is being prepared"),
    (lambda m: m.dirty_ratio >= 1, "will not end by itself: memory is written to faster than it is sent"),
    (lambda m: m.converging == 0, "does not converge: what remains does not shrink"),
    (lambda m: m.memory_iteration <= 1, "first pass"),
    (lambda m: m.converging == 1, "converges"),
    (lambda _: True, "under way"),
)
"""The first condition that holds decides."""
