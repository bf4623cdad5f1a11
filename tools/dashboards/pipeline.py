"""From the producers to the history: how late data is, what is lost or refused, and whether it is stored."""

from __future__ import annotations

from tools.dashboards.board import Board, Part
from tools.dashboards.links import SERIES_NODE, to_node
from tools.dashboards.panels import Panel, Query, Style, Text, graph, number
from tools.dashboards.promql import OF_NODE
from tools.dashboards.variables import node

COMMIT_AGE = "time() - max by (instance, table) (max_over_time(timestamp(increase(virtflow_history_commits_total[1m]) > 0)[6h:1m]))"
"""Seconds since the last minute in which a table had a commit; none where the last six hours had none."""
NODE = to_node(SERIES_NODE)


def board() -> Board:
    """``pipeline.json``."""
    parts = [
        Part("", _numbers()),
        Part("Lag and age", _lag()),
        Part("Throughput", _throughput()),
        Part("Lost, refused, repeated", _lost()),
        Part("History", _history()),
        Part("Producers", _producers()),
    ]
    about = "From the producers to the history: how late data is, what is lost or refused, and whether it is stored."
    return Board("pipeline", "history and pipeline", about, [node()], parts)


def _numbers() -> list[Panel]:
    def counted(promql: str) -> str:
        return f"round(sum(increase({promql}[1h]))) or vector(0)"

    return [
        number(
            Text("Slowest hop", "Age of a record when the exporter took it, newest and slowest topic.", ("VirtflowPipelineSlow",)),
            "max(virtflow_exporter_lag_seconds)",
            "s",
            alarm=30,
        ),
        number(
            Text("History behind", "Records that the history has not taken yet.", ("VirtflowHistoryLag",)),
            "sum(virtflow_history_lag_messages)",
            alarm=10000,
        ),
        number(
            Text("Oldest commit", "Time since the table with the oldest commit had one.", ("VirtflowHistoryNotStoring",)),
            f"max({COMMIT_AGE})",
            "s",
        ),
        number(
            Text("Dead letters in an hour", "Messages that could not be decoded.", ("VirtflowDeadLetters",)),
            counted("virtflow_processors_dead_letters_total"),
            alarm=1,
        ),
        number(
            Text("Given up in an hour", "What producers gave up.", ("VirtflowSnapshotsDropped", "VirtflowEventsLost")),
            counted(f"virtflow_node_drops_total{{{OF_NODE}}}"),
            alarm=1,
        ),
        number(
            Text("Upkeep failed in an hour", "Runs of roll-up, compaction and cleaning.", ("VirtflowHistoryUpkeepFailing",)),
            counted('virtflow_history_upkeep_runs_total{outcome="failed"}'),
            alarm=1,
        ),
    ]


def _lag() -> list[Panel]:
    seconds = [
        Query("virtflow_processors_lag_seconds", "processors {{instance}}"),
        Query("virtflow_exporter_lag_seconds", "exporter {{topic}}"),
        Query("virtflow_history_lag_seconds", "history {{table}}"),
    ]
    messages = [
        Query("sum by (topic) (virtflow_exporter_lag_messages)", "exporter {{topic}}"),
        Query("sum by (table) (virtflow_history_lag_messages)", "history {{table}}"),
    ]
    services = ("processors", "exporter", "history")
    silent = [Query(f"max by (instance) (virtflow_{name}_broker_answer_age_seconds)", f"{name} {{{{instance}}}}") for name in services]
    age = [Query(f"virtflow_node_sample_age_seconds{{{OF_NODE}}}", "{{node}}")]
    return [
        graph(Text("Lag in time", "How old data is when it is taken, or stored.", ("VirtflowPipelineSlow",)), seconds, Style("s")),
        graph(Text("Lag in records", "Records that are not taken yet.", ("VirtflowHistoryLag",)), messages),
        graph(Text("Silence of the brokers", "Time since they last answered each service.", ("VirtflowBrokerSilent",)), silent, Style("s")),
        graph(Text("Age of the newest snapshot", "Of each hypervisor.", ("VirtflowNodeSilent",)), age, Style("s", link=NODE)),
    ]


def _throughput() -> list[Panel]:
    processors = [
        Query("sum(rate(virtflow_processors_messages_total[1m]))", "messages"),
        Query("virtflow:vm_samples:rate1m", "VM samples"),
        Query("sum(rate(virtflow_processors_events_total[1m]))", "events"),
    ]
    exporter = [Query("sum by (topic) (rate(virtflow_exporter_records_total[1m]))", "{{topic}}")]
    taken = [Query("sum by (table) (rate(virtflow_history_records_total[1m]))", "{{table}}")]
    stored = [Query("sum by (table) (rate(virtflow_history_rows_total[5m]))", "{{table}}")]
    return [
        graph(Text("Processors", "Per second.", ("VirtflowNoSamples",)), processors, Style("cps")),
        graph(Text("Exporter: records", "Taken from each topic per second."), exporter, Style("cps")),
        graph(Text("History: records", "Taken for each table per second."), taken, Style("cps")),
        graph(Text("History: rows", "Stored per second over five minutes."), stored, Style("cps")),
    ]


