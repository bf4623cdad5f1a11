"""What a writer counts of itself, for its ``/metrics``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from prometheus_client import Counter, Gauge

from virtflow.history.storage.table_schemas import WRITTEN
from virtflow.runtime.own_metrics import OwnMetrics


@dataclass(frozen=True, slots=True)
class Meters:
    """Its counters and gauges, by what they count; labels are the catalogue's."""

    rows: Counter
    commits: Counter
    failures: Counter
    fenced: Counter
    missing: Counter
    replaced: Counter
    pauses: Counter
    waiting: Gauge
    parts: Gauge
    lag: Gauge
    behind: Gauge

    @classmethod
    def of(cls, metrics: OwnMetrics) -> Self:
        """Those of a service; where a rise is an alert there is a series for each table from the start, so that the first one is seen."""
        found = cls(
            rows=metrics.counter("virtflow_history_rows_total"),
            commits=metrics.counter("virtflow_history_commits_total"),
            failures=metrics.counter("virtflow_history_commit_failures_total"),
            fenced=metrics.counter("virtflow_history_fenced_partitions_total"),
            missing=metrics.counter("virtflow_history_missing_records_total"),
            replaced=metrics.counter("virtflow_history_replaced_offsets_total"),
            pauses=metrics.counter("virtflow_history_memory_pauses_total"),
            waiting=metrics.gauge("virtflow_history_waiting_records"),
            parts=metrics.gauge("virtflow_history_partitions"),
            lag=metrics.gauge("virtflow_history_lag_seconds"),
            behind=metrics.gauge("virtflow_history_lag_messages"),
        )
        for table in WRITTEN:
            found.replaced.labels(table=table.name)
            found.missing.labels(table=table.name)
        return found
