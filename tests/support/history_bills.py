"""What the reports of the history should say, worked out with plain loops from the plain hours or days; shares no code with the product.

The words are those of docs/history.md. Times are whole microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.support.history_truth import SECOND, Row

GIB: Final = 2**30
KEYS: Final = {"project": "project_id", "owner": "owner_id", "node": "node", "vm": "uuid"}
"""What a row is of, and the column that tells one from another."""
_MINUTES: Final = {
    "running": ("running", "blocked", "shutting_down"),
    "paused": ("paused", "suspended"),
    "shut_off": ("shut_off", "crashed", "no_state"),
}
_SUMMED: Final = {
    "cpu": "vm_cpu_seconds_total_increase",
    "cores": "vm_cpu_seconds_total_rate",
    "vcpus": "vm_vcpus_current_avg",
    "memory": "vm_memory_balloon_current_bytes_avg",
    "memory_known": "vm_memory_balloon_current_bytes_known_seconds",
    "resident": "vm_memory_rss_bytes_avg",
    "block_read_bytes": "vm_block_read_bytes_total_increase",
    "block_write_bytes": "vm_block_write_bytes_total_increase",
    "network_receive_bytes": "vm_network_receive_bytes_total_increase",
    "network_transmit_bytes": "vm_network_transmit_bytes_total_increase",
    "disk": "vm_block_capacity_bytes_max",
    "allocated": "vm_block_allocation_bytes_max",
}


@dataclass(frozen=True, slots=True)
class Owned:
    """Whose a VM is from a time on."""

    since: int
    project: str
    owner: str


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM's hours or days, by kind, device and beginning, and its owners in order; the first one was its owner before too."""

    rows: Mapping[tuple[str, str, int], Row]
    owners: Sequence[Owned]

    def between(self, begin: int, end: int) -> Iterator[tuple[Owned, int]]:
        """The owners in a span of time, and how much of it each had."""
        owners = self.owners or [Owned(0, "", "")]
        for number, owned in enumerate(owners):
            since = owned.since if number else begin
            until = owners[number + 1].since if number + 1 < len(owners) else end
            if (length := min(until, end) - max(since, begin)) > 0:
                yield owned, length

    def periods(self, month: range) -> dict[int, Row]:
        """What its row and those of its devices say of each period of a month."""
        found: dict[int, Row] = defaultdict(dict)
        for (kind, _, at), row in self.rows.items():
            if at in month:
                _add(found[at], {name: row[cell] for name, cell in _SUMMED.items() if cell in row})
                if kind == "vm":
                    minutes = {name: sum(row[f"vm_state_{word}_minutes"] for word in words) for name, words in _MINUTES.items()}
                    found[at] |= {name: spent * 60 for name, spent in minutes.items()}
                    found[at] |= {"covered": row["covered_seconds"], "node": row["node"]}
        for row in found.values():
            if "memory" in row:
                whole = row["memory"] * row["memory_known"]
                row["memory_off_seconds"] = whole * row["shut_off"] / row["covered"]
                row["memory_on_seconds"] = whole - row["memory_off_seconds"]
        return found

    def reported(self, at: int, period: int) -> tuple[int, int]:
        """From when to when it was reported in a period: all of it where that is within one and a half intervals of both ends."""
        row = self.rows.get(("vm", "", at))
        if row is None:
            return at, at + period
        stands = row["covered_seconds"] / row["samples"] * SECOND
        begin = at if row["first_time"] <= at + round(1.5 * stands) else row["first_time"]
        end = at + period if row["last_time"] + round(1.5 * stands) >= at + period else row["last_time"] + max(1, round(stands))
        return begin, end

    def life(self, month: range) -> tuple[int, int]:
        """From when to when it lived in a month."""
        own = sorted((at, row) for (kind, _, at), row in self.rows.items() if kind == "vm")
        inside = [row for at, row in own if at in month]
        stands = round(inside[-1]["covered_seconds"] / inside[-1]["samples"] * SECOND)
        begin = month.start if own[0][0] < month.start else inside[0]["first_time"]
        return begin, month.stop if own[-1][0] >= month.stop else min(inside[-1]["last_time"] + stands, month.stop)


def _add(row: Row, values: Row, share: float = 1.0) -> None:
    for name, value in values.items():
        row[name] = row.get(name, 0) + value * share


