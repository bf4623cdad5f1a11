"""The catalogue: one row per metric, everything about it.

From the rows come the fields of the Avro records, the normaliser's table, the exposition, ``docs/metrics.md``,
``virtflow metrics list`` and the tests' tables. To add a metric, add a row and run ``scripts/generate``.
Sources of the libvirt fields and units: libvirt's ``virConnectGetAllDomainStats`` reference and ``virsh domstats``.
"""

from __future__ import annotations

from virtflow.schemas.metrics_migration import MIGRATION_METRICS
from virtflow.schemas.metrics_monitor import NODE_MONITOR_METRICS, VM_MONITOR_METRICS
from virtflow.schemas.vocabulary import (
    Conversion,
    Derived,
    Group,
    Health,
    Job,
    Libvirt,
    Metric,
    Own,
    Rollup,
    Scope,
    Stability,
    Type,
)

_C, _G = Type.COUNTER, Type.GAUGE
_NS, _KIB = Conversion.NANOSECONDS, Conversion.KIBIBYTES
_DEVICE, _VCPU, _NODE = ("device",), ("vcpu",), ("node",)


def _core() -> tuple[Metric, ...]:
    def row(name: str, kind: Type, unit: str, text: str, source: Libvirt) -> Metric:
        labels = () if source.scope is Scope.VM else _DEVICE
        return Metric(name, kind, unit, text, Group.CORE, source, labels)

    cpu = (
        row("vm_cpu_seconds_total", _C, "seconds", "CPU time the VM has used.", Libvirt("cpu.time", _NS)),
        row(
            "vm_cpu_user_seconds_total",
            _C,
            "seconds",
            "CPU time the VM has used in user mode of the host.",
            Libvirt("cpu.user", _NS),
        ),
        row(
            "vm_cpu_system_seconds_total",
            _C,
            "seconds",
            "CPU time the VM has used in kernel mode of the host.",
            Libvirt("cpu.system", _NS),
        ),
    )
    network = tuple(
        row(f"vm_network_{word}_{what}_total", _C, unit, f"{text} by the VM's network device.", Libvirt(f"net.N.{tag}.{key}"))
        for word, tag, verb in (("receive", "rx", "received"), ("transmit", "tx", "transmitted"))
        for what, key, unit, text in (
            ("bytes", "bytes", "bytes", f"Bytes {verb}"),
            ("packets", "pkts", "", f"Packets {verb}"),
            ("errors", "errs", "", f"Errors while packets were {verb}"),
            ("packets_dropped", "drop", "", f"Packets dropped instead of being {verb}"),
        )
    )
    requests = tuple(
        row(f"vm_block_{word}_{what}_total", _C, unit, f"{text} the VM's block device.", Libvirt(f"block.N.{tag}.{key}", how))
        for word, tag, noun, past in (("read", "rd", "Read", "read from"), ("write", "wr", "Write", "written to"))
        for what, key, unit, text, how in (
            ("requests", "reqs", "", f"{noun} requests completed by", Conversion.NONE),
            ("bytes", "bytes", "bytes", f"Bytes {past}", Conversion.NONE),
            ("seconds", "times", "seconds", f"Time spent in {noun.lower()} requests of", _NS),
        )
    )
    flush = (
        row("vm_block_flush_requests_total", _C, "", "Flush requests completed by the VM's block device.", Libvirt("block.N.fl.reqs")),
        row(
            "vm_block_flush_seconds_total",
            _C,
            "seconds",
            "Time spent in flush requests of the VM's block device.",
            Libvirt("block.N.fl.times", _NS),
        ),
    )
    sizes = tuple(
        row(f"vm_block_{what}_bytes", _G, "bytes", text, Libvirt(f"block.N.{what}"))
        for what, text in (
            ("allocation", "Highest offset written to the image since the VM started, or its allocated size."),
            ("capacity", "Size of the VM's block device as the guest sees it."),
            ("physical", "Size of the container of the image on the host."),
            ("threshold", "Offset whose crossing libvirt will announce, where one was set."),
        )
    )
    return cpu + network + requests + flush + sizes


