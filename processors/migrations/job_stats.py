"""Job statistics in base units, by the rows of the catalogue: nothing behind this module knows libvirt's names and units of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from virtflow.schemas.catalogue.migration import MIGRATION_METRICS
from virtflow.schemas.catalogue.types import ABSENT_LONG, LONG_MAX, Conversion, Job
from virtflow.schemas.records import NAN

MILLISECONDS_PER_SECOND: Final = 1e3
PERCENT: Final = 100.0
PAGE_SIZE: Final = "memory_page_size"
DOWNTIME: Final = "downtime"

_ROWS: Final = tuple((metric.field, metric.source) for metric in MIGRATION_METRICS if isinstance(metric.source, Job))

Numbers = dict[str, int | float]
"""Fields of ``VmMigration``; a value that is missing in the statistics, or out of range, is missing here."""


def job_numbers(job: Mapping[str, int], *, completed: bool) -> Numbers:
    """The fields of ``VmMigration`` from job statistics under libvirt's names.

    ``downtime`` is the expected one while a job runs and the real one once it has completed: two separate fields.
    """
    page = job.get(PAGE_SIZE, ABSENT_LONG)
    numbers: Numbers = {}
    for field, source in _ROWS:
        value = _converted(job.get(source.field, ABSENT_LONG), source.conversion, page)
        if value is not None:
            numbers[field] = value
    downtime = _converted(job.get(DOWNTIME, ABSENT_LONG), Conversion.MILLISECONDS, page)
    if completed:
        numbers["expected_downtime_seconds"] = NAN
    if downtime is not None:
        numbers["downtime_seconds" if completed else "expected_downtime_seconds"] = downtime
    return numbers


def _converted(value: int, conversion: Conversion, page: int) -> int | float | None:
    if not 0 <= value <= LONG_MAX:
        return None
    match conversion:
        case Conversion.MILLISECONDS:
            return value / MILLISECONDS_PER_SECOND
        case Conversion.PERCENT:
            return value / PERCENT
        case Conversion.PAGES:
            return value * page if page > 0 and value * page <= LONG_MAX else None
        case _:
            return value
