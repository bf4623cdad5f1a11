"""From a node's status and its VMs to a row of the API, and the columns by which nodes are sorted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import isnan
from typing import Any, Final

from virtflow.exporter.fleet import Node
from virtflow.exporter.views.fleet_view import Seen
from virtflow.exporter.views.rows import NodeDetail, NodeFinding, NodeRow
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
        cores, memory = seen.totals.cpu_cores, seen.memory.used
        self.vms += 1
        self.running += seen.state == RUNNING
        self.stuck += seen.responsive == 0
        self.vcpus += max(seen.vcpus, 0)
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
        found[seen.node].add(seen)
    return found


def node_row(node: Node, load: Load, wall: float) -> NodeRow:
    """The row; of a silent node its health is as it was last told."""
    return NodeRow(**_fields(node, load, wall))


def node_detail(node: Node, load: Load, wall: float) -> NodeDetail:
    """The row with what is wrong."""
    return NodeDetail(**_fields(node, load, wall), findings=findings(node, load))


def _fields(node: Node, load: Load, wall: float) -> dict[str, Any]:
    status, health = node.status, node.status.health
    return {
        "node": status.node,
        "up": is_up(node),
        "reason": "silent" if node.silent else "" if health.up != 0 else "no libvirt",
        "vms": load.vms,
        "running": load.running,
        "stuck": load.stuck,
        "cpu_cores": load.cpu_cores,
        "vcpus": load.vcpus,
        "memory_used_bytes": load.memory_used,
        "hung_calls": known(health.hung_calls),
        "hung_calls_limit": known(health.hung_calls_limit),
        "vms_skipped": known(health.vms_skipped),
        "rounds_late": known(health.rounds_late_total),
        "interval_seconds": None if isnan(status.interval) else status.interval,
        "sample_age_seconds": age(status.collected, wall),
        "version": health.version,
        "libvirt_version": health.libvirt_version,
        "hypervisor_version": health.hypervisor_version,
    }


LATE_SHARE: Final = 0.1
"""From this share of late rounds on the node is too slow for its interval."""
_LOST_ROUNDS: Final = "see whether the broker was away or slow; single values and devices are named in the producer's log"
_DOCTOR: Final = "run `virtflow doctor` on the node: it names them, and what they wait for"


def findings(node: Node, load: Load) -> list[NodeFinding]:
    """What is wrong on a node, from its health and its VMs; of a silent node from what it told last."""
    health = node.status.health
    late, rounds = health.rounds_late_total, health.rounds_total
    drops = ", ".join(f"{reason}: {count}" for reason, count in sorted(health.drops_total.items()) if count > 0)
    limit = health.hung_calls_limit
    found = (
        (
            node.silent,
            ("node", "nothing has come from it for three sampling intervals", "see whether its producer runs and reaches the broker"),
            "VirtflowNodeSilent",
        ),
        (
            health.up == 0,
            ("libvirt", "its producer reports that libvirt does not answer", "see whether libvirtd runs; VMs run on without it"),
            "VirtflowNodeSilent",
        ),
        (health.daemons_silent > 0, ("libvirt", f"{health.daemons_silent} of its daemons do not answer", _DOCTOR), ""),
        (
            health.hung_calls > 0 and 0 <= limit <= health.hung_calls,
            ("hung calls", f"{health.hung_calls} calls do not come back, as many as may: other VMs are no longer asked", _DOCTOR),
            "VirtflowHungCallLimitReached",
        ),
        (
            health.hung_calls > 0 and not 0 <= limit <= health.hung_calls,
            ("hung calls", f"{health.hung_calls} calls do not come back", _DOCTOR),
            "VirtflowVmStuck",
        ),
        (load.stuck > 0, ("VMs", f"{load.stuck} of them do not answer libvirt", _DOCTOR), "VirtflowVmStuck"),
        (
            rounds > 0 and rounds * LATE_SHARE <= late,
            ("rounds", f"{late} of {rounds} were late", "choose a longer producer.interval_seconds, or find what keeps libvirtd busy"),
            "",
        ),
        (bool(drops), ("losses", f"left out since its producer started: {drops}", _LOST_ROUNDS), "VirtflowSnapshotsDropped"),
        (
            health.spooled_rounds > 0,
            ("broker", f"{health.spooled_rounds} rounds wait for it", "see whether the node reaches the broker"),
            "",
        ),
        (health.guest_process_up == 0, ("guest agents", "the process that asks them does not run", "see the producer's log"), ""),
    )
    return [NodeFinding(thing=thing, why=why, fix=fix, alert=alert) for holds, (thing, why, fix), alert in found if holds]


def is_up(node: Node) -> bool:
    """Whether a node is heard of and its libvirt answers."""
    return not node.silent and node.status.health.up != 0