def _hypervisor() -> tuple[Metric, ...]:
    def row(
        name: str,
        kind: Type,
        unit: str,
        text: str,
        source: Libvirt | Derived,
        labels: tuple[str, ...] = (),
        rolls: Rollup | None = None,
    ) -> Metric:
        return Metric(name, kind, unit, text, Group.HYPERVISOR, source, labels, rolls=rolls)

    return (
        row("vm_state", _G, "", "State of the VM as libvirt's number.", Libvirt("state.state"), rolls=Rollup.STATES),
        row(
            "vm_state_reason",
            _G,
            "",
            "Reason of the state as libvirt's number; its meaning depends on the state.",
            Libvirt("state.reason"),
            rolls=Rollup.LAST,
        ),
        row(
            "vm_state_info",
            _G,
            "",
            "State of the VM and its reason in words; always 1.",
            Derived("words for state.state and state.reason"),
            ("state", "reason"),
        ),
        row(
            "vm_memory_balloon_current_bytes",
            _G,
            "bytes",
            "Memory the balloon leaves to the VM.",
            Libvirt("balloon.current", _KIB),
        ),
        row(
            "vm_memory_balloon_maximum_bytes",
            _G,
            "bytes",
            "Memory the VM may have at most.",
            Libvirt("balloon.maximum", _KIB),
        ),
        row("vm_memory_rss_bytes", _G, "bytes", "Resident memory of the VM's process on the host.", Libvirt("balloon.rss", _KIB)),
        row("vm_vcpus_current", _G, "", "Virtual CPUs the VM has.", Libvirt("vcpu.current")),
        row("vm_vcpus_maximum", _G, "", "Virtual CPUs the VM may have at most.", Libvirt("vcpu.maximum")),
        row(
            "vm_vcpu_state",
            _G,
            "",
            "State of the virtual CPU: 0 offline, 1 running, 2 blocked.",
            Libvirt("vcpu.N.state"),
            _VCPU,
            Rollup.STATES,
        ),
        row("vm_vcpu_seconds_total", _C, "seconds", "CPU time the virtual CPU has used.", Libvirt("vcpu.N.time", _NS), _VCPU),
        row(
            "vm_vcpu_wait_seconds_total",
            _C,
            "seconds",
            "Time the virtual CPU's thread has waited, as the host's scheduler counts it.",
            Libvirt("vcpu.N.wait", _NS),
            _VCPU,
        ),
        row(
            "vm_vcpu_delay_seconds_total",
            _C,
            "seconds",
            "Time the virtual CPU was ready and waited for a CPU of the host (steal).",
            Libvirt("vcpu.N.delay", _NS),
            _VCPU,
        ),
        row("vm_network_devices", _G, "", "Network devices of the VM.", Libvirt("net.count")),
        row("vm_block_devices", _G, "", "Block devices of the VM.", Libvirt("block.count")),
    )


