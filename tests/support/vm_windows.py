"""Samples of a VM as the adapter keeps them: one for each interval, of chosen counters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from tests.support.vm_samples import INTERVAL, WALL, sample
from virtflow.adapter.samples.window import Sample
from virtflow.schemas.records import VmMetrics


def at(sequence: int, **fields: Any) -> Sample:  # noqa: ANN401, any field of the record
    """The sample of a round: it arrived that many intervals after 0."""
    return Sample(sample(sequence=sequence, **fields), sequence * INTERVAL)


def counting(values: Iterable[float], **fields: Any) -> list[Sample]:  # noqa: ANN401, as above
    """One sample a round with these CPU seconds."""
    return [at(sequence, cpu_seconds_total=value, **fields) for sequence, value in enumerate(values)]


def moved(samples: Sequence[Sample], first: int, node: str = "node-2", boot_id: str = "boot-2") -> list[Sample]:
    """The samples as another node's ones, whose rounds come after ``first`` others; its producer's own sequence begins at 0."""
    found = []
    for sequence, one in enumerate(samples):
        record: VmMetrics = one.record
        shift = (first + sequence) * INTERVAL
        fields: dict[str, Any] = {
            "collected": WALL + shift,
            "monitor_collected": WALL + shift,
            "node": node,
            "boot_id": boot_id,
            "sequence": sequence,
        }
        found.append(Sample(replace(record, **fields), shift))
    return found
