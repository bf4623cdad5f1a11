"""What changed in the fleet, in order: a bounded log with an id for each change, for the page, the API's stream and ``virtflow top``.

The fleet calls this where it has just found a difference, so that a sample that changes nothing costs nothing. Until ``open`` is called
nothing is kept: what the exporter reads back at its start is no news.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from virtflow.schemas.jobs import Result
from virtflow.schemas.records import NodeStatus, VmMetrics, VmMigration
from virtflow.schemas.states import reason_word, state_word

KEPT: Final = 2_000
"""Changes that are kept, about 0.5 KB each."""


class What(StrEnum):
    """The kinds of changes; also the names of the stream's events."""

    VM_APPEARED = "vm_appeared"
    VM_VANISHED = "vm_vanished"
    VM_STATE = "vm_state"
    VM_MOVED = "vm_moved"
    VM_STUCK = "vm_stuck"
    VM_ANSWERS = "vm_answers"
    VM_CONFLICT = "vm_conflict"
    VM_CONFLICT_OVER = "vm_conflict_over"
    MIGRATION_STARTED = "migration_started"
    MIGRATION_ENDED = "migration_ended"
    NODE_APPEARED = "node_appeared"
    NODE_DOWN = "node_down"
    NODE_UP = "node_up"
    NODE_FORGOTTEN = "node_forgotten"


class Change(Struct, frozen=True, gc=False, kw_only=True):
    """One change. ``number`` counts from 1 in this run of the exporter; ``at`` is on the fleet's clock."""

    number: int
    at: float
    kind: What
    uuid: str = ""
    name: str = ""
    node: str = ""
    before: str = ""
    after: str = ""
    reason: str = ""


class Event(Struct, frozen=True, kw_only=True):
    """One change as the API tells it."""

    id: Annotated[
        str, Meta(description="Place in the log: the run of the exporter, and a number that grows by one. For `after` and `Last-Event-ID`.")
    ]
    time: Annotated[float, Meta(description="When the exporter saw it, Unix seconds.")]
    kind: Annotated[What, Meta(description="What changed.")]
    uuid: Annotated[str, Meta(description="The VM; empty for a node's change.")]
    name: Annotated[str, Meta(description="The VM's name.")]
    node: Annotated[str, Meta(description="The node, or the VM's node after the change.")]
    before: Annotated[str, Meta(description="State, node or result before; empty where there is none.")]
    after: Annotated[str, Meta(description="State, node or result after; empty where there is none.")]
    reason: Annotated[str, Meta(description="Why, in libvirt's words; of a migration's end its result.")]
    text: Annotated[str, Meta(description="The change as a sentence about the VM or node, for people.")]


