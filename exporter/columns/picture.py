"""The VMs of a table as they are at one moment, and their lines: a family at a time, all VMs together.

A value becomes text as it does for a single VM, by the same encoder; what is absent has no line.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, repeat
from operator import add
from typing import Final

import numpy as np

from virtflow.exporter.columns.layout import Family, Layout
from virtflow.exporter.columns.table import COUNT, FIRST_PLACE, DeviceTable, Table
from virtflow.exporter.render.lines import END, LEAST, NULL, number_texts
from virtflow.schemas.avro.cursors import Numbers


class _Rows:
    """What has series of its own, VMs or the devices of one kind: labels, values, and the families by place; in the exposition's order."""

    def __init__(self, labels: list[str], numbers: dict[str, Numbers], families: dict[int, Family], ends: list[int]) -> None:
        """``ends`` has for each VM the number of rows before it, and at last how many there are."""
        self.labels = labels
        self.numbers = numbers
        self.families = families
        self.ends = ends
        self._heads: list[str] = []

    def text(self, family: Family, first: int, last: int) -> str:
        """The lines of the VMs from ``first`` to before ``last``."""
        if len(family.values) > 1 or family.values[0][1] != END:
            return "".join(self.lines(family, first, last))
        start, end = self.ends[first], self.ends[last]
        values, heads = self.numbers[family.values[0][0]][start:end], self._closed()[start:end]
        with np.errstate(invalid="ignore"):
            there = (values >= 0) & (values < np.inf)
        if not there.all():
            values, heads = values[there], list(compress(heads, there.tolist()))
        if not heads:
            return ""
        between = f"\n{family.prefix}"
        return f"{family.prefix}{between.join(map(add, heads, number_texts(values.tolist())))}\n"

    def lines(self, family: Family, first: int, last: int) -> list[str]:
        """The lines of each row of these VMs, "" where it has none."""
        start, end, prefix = self.ends[first], self.ends[last], family.prefix
        if start == end:
            return []
        each = [
            [
                f"{prefix}{labels}{ending}{text}\n" if LEAST <= text < NULL else ""
                for labels, text in zip(self.labels[start:end], number_texts(self.numbers[field][start:end].tolist()), strict=True)
            ]
            for field, ending in family.values
        ]
        return each[0] if len(each) == 1 else list(map("".join, zip(*each, strict=True)))

    def _closed(self) -> list[str]:
        if not self._heads:
            self._heads = list(map(add, self.labels, repeat(END)))
        return self._heads


class Picture:
    """The VMs of a table in the order of the exposition, fixed."""

    def __init__(self, table: Table, places: Sequence[int]) -> None:
        """``places`` of the VMs in the table; negative for a VM that is not there, which has lines of its own."""
        layout: Layout = table.layout
        order = np.array([place for place in places if place >= 0], np.int64)
        there = np.array(places, np.int64) >= 0
        self._before: Final[list[int]] = np.append([0], np.cumsum(there)).tolist()
        vms = [vm for vm in (table.vms[place] for place in order.tolist()) if vm is not None]
        numbers = {name: table.numbers[name][order] for name in layout.numbers}
        identities = [vm.identity for vm in vms]
        self._vms = _Rows(identities, numbers, dict(layout.families), list(range(len(vms) + 1)))
        self._cuts: dict[int, list[int]] = {}
        self._state_infos = [table.state_infos[place] for place in order.tolist()]
        self._state_info_at = layout.state_info_at
        self._rows: Final = dict.fromkeys(layout.families, self._vms)
        for of_kind in table.kinds:
            found = _devices(of_kind, order)
            self._rows.update(dict.fromkeys(of_kind.kind.families, found))

    def text(self, at: int, start: int, stop: int, others: Sequence[str]) -> str:
        """The lines of the family at place ``at`` of the VMs from ``start`` to before ``stop``; ``others`` are those of the VMs not in the table."""
        first, last = self._before[start], self._before[stop]
        if last - first == stop - start:
            return self._whole(at, first, last)
        lines, ends = self._each(at, first, last)
        parts: list[str] = []
        done = 0
        for before, line in zip(self._others(start, stop), others, strict=True):
            parts += lines[done : ends[before] - ends[first]]
            parts.append(line)
            done = ends[before] - ends[first]
        return "".join(parts + lines[done:])

    def _others(self, start: int, stop: int) -> list[int]:
        """For each VM that is not in the table, the number of those in the table before it."""
        if start not in self._cuts:
            self._cuts[start] = [self._before[vm] for vm in range(start, stop) if self._before[vm] == self._before[vm + 1]]
        return self._cuts[start]

    def _whole(self, at: int, first: int, last: int) -> str:
        if at == self._state_info_at:
            return "".join(self._state_infos[first:last])
        rows = self._rows.get(at)
        return rows.text(rows.families[at], first, last) if rows is not None else ""

    def _each(self, at: int, first: int, last: int) -> tuple[list[str], list[int]]:
        """The lines of these VMs, and for each VM of the table the number of rows before it."""
        if at == self._state_info_at:
            return self._state_infos[first:last], self._vms.ends
        rows = self._rows.get(at)
        return (rows.lines(rows.families[at], first, last), rows.ends) if rows is not None else ([""] * (last - first), self._vms.ends)


def _devices(table: DeviceTable, order: Numbers) -> _Rows:
    """The devices of one kind of the VMs at places in that order."""
    table.of_vm.grow(int(order.max(initial=0)) + 1)
    first, count = (table.of_vm.numbers[name][order] for name in (FIRST_PLACE, COUNT))
    ends = np.append([0], np.cumsum(count))
    places = np.repeat(first - ends[:-1], count) + np.arange(ends[-1])
    numbers = {name: table.numbers[name][places] for name in table.kind.numbers}
    return _Rows([table.labels[place] for place in places.tolist()], numbers, dict(table.kind.families), ends.tolist())
