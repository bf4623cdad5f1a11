"""The processors' own metrics, by the catalogue's names."""

from __future__ import annotations

from virtflow.runtime.own_metrics import OwnMetrics


class Tally:
    """The counters and gauges of the processors, one attribute each."""

    def __init__(self, metrics: OwnMetrics) -> None:
        """Creates them in the service's own metrics."""
        self.messages = metrics.counter("virtflow_processors_messages_total")
        self.vm_samples = metrics.counter("virtflow_processors_vm_samples_total")
        self.duplicates = metrics.counter("virtflow_processors_duplicates_total")
        self.dead_letters = metrics.counter("virtflow_processors_dead_letters_total")
        self.undecodable = metrics.counter("virtflow_processors_node_undecodable_total")
        self.dropped_values = metrics.counter("virtflow_processors_dropped_values_total")
        self.dropped_vms = metrics.counter("virtflow_processors_dropped_vms_total")
        self.refused_messages = metrics.counter("virtflow_processors_refused_messages_total")
        self.retries = metrics.counter("virtflow_processors_delivery_retries_total")
        self.events = metrics.counter("virtflow_processors_events_total")
        self.migrations = metrics.counter("virtflow_processors_migrations_total")
        self.migrations_running = metrics.gauge("virtflow_processors_migrations_running")
        self.in_flight = metrics.gauge("virtflow_processors_in_flight")
        self.lag_seconds = metrics.gauge("virtflow_processors_lag_seconds")
        self.missing = metrics.counter("virtflow_processors_missing_records_total")
        self.replaced = metrics.counter("virtflow_processors_replaced_offsets_total")
