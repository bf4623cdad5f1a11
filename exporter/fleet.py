"""The fleet as of now: for each VM the newest sample of the node that speaks for it, for each node its newest health.

Pure: records and times come in, lines come out. Times are seconds of one clock that never goes back (``arrived``, ``now``), so a
host's wrong clock keeps nothing alive. Three of its own intervals after its last sample arrived, a VM's series are gone and a
node is down; order and duplicates are told by ``schemas.order``, two nodes' claims settled by ``schemas.ownership``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import isnan
from typing import Final

from virtflow.exporter.migrations import Migrations, MigrationText, Options
from virtflow.exporter.render.lines import Lines
from virtflow.exporter.render.node import NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.schemas.order import Freshness, Position, Seen, advance, freshness
from virtflow.schemas.ownership import Claim, Contest, arrives, conflict, contest, current, floors, speaker
from virtflow.schemas.records import NodeStatus, VmInventory, VmMetrics, VmMigration
from virtflow.schemas.states import PAUSED

INTERVALS_ALIVE: Final = 3
REMEMBER_SECONDS: Final = 3_600.0
"""How long a vanished VM's order is remembered, so that a late or repeated sample of it is known for what it is."""

NEVER: Final = float("inf")

UNRENDERED: Final = 5_000
"""VMs whose newest sample may wait for a scrape to be rendered: what is replaced before anyone looks costs nothing then, and the scrape
waits for no more than about a tenth of a second of work. Beyond that many, samples are rendered as they arrive."""

STEP: Final = 100
"""VMs that are rendered before others get their turn: a few milliseconds' work."""


class Report:
    """What one node says of a VM: its newest sample, and until when that holds; the order outlives the sample."""

    __slots__ = ("expires", "record", "seen")

    def __init__(self, record: VmMetrics, seen: Seen, expires: float) -> None:
        """``expires`` is when the sample is three intervals old."""
        self.record: VmMetrics | None = record
        self.seen = seen
        self.expires = expires


class Vm:
    """One VM: its nodes' reports, the sample that is shown, and its lines as they were last rendered, from the sample ``rendered``."""

    __slots__ = (
        "conflict",
        "contest",
        "expires",
        "floors",
        "identity",
        "info",
        "inventory",
        "lines",
        "monitor_collected",
        "rendered",
        "reports",
        "shown",
    )

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.reports: dict[str, Report] = {}
        self.inventory: VmInventory | None = None
        self.shown: VmMetrics | None = None
        self.rendered: VmMetrics | None = None
        self.identity = ""
        self.lines: Lines = ()
        self.info = ""
        self.monitor_collected = float("nan")
        self.contest = Contest()
        self.floors: dict[str, float] = {}
        self.conflict = False
        self.expires = NEVER


