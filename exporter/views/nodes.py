"""From a node's status and its VMs to a row of the API, and the columns by which nodes are sorted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import isnan
from typing import Final

from virtflow.exporter.fleet import Node
from virtflow.exporter.views.fleet_view import Seen
from virtflow.exporter.views.rows import NodeRow
from virtflow.exporter.views.totals import memory_of
from virtflow.exporter.views.values import Column, age, known
from virtflow.schemas.states import RUNNING


class Load:
    """What the VMs of a node use together."""

    __slots__ = ("cpu_cores", "memory_used", "running", "stuck", "vcpus", "vms")

    def __init__(self) -> None:
        """No VM yet; sums of nothing are unknown."""
        self.vms = self.running = self.stuck = self.vcpus = 0
        self.cpu_cores: float | None = None
        self.memory_used: float | None = None

    def add(self, seen: Seen) -> None:
        """Counts one VM."""
        record, cores, memory = seen.record, seen.totals.cpu_cores, memory_of(seen.record).used
        self.vms += 1
        self.running += record.state == RUNNING
        self.stuck += record.responsive == 0
        self.vcpus += max(record.vcpus_current, 0)
        if not isnan(cores):
            self.cpu_cores = (self.cpu_cores or 0.0) + cores
        if memory >= 0:
            self.memory_used = (self.memory_used or 0.0) + memory


NODE_COLUMNS: Final[tuple[Column[NodeRow], ...]] = (
    Column("name", "name", lambda row: row.node),
    Column("up", "whether it is up", lambda row: float(row.up)),
    Column("vms", "VMs", lambda row: row.vms),
    Column("stuck", "VMs that do not answer", lambda row: row.stuck),
    Column("cpu", "cores in use by its VMs", lambda row: row.cpu_cores),
    Column("memory", "memory in use by its VMs", lambda row: row.memory_used_bytes),
    Column("hung", "calls that do not come back", lambda row: row.hung_calls),
    Column("age", "age of its newest status", lambda row: row.sample_age_seconds),
)


def loads(vms: Iterable[Seen]) -> dict[str, Load]:
    """What the VMs of each node use together."""
    found: defaultdict[str, Load] = defaultdict(Load)
    for seen in vms:
        found[seen.record.node].add(seen)
    return found


def node_row(node: Node, load: Load, wall: float) -> NodeRow:
    """The row; of a silent node its health is as it was last told."""
    status, health = node.status, node.status.health
    return NodeRow(
        node=status.node,
        up=is_up(node),
        reason="silent" if node.silent else "" if health.up != 0 else "no libvirt",
        vms=load.vms,
        running=load.running,
        stuck=load.stuck,
        cpu_cores=load.cpu_cores,
        vcpus=load.vcpus,
        memory_used_bytes=load.memory_used,
        hung_calls=known(health.hung_calls),
        hung_calls_limit=known(health.hung_calls_limit),
        vms_skipped=known(health.vms_skipped),
        rounds_late=known(health.rounds_late_total),
        interval_seconds=None if isnan(status.interval) else status.interval,
        sample_age_seconds=age(status.collected, wall),
        version=health.version,
        libvirt_version=health.libvirt_version,
        hypervisor_version=health.hypervisor_version,
    )


def is_up(node: Node) -> bool:
    """Whether a node is heard of and its libvirt answers."""
    return not node.silent and node.status.health.up != 0