class Changes:
    """The log. Belongs to the thread that feeds the fleet."""

    def __init__(self, kept: int = KEPT) -> None:
        """Closed and empty."""
        self._log: deque[Change] = deque(maxlen=kept)
        self._open = False
        self.listeners: Final[set[Callable[[], None]]] = set()
        """Called after each change."""
        self.newest = 0
        """Number of the newest change, 0 before the first one."""

    def open(self) -> None:
        """From now on changes are kept."""
        self._open = True

    def after(self, number: int) -> Iterator[Change]:
        """The kept changes with a higher number, the oldest first."""
        skipped = number - (self.newest - len(self._log))
        return (change for place, change in enumerate(self._log) if place >= skipped)

    def lost(self, number: int) -> bool:
        """Whether changes after ``number`` are no longer kept."""
        return number < self.newest - len(self._log)

    def vm(self, before: VmMetrics | None, record: VmMetrics, now: float) -> None:
        """A VM's exported sample differs from the one before in state, node or responsiveness, or is the first one."""
        if before is None:
            self._vm(What.VM_APPEARED, record, now, after=_state(record))
            return
        if before.node != record.node:
            self._vm(What.VM_MOVED, record, now, before=before.node, after=record.node)
        if before.state != record.state and record.state >= 0:
            self._vm(What.VM_STATE, record, now, before=_state(before), after=_state(record), reason=_reason(record))
        if record.responsive == 0 and before.responsive != 0:
            self._vm(What.VM_STUCK, record, now)
        elif record.responsive == 1 and before.responsive == 0:
            self._vm(What.VM_ANSWERS, record, now)

    def vanished(self, record: VmMetrics, now: float) -> None:
        """A VM is no longer exported; ``record`` was its last sample."""
        self._vm(What.VM_VANISHED, record, now, before=_state(record))

    def conflict(self, record: VmMetrics, now: float, *, begins: bool) -> None:
        """Two nodes report that the VM runs, or no longer do."""
        self._vm(What.VM_CONFLICT if begins else What.VM_CONFLICT_OVER, record, now)

    def migration(self, before: VmMigration | None, record: VmMigration, now: float) -> None:
        """A VM's newest migration is another one, or has changed."""
        same = before is not None and before.id == record.id
        if same and before is not None and before.result == record.result:
            return
        running = record.result == Result.RUNNING
        self._put(
            kind=What.MIGRATION_STARTED if running else What.MIGRATION_ENDED,
            at=now,
            uuid=record.uuid,
            name=record.name,
            node=record.source if running else record.destination,
            before=record.source,
            after=record.destination,
            reason="" if running else " ".join(word for word in (record.result, record.reason) if word),
        )

    def node(self, before: NodeStatus | None, status: NodeStatus, now: float, *, silent: bool) -> None:
        """A node's status is new; ``silent`` says that it counted as down before."""
        if before is None:
            self._put(kind=What.NODE_APPEARED, at=now, node=status.node)
            return
        was, now_up = not silent and before.health.up != 0, status.health.up != 0
        if was != now_up:
            self._put(kind=What.NODE_UP if now_up else What.NODE_DOWN, at=now, node=status.node, reason="" if now_up else "no libvirt")

    def node_silent(self, status: NodeStatus, now: float, *, forgotten: bool) -> None:
        """A node has been silent for three intervals, or for so long that it is forgotten."""
        if forgotten:
            self._put(kind=What.NODE_FORGOTTEN, at=now, node=status.node, reason="silent")
        elif status.health.up != 0:
            self._put(kind=What.NODE_DOWN, at=now, node=status.node, reason="silent")

    def _vm(self, kind: What, record: VmMetrics, now: float, **words: str) -> None:
        self._put(kind=kind, at=now, uuid=record.uuid, name=record.name, node=record.node, **words)

    def _put(self, **fields: object) -> None:
        if self._open:
            self.newest += 1
            self._log.append(Change(number=self.newest, **fields))  # type: ignore[arg-type]
            for listener in self.listeners:
                listener()


def event_of(change: Change, run: str, wall_less_now: float) -> Event:
    """The change for the API; ``wall_less_now`` is Unix time less the fleet's clock."""
    return Event(
        id=f"{run}-{change.number}",
        time=round(change.at + wall_less_now, 3),
        kind=change.kind,
        uuid=change.uuid,
        name=change.name,
        node=change.node,
        before=change.before,
        after=change.after,
        reason=change.reason,
        text=_SENTENCES[change.kind]
        .format(
            before=change.before.replace("_", " ") if change.kind in _OF_STATES else change.before or "?",
            after=change.after.replace("_", " ") if change.kind in _OF_STATES else change.after or "?",
            reason=change.reason.replace("_", " "),
        )
        .removesuffix(" ()"),
    )


_OF_STATES: Final = frozenset({What.VM_APPEARED, What.VM_VANISHED, What.VM_STATE})
_SENTENCES: Final = {
    What.VM_APPEARED: "appeared, {after}",
    What.VM_VANISHED: "vanished, was {before}",
    What.VM_STATE: "{before} → {after} ({reason})",
    What.VM_MOVED: "moved from {before} to {after}",
    What.VM_STUCK: "does not answer",
    What.VM_ANSWERS: "answers again",
    What.VM_CONFLICT: "is reported as running by two nodes",
    What.VM_CONFLICT_OVER: "is reported as running by one node again",
    What.MIGRATION_STARTED: "migrates from {before} to {after}",
    What.MIGRATION_ENDED: "migration from {before} to {after}: {reason}",
    What.NODE_APPEARED: "appeared",
    What.NODE_DOWN: "is down: {reason}",
    What.NODE_UP: "is up again",
    What.NODE_FORGOTTEN: "is forgotten after a long silence",
}


def place_of(word: str, run: str) -> int | None:
    """The number in an event's id; None for an id of another run or for something else."""
    of, _, number = word.rpartition("-")
    return int(number) if of == run and number.isdecimal() else None


def _state(record: VmMetrics) -> str:
    return state_word(record.state) if record.state >= 0 else ""


def _reason(record: VmMetrics) -> str:
    return reason_word(record.state, record.state_reason) if record.state_reason > 0 else ""
