"""The answers of the API: parameters in, structs out. Pure but for the fleet that they are read from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final, TypeVar

from msgspec import Struct

from virtflow.exporter.api.paging import Order, page
from virtflow.exporter.api.parameters import Values
from virtflow.exporter.views.changes import Change, Event, event_of, place_of
from virtflow.exporter.views.devices import vm_detail
from virtflow.exporter.views.fleet_view import FleetView, Seen
from virtflow.exporter.views.migrations import MIGRATION_COLUMNS, migration_row
from virtflow.exporter.views.nodes import NODE_COLUMNS, Load, loads, node_detail, node_row
from virtflow.exporter.views.overview import node_counts, projects, states, sums, tops
from virtflow.exporter.views.rows import FleetOverview, MigrationRow, NodeDetail, NodeRow, ProjectCount, VmDetail, VmRow
from virtflow.exporter.views.values import Column
from virtflow.exporter.views.vms import COLUMNS, Moment, flags_of, project_of, state_of, vm_row
from virtflow.schemas.records import VmMigration

T = TypeVar("T")


class VmPage(Struct, frozen=True, kw_only=True):
    """Some VMs. ``total`` is how many there are, ``matched`` how many of them the parameters choose, ``next`` the parameter ``after`` of the next page."""

    items: list[VmRow]
    total: int
    matched: int
    next: str


class NodePage(Struct, frozen=True, kw_only=True):
    """Some nodes; as with VMs."""

    items: list[NodeRow]
    total: int
    matched: int
    next: str


class MigrationPage(Struct, frozen=True, kw_only=True):
    """Some VMs' running or last migrations; as with VMs."""

    items: list[MigrationRow]
    total: int
    matched: int
    next: str


class EventPage(Struct, frozen=True, kw_only=True):
    """Some changes: without ``after`` the newest ones, the newest first; with it those after it, the oldest first.

    ``lost`` says that changes after ``after`` are no longer kept, or that it is an id of an earlier run of the exporter.
    """

    items: list[Event]
    lost: bool
    next: str


CLOCK_SET_SECONDS: Final = 60.0
"""A wall clock that is so far ahead of the fleet's, more than before, has been set: the fleet's own time is never that old."""