def _lost() -> list[Panel]:
    dead = [
        Query("sum by (reason) (increase(virtflow_processors_dead_letters_total[5m])) > 0", "{{reason}}"),
        Query(f"sum by (node) (increase(virtflow_processors_node_undecodable_total{{{OF_NODE}}}[5m])) > 0", "of {{node}}"),
    ]
    drops = [Query(f"sum by (node, reason) (node:drops:rate5m{{{OF_NODE}}}) > 0", "{{node}} {{reason}}")]
    missing = [
        Query("sum by (topic) (increase(virtflow_processors_missing_records_total[5m])) > 0", "processors {{topic}}: missing"),
        Query("sum by (table) (increase(virtflow_history_missing_records_total[5m])) > 0", "history {{table}}: missing"),
        Query("sum by (topic) (increase(virtflow_exporter_skipped_records_total[5m])) > 0", "exporter {{topic}}: missing"),
        Query("sum by (topic) (increase(virtflow_processors_replaced_offsets_total[5m])) > 0", "processors {{topic}}: replaced"),
        Query("sum by (table) (increase(virtflow_history_replaced_offsets_total[5m])) > 0", "history {{table}}: replaced"),
    ]
    odd = [
        Query("sum(rate(virtflow_processors_duplicates_total[5m]))", "duplicates"),
        Query("sum(rate(virtflow_processors_dropped_values_total[5m]))", "values out of range"),
        Query("sum(rate(virtflow_processors_refused_messages_total[5m]))", "refused by the broker"),
        Query("sum(rate(virtflow_processors_delivery_retries_total[5m]))", "produced again"),
        Query("sum(rate(virtflow_exporter_stale_records_total[5m]))", "older than what is shown"),
    ]
    lost = ("VirtflowProcessorsMissingRecords", "VirtflowHistoryMissingRecords", "VirtflowBrokerLostRecords")
    return [
        graph(Text("Dead letters", "In five minutes, by reason and by node.", ("VirtflowDeadLetters", "VirtflowNodeUndecodable")), dead),
        graph(
            Text("Given up by producers", "By reason, per second over five minutes.", ("VirtflowSnapshotsDropped", "VirtflowEventsLost")),
            drops,
            Style("cps", link=NODE),
        ),
        graph(
            Text("Missing and replaced records", "In five minutes: deleted by Kafka before they were taken, or lost by it.", lost), missing
        ),
        graph(Text("Skipped, refused, repeated", "Per second over five minutes.", ("VirtflowResultsRefused",)), odd, Style("cps")),
    ]


def _history() -> list[Panel]:
    upkeep = [Query("sum by (outcome) (increase(virtflow_history_upkeep_runs_total[1h]))", "{{outcome}}")]
    waiting = [Query("virtflow_history_waiting_records", "{{instance}} waiting")]
    failures = [
        Query("sum(increase(virtflow_history_commit_failures_total[5m]))", "commits not taken"),
        Query("sum(increase(virtflow_history_fenced_partitions_total[5m]))", "partitions started over"),
    ]
    served = [Query("sum by (outcome) (rate(virtflow_history_serve_queries_total[5m]))", "{{outcome}}")]
    spent = [
        Query("sum(rate(virtflow_history_serve_seconds_total[5m]))", "seconds of work per second"),
        Query("sum(rate(virtflow_history_serve_processes_ended_total[5m]))", "reading processes ended"),
    ]
    return [
        graph(
            Text("Age of the last commit", "Of each table, to a minute; it grows where nothing comes.", ("VirtflowHistoryNotStoring",)),
            [Query(COMMIT_AGE, "{{table}} {{instance}}")],
            Style("s"),
        ),
        graph(Text("Records that wait for a commit", "In the writers' memory."), waiting),
        graph(Text("Commits that failed", "In five minutes.", ("VirtflowHistoryNotStoring",)), failures),
        graph(Text("Upkeep", "Runs of roll-up, compaction and cleaning in an hour.", ("VirtflowHistoryUpkeepFailing",)), upkeep),
        graph(
            Text("Queries of remote_read", "Per second over five minutes, by outcome.", ("VirtflowHistoryServeFailing",)),
            served,
            Style("cps"),
        ),
        graph(Text("Work of remote_read", "Time spent, and reading processes that were ended."), spent),
    ]


def _producers() -> list[Panel]:
    spooled = [Query(f"virtflow_node_spooled_rounds{{{OF_NODE}}}", "{{node}} rounds")]
    journal = [Query(f"virtflow_node_journal_events{{{OF_NODE}}}", "{{node}}")]
    return [
        graph(Text("Rounds that wait for the broker", "In the producers' memory."), spooled, Style(link=NODE)),
        graph(
            Text("Events that wait for the broker", "In the producers' journals on disk.", ("VirtflowEventsLost",)),
            journal,
            Style(link=NODE),
        ),
    ]
