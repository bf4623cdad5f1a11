"""The catalogue's rows about virtflow itself: each node's producer, and the services of the centre."""

from __future__ import annotations

from typing import Final

from virtflow.schemas.catalogue.types import Derived, Group, Health, Metric, Own, Type

_C, _G = Type.COUNTER, Type.GAUGE
_NODE = ("node",)


def _node(
    name: str,
    kind: Type,
    unit: str,
    text: str,
    source: Health | Derived,
    labels: tuple[str, ...] = (),
) -> Metric:
    return Metric(f"virtflow_node_{name}", kind, unit, text, Group.NODE, source, _NODE + labels)


NODE_METRICS: Final = (
    _node("up", _G, "", "Whether libvirt on the node answered in the newest round and the node is not silent.", Health("up")),
    _node(
        "info",
        _G,
        "",
        "Versions on the node; always 1.",
        Derived("the version fields of the node's health"),
        ("version", "libvirt_version", "hypervisor_version"),
    ),
    _node("sample_age_seconds", _G, "seconds", "Age of the node's newest snapshot.", Derived("scrape time less NodeStatus.collected")),
    _node("interval_seconds", _G, "seconds", "Sampling interval of the node.", Derived("NodeStatus.interval")),
    _node("vms", _G, "", "VMs of the node by state.", Health("vms"), ("state",)),
    _node(
        "sampling_seconds",
        _G,
        "seconds",
        "How long the newest round took, by tier; missing for a tier that has not answered.",
        Health("sampling_seconds"),
        ("tier",),
    ),
    _node("rounds_total", _C, "", "Rounds of sampling since the producer started.", Health("rounds_total")),
    _node(
        "rounds_late_total",
        _C,
        "",
        "Rounds that sent a VM without its monitor groups because they had not answered by the deadline.",
        Health("rounds_late_total"),
    ),
    _node("rounds_skipped_total", _C, "", "Rounds that were skipped because one before took too long.", Health("rounds_skipped_total")),
    _node("reconnects_total", _C, "", "Connections to libvirt opened again after a loss.", Health("reconnects_total")),
    _node(
        "unknown_fields_total",
        _C,
        "",
        "Fields libvirt reported that the catalogue does not know.",
        Health("unknown_fields_total"),
    ),
    _node(
        "drops_total",
        _C,
        "",
        "What the producer had to give up, by reason: snapshots, values, devices, messages.",
        Health("drops_total"),
        ("reason",),
    ),
    _node("spooled_rounds", _G, "", "Rounds that wait in memory for the broker.", Health("spooled_rounds")),
    _node("events_total", _C, "", "Events of libvirt about VMs that were taken, by kind.", Health("events_total"), ("kind",)),
    _node("journal_events", _G, "", "Events in the journal on disk, which the broker has not acknowledged yet.", Health("journal_events")),
    _node("journal_bytes", _G, "bytes", "Size of the events in the journal on disk.", Health("journal_bytes")),
    _node("jobs", _G, "", "Running jobs of VMs that are polled.", Health("jobs")),
    _node("job_polls_total", _C, "", "Polls of running jobs, by outcome.", Health("job_polls_total"), ("outcome",)),
    _node(
        "daemons",
        _G,
        "",
        "Daemons of libvirt that the producer has found on the node; missing where it asks the one of libvirt.uri.",
        Health("daemons"),
    ),
    _node(
        "daemons_silent",
        _G,
        "",
        "Daemons of libvirt among those found that did not answer in the newest round; their VMs are shown as not responsive.",
        Health("daemons_silent"),
    ),
    _node("cpu_seconds_total", _C, "seconds", "CPU time of the producer's own process.", Health("cpu_seconds_total")),
    _node("resident_memory_bytes", _G, "bytes", "Resident memory of the producer's own process.", Health("resident_memory_bytes")),
)


def _pipeline(
    name: str,
    kind: Type,
    unit: str,
    text: str,
    service: str,
    labels: tuple[str, ...] = (),
) -> Metric:
    return Metric(f"virtflow_{name}", kind, unit, text, Group.PIPELINE, Own(service), labels)