def _guest() -> tuple[Metric, ...]:
    def row(name: str, kind: Type, unit: str, text: str, source: Libvirt, rolls: Rollup | None = None) -> Metric:
        return Metric(name, kind, unit, text, Group.GUEST, source, rolls=rolls)

    return (
        row(
            "vm_guest_memory_total_bytes",
            _G,
            "bytes",
            "Memory the guest's kernel manages, told by the balloon driver.",
            Libvirt("balloon.available", _KIB),
        ),
        row("vm_guest_memory_free_bytes", _G, "bytes", "Memory the guest does not use at all.", Libvirt("balloon.unused", _KIB)),
        row(
            "vm_guest_memory_usable_bytes",
            _G,
            "bytes",
            "Memory the guest can hand out without swapping.",
            Libvirt("balloon.usable", _KIB),
        ),
        row(
            "vm_guest_memory_disk_caches_bytes",
            _G,
            "bytes",
            "Memory the guest uses for disk caches it can give back at once.",
            Libvirt("balloon.disk_caches", _KIB),
        ),
        row(
            "vm_guest_memory_swap_in_bytes_total",
            _C,
            "bytes",
            "Bytes the guest has swapped in.",
            Libvirt("balloon.swap_in", _KIB),
        ),
        row(
            "vm_guest_memory_swap_out_bytes_total",
            _C,
            "bytes",
            "Bytes the guest has swapped out.",
            Libvirt("balloon.swap_out", _KIB),
        ),
        row(
            "vm_guest_memory_major_faults_total",
            _C,
            "",
            "Page faults of the guest that needed its disk.",
            Libvirt("balloon.major_fault"),
        ),
        row("vm_guest_memory_minor_faults_total", _C, "", "Page faults of the guest that needed no disk.", Libvirt("balloon.minor_fault")),
        row(
            "vm_guest_memory_hugetlb_allocations_total",
            _C,
            "",
            "Huge pages the guest has allocated.",
            Libvirt("balloon.hugetlb_pgalloc"),
        ),
        row(
            "vm_guest_memory_hugetlb_failures_total",
            _C,
            "",
            "Huge pages the guest asked for and did not get.",
            Libvirt("balloon.hugetlb_pgfail"),
        ),
        row(
            "vm_guest_memory_updated_timestamp_seconds",
            _G,
            "seconds",
            "When the guest's balloon driver last told its memory statistics, in Unix time.",
            Libvirt("balloon.last-update"),
            Rollup.LAST,
        ),
    )


INVENTORY_LABELS = (
    "node",
    "title",
    "machine_type",
    "platform",
    "project",
    "project_id",
    "user",
    "user_id",
    "flavor",
    "namespace",
    "instance",
)
"""Labels of ``vm_info`` beyond uuid and name: the fields of ``VmInventory`` of the same names. ``namespace`` and
``instance`` are Kubernetes' for KubeVirt; ``instance`` is the cloud's own name of the VM elsewhere."""


def _vm() -> tuple[Metric, ...]:
    def row(name: str, unit: str, text: str, how: str, labels: tuple[str, ...] = ()) -> Metric:
        return Metric(name, _G, unit, text, Group.VM, Derived(how), labels)

    return (
        row(
            "vm_info",
            "",
            "Where the VM runs and what its owner's platform calls it, for joins; always 1.",
            "the newest VmInventory of the VM",
            INVENTORY_LABELS,
        ),
        row("vm_sample_age_seconds", "seconds", "Age of the VM's newest sample.", "scrape time less VmMetrics.collected"),
        row(
            "vm_monitor_age_seconds",
            "seconds",
            "Age of the VM's newest sample of the groups that can hang.",
            "scrape time less the start of the newest monitor call that answered for the VM",
        ),
        row(
            "vm_conflict",
            "",
            "Whether two nodes claim to run the VM for longer than a hand-over takes.",
            "the nodes' newest samples of the VM (schemas/ownership.py)",
        ),
    )


