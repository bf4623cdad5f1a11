"""The text of a scrape: the rendered lines joined by family, with current ages.

It is consistent however long sending takes: the data of each VM is fixed at its start.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from msgspec import Struct

from virtflow.exporter.fleet import Fleet
from virtflow.exporter.render.guest import AGE as GUEST_AGE
from virtflow.exporter.render.guest import taken
from virtflow.exporter.render.lines import Lines
from virtflow.exporter.render.node import AGE as NODE_AGE
from virtflow.exporter.render.vm import CONFLICT, MONITOR_AGE, SAMPLE_AGE, VM_INFO, head
from virtflow.schemas.catalogue.types import Metric

VMS_PER_STEP: Final = 1_000
"""VMs whose lines are joined at a time: about a millisecond's work, so that others get their turn in between."""

CHUNK_CHARACTERS: Final = 256 * 1024


class _Shown(Struct, gc=False):
    """What a scrape exports of a VM or a node; times are Unix seconds, NaN where unknown."""

    identity: str
    lines: Lines
    info: str
    collected: float
    monitor_collected: float
    conflict: bool = False
    guest_taken: float = float("nan")


Counts = dict[str, int]
"""How many series each family had when it was last rendered."""


def exposition(fleet: Fleet, names: Collection[str], wall: float, counts: Counts) -> Iterator[str]:
    """Chunks of text of the families among ``names``; ``wall`` is the time in Unix seconds the ages are counted to.

    ``fleet.expire`` has been called; everything is read from the fleet before the first chunk. ``counts`` is updated.
    """
    fleet.render()
    vms = [
        _Shown(vm.identity, vm.lines, vm.info, vm.exported.collected, vm.monitor_collected, vm.conflict, taken(vm.exported.guest))
        for vm in fleet.vms()
        if vm.exported is not None
    ]
    nodes = [
        _Shown(fleet.node_text.identity(node.status.node), node.lines, "", node.status.collected, float("nan")) for node in fleet.nodes()
    ]
    families = fleet.migrations.text.families
    tables = [(fleet.vm_text.families, vms), (families, _migrations(fleet) if families else []), (fleet.node_text.families, nodes)]
    return _chunks(tables, names, wall, counts)


def _migrations(fleet: Fleet) -> list[_Shown]:
    shown = [(vm, vm.exported) for vm in fleet.vms() if vm.exported is not None]
    found = [(vm.identity, fleet.migrations.lines(record.uuid, vm.identity, record.interval, fleet.now)) for vm, record in shown]
    return [_Shown(identity, lines, "", float("nan"), float("nan")) for identity, lines in found if lines]


def _chunks(tables: list[tuple[tuple[Metric, ...], list[_Shown]]], names: Collection[str], wall: float, counts: Counts) -> Iterator[str]:
    """The families' text in chunks of about ``CHUNK_CHARACTERS``."""
    waiting: list[str] = []
    size = 0
    for families, shown in tables:
        for at, metric in enumerate(families):
            if metric.name not in names:
                continue
            counts[metric.name] = 0
            for part in _family(metric.name, at, shown, wall):
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


def _family(name: str, at: int, shown: list[_Shown], wall: float) -> Iterator[str]:
    """The family's series in steps, none of them empty."""
    for start in range(0, len(shown), VMS_PER_STEP):
        if part := _step(name, at, shown[start : start + VMS_PER_STEP], wall):
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
