"""One VM of the fleet: each node's newest sample, as a record or in columns, and which of them is exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from virtflow.exporter.render.lines import Lines
from virtflow.schemas.order import Position, Seen, advance
from virtflow.schemas.ownership import SplitBrain
from virtflow.schemas.records import NAN, VmInventory, VmMetrics

NEVER: Final = float("inf")


class NodeSample:
    """One node's newest sample of a VM, and when it expires; its order outlives the sample.

    Of a sample in columns ``record`` is None until it is asked for by ``read``, and ``collected`` and ``interval`` are its own; else they are
    those of a sample before.
    """

    __slots__ = ("collected", "expires", "interval", "record", "seen", "unread")

    def __init__(self, record: VmMetrics, seen: Seen, expires: float) -> None:
        """``expires`` is when the sample is three intervals old."""
        self.record: VmMetrics | None = record
        self.unread: Callable[[], VmMetrics] | None = None
        self.collected, self.interval = record.collected, record.interval
        self.seen = seen
        self.expires = expires

    def read(self) -> VmMetrics | None:
        """The record; of a sample in columns it is kept until ``release``."""
        if self.record is None and self.unread is not None:
            self.record = self.unread()
        return self.record

    def release(self) -> None:
        """Frees the record of a sample that can be read again."""
        if self.unread is not None:
            self.record = None

    def renew(self, unread: Callable[[], VmMetrics], place: tuple[int, int], times: tuple[float, float], expires: float) -> None:
        """Takes a newer sample of the same run of the node; its sequence and part, when it was collected, and its interval are known."""
        self.seen = advance(self.seen, Position(self.seen.newest.boot_id, *place))
        self.unread, self.record = unread, None
        (self.collected, self.interval), self.expires = times, expires


class Vm:
    """One VM: each node's newest sample, the exported one, and its lines as they were last rendered, from the sample ``rendered``.

    A VM in columns has its values at its ``place`` in the fleet's table; ``in_columns`` is its only sample, and it has neither a ``row``, the
    record of its exported sample, nor lines.
    """

    __slots__ = (
        "conflict",
        "expires",
        "identity",
        "in_columns",
        "info",
        "inventory",
        "lines",
        "monitor_collected",
        "not_before",
        "place",
        "rendered",
        "row",
        "samples",
        "split_brain",
        "uuid",
    )

    def __init__(self, uuid: str) -> None:
        """Nothing is known yet."""
        self.uuid: Final = uuid
        self.samples: dict[str, NodeSample] = {}
        self.inventory: VmInventory | None = None
        self.row: VmMetrics | None = None
        self.in_columns: NodeSample | None = None
        self.place = -1
        self.rendered: VmMetrics | None = None
        self.identity = ""
        self.lines: Lines = ()
        self.info = ""
        self.monitor_collected = NAN
        self.split_brain = SplitBrain()
        self.not_before: dict[str, float] = {}
        self.conflict = False
        self.expires = NEVER

    @property
    def exported(self) -> VmMetrics | None:
        """The exported sample; of a VM in columns it is read now."""
        return self.row if self.in_columns is None else self.in_columns.read()

    @property
    def is_exported(self) -> bool:
        """Whether there is an exported sample, without reading it."""
        return self.in_columns is not None or self.row is not None

    @property
    def interval(self) -> float:
        """The interval of the exported sample, without reading it; NaN without one."""
        known = self.in_columns or self.row
        return known.interval if known is not None else NAN

    def put_in_columns(self, sample: NodeSample, record: VmMetrics, place: int) -> None:
        """The VM's values, those of the ``record`` of its only ``sample``, are at that place of the fleet's table from now on."""
        sample.collected, sample.interval = record.collected, record.interval
        self.row, self.in_columns, self.place = None, sample, place
        self.rendered, self.lines = None, ()

    def leave_columns(self) -> None:
        """The VM's sample is a record again."""
        if self.in_columns is not None:
            self.row = self.in_columns.read()
            self.in_columns.unread, self.in_columns, self.place = None, None, -1

    def release(self) -> None:
        """Frees the record of a sample in columns: who read it for once needs it no more."""
        if self.in_columns is not None:
            self.in_columns.release()
