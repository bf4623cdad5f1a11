"""The current state of the fleet: for each VM the newest sample of its authoritative node, for each node its newest health.

Pure: records and times in, lines out. Times are seconds of one monotonic clock (``arrived``, ``now``), so a host's wrong clock keeps
nothing alive. Three of its own intervals after its last sample arrived, a VM's series vanish and a node is down. ``schemas.order``
detects late and repeated records, ``schemas.ownership`` decides between two nodes that report the same VM.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from math import isnan
from typing import TYPE_CHECKING, Final

from virtflow.exporter.columns.vm import NEVER, NodeSample, Vm
from virtflow.exporter.migrations import Migrations, MigrationText, Options
from virtflow.exporter.render.lines import Lines
from virtflow.exporter.render.node import NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.views.changes import Changes
from virtflow.schemas.order import INTERVALS_ALIVE, Freshness, Position, Seen, advance, freshness, heard
from virtflow.schemas.ownership import (
    Report,
    SplitBrain,
    authoritative,
    current_reports,
    has_left,
    is_incoming,
    is_split_brain,
    not_before,
    track_split_brain,
)
from virtflow.schemas.records import NodeStatus, VmInventory, VmMetrics, VmMigration
from virtflow.schemas.states import PAUSED, SHUT_OFF

if TYPE_CHECKING:
    from virtflow.exporter.columns.table import Table

REMEMBER_SECONDS: Final = 3_600.0
"""How long the order of a vanished VM is remembered, so that a late or repeated sample of it is recognised."""

UNRENDERED: Final = 5_000
"""VMs whose newest sample may wait for a scrape to be rendered: a sample that is replaced before a scrape then costs nothing, and a
scrape waits for at most about a tenth of a second of work. Beyond that many VMs, samples are rendered as they arrive."""

STEP: Final = 100
"""VMs that are rendered before other tasks run: a few milliseconds of work."""

_ELSEWHERE: Final = frozenset({PAUSED, SHUT_OFF})
"""States in which a node may report a VM whose process is elsewhere; all others need no closer look."""


class Node:
    """One node: its newest health, when it counts as silent and when it is forgotten, and its rendered lines."""

    __slots__ = ("forgotten", "lines", "seen", "silent", "silent_from", "status")

    def __init__(self, status: NodeStatus, seen: Seen, lines: Lines, silent_from: float, forgotten: float) -> None:
        """Up until ``silent_from``, exported as down until ``forgotten``."""
        self.status = status
        self.seen = seen
        self.lines = lines
        self.silent = False
        self.silent_from = silent_from
        self.forgotten = forgotten


class Fleet:
    """All VMs and nodes. Not thread-safe: one thread feeds and scrapes it."""

    def __init__(
        self, vm_text: VmText, node_text: NodeText, forget_node_seconds: float, migration_text: MigrationText | None = None
    ) -> None:
        """``forget_node_seconds``: how long a silent node is exported as down; without ``migration_text`` no migration is exported."""
        self.migrations: Final = Migrations(migration_text or MigrationText((), Options()))
        self.now = float("-inf")
        """When ``expire`` was called last."""
        self.changes: Final = Changes()
        self.vm_text: Final = vm_text
        self.node_text: Final = node_text
        self.settle: Callable[[], None] = lambda: None
        """Takes what waits to be taken; called before anything is read."""
        self.table: Table | None = None
        """The samples in columns; None where there are none."""
        self._forget_node_seconds = forget_node_seconds
        self._vms: dict[str, Vm] = {}
        self._nodes: dict[str, Node] = {}
        self._unrendered: dict[str, Vm] = {}

    def take_metrics(self, record: VmMetrics, arrived: float) -> Freshness:
        """Takes a sample of a VM; one that is not newer than the same node's newest has no effect."""
        vm = self._of(record.uuid)
        known = vm.samples.get(record.node)
        position = Position(record.boot_id, record.sequence, record.part)
        seen = known.seen if known is not None else None
        fresh = freshness(seen, position)
        if fresh is Freshness.NEW:
            expires = arrived + INTERVALS_ALIVE * record.interval
            # Without a sample of the VM itself only its order is kept, and the exported sample stays.
            elsewhere = record.state in _ELSEWHERE and self._is_elsewhere(record.uuid, vm, _report(record, expires))
            if known is None:
                known = vm.samples[record.node] = NodeSample(record, advance(seen, position), expires)
                known.record = None if elsewhere else record
            elif elsewhere:
                known.seen = advance(seen, position)
            else:
                known.record, known.seen, known.expires = record, advance(seen, position), expires
            self._decide(vm, arrived)
        elif fresh is Freshness.STALE and known is not None:
            known.seen = heard(known.seen, position)
        return fresh

    def _is_elsewhere(self, uuid: str, vm: Vm, report: Report) -> bool:
        """Whether a node reports a VM whose process is elsewhere; where it has left, what that node reported before is over as well."""
        migration, known = self.migrations.newest(uuid), vm.samples.get(report.node)
        before = known.record if known is not None else None
        ran_since = before is not None and before.collected >= vm.not_before.get(report.node, -NEVER)
        if has_left(report, migration, ran_since=ran_since):
            vm.not_before[report.node] = report.collected
            return True
        return vm.row is not None and is_incoming(report, migration)

    def take_inventory(self, record: VmInventory, arrived: float) -> Freshness:
        """Takes a VM's inventory; of two nodes' ones that of the authoritative node counts, else the newer collection."""
        vm = self._of(record.uuid)
        fresh = _inventory_freshness(vm, record)
        if fresh is Freshness.NEW:
            vm.inventory = record
            self._rename(vm)
            if not vm.samples:
                vm.expires = arrived + REMEMBER_SECONDS
        return fresh

    def forget_inventory(self, uuid: str) -> None:
        """Drops a VM's inventory after a tombstone in its topic."""
        vm = self._vms.get(uuid)
        if vm is not None and vm.inventory is not None:
            if vm.in_columns is not None:
                self._leave_columns(vm)
            vm.inventory = None
            self._rename(vm)

    def take_migration(self, record: VmMigration, arrived: float) -> Freshness:
        """Takes a VM's newest migration, which may change the VM's authoritative node."""
        before = self.migrations.newest(record.uuid)
        fresh = self.migrations.take(record, arrived)
        if fresh is Freshness.NEW:
            self.changes.migration(before, record, arrived)
        vm = self._vms.get(record.uuid)
        if fresh is Freshness.NEW and vm is not None:
            vm.not_before = not_before(vm.not_before, record)
            if vm.in_columns is not None:
                self._leave_columns(vm)
            if vm.samples:
                self._decide(vm, arrived)
        return fresh

    def take_node(self, status: NodeStatus, arrived: float) -> Freshness:
        """Takes a node's health; one that is not newer than its newest has no effect."""
        key = self.node_text.key(status.node)
        known = self._nodes.get(key)
        position = Position(status.boot_id, status.sequence, status.part)
        seen = known.seen if known is not None else None
        fresh = freshness(seen, position)
        if fresh is Freshness.NEW:
            self.changes.node(known.status if known else None, status, arrived, silent=known is not None and known.silent)
            silent_from = arrived + INTERVALS_ALIVE * status.interval
            lines = self.node_text.lines(status)
            self._nodes[key] = Node(status, advance(seen, position), lines, silent_from, silent_from + self._forget_node_seconds)
        elif fresh is Freshness.STALE and known is not None:
            known.seen = heard(known.seen, position)
        return fresh

    def forget_node(self, name: str) -> None:
        """Drops a node after a tombstone in its topic."""
        self._nodes.pop(self.node_text.key(name), None)

    def expire(self, now: float) -> None:
        """Drops everything that has expired at ``now``; to be called before each scrape."""
        self.settle()
        self.now = now
        for uuid, vm in [(uuid, vm) for uuid, vm in self._vms.items() if vm.expires <= now]:
            if vm.in_columns is not None:
                self._leave_columns(vm)
            if not _expire_samples(vm, now):
                del self._vms[uuid]
            else:
                self._decide(vm, now)
        for name, node in [(name, node) for name, node in self._nodes.items() if node.silent_from <= now]:
            if node.forgotten <= now:
                self.changes.node_silent(node.status, now, forgotten=True)
                del self._nodes[name]
            elif not node.silent:
                self.changes.node_silent(node.status, now, forgotten=False)
                node.silent = True
                node.lines = self.node_text.silent(node.status)

    def expire_where_due(self, now: float) -> None:
        """``expire`` where something has expired by what is known; where nothing has, what waits may go on waiting."""
        self.now = now
        silent = any((node.forgotten if node.silent else node.silent_from) <= now for node in self._nodes.values())
        if silent or any(vm.expires <= now for vm in self._vms.values()):
            self.expire(now)

    def rendering(self) -> Iterator[None]:
        """Renders the VMs that wait now, ``STEP`` of them between two yields; VMs that arrive meanwhile may be left over."""
        self.settle()
        left = len(self._unrendered)
        while left > 0 and self._unrendered:
            for _ in range(min(STEP, left, len(self._unrendered))):
                self._render(self._unrendered.popitem()[1])
            left -= STEP
            yield

    def render(self) -> None:
        """Renders the lines of all VMs; to be called before they are read."""
        deque(self.rendering(), maxlen=0)

    def vms(self) -> list[Vm]:
        """The VMs that are exported."""
        self.settle()
        return [vm for vm in self._vms.values() if vm.row is not None or vm.in_columns is not None]

    def known(self, uuid: str) -> Vm | None:
        """The VM of that UUID, where it is exported."""
        self.settle()
        vm = self._vms.get(uuid)
        return vm if vm is not None and vm.is_exported else None

    def node(self, name: str) -> Node | None:
        """The node of that name."""
        self.settle()
        return self._nodes.get(self.node_text.key(name))

    def nodes(self) -> list[Node]:
        """All known nodes, including silent ones."""
        self.settle()
        return list(self._nodes.values())

    def place(self, uuid: str) -> int:
        """The VM's place in the table of columns; -1 where it is not there."""
        vm = self._vms.get(uuid)
        return vm.place if vm is not None else -1

    def put_in_columns(self, uuid: str) -> bool:
        """Keeps the VM's samples in the table from now on, where they can differ in numbers alone: it runs on one node, without a guest's agent.

        Whatever else is taken of the VM takes it out of the table again.
        """
        vm, table = self._vms.get(uuid), self.table
        if table is None or vm is None or vm.place >= 0 or len(vm.samples) != 1 or not isnan(vm.split_brain.since):
            return vm is not None and vm.place >= 0
        (sample,) = vm.samples.values()
        record, place = sample.record, -1
        if record is None or record is not vm.row or record.guest or self._may_be_elsewhere(record):
            return False
        if sample.seen.newest == Position(record.boot_id, record.sequence, record.part):
            place = table.put(vm, sample, record, self.vm_text.state_info(record, vm.identity))
        if place >= 0:
            vm.put_in_columns(sample, record, place)
            self._unrendered.pop(uuid, None)
        return place >= 0

    def _may_be_elsewhere(self, record: VmMetrics) -> bool:
        """Whether a later sample of the same state may be none of the VM itself: by its state, or by a migration, which ``_is_elsewhere`` asks."""
        if record.state not in _ELSEWHERE:
            return False
        report = _report(record, NEVER)
        return self.migrations.newest(record.uuid) is not None or has_left(report, None) or is_incoming(report, None)

    def _leave_columns(self, vm: Vm) -> None:
        """Keeps the VM's sample as a record again."""
        if self.table is not None:
            self.table.drop(vm.place)
            vm.leave_columns()
            self._unrendered[vm.uuid] = vm

    def _of(self, uuid: str) -> Vm:
        """The VM of that UUID, out of columns; a new one where nothing is known of it but, perhaps, its newest migration."""
        vm = self._vms.get(uuid)
        if vm is not None:
            if vm.in_columns is not None:
                self._leave_columns(vm)
            return vm
        vm, migration = Vm(uuid), self.migrations.newest(uuid)
        if migration is not None:
            vm.not_before = not_before({}, migration)
        self._vms[uuid] = vm
        return vm

    def _decide(self, vm: Vm, now: float) -> None:
        """Exports the sample of the authoritative node, and notes when the first sample expires."""
        if len(vm.samples) == 1 and isnan(vm.split_brain.since):
            # Nearly always: one node, nothing to decide between.
            (sample,) = vm.samples.values()
            vm.expires = sample.expires
            if sample.record is not None:
                if sample.record is not vm.row:
                    self._export(vm, sample.record, now)
                return
        vm.expires = min([sample.expires for sample in vm.samples.values()])
        live = [(sample.record, sample.expires) for sample in vm.samples.values() if sample.record is not None]
        if not live:
            if vm.row is not None:
                self.changes.vanished(vm.row, now)
            vm.row, vm.rendered, vm.identity, vm.lines, vm.info = None, None, "", (), ""
            vm.conflict, vm.split_brain = False, SplitBrain()
            return
        record = live[0][0]
        if len(live) > 1 or not isnan(vm.split_brain.since):
            reports = [_report(*each) for each in live]
            migration = self.migrations.newest(record.uuid)
            exported = vm.row.node if vm.row is not None else ""
            current = current_reports(reports, vm.not_before, migration, self.migrations.handed_over_since(record.uuid), exported)
            record = live[reports.index(authoritative(current, migration))][0]
            _drop_others(vm, {report.node for report in current}, now)
            vm.split_brain = track_split_brain(vm.split_brain, current, now, migration)
            before, vm.conflict = vm.conflict, is_split_brain(vm.split_brain, current, now)
            if vm.conflict != before:
                self.changes.conflict(record, now, begins=vm.conflict)
        if record is not vm.row:
            self._export(vm, record, now)

    def _export(self, vm: Vm, record: VmMetrics, now: float) -> None:
        before, vm.row = vm.row, record
        if record.monitor_collected > 0:
            vm.monitor_collected = record.monitor_collected
        if before is None or before.name != record.name or before.node != record.node:
            self._name(vm, record)
        if before is None or before.state != record.state or before.responsive != record.responsive or before.node != record.node:
            self.changes.vm(before, record, now)
        if record.uuid in self._unrendered or len(self._unrendered) < UNRENDERED:
            self._unrendered[record.uuid] = vm
        else:
            self._render(vm)

    def _rename(self, vm: Vm) -> None:
        """Renders what the inventory changes: always ``vm_info``, all lines where it changes the labels."""
        if vm.row is not None:
            self._name(vm, vm.row)
            self._unrendered[vm.row.uuid] = vm

    def _name(self, vm: Vm, record: VmMetrics) -> None:
        identity = self.vm_text.identity(record, vm.inventory)
        if identity != vm.identity:
            vm.identity, vm.rendered = identity, None
        vm.info = self.vm_text.info(record, identity, vm.inventory)

    def _render(self, vm: Vm) -> None:
        if vm.row is not None and vm.row is not vm.rendered:
            vm.lines = self.vm_text.lines(vm.row, vm.identity, vm.rendered, vm.lines)
            vm.rendered = vm.row


