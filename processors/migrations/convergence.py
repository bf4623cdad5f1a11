"""Whether a migration will end: pure arithmetic on what its source says while it runs, and the words for it.

A migration sends all memory once, then again and again what was written to meanwhile, and ends when what is left can be sent within
the allowed downtime. So it ends by itself only if memory is sent faster than it is written to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from virtflow.schemas.jobs import Result
from virtflow.schemas.records import NAN, MigrationPass, VmMigration

PASSES: Final = 5
"""The newest passes over the memory: one of them has less to do than any before, or there is no headway."""
SHRINKING: Final = 0.98
"""A remainder below this share of the least one before is headway; above it is noise."""


class Convergence(Struct, frozen=True, gc=False):
    """What follows from the numbers; NaN and -1 where nothing does."""

    progress_ratio: float = NAN
    converging: int = -1
    dirty_ratio: float = NAN
    expected_remaining_seconds: float = NAN


def with_pass(passes: Sequence[MigrationPass], iteration: int, remaining_bytes: int) -> list[MigrationPass]:
    """The last passes, with what a poll says of the present one: the first poll of a pass counts. A restart begins anew.

    Of the earlier ones that with the least to do stays, in front: what remains goes up and down, a new low is headway.
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
    """What the newest numbers of a running migration promise, and what is left to say of one that has ended."""
    if migration.result == Result.COMPLETED:
        return Convergence(progress_ratio=1.0, converging=-1, dirty_ratio=NAN, expected_remaining_seconds=0.0)
    progress = _progress(migration.data_remaining_bytes, migration.data_total_bytes)
    if migration.result != Result.RUNNING:
        return Convergence(progress_ratio=progress)
    rate, dirty = migration.memory_bytes_per_second, migration.memory_dirty_bytes_per_second
    ratio = dirty / rate if rate > 0 and dirty >= 0 else NAN
    return Convergence(progress, _converging(migration.passes), ratio, _remaining_seconds(migration.memory_remaining_bytes, rate, dirty))


def _progress(remaining: int, total: int) -> float:
    """Pages that are written to again count twice as processed, so only what remains tells how far it is."""
    if total <= 0 or remaining < 0:
        return NAN
    return 1.0 - min(remaining, total) / total


def _converging(passes: Sequence[MigrationPass]) -> int:
    # The first pass starts with all of the memory: that the second has less to do says nothing.
    repeats = [one.remaining_bytes for one in passes if one.iteration > 1]
    if len(repeats) < 2:  # noqa: PLR2004, one point is no direction
        return -1
    return int(min(repeats[1:]) < SHRINKING * repeats[0])


def _remaining_seconds(remaining: int, rate: int, dirty: int) -> float:
    net = rate - max(dirty, 0)
    return remaining / net if remaining >= 0 and rate > 0 and net > 0 else NAN


def verdict(migration: VmMigration) -> str:
    """In words for people: how a migration stands, and whether it will end."""
    if migration.result != Result.RUNNING:
        return migration.reason or migration.result
    return next(words for holds, words in _VERDICTS if holds(migration))


_VERDICTS: Final[tuple[tuple[Callable[[VmMigration], bool], str], ...]] = (
    (lambda m: m.kind == "post_copy", "runs at the destination, the rest of its memory follows"),
    (lambda m: m.memory_iteration < 0 or m.memory_bytes_per_second <= 0, "is being prepared"),
    (lambda m: m.dirty_ratio >= 1, "will not end by itself: memory is written to faster than it is sent"),
    (lambda m: m.converging == 0, "does not converge: what remains does not shrink"),
    (lambda m: m.memory_iteration <= 1, "first pass"),
    (lambda m: m.converging == 1, "converges"),
    (lambda _: True, "under way"),
)
"""The first that holds speaks."""
