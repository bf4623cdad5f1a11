"""Samples from what scrapes have stored. Pure: series in, samples out.

A scrape shows the newest sample of each VM, and how old it is: scrapes that show the same sample are one. When it was taken is the scrape's
time less that age, so that rates are over the samples' own times, as with Kafka, and not over those of scrapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan
from typing import Final

from msgspec import Struct, field

from virtflow.adapter.prometheus.client import Series
from virtflow.adapter.samples.series import Labels, Reader, reader_of
from virtflow.adapter.samples.window import Sample, Window
from virtflow.schemas.catalogue.metrics import BY_NAME
from virtflow.schemas.catalogue.types import Guest, Metric
from virtflow.schemas.records import NAN, VmMetrics

AGE: Final = "vm_sample_age_seconds"
MONITOR_AGE: Final = "vm_monitor_age_seconds"
GUEST_AGE: Final = "vm_guest_age_seconds"
INFO: Final = "vm_info"
ALWAYS: Final = (AGE, MONITOR_AGE, GUEST_AGE, INFO)
"""What is asked for beside a metric's own rows."""
SAME_SAMPLE: Final = 0.5
"""Intervals between two samples' times below which they are one: the exporter's clock and the scrape's are not the same to the millisecond."""


class Scraped(VmMetrics, frozen=True, gc=False, kw_only=True):
    """A sample as a scrape shows it: in place of fields, values by the row's name and the labels of its series."""

    shown: dict[str, dict[Labels, float]] = field(default_factory=dict)
    guest_taken: float = NAN


class Clock(Struct, frozen=True):
    """One moment: seconds of the observer's monotonic clock, and Unix seconds of Prometheus'."""

    now: float
    server: float


def scraped_reader(row: Metric) -> Reader:
    """As ``reader_of``, for samples of scrapes."""

    def series(record: VmMetrics) -> dict[Labels, float]:
        assert isinstance(record, Scraped)
        return record.shown.get(row.name, {})

    def guest_taken(record: VmMetrics) -> float:
        assert isinstance(record, Scraped)
        return record.guest_taken

    return Reader(guest_taken if isinstance(row.source, Guest) else reader_of(row).taken, series)


def samples_of(found: Iterable[Series], intervals: Mapping[str, float], clock: Clock, seconds: float) -> dict[str, tuple[Sample, ...]]:
    """The samples of each VM in a window of ``seconds``, oldest first. ``intervals`` are those of nodes, by their names.

    A VM whose node's interval is not known has none: nobody could say when it is too old.
    """
    windows: dict[str, Window] = {}
    for uuid, scrapes in _by_scrape(found).items():
        window = Window()
        node = ""
        for time in sorted(scrapes):
            scrape = scrapes[time]
            node = scrape.node or node
            record = _record(uuid, node, time, scrape, intervals.get(node, NAN))
            if record is not None and not _known(window, record):
                # By a node's clock that is ahead, a sample is not older than the scrape that showed it first.
                age = max(clock.server - record.collected, clock.server - time)
                window.add(record, clock.now - age, seconds)
        if window.samples:
            windows[uuid] = window
    return {uuid: tuple(window.samples) for uuid, window in windows.items()}


class _Scrape(Struct, gc=False):
    """What one scrape showed of a VM."""

    node: str = ""
    shown: dict[str, dict[Labels, float]] = field(default_factory=dict)

    def one(self, name: str) -> float:
        """The value of a row without labels of its own, NaN where there is none."""
        return self.shown.get(name, {}).get((), NAN)


def _by_scrape(found: Iterable[Series]) -> dict[str, dict[float, _Scrape]]:
    """Scrapes by VM and time."""
    all_scrapes: dict[str, dict[float, _Scrape]] = {}
    for series in found:
        labels = series.metric
        name, uuid = labels.get("__name__", ""), labels.get("uuid", "")
        scrapes = all_scrapes.setdefault(uuid, {})
        key = tuple((label, labels[label]) for label in BY_NAME[name].labels if label in labels) if name != INFO else ()
        for time, text in series.values:
            scrape = scrapes.setdefault(time, _Scrape())
            if name == INFO:
                scrape.node = labels.get("node", "")
            else:
                scrape.shown.setdefault(name, {})[key] = float(text)
    return all_scrapes


def _record(uuid: str, node: str, time: float, scrape: _Scrape, interval: float) -> Scraped | None:
    """The sample that a scrape showed; None without its age, or its node's interval."""
    collected, monitor = time - scrape.one(AGE), time - scrape.one(MONITOR_AGE)
    if not node or not interval > 0 or isnan(collected):
        return None
    # The age of the monitor groups goes on from the last sample that had them.
    has_monitor = monitor > collected - SAME_SAMPLE * interval
    return Scraped(
        uuid=uuid,
        node=node,
        sequence=round(collected / interval),
        collected=collected,
        interval=interval,
        monitor_collected=monitor if has_monitor else NAN,
        guest_taken=time - scrape.one(GUEST_AGE),
        shown=scrape.shown,
    )


def _known(window: Window, record: Scraped) -> bool:
    """Whether the newest sample is this one, or a newer one of its node: two exporters show the same VM, one of them later."""
    if not window.samples:
        return False
    newest = window.samples[-1].record
    return newest.node == record.node and record.collected < newest.collected + SAME_SAMPLE * record.interval