def _report(record: VmMetrics, expires: float) -> Report:
    arrived = expires - INTERVALS_ALIVE * record.interval
    return Report(record.node, record.state, record.collected, record.state_reason, record.interval, arrived)


def _expire_samples(vm: Vm, now: float) -> bool:
    """Drops the samples that have expired and the orders that are forgotten; False when nothing of the VM is left."""
    for node, sample in list(vm.samples.items()):
        if sample.expires > now:
            continue
        if sample.record is None:
            del vm.samples[node]
        else:
            sample.record = None
            sample.expires = now + REMEMBER_SECONDS
    return bool(vm.samples)


def _drop_others(vm: Vm, current: Container[str], now: float) -> None:
    """Drops the samples of nodes that have no current one: they would be exported again when the current ones expire before them."""
    for node, sample in vm.samples.items():
        if node not in current and sample.record is not None:
            sample.record = None
            sample.expires = now + REMEMBER_SECONDS


def _inventory_freshness(vm: Vm, record: VmInventory) -> Freshness:
    current = vm.inventory
    if current is None:
        return Freshness.NEW
    if current.node == record.node:
        seen = Seen(Position(current.boot_id, current.sequence, current.part))
        return freshness(seen, Position(record.boot_id, record.sequence, record.part))
    if vm.row is not None and vm.row.node in {current.node, record.node}:
        return Freshness.NEW if vm.row.node == record.node else Freshness.STALE
    return Freshness.NEW if record.collected > current.collected else Freshness.STALE
