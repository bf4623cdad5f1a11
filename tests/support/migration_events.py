"""Events of migrations for tables: short to write, as two producers would send them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from virtflow.processors.migrations.reducer import apply_event
from virtflow.schemas.records import VmEvent, VmMigration

UUID = "01c4627c-7455-4be4-b014-9523f6d7e739"
BEGIN = 1_795_476_000.0

OUT, SAVE = 5, 2


@dataclass
class Host:
    """One node's producer: numbers its events, dates them by a clock that may be ``skew`` off."""

    node: str
    skew: float = 0.0
    boot_id: str = "boot"
    sequence: int = field(default=0)

    def event(self, at: float, kind: str, **fields: object) -> VmEvent:
        """An event at ``at`` seconds after the begin."""
        self.sequence += 1
        return VmEvent(
            uuid=UUID,
            name="web-1",
            node=self.node,
            boot_id=self.boot_id,
            sequence=self.sequence,
            time=BEGIN + at + self.skew,
            kind=kind,
            **fields,  # type: ignore[arg-type]
        )

    def lifecycle(self, at: float, event: int, detail: int) -> VmEvent:
        """A life-cycle event."""
        return self.event(at, "lifecycle", event=event, detail=detail)

    def poll(self, at: float, elapsed: float, operation: int = OUT, **job: int) -> VmEvent:
        """A poll of a job that has run for ``elapsed`` seconds."""
        return self.event(at, "job", job={"operation": operation, "type": 2, "time_elapsed": int(elapsed * 1000), **job})

    def completed(self, at: float, elapsed: float, operation: int = OUT, **job: int) -> VmEvent:
        """The completed statistics of a job."""
        return self.event(at, "job_completed", job={"operation": operation, "time_elapsed": int(elapsed * 1000), "downtime": 105, **job})

    def gone(self, at: float, state: int = 1, text: str = "", reason: int = -1) -> VmEvent:
        """A polled job has vanished."""
        return self.event(at, "job_gone", state=state, text=text, reason=reason)


def whole(source: Host, destination: Host, at: float = 0.0) -> list[VmEvent]:
    """A migration of five seconds in which nothing is missing."""
    return [
        destination.lifecycle(at + 0.1, 2, 1),
        source.event(at + 0.3, "migration_iteration", iteration=1),
        source.poll(at + 1.0, 1.0, memory_iteration=1, memory_remaining=100, data_total=200, data_remaining=100),
        source.poll(at + 2.0, 2.0, memory_iteration=2, memory_remaining=50, data_total=200, data_remaining=50),
        source.lifecycle(at + 4.0, 3, 1),
        destination.lifecycle(at + 4.1, 4, 1),
        source.lifecycle(at + 4.9, 5, 3),
        source.completed(at + 5.0, 4.2, memory_iteration=3, data_total=200, data_remaining=0),
    ]


def followed(events: Iterable[VmEvent], current: VmMigration | None = None) -> list[VmMigration]:
    """Every state that goes out, the newest last."""
    out = [current] if current else []
    for event in events:
        out += apply_event(out[-1] if out else None, event)
    return out