def _node() -> tuple[Metric, ...]:
    def row(
        name: str,
        kind: Type,
        unit: str,
        text: str,
        source: Health | Derived,
        labels: tuple[str, ...] = (),
    ) -> Metric:
        return Metric(f"virtflow_node_{name}", kind, unit, text, Group.NODE, source, _NODE + labels)

    return (
        row("up", _G, "", "Whether libvirt on the node answered in the newest round and the node is not silent.", Health("up")),
        row(
            "info",
            _G,
            "",
            "Versions on the node; always 1.",
            Derived("the version fields of the node's health"),
            ("version", "libvirt_version", "hypervisor_version"),
        ),
        row("sample_age_seconds", _G, "seconds", "Age of the node's newest snapshot.", Derived("scrape time less NodeStatus.collected")),
        row("interval_seconds", _G, "seconds", "Sampling interval of the node.", Derived("NodeStatus.interval")),
        row("vms", _G, "", "VMs of the node by state.", Health("vms"), ("state",)),
        row(
            "sampling_seconds",
            _G,
            "seconds",
            "How long the newest round took, by tier; missing for a tier that has not answered.",
            Health("sampling_seconds"),
            ("tier",),
        ),
        row("rounds_total", _C, "", "Rounds of sampling since the producer started.", Health("rounds_total")),
        row(
            "rounds_late_total",
            _C,
            "",
            "Rounds that sent a VM without its monitor groups because they had not answered by the deadline.",
            Health("rounds_late_total"),
        ),
        row("rounds_skipped_total", _C, "", "Rounds that were skipped because one before took too long.", Health("rounds_skipped_total")),
        row("reconnects_total", _C, "", "Connections to libvirt opened anew after a loss.", Health("reconnects_total")),
        row(
            "unknown_fields_total",
            _C,
            "",
            "Fields libvirt reported that the catalogue does not know.",
            Health("unknown_fields_total"),
        ),
        row(
            "drops_total",
            _C,
            "",
            "What the producer had to give up, by reason: snapshots, values, devices, messages.",
            Health("drops_total"),
            ("reason",),
        ),
        row("spooled_rounds", _G, "", "Rounds that wait in memory for the broker.", Health("spooled_rounds")),
        row("events_total", _C, "", "Events of libvirt about VMs that were taken, by kind.", Health("events_total"), ("kind",)),
        row(
            "journal_events", _G, "", "Events in the journal on disk, which the broker has not acknowledged yet.", Health("journal_events")
        ),
        row("journal_bytes", _G, "bytes", "Size of the events in the journal on disk.", Health("journal_bytes")),
        row("jobs", _G, "", "Running jobs of VMs that are polled.", Health("jobs")),
        row("job_polls_total", _C, "", "Polls of running jobs, by outcome.", Health("job_polls_total"), ("outcome",)),
        row("cpu_seconds_total", _C, "seconds", "CPU time of the producer's own process.", Health("cpu_seconds_total")),
        row("resident_memory_bytes", _G, "bytes", "Resident memory of the producer's own process.", Health("resident_memory_bytes")),
    )