class Answers:
    """All answers about one fleet. Who asks has run ``FleetView.updating`` before."""

    def __init__(self, view: FleetView, run: str, version: str, missing: Callable[[], str]) -> None:
        """``run`` names this run of the exporter; ``missing`` returns why the fleet is not fully known, "" once it is."""
        self.view: Final = view
        self.run: Final = run
        self.version: Final = version
        self.missing: Final = missing
        self._revision = -1
        self._least = inf
        self._by_revision: dict[str, Any] = {}

    def moment(self, wall: float) -> Moment:
        """Now, for rows."""
        return Moment(wall, self.view.fleet.now, self.view.migrating())

    def named(self, name: str, values: Values, wall: float, subject: str = "") -> Any:  # noqa: ANN401, one of the structs
        """The answer of the endpoint ``name``; ``subject`` is what its path names, None where that is not there."""
        match name:
            case "fleet":
                return self.fleet(wall)
            case "vm":
                return self.vm(subject, wall)
            case "node":
                return self.node(subject, wall)
        lists = {"vms": self.vms, "nodes": self.nodes, "migrations": self.migrations, "events": self.events}
        return lists[name](values, wall)

    def fleet(self, wall: float) -> FleetOverview:
        """The whole fleet in numbers."""
        vms, migrating = self.view.vms(), self.view.migrating()
        newest = self.view.fleet.changes.newest
        return FleetOverview(
            version=self.version,
            run=self.run,
            time=round(wall, 3),
            missing=self.missing(),
            vms=len(vms),
            states=self._kept("states", lambda: states(vms)),
            stuck=self._kept("stuck", lambda: sum(seen.responsive == 0 for seen in vms)),
            migrating=sum(self.view.vm(uuid) is not None for uuid in migrating),
            conflicts=self._kept("conflicts", lambda: sum(seen.conflict for seen in vms)),
            nodes=node_counts(self.view.fleet.nodes()),
            vcpus=self._kept("vcpus", lambda: sum(seen.vcpus for seen in vms if seen.vcpus > 0)),
            projects=self.projects(),
            top=self._kept("top", lambda: tops(vms)),
            last_event=f"{self.run}-{newest}" if newest else "",
            **self._kept("sums", lambda: sums(vms)),
        )

    def projects(self) -> list[ProjectCount]:
        """The projects with the most VMs."""
        return self._kept("projects", lambda: projects(self.view.vms()))

    def _loads(self) -> dict[str, Load]:
        """What the VMs of each node use together."""
        return self._kept("loads", lambda: loads(self.view.vms()))

    def _kept(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` returns of all VMs; made once for each revision of the view, since several pages ask for the same."""
        if self._revision != self.view.revision:
            self._revision = self.view.revision
            self._by_revision.clear()
        if name not in self._by_revision:
            self._by_revision[name] = make()
        found: T = self._by_revision[name]
        return found

    def vms(self, values: Values, wall: float) -> VmPage:
        """A page of VMs."""
        moment, every = self.moment(wall), self.view.vms()
        chosen = list(filter(_choice(values, moment.migrating), every))
        found = page(chosen, _order(values, COLUMNS, lambda seen: seen.uuid), _limit(values), str(values["after"]))
        rows = [vm_row(seen, moment, str(values["history"])) for seen in found.rows]
        return VmPage(items=rows, total=len(every), matched=len(chosen), next=found.after)

    def vm(self, uuid: str, wall: float) -> VmDetail | None:
        """One VM; None where there is none of that UUID."""
        seen = self.view.vm(uuid)
        return vm_detail(seen, self.moment(wall), self.view.fleet.migrations.newest(uuid)) if seen is not None else None

    def nodes(self, values: Values, wall: float) -> NodePage:
        """A page of nodes."""
        by_node, text = self._loads(), str(values["filter"]).casefold()
        every = [node_row(node, by_node.get(node.status.node) or Load(), wall) for node in self.view.fleet.nodes()]
        chosen = [row for row in every if text in row.node.casefold() and _node_state(row, str(values["state"]))]
        found = page(chosen, _order(values, NODE_COLUMNS, lambda row: row.node), _limit(values), str(values["after"]))
        return NodePage(items=found.rows, total=len(every), matched=len(chosen), next=found.after)

    def node(self, name: str, wall: float) -> NodeDetail | None:
        """One node; None where there is none of that name."""
        node = self.view.fleet.node(name)
        return node_detail(node, self._loads().get(name) or Load(), wall) if node is not None else None

    def migrations(self, values: Values, wall: float) -> MigrationPage:
        """A page of migrations."""
        every = self.view.fleet.migrations.all()
        chosen = [one for one in every if _migration(one, values)]
        found = page(chosen, _order(values, MIGRATION_COLUMNS, lambda one: one.uuid), _limit(values), str(values["after"]))
        rows = [migration_row(one, wall) for one in found.rows]
        return MigrationPage(items=rows, total=len(every), matched=len(chosen), next=found.after)

    def events(self, values: Values, wall: float) -> EventPage:
        """Changes: after an id, or the newest ones."""
        changes, after = self.view.fleet.changes, str(values["after"])
        number = place_of(after, self.run) if after else 0
        lost = bool(after) and (number is None or changes.lost(number))
        found = [change for change in changes.after(number or 0) if change_matches(change, values)]
        limit = _limit(values)
        chosen = found[:limit] if after else found[: -limit - 1 : -1]
        newest = max((change.number for change in chosen), default=number or 0)
        return EventPage(items=[self.event(change, wall) for change in chosen], lost=lost, next=f"{self.run}-{newest}")

    def event(self, change: Change, wall: float) -> Event:
        """A change as the API tells it."""
        return event_of(change, self.run, self._wall_less_now(wall))

    def _wall_less_now(self, wall: float) -> float:
        """Unix time less the fleet's clock, the same in every answer, so that a change keeps its time.

        The fleet's own ``now`` may be old: the least difference comes nearest, until the wall clock is set.
        """
        found = wall - self.view.fleet.now
        if found < self._least or found > self._least + CLOCK_SET_SECONDS:
            self._least = found
        return self._least


def change_matches(change: Change, values: Values) -> bool:
    """Whether a change is one that the parameters choose."""
    text = str(values["filter"]).casefold()
    return (
        values["kind"] in {"", change.kind}
        and values["vm"] in {"", change.uuid}
        and values["node"] in {"", change.node, change.before, change.after}
        and (not text or any(text in word.casefold() for word in (change.name, change.uuid, change.node)))
    )


def _choice(values: Values, migrating: frozenset[str]) -> Callable[[Seen], bool]:
    """Whether a VM is one that the parameters choose; only those that are given are looked at."""
    tests: list[Callable[[Seen], bool]] = []
    node, state, flag, project = (values[name] for name in ("node", "state", "flag", "project"))
    text = str(values["filter"]).casefold()
    if node:
        tests.append(lambda seen: seen.node == node)
    if state:
        tests.append(lambda seen: state_of(seen) == state)
    if flag:
        tests.append(lambda seen: flag in flags_of(seen, migrating))
    if project:
        tests.append(lambda seen: seen.inventory is not None and project in {project_of(seen), seen.inventory.project_id})
    if text:
        tests.append(lambda seen: any(text in word.casefold() for word in _words(seen)))
    if not tests:
        return lambda _: True
    return lambda seen: all(test(seen) for test in tests)


def _words(seen: Seen) -> tuple[str, ...]:
    """What a text is looked for in."""
    inventory = seen.inventory
    if inventory is None:
        return seen.name, seen.uuid, seen.node
    return seen.name, seen.uuid, seen.node, inventory.title, project_of(seen), inventory.flavor


def _order(values: Values, columns: Iterable[Column[T]], key: Callable[[T], str]) -> Order[T]:
    """The order that the parameter ``sort`` names."""
    word = str(values["sort"])
    column = next(column for column in columns if column.name == word.removeprefix("-"))
    return Order(word, column.value, key)


def _limit(values: Values) -> int:
    return int(values["limit"])


def _node_state(row: NodeRow, state: str) -> bool:
    match state:
        case "up":
            return row.up
        case "down":
            return not row.up
        case "hung":
            return bool(row.hung_calls)
    return True


def _migration(one: VmMigration, values: Values) -> bool:
    text = str(values["filter"]).casefold()
    return (
        values["result"] in {"", one.result}
        and values["node"] in {"", one.source, one.destination}
        and (text in one.name.casefold() or text in one.uuid)
    )
