"""The text of a scrape: the rendered lines joined by family, with current ages.

It is consistent however long sending takes: the data of each VM is fixed at its start.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtflow.exporter.columns.vm import Vm
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.render.guest import AGE as GUEST_AGE
from virtflow.exporter.render.guest import taken
from virtflow.exporter.render.lines import Lines
from virtflow.exporter.render.node import AGE as NODE_AGE
from virtflow.exporter.render.vm import CONFLICT, MONITOR_AGE, SAMPLE_AGE, VM_INFO, head
from virtflow.schemas.catalogue.types import Metric
from virtflow.schemas.records import NAN

VMS_PER_STEP: Final = 1_000
"""VMs whose lines are joined at a time: about a millisecond's work, so that others get their turn in between."""

CHUNK_CHARACTERS: Final = 256 * 1024


_OF_MOMENT: Final = frozenset({SAMPLE_AGE, NODE_AGE, MONITOR_AGE, GUEST_AGE, CONFLICT, VM_INFO})
"""Families whose lines are made at the scrape, or are kept with the VM."""


class _Shown(Struct, gc=False):
    """What a scrape exports of a VM or a node; times are Unix seconds, NaN where unknown."""

    identity: str
    lines: Lines
    info: str
    collected: float
    monitor_collected: float
    conflict: bool = False
    guest_taken: float = NAN


if TYPE_CHECKING:
    from virtflow.exporter.columns.picture import Picture

    Table = tuple[tuple[Metric, ...], list[_Shown], Picture | None]
    """Families, what has series of them, and the values of those that are in columns."""


Counts = dict[str, int]
"""How many series each family had when it was last rendered."""


def exposition(fleet: Fleet, names: Collection[str], wall: float, counts: Counts) -> Iterator[str]:
    """Chunks of text of the families among ``names``; ``wall`` is the time in Unix seconds the ages are counted to.

    ``fleet.expire`` has been called; everything is read from the fleet before the first chunk. ``counts`` is updated.
    """
    fleet.render()
    every = fleet.vms()
    vms = [
        _Shown(vm.identity, vm.lines, vm.info, row.collected, vm.monitor_collected, vm.conflict, taken(row.guest))
        if (row := vm.row) is not None
        else _in_columns(vm)
        for vm in every
    ]
    nodes = [_Shown(fleet.node_text.identity(node.status.node), node.lines, "", node.status.collected, NAN) for node in fleet.nodes()]
    families = fleet.migrations.text.families
    tables: list[Table] = [
        (fleet.vm_text.families, vms, _picture(fleet, every)),
        (families, _migrations(fleet) if families else [], None),
        (fleet.node_text.families, nodes, None),
    ]
    return _chunks(tables, names, wall, counts)


def _in_columns(vm: Vm) -> _Shown:
    """A VM in columns, which has no guest's agent and is in no conflict; its lines are made with all others'."""
    assert vm.in_columns is not None
    return _Shown(vm.identity, (), vm.info, vm.in_columns.collected, vm.monitor_collected)


def _picture(fleet: Fleet, vms: list[Vm]) -> Picture | None:
    """The values of the VMs that are in columns, as they are now; None where none is."""
    places = [vm.place for vm in vms]
    if fleet.table is None or max(places, default=-1) < 0:
        return None
    from virtflow.exporter.columns.picture import Picture

    return Picture(fleet.table, places)


def _migrations(fleet: Fleet) -> list[_Shown]:
    found = [(vm.identity, fleet.migrations.lines(vm.uuid, vm.identity, vm.interval, fleet.now)) for vm in fleet.vms()]
    return [_Shown(identity, lines, "", NAN, NAN) for identity, lines in found if lines]


def _chunks(tables: list[Table], names: Collection[str], wall: float, counts: Counts) -> Iterator[str]:
    """The families' text in chunks of about ``CHUNK_CHARACTERS``."""
    waiting: list[str] = []
    size = 0
    for families, shown, picture in tables:
        for at, metric in enumerate(families):
            if metric.name not in names:
                continue
            counts[metric.name] = 0
            for part in _family(metric.name, at, shown, wall, picture):
                if not counts[metric.name]:
                    waiting.append(head(metric))
                waiting.append(part)
                counts[metric.name] += part.count("\n")
                size += len(part)
                if size >= CHUNK_CHARACTERS:
                    yield "".join(waiting)
                    waiting, size = [], 0
    if waiting:
        yield "".join(waiting)


def _family(name: str, at: int, shown: list[_Shown], wall: float, picture: Picture | None) -> Iterator[str]:
    """The family's series in steps, none of them empty."""
    for start in range(0, len(shown), VMS_PER_STEP):
        step = shown[start : start + VMS_PER_STEP]
        if picture is not None and name not in _OF_MOMENT:
            part = picture.text(at, start, start + len(step), [one.lines[at] for one in step if one.lines])
        else:
            part = _step(name, at, step, wall)
        if part:
            yield part


def _step(name: str, at: int, shown: list[_Shown], wall: float) -> str:
    match name:
        case _ if name in {SAMPLE_AGE, NODE_AGE}:
            return "".join([_age(name, one.identity, wall - one.collected) for one in shown])
        case _ if name == MONITOR_AGE:
            return "".join([_age(name, one.identity, wall - one.monitor_collected) for one in shown])
        case _ if name == GUEST_AGE:
            return "".join([_age(name, one.identity, wall - one.guest_taken) for one in shown])
        case _ if name == CONFLICT:
            return "".join([f"{name}{{{one.identity}}} {one.conflict:d}\n" for one in shown])
        case _ if name == VM_INFO:
            return "".join([one.info for one in shown])
        case _:
            return "".join([one.lines[at] for one in shown])


def _age(name: str, identity: str, seconds: float) -> str:
    """A line with an age in seconds, to the millisecond: 0 where the time is in the future, no line where it is unknown."""
    return f"{name}{{{identity}}} {max(seconds, 0.0):.3f}\n" if seconds == seconds else ""  # noqa: PLR0124, NaN is not itself
