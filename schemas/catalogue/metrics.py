"""The catalogue: one row per metric, everything about it.

From the rows come the fields of the Avro records, the normaliser's table, the exposition, ``docs/metrics.md``,
``virtflow metrics list`` and the tests' tables. To add a metric, add a row to the table of its group (``metrics_*.py``) and run ``scripts/generate``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from virtflow.schemas.catalogue.guest_agent import AGENT_METRICS
from virtflow.schemas.catalogue.kvm import KVM_METRICS
from virtflow.schemas.catalogue.migration import MIGRATION_METRICS
from virtflow.schemas.catalogue.monitor import NODE_MONITOR_METRICS, VM_MONITOR_METRICS
from virtflow.schemas.catalogue.node_agent import NODE_AGENT_METRICS
from virtflow.schemas.catalogue.service import NODE_METRICS, PIPELINE_METRICS
from virtflow.schemas.catalogue.types import Guest, Health, Job, Libvirt, Metric, Rollup, Scope, Split, Stability
from virtflow.schemas.catalogue.vm import CORE_METRICS, GUEST_METRICS, HYPERVISOR_METRICS, INVENTORY_LABELS, VM_METRICS

__all__ = [
    "BY_COLUMN",
    "BY_NAME",
    "IGNORED_FIELDS",
    "INVENTORY_LABELS",
    "METRICS",
    "UNSTABLE",
    "of_agent",
    "of_health",
    "of_libvirt",
    "of_migration",
]

METRICS: tuple[Metric, ...] = (
    *CORE_METRICS,
    *HYPERVISOR_METRICS,
    *KVM_METRICS,
    *GUEST_METRICS,
    *AGENT_METRICS,
    *MIGRATION_METRICS,
    *VM_METRICS,
    *VM_MONITOR_METRICS,
    *NODE_METRICS,
    *NODE_MONITOR_METRICS,
    *NODE_AGENT_METRICS,
    *PIPELINE_METRICS,
)
"""Every metric of virtflow, in the order of the exposition."""

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


@cache
def of_libvirt(scope: Scope) -> tuple[tuple[Metric, Libvirt], ...]:
    """The rows whose value libvirt reports in records of ``scope``, each with its source; one row for each field of a ``Split``."""
    return tuple((row, source) for metric in METRICS for row, source in _fields(metric) if source.scope is scope)


@cache
def of_agent(scope: Scope) -> tuple[tuple[Metric, Guest], ...]:
    """The rows that the history keeps of what guests' agents report, in records of ``scope``, each with its source."""
    return tuple(
        (m, m.source) for m in AGENT_METRICS if isinstance(m.source, Guest) and m.source.scope is scope and m.rollup is not Rollup.NONE
    )


def _fields(metric: Metric) -> tuple[tuple[Metric, Libvirt], ...]:
    match metric.source:
        case Libvirt() as source:
            return ((metric, source),)
        case Split(label=label, fields=fields):
            return tuple((replace(metric, source=source, variant=(label, word)), source) for word, source in fields)
        case _:
            return ()


BY_COLUMN: dict[str, Metric] = {row.column: row for metric in METRICS for row, _ in _fields(metric)}
"""The rows whose value libvirt reports, by the name that each value has alone."""


def of_migration() -> tuple[Metric, ...]:
    """The rows whose value is a field of ``VmMigration``."""
    return tuple(m for m in MIGRATION_METRICS if m.unit or isinstance(m.source, Job) or m.field == "converging")


def of_health() -> tuple[tuple[Metric, Health], ...]:
    """The rows whose value travels in the node's health record."""
    return tuple((m, m.source) for m in METRICS if isinstance(m.source, Health))


IGNORED_FIELDS = (
    "block.N.backingIndex",
    "block.N.errors",
    "block.N.latency_histogram.*",
    "block.N.limits.*",
    "block.N.path",
    "block.N.timed_group*",
    "block.N.url",
    "cpu.cache.monitor.*",
    "cpu.energy.monitor.*",
    "dirtyrate.*",
    "iothread.*",
    "memory.bandwidth.monitor.*",
    "perf.*",
    "vcpu.N.*.cur",
    "vcpu.N.*.max",
    "vcpu.N.*.sum",
    "vcpu.N.halted",
    "vm.*",
)
"""Fields that libvirt is known to report and that are no metric: skipped without being counted. ``N`` is an index, ``*`` any text, so that
statistics of a later kernel or hypervisor are known, too. Sources: libvirt's ``virConnectGetAllDomainStats`` reference and release notes up
to 12.4; the hypervisor's own statistics have a name of its choice between ``vcpu.N`` or ``vm`` and their kind."""

UNSTABLE = tuple(m.name for m in METRICS if m.stability is Stability.EXPERIMENTAL)