def _pipeline() -> tuple[Metric, ...]:
    def row(
        name: str,
        kind: Type,
        unit: str,
        text: str,
        service: str,
        labels: tuple[str, ...] = (),
    ) -> Metric:
        return Metric(f"virtflow_{name}", kind, unit, text, Group.PIPELINE, Own(service), labels)

    return (
        row("build_info", _G, "", "Version of the service; always 1.", "all", ("service", "version")),
        row("processors_messages_total", _C, "", "Messages taken from vm.snapshots.", "processors"),
        row("processors_vm_samples_total", _C, "", "VM samples sent to vm.metrics and acknowledged.", "processors"),
        row(
            "processors_duplicates_total",
            _C,
            "",
            "Snapshots passed by because they had been seen or a newer one had.",
            "processors",
        ),
        row("processors_dead_letters_total", _C, "", "Messages sent to vm.dead-letters, by reason.", "processors", ("reason",)),
        row("processors_dropped_values_total", _C, "", "Values out of range, left out of their sample.", "processors"),
        row("processors_dropped_vms_total", _C, "", "VMs left out of their snapshot because their uuid is none.", "processors"),
        row("processors_refused_messages_total", _C, "", "Results the broker will never take, left out.", "processors"),
        row("processors_events_total", _C, "", "Events taken from vm.events.", "processors"),
        row("processors_migrations_total", _C, "", "Migrations that ended, by result.", "processors", ("result",)),
        row("processors_migrations_running", _G, "", "Migrations that are being followed.", "processors"),
        row("processors_delivery_retries_total", _C, "", "Messages produced again after a failed delivery.", "processors"),
        row("processors_in_flight", _G, "", "Snapshots whose results the broker has not acknowledged yet.", "processors"),
        row(
            "processors_lag_seconds",
            _G,
            "seconds",
            "Time from a snapshot's arrival at the broker to its processing, newest message.",
            "processors",
        ),
        row("exporter_records_total", _C, "", "Records taken from the topics, by topic.", "exporter", ("topic",)),
        row("exporter_undecodable_total", _C, "", "Records passed by because they could not be decoded, by topic.", "exporter", ("topic",)),
        row("exporter_stale_records_total", _C, "", "Samples passed by because a newer one is shown.", "exporter"),
        row(
            "exporter_skipped_records_total",
            _C,
            "",
            "Records that were deleted from a topic before they were taken, by topic.",
            "exporter",
            ("topic",),
        ),
        row("exporter_vms", _G, "", "VMs that are shown.", "exporter"),
        row("exporter_nodes", _G, "", "Nodes that are known.", "exporter"),
        row("exporter_series", _G, "", "Series that are shown.", "exporter"),
        row("exporter_lag_seconds", _G, "seconds", "Age of the newest record of a topic when it was taken.", "exporter", ("topic",)),
        row("exporter_lag_messages", _G, "", "Records of a topic that are not taken yet.", "exporter", ("topic",)),
        row("exporter_scrapes_total", _C, "", "Scrapes answered.", "exporter"),
        row("exporter_scrape_seconds_total", _C, "seconds", "Time spent rendering scrapes.", "exporter"),
        row("history_records_total", _C, "", "Records taken for the history, by table.", "history", ("table",)),
        row("history_rows_total", _C, "", "Rows stored, by table.", "history", ("table",)),
        row("history_commits_total", _C, "", "Commits made, by table.", "history", ("table",)),
        row("history_skipped_records_total", _C, "", "Records left out of the history, by table and reason.", "history", ("table", "reason")),
        row("history_missing_records_total", _C, "", "Records the broker no longer had when they were due, by table.", "history", ("table",)),
        row("history_commit_failures_total", _C, "", "Commits the storage did not take; they are tried again.", "history"),
        row("history_fenced_partitions_total", _C, "", "Partitions started over because another writer had them.", "history"),
        row("history_waiting_records", _G, "", "Records in memory that wait for a commit.", "history"),
        row("history_partitions", _G, "", "Partitions this writer has.", "history"),
        row(
            "history_lag_seconds",
            _G,
            "seconds",
            "Time from the newest stored record's arrival at the broker to its commit, by table.",
            "history",
            ("table",),
        ),
        row("history_upkeep_runs_total", _C, "", "Runs of roll-up, compaction and cleaning, by outcome.", "history", ("outcome",)),
        row("web_requests_total", _C, "", "HTTP requests answered, by status.", "all", ("status",)),
        row("web_connections", _G, "", "HTTP connections that are open.", "all"),
        row("web_connections_refused_total", _C, "", "HTTP connections refused because too many were open.", "all"),
    )


METRICS: tuple[Metric, ...] = (
    _core() + _hypervisor() + _guest() + MIGRATION_METRICS + _vm() + VM_MONITOR_METRICS + _node() + NODE_MONITOR_METRICS + _pipeline()
)
"""Every metric of virtflow, in the order of the exposition."""

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


def of_libvirt(scope: Scope) -> tuple[tuple[Metric, Libvirt], ...]:
    """The rows whose value libvirt reports in records of ``scope``, each with its source."""
    return tuple((m, m.source) for m in METRICS if isinstance(m.source, Libvirt) and m.source.scope is scope)


def of_migration() -> tuple[Metric, ...]:
    """The rows whose value is a field of ``VmMigration``."""
    return tuple(m for m in MIGRATION_METRICS if m.unit or isinstance(m.source, Job) or m.field == "converging")


def of_health() -> tuple[tuple[Metric, Health], ...]:
    """The rows whose value travels in the node's health record."""
    return tuple((m, m.source) for m in METRICS if isinstance(m.source, Health))


IGNORED_FIELDS = (
    "block.N.backingIndex",
    "block.N.path",
    "block.N.url",
    "cpu.cache.monitor.count",
    "cpu.haltpoll.fail.time",
    "cpu.haltpoll.success.time",
    "vcpu.N.halted",
)
"""Fields libvirt is known to report in the groups we ask for that are no metric: passed by without being counted."""

UNSTABLE = tuple(m.name for m in METRICS if m.stability is Stability.EXPERIMENTAL)
