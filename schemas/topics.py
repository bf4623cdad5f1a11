"""The topics: one row each. ``virtflow topics create`` makes them; nothing else does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Cleanup(StrEnum):
    """Kafka's ``cleanup.policy``."""

    DELETE = "delete"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: what is in it, by which key, and how long. ``retention_ms`` holds for deleting topics only."""

    name: str
    key: str
    record: str
    cleanup: Cleanup
    about: str
    retention_ms: int | None = None

    def config(self) -> dict[str, str]:
        """The topic's settings as the broker knows them."""
        config = {"cleanup.policy": self.cleanup.value, "max.message.bytes": str(MAX_MESSAGE_BYTES)}
        if self.cleanup is Cleanup.COMPACT:
            # The newest segment is never compacted, and whoever starts reads the whole topic: both stay small.
            config |= {"segment.ms": str(HOUR_MS), "min.cleanable.dirty.ratio": "0.1"}
        if self.retention_ms is not None:
            config["retention.ms"] = str(self.retention_ms)
        return config


MAX_MESSAGE_BYTES = 1_048_588
"""The broker's own default limit of a message; a snapshot is split well below it."""

SNAPSHOT_SPLIT_BYTES = 512 * 1024
"""Size at which a node's round is split into several messages."""

SNAPSHOTS = Topic(
    "vm.snapshots",
    "node",
    "NodeSnapshot",
    Cleanup.DELETE,
    "What libvirt said of all VMs of a node in one round, in libvirt's own units, and the node's own health",
    24 * HOUR_MS,
)
EVENTS = Topic(
    "vm.events",
    "VM uuid",
    "VmEvent",
    Cleanup.DELETE,
    "What happened to a VM, and polls of its running jobs, as the node's libvirt told it",
    30 * DAY_MS,
)
METRICS = Topic(
    "vm.metrics",
    "VM uuid",
    "VmMetrics",
    Cleanup.DELETE,
    "One message per VM and sample: named fields in base units",
    3 * DAY_MS,
)
INVENTORY = Topic(
    "vm.inventory",
    "VM uuid",
    "VmInventory",
    Cleanup.COMPACT,
    "What changes rarely of a VM: names, machine type, devices, the owner's platform",
)
MIGRATIONS = Topic(
    "vm.migrations",
    "VM uuid",
    "VmMigration",
    Cleanup.COMPACT,
    "The running or last migration of each VM: both hosts' view in one",
)
NODES = Topic(
    "vm.nodes",
    "node",
    "NodeStatus",
    Cleanup.COMPACT,
    "The newest health of each node",
)
DEAD_LETTERS = Topic(
    "vm.dead-letters",
    "the original's",
    "",
    Cleanup.DELETE,
    "Messages that could not be decoded: original bytes; topic, partition, offset and reason in headers",
    14 * DAY_MS,
)

TOPICS: tuple[Topic, ...] = (SNAPSHOTS, EVENTS, METRICS, INVENTORY, MIGRATIONS, NODES, DEAD_LETTERS)
