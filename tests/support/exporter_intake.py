"""An exporter's fleet behind its intake, without a broker: messages in, and all that anybody can read of the fleet out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.support.vm_samples import WALL, fleet, text_of
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.columns import intake
from virtflow.exporter.columns.intake import Intake, Reading
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.schemas.avro.codec import Codec, R
from virtflow.schemas.records import NodeStatus, Record, VmInventory, VmMetrics, VmMigration
from virtflow.schemas.topics import INVENTORY, METRICS, MIGRATIONS, NODES, Topic

CODEC: Final = Codec()
TOPICS: Final[dict[type, Topic]] = {VmMetrics: METRICS, VmInventory: INVENTORY, VmMigration: MIGRATIONS, NodeStatus: NODES}


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as the client returns it."""

    of: Topic
    about: bytes
    content: bytes | None

    def topic(self) -> str:
        return self.of.name

    def key(self) -> bytes:
        return self.about

    def value(self) -> bytes | None:
        return self.content

    def timestamp(self) -> tuple[int, int]:
        return 1, int(WALL * 1000)

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7


def sent(record: Record) -> Sent:
    """The record as a message of its topic."""
    key = record.node if isinstance(record, NodeStatus) else str(getattr(record, "uuid", ""))
    return Sent(TOPICS[type(record)], key.encode(), CODEC.encode(record))


class CountingCodec(Codec):
    """Decodes as ever, and counts the records of samples."""

    decoded = 0

    def decode(self, data: bytes | None, record: type[R]) -> R:
        """Counts, and decodes."""
        self.decoded += record is VmMetrics
        return super().decode(data, record)


class Served:
    """A fleet and its intake; ``now`` is the test's."""

    def __init__(self, *, together: bool, labels: tuple[str, ...] = ("name",)) -> None:
        """``together``: many messages come, and samples may wait for each other."""
        self.now = 0.0
        self.fleet = fleet(labels)
        self.fleet.changes.open()
        self.metrics = OwnMetrics("exporter")
        self.codec = CountingCodec()
        topics = {topic.name: topic for topic in TOPICS.values()}
        reading = Reading("exporter", "g", 60.0, together=together)
        self.intake = Intake(self.fleet, self.codec, self.metrics, topics, Clocks(lambda: self.now, lambda: WALL), reading)
        self.intake.caught_up = True
        self.intake._many = self.intake._lasting = together

    def take(self, *messages: Sent) -> None:
        """Takes messages as the feed does, but for ``due``."""
        for message in messages:
            self.intake.take(message, behind=False)  # type: ignore[arg-type]

    def in_columns(self) -> int:
        """How many VMs are in columns."""
        return len(self.fleet.table.places) if self.fleet.table is not None else 0

    def text(self) -> str:
        """The exposition now."""
        return text_of(self.fleet, self.now, WALL + self.now)

    def state(self) -> dict[str, Any]:
        """All that can be read of the fleet, and what is counted."""
        self.fleet.expire(self.now)
        counted = ("stale_records_total",)
        by_topic = ("records_total", "undecodable_total")
        vms = list(self.fleet._vms.values())
        return {
            "samples": [CODEC.encode(vm.exported) for vm in vms if vm.exported is not None],
            "expires": [(vm.uuid, vm.expires, vm.conflict, vm.identity, vm.info, repr(vm.monitor_collected)) for vm in vms],
            "order": [(node, one.seen, one.expires, one.read() is None) for vm in vms for node, one in vm.samples.items()],
            "changes": list(self.fleet.changes.after(0)),
            "nodes": len(self.fleet.nodes()),
            "counted": [self.metrics.value(f"virtflow_exporter_{name}") for name in counted],
            "by topic": [self.metrics.value(f"virtflow_exporter_{name}", topic.name) for name in by_topic for topic in TOPICS.values()],
        }


def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of one sample is read in columns, and columns are never given up."""
    monkeypatch.setattr(intake, "LEAST", 1)
    monkeypatch.setattr(intake, "ROW_SHARE", 2.0)
