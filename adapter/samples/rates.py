"""Rates of counters over a window, from the samples' own times; no clock but those of the nodes. Pure.

A rate is the growth of a counter from sample to sample, divided by the time that these steps cover. Only steps within one run count: one
node, one run of its producer. A step in which a counter falls (the VM was started again), or whose time does not agree with the node's
sequence (its clock was set), is left out of growth and time alike: it is no spike. Devices have other names and counters start again where
a VM has migrated to, so the run before is used until the new one has a step: a migration is no gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from msgspec import Struct

from virtflow.adapter.samples.series import Labels, Reader
from virtflow.adapter.samples.window import Sample
from virtflow.schemas.order import INTERVALS_ALIVE
from virtflow.schemas.records import VmMetrics

LEAST_STEP: Final = 0.5
"""Intervals between two samples of which a shorter time is taken for a clock that was set back."""
SURPLUS_ROUNDS: Final = 1.5
"""Intervals between two samples beyond those that the sequence tells: a round may have been skipped. A longer time is a clock that was set
forward."""


class Point(Struct, frozen=True, gc=False):
    """The newest value of a series: when it was taken (Unix seconds of its node) and over how many seconds (0: a moment)."""

    value: float
    taken: float
    seconds: float = 0.0


class _Growth(Struct, gc=False):
    """A series as far as it was read: its newest value, time and sample, and by how much it grew in how many seconds."""

    value: float
    taken: float
    sample: Sample
    increase: float = 0.0
    seconds: float = 0.0


def alive(sample: Sample, now: float) -> bool:
    """Whether a sample is not older than three of its intervals. ``now``: the observer's monotonic clock."""
    return now < sample.arrived + INTERVALS_ALIVE * sample.record.interval


def rates(samples: Iterable[Sample], reader: Reader, now: float) -> dict[Labels, Point]:
    """The rate per second of each series of a counter in the newest run that has any; nothing where the newest value is too old."""
    holding = [sample for sample in samples if has(reader, sample.record)]
    if not holding or not alive(holding[-1], now):
        return {}
    runs = [list(run) for _, run in groupby(holding, lambda sample: (sample.record.node, sample.record.boot_id))]
    for run in reversed(runs):
        if found := _of_run(run, reader, now if run is runs[-1] else run[-1].arrived):
            return found
    return {}


def newest(samples: Iterable[Sample], reader: Reader, now: float) -> dict[Labels, Point]:
    """The newest value of each series of a gauge, all from the newest sample that has any; nothing where that one is too old."""
    for sample in reversed(list(samples)):
        if has(reader, sample.record):
            taken = reader.taken(sample.record)
            return {labels: Point(value, taken) for labels, value in reader.series(sample.record).items()} if alive(sample, now) else {}
    return {}


def has(reader: Reader, record: VmMetrics) -> bool:
    """Whether a sample has a value of the row."""
    taken = reader.taken(record)
    return taken == taken and bool(reader.series(record))  # noqa: PLR0124, NaN is not itself


def _of_run(run: list[Sample], reader: Reader, now: float) -> dict[Labels, Point]:
    """The rates of one run; a series that ended before ``now`` is left out."""
    found: dict[Labels, _Growth] = {}
    for sample in run:
        taken = reader.taken(sample.record)
        for labels, value in reader.series(sample.record).items():
            before = found.get(labels)
            if before is None:
                found[labels] = _Growth(value, taken, sample)
            elif taken != before.taken:
                _step(before, value, taken, sample)
    return dict(_points(found, now))


def _points(found: dict[Labels, _Growth], now: float) -> Iterator[tuple[Labels, Point]]:
    for labels, one in found.items():
        if one.seconds > 0 and alive(one.sample, now):
            yield labels, Point(one.increase / one.seconds, one.taken, one.seconds)


def _step(growth: _Growth, value: float, taken: float, sample: Sample) -> None:
    """Moves on to the next value of a series."""
    seconds = taken - growth.taken
    if value >= growth.value and _plausible(growth.sample.record, sample.record, seconds):
        growth.increase += value - growth.value
        growth.seconds += seconds
    growth.value, growth.taken, growth.sample = value, taken, sample


def _plausible(before: VmMetrics, after: VmMetrics, seconds: float) -> bool:
    """Whether the time between two samples of a run agrees with their places in its sequence."""
    rounds = after.sequence - before.sequence + SURPLUS_ROUNDS
    return LEAST_STEP * after.interval <= seconds <= rounds * max(before.interval, after.interval)