def grouped(vms: Mapping[str, Vm], by: str, month: range, period: int) -> tuple[dict[str, dict[int, Row]], dict[str, float]]:
    """What groups of VMs used in each period of a month, and for how many seconds their VMs lived in it."""
    used: dict[str, dict[int, Row]] = defaultdict(lambda: defaultdict(dict))
    lived: dict[str, float] = defaultdict(float)
    for uuid, vm in vms.items():
        periods = vm.periods(month)
        for at, values in periods.items():
            keys = set()
            node = values.pop("node")
            begin, end = vm.reported(at, period)
            for owned, length in vm.between(begin, end):
                key = {"project": owned.project, "owner": owned.owner, "node": node, "vm": uuid}[by]
                _add(used[key][at], values, length / (end - begin))
                keys.add(key)
            for key in keys:
                _add(used[key][at], {"vms": 1})
            values["node"] = node
        if periods:
            for key, seconds in _lived(uuid, vm, by, month, periods):
                lived[key] += seconds
    return used, lived


def _lived(uuid: str, vm: Vm, by: str, month: range, periods: dict[int, Row]) -> Iterator[tuple[str, float]]:
    begin, end = vm.life(month)
    if by == "node":
        covered = sum(row["covered"] for row in periods.values())
        for row in periods.values():
            yield row["node"], (end - begin) / SECOND * row["covered"] / covered
    else:
        for owned, length in vm.between(begin, end):
            yield {"project": owned.project, "owner": owned.owner, "vm": uuid}[by], length / SECOND


def usage(vms: Mapping[str, Vm], by: str, month: range, period: int) -> dict[str, Row]:
    """The rows of a usage report; what is not known is left out."""
    used, lived = grouped(vms, by, month, period)
    return {key: _usage(list(periods.values()), lived[key]) for key, periods in used.items()}


def _usage(periods: list[Row], lived: float) -> Row:
    whole: Row = {}
    for period in periods:
        _add(whole, period)
    hours = {"covered": "covered_hours", "cpu": "cpu_hours"} | {word: f"{word}_hours" for word in _MINUTES}
    row = {cell: whole[name] / 3_600 for name, cell in hours.items() if name in whole}
    row |= {"vms": max(period["vms"] for period in periods), "lived_hours": lived / 3_600}
    row["coverage"] = min(1, whole["covered"] / lived) if lived else 1
    row["memory_coverage"] = min(1, whole.get("memory_known", 0) / whole["covered"])
    if "memory" in whole:
        row["memory_gib_hours"] = whole["memory_on_seconds"] / 3_600 / GIB
        row["shut_off_memory_gib_hours"] = whole["memory_off_seconds"] / 3_600 / GIB
    row |= {name: whole[name] for name in whole if name.endswith("_bytes")}
    return row | _peak("cpu_cores", _known(periods, "cores"))


def capacity(vms: Mapping[str, Vm], by: str, month: range, period: int) -> dict[str, Row]:
    """The rows of a capacity report; what is not known is left out."""
    used, _ = grouped(vms, by, month, period)
    return {key: _capacity([row for _, row in sorted(periods.items())]) for key, periods in used.items()}


def _capacity(periods: list[Row]) -> Row:
    row: Row = {"vms": max(period["vms"] for period in periods)}
    vcpus, cores, memory = _known(periods, "vcpus"), _known(periods, "cores"), [value / GIB for value in _known(periods, "memory")]
    for name, values in (("vcpus", vcpus), ("cpu_cores", cores), ("memory_gib", memory)):
        if values:
            row |= {f"{name}_avg": sum(values) / len(values), f"{name}_peak": max(values)}
    row |= {cell: value for cell, value in _peak("cpu_cores", cores).items() if cell.endswith("p95")}
    row |= _peak("resident_gib", [value / GIB for value in _known(periods, "resident")])
    if disk := _known(periods, "disk"):
        allocated = _known(periods, "allocated")
        row |= {"disk_gib_last": disk[-1] / GIB, "allocated_gib_last": allocated[-1] / GIB}
        row["allocated_gib_growth"] = (allocated[-1] - allocated[0]) / GIB
    return row


def _known(periods: list[Row], name: str) -> list[float]:
    return [period[name] for period in periods if name in period]


def _peak(name: str, values: list[float]) -> Row:
    return {f"{name}_peak": max(values), f"{name}_p95": _quantile(sorted(values), 0.95)} if values else {}


def _quantile(values: list[float], part: float) -> float:
    """Between the two values around that part of the way."""
    place = (len(values) - 1) * part
    below = values[int(place)]
    return below + (values[min(int(place) + 1, len(values) - 1)] - below) * (place - int(place))
