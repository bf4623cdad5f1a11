"""The samples that are kept of a VM: the newest ones of a window, a few at most however short the VM's interval is. Pure."""

from __future__ import annotations

from collections import deque
from math import isnan
from typing import Final

from msgspec import Struct

from virtflow.schemas.records import VmMetrics

INTERVALS_LEAST: Final = 3
"""A window has at least so many of the VM's own intervals, so that there is a rate whatever they are."""
PARTS: Final = 6
"""Into so many parts a window is divided; of samples that are closer together only the newest is kept."""


class Sample(Struct, frozen=True, gc=False):
    """A sample, and when it arrived (seconds of the observer's monotonic clock)."""

    record: VmMetrics
    arrived: float


class Window:
    """A VM's samples of its authoritative nodes, in the order of their arrival."""

    __slots__ = ("samples",)

    def __init__(self) -> None:
        """Empty."""
        self.samples: deque[Sample] = deque()

    def add(self, record: VmMetrics, arrived: float, seconds: float) -> None:
        """Adds the newest sample, unless it is there, and drops those that are older than ``seconds`` or not needed."""
        samples = self.samples
        if samples and samples[-1].record is record:
            return
        if _replaces(samples, record, arrived - seconds / PARTS):
            samples.pop()
        samples.append(Sample(record, arrived))
        oldest = arrived - max(seconds, INTERVALS_LEAST * record.interval)
        while samples[0].arrived < oldest:
            samples.popleft()


def _replaces(samples: deque[Sample], record: VmMetrics, since: float) -> bool:
    """Whether a sample may replace the newest one: the one before is newer than ``since``, and nothing is lost.

    All three are of one node and one run of its producer: the first and the last sample of a run are the ends of its rates. The newest one
    stays as well where it alone has the monitor groups.
    """
    if len(samples) < 2 or samples[-2].arrived <= since:  # noqa: PLR2004, the newest one and the one before
        return False
    before, newest = samples[-2].record, samples[-1].record
    if not before.node == newest.node == record.node or not before.boot_id == newest.boot_id == record.boot_id:
        return False
    return isnan(newest.monitor_collected) or not isnan(record.monitor_collected)
