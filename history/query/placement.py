"""`virtflow history where`: which node ran a VM at a time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow.compute as pc

from virtflow.history.maintenance.authority import HOLDS_INTERVALS, HOLDS_SECONDS
from virtflow.history.maintenance.kept import between
from virtflow.history.maintenance.rollup import DAY_SECONDS, HOUR_SECONDS
from virtflow.history.query.range import uuids_of
from virtflow.history.storage.delta import Store
from virtflow.history.storage.errors import translated
from virtflow.history.storage.table_schemas import DAILY, HOURLY, SAMPLES, Table
from virtflow.runtime.settings import History
from virtflow.schemas.ownership import Report, authoritative, has_left
from virtflow.schemas.states import STATES, reason_word, state_word

_MINUTES: Final = {number: f"vm_state_{word}_minutes" for number, word in enumerate(STATES)}
_LAST: Final = ("vm_state_last", "vm_state_reason_last")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a VM was: its node and state as a sample said it (``source`` samples), or the node of its hour or day."""

    uuid: str
    name: str
    node: str
    state: str
    reason: str
    time: float
    source: str

    def fields(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def where(store: Store, settings: History, vm: str, at: float) -> list[Place]:
    """Where the VM (uuid or name) was at a Unix time, one entry per VM of that name; none where that is not known.

    A name is that of its time: where a VM had it then, others that have it before or after are not meant.
    """
    places = []
    for uuid in uuids_of(store, settings, [vm]):
        sampled, place = _by_samples(store, uuid, at)
        # What the samples of the hour do not say, its roll-up does not know either.
        place = place if sampled else _by_roll_up(store, uuid, at)
        if place is not None:
            places.append(place)
    return [place for place in places if place.name == vm] or places


def _by_samples(store: Store, uuid: str, at: float) -> tuple[bool, Place | None]:
    """Whether the hour's samples are there, and what the newest one of each node says by the rule that decides everywhere."""
    names = ["time", "name", "node", "interval_seconds", "vm_state", "vm_state_reason"]
    hour = at // HOUR_SECONDS * HOUR_SECONDS
    near = between("time", min(hour, at - HOLDS_SECONDS), hour + HOUR_SECONDS)
    with translated(str(store)):
        wanted = (pc.field("kind") == "vm") & (pc.field("uuid") == uuid) & near
        rows = store.open(SAMPLES).dataset().to_table(columns=names, filter=wanted).sort_by("time").to_pylist()
    sampled = any(row["time"].timestamp() >= hour for row in rows)
    newest = {row["node"]: row for row in rows if 0 <= at - row["time"].timestamp() <= _holds(row["interval_seconds"] or 0.0)}
    if not newest:
        return sampled, None
    known = [
        Report(node, _number(row["vm_state"]), row["time"].timestamp(), _number(row["vm_state_reason"])) for node, row in newest.items()
    ]
    reports = {report.node: report for report in known if not has_left(report, None)}
    if not reports:
        return sampled, None
    node = authoritative(reports.values()).node
    row, report = newest[node], reports[node]
    state, reason = state_word(report.state), reason_word(report.state, report.reason)
    return True, Place(uuid, row["name"], node, state, reason, report.collected, SAMPLES.name)


def _holds(interval_seconds: float) -> float:
    """For how long a node's word holds, in seconds."""
    return min(HOLDS_INTERVALS * interval_seconds, HOLDS_SECONDS)


def _by_roll_up(store: Store, uuid: str, at: float) -> Place | None:
    """From the hour, or from the day where its hours are gone."""
    day = at // DAY_SECONDS * DAY_SECONDS
    for table, seconds in ((HOURLY, HOUR_SECONDS), (DAILY, DAY_SECONDS)):
        rows = _rows(store, table, uuid, (day, day + DAY_SECONDS))
        if rows:
            start = at // seconds * seconds
            return next((_place(table, row, at) for row in rows if row["time"].timestamp() == start), None)
    return None


def _rows(store: Store, table: Table, uuid: str, bounds: tuple[float, float]) -> list[dict[str, Any]]:
    if not store.exists(table):
        return []
    names = ["uuid", "time", "name", "node", "nodes", "samples", "covered_seconds", "first_time", "last_time", *_MINUTES.values(), *_LAST]
    wanted = (pc.field("kind") == "vm") & (pc.field("uuid") == uuid) & between("time", *bounds)
    with translated(str(store)):
        rows: list[dict[str, Any]] = store.open(table).dataset().to_table(columns=names, filter=wanted).to_pylist()
    return rows


def _place(table: Table, row: dict[str, Any], at: float) -> Place | None:
    """What a row of a roll-up knows of a moment: nothing where the VM moved or left in it, outside of its samples, or where it has gaps."""
    first, last = row["first_time"].timestamp(), row["last_time"].timestamp()
    interval = row["covered_seconds"] / row["samples"]
    gaps = last - first + interval - row["covered_seconds"]
    if row["nodes"] != 1 or not first <= at <= last + _holds(interval) or gaps > _holds(interval) - interval:
        return None  # the last sample before a gap covers an interval of the silence
    state, reason = (_number(row[name]) for name in _LAST)
    if has_left(Report(row["node"], state, last, reason), None):
        return None
    states = [number for number, name in _MINUTES.items() if row[name]]
    word = state_word(states[0]) if len(states) == 1 else "unknown"
    return Place(row["uuid"], row["name"], row["node"], word, "", last, table.name)


def _number(value: int | None) -> int:
    return -1 if value is None else value
