"""The fleet in one answer: how many of what, how much is in use, and who uses most."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from virtflow.exporter.fleet import Node
from virtflow.exporter.views.fleet_view import Seen
from virtflow.exporter.views.nodes import is_up
from virtflow.exporter.views.rows import NodeCounts, ProjectCount, Top
from virtflow.exporter.views.vms import BY_NAME, project_of, word_of

TOPS: Final = ("cpu", "steal", "memory", "disk", "network")
"""What the largest consumers are listed of: columns of VMs."""
TOP_VMS: Final = 5
PROJECTS: Final = 200


def node_counts(nodes: Iterable[Node]) -> NodeCounts:
    """Nodes in numbers."""
    every = list(nodes)
    up = sum(map(is_up, every))
    return NodeCounts(known=len(every), up=up, down=len(every) - up, hung=sum(node.status.health.hung_calls > 0 for node in every))


def tops(vms: Sequence[Seen]) -> dict[str, list[Top]]:
    """The VMs that use most, by each of ``TOPS``; those that use nothing are left out."""
    return {name: _top(vms, name) for name in TOPS}


def _top(vms: Sequence[Seen], name: str) -> list[Top]:
    values = list(map(BY_NAME[name].value, vms))
    numbers = [value for value in values if isinstance(value, int | float) and value > 0]
    # The fifth largest first: comparing numbers is cheap, and few VMs are left to be told apart by their UUIDs.
    least = min(heapq.nlargest(TOP_VMS, numbers), default=0.0)
    found = [
        (value, seen.uuid, seen)
        for value, seen in zip(values, vms, strict=True)
        if isinstance(value, int | float) and value > 0 and value >= least
    ]
    largest = heapq.nlargest(TOP_VMS, found, key=lambda one: one[:2])
    return [Top(uuid=uuid, name=seen.name, node=seen.node, value=number) for number, uuid, seen in largest]


def states(vms: Iterable[Seen]) -> dict[str, int]:
    """VMs by state, the most frequent one first."""
    found: Counter[str] = Counter()
    for state, count in Counter([seen.state for seen in vms]).items():
        found[word_of(state)] += count
    return dict(found.most_common())


def projects(vms: Iterable[Seen]) -> list[ProjectCount]:
    """The projects with the most VMs; VMs without one are not counted."""
    counted = Counter(filter(None, map(project_of, vms)))
    return [ProjectCount(project=project, vms=count) for project, count in counted.most_common(PROJECTS)]


def sums(vms: Sequence[Seen]) -> dict[str, float | None]:
    """What all VMs use together; None where it is known of none."""
    memories = [seen.memory for seen in vms]
    every = [seen.totals for seen in vms]
    return {
        "cpu_cores": _sum([one.cpu_cores for one in every]),
        "memory_used_bytes": _sum([one.used for one in memories]),
        "memory_bytes": _sum([one.of for one in memories]),
        "disk_read_bytes_per_second": _sum([one.read_bytes for one in every]),
        "disk_write_bytes_per_second": _sum([one.write_bytes for one in every]),
        "network_receive_bytes_per_second": _sum([one.receive_bytes for one in every]),
        "network_transmit_bytes_per_second": _sum([one.transmit_bytes for one in every]),
    }


def _sum(values: Iterable[float]) -> float | None:
    present = [value for value in values if value >= 0]  # neither NaN nor -1
    return float(sum(present)) if present else None