class Node:
    """One node: its newest health, from when on it counts as silent and is forgotten, and its rendered lines."""

    __slots__ = ("forgotten", "lines", "seen", "silent", "silent_from", "status")

    def __init__(self, status: NodeStatus, seen: Seen, lines: Lines, silent_from: float, forgotten: float) -> None:
        """Up until ``silent_from``, shown as down until ``forgotten``."""
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
        """``forget_node_seconds`` is how long a silent node is shown as down; without ``migration_text`` no migration is shown."""
        self.migrations: Final = Migrations(migration_text or MigrationText((), Options()))
        self.now = float("-inf")
        """When ``expire`` was called last."""
        self.vm_text: Final = vm_text
        self.node_text: Final = node_text
        self._forget_node_seconds = forget_node_seconds
        self._vms: dict[str, Vm] = {}
        self._nodes: dict[str, Node] = {}
        self._unrendered: dict[str, Vm] = {}

    def take_metrics(self, record: VmMetrics, arrived: float) -> Freshness:
        """Takes a sample of a VM; what is not newer than the same node's newest has no effect."""
        vm = self._vms.get(record.uuid)
        if vm is None:
            vm = self._vms[record.uuid] = self._new(record.uuid)
        report = vm.reports.get(record.node)
        position = Position(record.boot_id, record.sequence, record.part)
        seen = report.seen if report is not None else None
        fresh = freshness(seen, position)
        if fresh is Freshness.NEW:
            expires = arrived + INTERVALS_ALIVE * record.interval
            # One that only waits for its memory is no sample of the VM, which is elsewhere: its order is kept, and what is shown stays.
            waits = vm.shown is not None and record.state == PAUSED and arrives(_claim(record, expires), self.migrations.of(record.uuid))
            if report is None:
                report = vm.reports[record.node] = Report(record, advance(seen, position), expires)
                report.record = None if waits else record
            elif waits:
                report.seen = advance(seen, position)
            else:
                report.record, report.seen, report.expires = record, advance(seen, position), expires
            self._decide(vm, arrived)
        return fresh

    def take_inventory(self, record: VmInventory, arrived: float) -> Freshness:
        """Takes what changes rarely of a VM; of two nodes' ones that of the node which speaks counts, else the newer collection."""
        vm = self._vms.get(record.uuid)
        if vm is None:
            vm = self._vms[record.uuid] = self._new(record.uuid)
        fresh = _inventory_freshness(vm, record)
        if fresh is Freshness.NEW:
            vm.inventory = record
            self._rename(vm)
            if not vm.reports:
                vm.expires = arrived + REMEMBER_SECONDS
        return fresh

    def forget_inventory(self, uuid: str) -> None:
        """Drops a VM's inventory: its topic says that it is no more."""
        vm = self._vms.get(uuid)
        if vm is not None and vm.inventory is not None:
            vm.inventory = None
            self._rename(vm)

    def take_migration(self, record: VmMigration, arrived: float) -> Freshness:
        """Takes a VM's newest migration: it may change who speaks for the VM."""
        fresh = self.migrations.take(record, arrived)
        vm = self._vms.get(record.uuid)
        if fresh is Freshness.NEW and vm is not None:
            vm.floors = floors(vm.floors, record)
            if vm.reports:
                self._decide(vm, arrived)
        return fresh

    def take_node(self, status: NodeStatus, arrived: float) -> Freshness:
        """Takes a node's health; what is not newer than its newest has no effect."""
        key = self.node_text.key(status.node)
        known = self._nodes.get(key)
        position = Position(status.boot_id, status.sequence, status.part)
        seen = known.seen if known is not None else None
        fresh = freshness(seen, position)
        if fresh is Freshness.NEW:
            silent_from = arrived + INTERVALS_ALIVE * status.interval
            lines = self.node_text.lines(status)
            self._nodes[key] = Node(status, advance(seen, position), lines, silent_from, silent_from + self._forget_node_seconds)
        return fresh

    def forget_node(self, name: str) -> None:
        """Drops a node: its topic says that it is no more."""
        self._nodes.pop(self.node_text.key(name), None)

    def expire(self, now: float) -> None:
        """Lets go of everything whose time is over at ``now``; to be called before each scrape."""
        self.now = now
        for uuid, vm in [(uuid, vm) for uuid, vm in self._vms.items() if vm.expires <= now]:
            if not _expire_reports(vm, now):
                del self._vms[uuid]
            else:
                self._decide(vm, now)
        for name, node in [(name, node) for name, node in self._nodes.items() if node.silent_from <= now]:
            if node.forgotten <= now:
                del self._nodes[name]
            elif not node.silent:
                node.silent = True
                node.lines = self.node_text.silent(node.status)

    def rendering(self) -> Iterator[None]:
        """Brings as many VMs' lines up to date as wait now, a step's worth between two turns; those that arrive meanwhile may be left."""
        left = len(self._unrendered)
        while left > 0 and self._unrendered:
            for _ in range(min(STEP, left, len(self._unrendered))):
                self._render(self._unrendered.popitem()[1])
            left -= STEP
            yield

    def render(self) -> None:
        """Brings the lines of all VMs up to date; to be called before they are read."""
        deque(self.rendering(), maxlen=0)

    def vms(self) -> list[Vm]:
        """The VMs that are shown."""
        return [vm for vm in self._vms.values() if vm.shown is not None]

    def nodes(self) -> list[Node]:
        """The nodes that are known, silent ones included."""
        return list(self._nodes.values())

    def _new(self, uuid: str) -> Vm:
        """A VM of which nothing is known but, perhaps, its newest migration."""
        vm, migration = Vm(), self.migrations.of(uuid)
        if migration is not None:
            vm.floors = floors({}, migration)
        return vm

    def _decide(self, vm: Vm, now: float) -> None:
        """Finds the report that counts, shows it, and notes when the first of them is over."""
        if len(vm.reports) == 1 and isnan(vm.contest.since):
            # Nearly always: one node, no contest, nothing to weigh.
            (report,) = vm.reports.values()
            vm.expires = report.expires
            if report.record is not None:
                if report.record is not vm.shown:
                    self._show(vm, report.record)
                return
        vm.expires = min([report.expires for report in vm.reports.values()])
        live = [(report.record, report.expires) for report in vm.reports.values() if report.record is not None]
        if not live:
            vm.shown, vm.rendered, vm.identity, vm.lines, vm.info = None, None, "", (), ""
            vm.conflict, vm.contest = False, Contest()
            return
        record = live[0][0]
        if len(live) > 1 or not isnan(vm.contest.since):
            claims = [_claim(*each) for each in live]
            migration = self.migrations.of(record.uuid)
            standing = current(claims, vm.floors, self.migrations.since(record.uuid))
            record = live[claims.index(speaker(standing, migration))][0]
            vm.contest = contest(vm.contest, standing, now, migration)
            vm.conflict = conflict(vm.contest, standing, now)
        if record is not vm.shown:
            self._show(vm, record)

    def _show(self, vm: Vm, record: VmMetrics) -> None:
        before, vm.shown = vm.shown, record
        if record.monitor_collected > 0:
            vm.monitor_collected = record.monitor_collected
        if before is None or before.name != record.name or before.node != record.node:
            self._name(vm, record)
        if record.uuid in self._unrendered or len(self._unrendered) < UNRENDERED:
            self._unrendered[record.uuid] = vm
        else:
            self._render(vm)

    def _rename(self, vm: Vm) -> None:
        """Renders what the inventory changes: always ``vm_info``, all lines where it changes the labels."""
        if vm.shown is not None:
            self._name(vm, vm.shown)
            self._unrendered[vm.shown.uuid] = vm

    def _name(self, vm: Vm, record: VmMetrics) -> None:
        identity = self.vm_text.identity(record, vm.inventory)
        if identity != vm.identity:
            vm.identity, vm.rendered = identity, None
        vm.info = self.vm_text.info(record, identity, vm.inventory)

    def _render(self, vm: Vm) -> None:
        if vm.shown is not None and vm.shown is not vm.rendered:
            vm.lines = self.vm_text.lines(vm.shown, vm.identity, vm.rendered, vm.lines)
            vm.rendered = vm.shown


def _claim(record: VmMetrics, expires: float) -> Claim:
    arrived = expires - INTERVALS_ALIVE * record.interval
    return Claim(record.node, record.state, record.collected, record.state_reason, record.interval, arrived)


def _expire_reports(vm: Vm, now: float) -> bool:
    """Drops the samples that are over and the orders that are forgotten; False when nothing is left of the VM."""
    for node, report in list(vm.reports.items()):
        if report.expires > now:
            continue
        if report.record is None:
            del vm.reports[node]
        else:
            report.record = None
            report.expires = now + REMEMBER_SECONDS
    return bool(vm.reports)


def _inventory_freshness(vm: Vm, record: VmInventory) -> Freshness:
    current = vm.inventory
    if current is None:
        return Freshness.NEW
    if current.node == record.node:
        seen = Seen(Position(current.boot_id, current.sequence, current.part))
        return freshness(seen, Position(record.boot_id, record.sequence, record.part))
    if vm.shown is not None and vm.shown.node in {current.node, record.node}:
        return Freshness.NEW if vm.shown.node == record.node else Freshness.STALE
    return Freshness.NEW if record.collected > current.collected else Freshness.STALE