PIPELINE_METRICS: Final = (
    _pipeline("build_info", _G, "", "Version of the service; always 1.", "all", ("service", "version")),
    _pipeline("processors_messages_total", _C, "", "Messages taken from vm.snapshots.", "processors"),
    _pipeline("processors_vm_samples_total", _C, "", "VM samples sent to vm.metrics and acknowledged.", "processors"),
    _pipeline(
        "processors_duplicates_total",
        _C,
        "",
        "Snapshots skipped because they had been seen or a newer one had.",
        "processors",
    ),
    _pipeline("processors_dead_letters_total", _C, "", "Messages sent to vm.dead-letters, by reason.", "processors", ("reason",)),
    _pipeline(
        "processors_node_undecodable_total",
        _C,
        "",
        "Messages sent to vm.dead-letters, by the node that sent them; other: those of nobody known.",
        "processors",
        ("node",),
    ),
    _pipeline("processors_dropped_values_total", _C, "", "Values out of range, left out of their sample.", "processors"),
    _pipeline("processors_dropped_vms_total", _C, "", "VMs left out of their snapshot because their uuid is none.", "processors"),
    _pipeline("processors_refused_messages_total", _C, "", "Results the broker will never take, left out.", "processors"),
    _pipeline("processors_events_total", _C, "", "Events taken from vm.events.", "processors"),
    _pipeline("processors_migrations_total", _C, "", "Migrations that ended, by result.", "processors", ("result",)),
    _pipeline("processors_migrations_running", _G, "", "Migrations that are being followed.", "processors"),
    _pipeline(
        "processors_missing_records_total",
        _C,
        "",
        "Messages that the broker deleted before they were processed, by topic.",
        "processors",
        ("topic",),
    ),
    _pipeline(
        "processors_replaced_offsets_total",
        _C,
        "",
        "Offsets at most that the broker gives to other messages than those processed, because it lost its end; they are read again, by topic.",
        "processors",
        ("topic",),
    ),
    _pipeline("processors_delivery_retries_total", _C, "", "Messages produced again after a failed delivery.", "processors"),
    _pipeline("processors_in_flight", _G, "", "Snapshots whose results the broker has not acknowledged yet.", "processors"),
    _pipeline(
        "processors_lag_seconds",
        _G,
        "seconds",
        "Time from a snapshot's arrival at the broker to its processing, newest message.",
        "processors",
    ),
    _pipeline(
        "processors_broker_answer_age_seconds",
        _G,
        "seconds",
        "Time since all brokers that lead partitions of a topic last answered; it grows while one is away, records or not.",
        "processors",
        ("topic",),
    ),
    _pipeline("exporter_records_total", _C, "", "Records taken from the topics, by topic.", "exporter", ("topic",)),
    _pipeline("exporter_undecodable_total", _C, "", "Records skipped because they could not be decoded, by topic.", "exporter", ("topic",)),
    _pipeline("exporter_stale_records_total", _C, "", "Samples skipped because a newer one is shown.", "exporter"),
    _pipeline(
        "exporter_skipped_records_total",
        _C,
        "",
        "Records that were deleted from a topic before they were taken, by topic.",
        "exporter",
        ("topic",),
    ),
    _pipeline("exporter_vms", _G, "", "VMs that are shown.", "exporter"),
    _pipeline("exporter_nodes", _G, "", "Nodes that are known.", "exporter"),
    _pipeline("exporter_series", _G, "", "Series that are shown.", "exporter"),
    _pipeline("exporter_lag_seconds", _G, "seconds", "Age of the newest record of a topic when it was taken.", "exporter", ("topic",)),
    _pipeline("exporter_lag_messages", _G, "", "Records of a topic that are not taken yet.", "exporter", ("topic",)),
    _pipeline(
        "exporter_broker_answer_age_seconds",
        _G,
        "seconds",
        "Time since all brokers that lead partitions of a topic last answered; it grows while one is away, records or not.",
        "exporter",
        ("topic",),
    ),
    _pipeline("exporter_scrapes_total", _C, "", "Scrapes answered.", "exporter"),
    _pipeline("exporter_scrape_seconds_total", _C, "seconds", "Time spent rendering scrapes.", "exporter"),
    _pipeline("adapter_records_total", _C, "", "Records taken from the topics, by topic.", "adapter", ("topic",)),
    _pipeline("adapter_undecodable_total", _C, "", "Records skipped because they could not be decoded, by topic.", "adapter", ("topic",)),
    _pipeline("adapter_stale_records_total", _C, "", "Samples skipped because a newer one is known.", "adapter"),
    _pipeline(
        "adapter_skipped_records_total",
        _C,
        "",
        "Records that were deleted from a topic before they were taken, by topic.",
        "adapter",
        ("topic",),
    ),
    _pipeline("adapter_lag_seconds", _G, "seconds", "Age of the newest record of a topic when it was taken.", "adapter", ("topic",)),
    _pipeline("adapter_lag_messages", _G, "", "Records of a topic that are not taken yet.", "adapter", ("topic",)),
    _pipeline(
        "adapter_broker_answer_age_seconds",
        _G,
        "seconds",
        "Time since all brokers that lead partitions of a topic last answered; it grows while one is away, records or not.",
        "adapter",
        ("topic",),
    ),
    _pipeline("adapter_vms", _G, "", "VMs that are reported now.", "adapter"),
    _pipeline("adapter_objects", _G, "", "Kubernetes objects that are known, by resource.", "adapter", ("resource",)),
    _pipeline("adapter_watched", _G, "", "Whether the objects of a resource are known and followed.", "adapter", ("resource",)),
    _pipeline("adapter_lists_total", _C, "", "Times all objects of a resource were listed, by resource.", "adapter", ("resource",)),
    _pipeline("adapter_trusted", _G, "", "Whether the certificate authority of the cluster's front proxy is known.", "adapter"),
    _pipeline(
        "adapter_answers_total",
        _C,
        "",
        "Answers of the metrics APIs by what was asked for (discovery, custom, external, other) and HTTP status.",
        "adapter",
        ("api", "status"),
    ),
    _pipeline("adapter_answer_seconds_total", _C, "seconds", "Time spent working out values.", "adapter"),
    _pipeline("history_records_total", _C, "", "Records taken for the history, by table.", "history", ("table",)),
    _pipeline("history_rows_total", _C, "", "Rows stored, by table.", "history", ("table",)),
    _pipeline("history_commits_total", _C, "", "Commits made, by table.", "history", ("table",)),
    _pipeline(
        "history_skipped_records_total", _C, "", "Records left out of the history, by table and reason.", "history", ("table", "reason")
    ),
    _pipeline(
        "history_missing_records_total", _C, "", "Records the broker no longer had when they were due, by table.", "history", ("table",)
    ),
    _pipeline(
        "history_replaced_offsets_total",
        _C,
        "",
        "Offsets at most that the broker gives to other records than those stored, because it lost its end; they are read again, by table.",
        "history",
        ("table",),
    ),
    _pipeline("history_commit_failures_total", _C, "", "Commits the storage did not take; they are tried again.", "history"),
    _pipeline("history_memory_pauses_total", _C, "", "Times that reading was paused because memory was short.", "history"),
    _pipeline("history_fenced_partitions_total", _C, "", "Partitions started over because another writer had them.", "history"),
    _pipeline("history_ready", _G, "", "Whether records can be stored (1), or not (0): /readyz says why.", "history"),
    _pipeline("history_waiting_records", _G, "", "Records in memory that wait for a commit.", "history"),
    _pipeline("history_partitions", _G, "", "Partitions this writer has.", "history"),
    _pipeline(
        "history_lag_seconds",
        _G,
        "seconds",
        "Time from the newest stored record's arrival at the broker to its commit, by table.",
        "history",
        ("table",),
    ),
    _pipeline("history_lag_messages", _G, "", "Records that are not taken yet, by table.", "history", ("table",)),
    _pipeline(
        "history_broker_answer_age_seconds",
        _G,
        "seconds",
        "Time since all brokers that lead partitions of a topic last answered; it grows while one is away, records or not.",
        "history",
        ("topic",),
    ),
    _pipeline("history_upkeep_runs_total", _C, "", "Runs of roll-up, compaction and cleaning, by outcome.", "history", ("outcome",)),
    _pipeline(
        "history_upkeep_running_seconds", _G, "seconds", "Time since the run of upkeep under way began, 0 while there is none.", "history"
    ),
    _pipeline(
        "history_serve_queries_total",
        _C,
        "",
        "Queries of remote_read by outcome: answered, refused for what they ask or who asks, failed; PromQL that no engine answers fails, too.",
        "history-serve",
        ("outcome",),
    ),
    _pipeline(
        "history_serve_unknown_labels_total",
        _C,
        "",
        "Queries of remote_read for a label that no series of the history has.",
        "history-serve",
    ),
    _pipeline("history_serve_samples_total", _C, "", "Samples returned by remote_read.", "history-serve"),
    _pipeline(
        "history_serve_processes_ended_total",
        _C,
        "",
        "Reading processes that were ended for a request's time or memory, or that ended by themselves; others took their place.",
        "history-serve",
    ),
    _pipeline("history_serve_seconds_total", _C, "seconds", "Time spent answering remote_read.", "history-serve"),
    _pipeline("web_requests_total", _C, "", "HTTP requests answered, by status.", "all", ("status",)),
    _pipeline("web_connections", _G, "", "HTTP connections that are open.", "all"),
    _pipeline("web_connections_refused_total", _C, "", "HTTP connections refused because too many were open.", "all"),
    _pipeline(
        "web_tls_failures_total", _C, "", "TLS connections without a handshake in time, or without a certificate that is let in.", "all"
    ),
    _pipeline("web_password_comparisons_total", _C, "", "Passwords compared with a bcrypt hash; known ones are looked up instead.", "all"),
    _pipeline(
        "web_config_current",
        _G,
        "",
        "Whether the newest web configuration is in force: 1, or 0 while it has an error and an older one is.",
        "all",
    ),
)
