"""The value of a metric of one VM, and of several VMs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isnan

from msgspec import Struct

from virtflow.adapter.samples.rates import Point, alive, has, newest, rates
from virtflow.adapter.samples.series import Labels, Reader, reader_of
from virtflow.adapter.samples.window import Sample
from virtflow.schemas.catalogue.scaling import ScalingMetric
from virtflow.schemas.catalogue.types import Guest, Metric, Type

Wanted = Callable[[Mapping[str, str]], bool]
"""Whether a series with these labels counts."""


class Value(Struct, frozen=True, gc=False):
    """A value as its dividend and divisor (1 where it is no ratio), so that values of several VMs can be put together.

    ``taken`` is Unix seconds, ``seconds`` the length of the window it is a rate of, 0 for a value of a moment.
    """

    dividend: float
    taken: float
    seconds: float = 0.0
    divisor: float = 1.0

    @property
    def amount(self) -> float:
        """The value itself."""
        return self.dividend / self.divisor


def value_of(  # noqa: PLR0913, PLR0917, what a value depends on
    metric: ScalingMetric,
    samples: Sequence[Sample],
    own: Mapping[str, str],
    now: float,
    wanted: Wanted,
    reader: Callable[[Metric], Reader] = reader_of,
) -> Value | None:
    """The value of a VM; None where a part of it is absent, too old, or of no series that is ``wanted``.

    ``own`` are the VM's own labels, ``now`` is the observer's monotonic clock, ``reader`` says how a row is read from these samples.
    """

    def part(row: Metric, labels: tuple[str, ...]) -> list[Point]:
        read = rates if row.type is Type.COUNTER else newest
        series = read(samples, reader(row), now)
        return [point for key, point in series.items() if wanted({**own, **_shown(key, labels)})]

    added = [part(row, metric.labels) for row in metric.add]
    taken_off = [part(row, metric.labels) for row in metric.subtract]
    per = [part(row, ()) for row in metric.per]
    if not all((*added, *taken_off, *per)):
        return None
    divisor = _sum(per) if per else 1.0
    if divisor <= 0:
        return None
    points = [point for each in (*added, *taken_off) for point in each]
    taken, seconds = min(point.taken for point in points), max(point.seconds for point in points)
    return Value(_sum(added) - _sum(taken_off), taken, seconds, divisor)


def together(metric: ScalingMetric, values: Sequence[Value], silent: int = 0) -> Value | None:
    """The value of several VMs: the sum of amounts, the weighted average of ratios; None for no VM.

    ``silent`` VMs run and have no value: each counts as the average of the others, which leaves ratios as they are.
    """
    if not values:
        return None
    share = (len(values) + silent) / len(values)
    dividend, divisor = sum(value.dividend for value in values), 1.0
    if metric.ratio:
        divisor, share = sum(value.divisor for value in values), 1.0
    return Value(dividend * share, min(value.taken for value in values), max(value.seconds for value in values), divisor)


def unheard(metric: ScalingMetric, samples: Sequence[Sample], now: float, reader: Callable[[Metric], Reader] = reader_of) -> bool:
    """Whether a VM without a value should have one: it must not count as zero among others.

    A VM that was never seen with the metric, such as one without disks, has none, and a new one has none yet; one whose calls are not
    answered is unheard.
    """
    return any(_unheard(row, reader(row), samples, now) for row in (*metric.add, *metric.subtract, *metric.per))


def _unheard(row: Metric, reader: Reader, samples: Sequence[Sample], now: float) -> bool:
    if row.type is Type.COUNTER and sum(has(reader, sample.record) for sample in samples) > 1:
        return not rates(samples, reader, now)
    if isinstance(row.source, Guest):
        return not any(alive(sample, now) for sample in samples)
    return not any(alive(sample, now) and not isnan(reader.taken(sample.record)) for sample in samples)


def _shown(key: Labels, labels: tuple[str, ...]) -> dict[str, str]:
    """The labels of a series that the metric keeps; over others it is a sum."""
    return {name: text for name, text in key if name in labels}


def _sum(parts: Iterable[list[Point]]) -> float:
    return sum(point.value for part in parts for point in part)
