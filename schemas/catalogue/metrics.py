"""The catalogue: one row per metric, everything about it.

From the rows come the fields of the Avro records, the normaliser's table, the exposition, ``docs/metrics.md``,
``virtflow metrics list`` and the tests' tables. To add a metric, add a row to the table of its group (``metrics_*.py``) and run ``scripts/generate``.
"""

from __future__ import annotations

from virtflow.schemas.catalogue.guest_agent import AGENT_METRICS
from virtflow.schemas.catalogue.migration import MIGRATION_METRICS
from virtflow.schemas.catalogue.monitor import NODE_MONITOR_METRICS, VM_MONITOR_METRICS
from virtflow.schemas.catalogue.node_agent import NODE_AGENT_METRICS
from virtflow.schemas.catalogue.service import NODE_METRICS, PIPELINE_METRICS
from virtflow.schemas.catalogue.types import Health, Job, Libvirt, Metric, Scope, Stability
from virtflow.schemas.catalogue.vm import CORE_METRICS, GUEST_METRICS, HYPERVISOR_METRICS, INVENTORY_LABELS, VM_METRICS

__all__ = ["BY_NAME", "IGNORED_FIELDS", "INVENTORY_LABELS", "METRICS", "UNSTABLE", "of_health", "of_libvirt", "of_migration"]

METRICS: tuple[Metric, ...] = (
    *CORE_METRICS,
    *HYPERVISOR_METRICS,
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
