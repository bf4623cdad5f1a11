"""`virtflow history where`: which node ran a VM at a time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow.compute as pc

from virtflow.history.maintenance.kept import between
from virtflow.history.query.range import uuids_of
from virtflow.history.storage.delta import Store, translated
from virtflow.history.storage.table_schemas import DAILY, HOURLY, SAMPLES
from virtflow.runtime.settings import History
from virtflow.schemas.ownership import Claim, speaker
from virtflow.schemas.states import reason_word, state_word

AROUND_SECONDS: Final = 900.0
"""How far from the moment a sample may be."""
INTERVALS: Final = 3.0
"""A VM is not there any more so many of its own intervals after its last sample."""


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
    """Where the VM (uuid or name) was at a Unix time, one entry per VM of that name; none where nothing is known of it then."""
    places = []
    for uuid in uuids_of(store, settings, [vm]):
        place = _by_samples(store, uuid, at) or _by_roll_up(store, uuid, at)
        if place is not None:
            places.append(place)
    return places


def _by_samples(store: Store, uuid: str, at: float) -> Place | None:
    """From the newest sample of each node before the moment, by the rule that decides everywhere who speaks for a VM."""
    names = ["time", "name", "node", "interval_seconds", "vm_state", "vm_state_reason"]
    wanted = (pc.field("kind") == "vm") & (pc.field("uuid") == uuid) & between("time", at - AROUND_SECONDS, at + 1)
    with translated(str(store)):
        rows = store.open(SAMPLES).dataset().to_table(columns=names, filter=wanted).sort_by("time").to_pylist()
    newest = {
        row["node"]: row
        for row in rows
        if row["time"].timestamp() <= at <= row["time"].timestamp() + INTERVALS * (row["interval_seconds"] or 0.0)
    }
    if not newest:
        return None
    claims = {
        node: Claim(node, _number(row["vm_state"]), row["time"].timestamp(), _number(row["vm_state_reason"]))
        for node, row in newest.items()
    }
    node = speaker(claims.values()).node
    row, claim = newest[node], claims[node]
    return Place(uuid, row["name"], node, state_word(claim.state), reason_word(claim.state, claim.reason), claim.collected, SAMPLES.name)


def _by_roll_up(store: Store, uuid: str, at: float) -> Place | None:
    for table, seconds in ((HOURLY, 3_600), (DAILY, 86_400)):
        if not store.exists(table):
            continue
        start = at // seconds * seconds
        wanted = (pc.field("kind") == "vm") & (pc.field("uuid") == uuid) & between("time", start, start + seconds)
        with translated(str(store)):
            rows = store.open(table).dataset().to_table(columns=["name", "node", "last_time", "vm_state_last"], filter=wanted).to_pylist()
        if rows:
            row = rows[-1]
            state = state_word(_number(row["vm_state_last"]))
            return Place(uuid, row["name"], row["node"], state, "", row["last_time"].timestamp(), table.name)
    return None


def _number(value: int | None) -> int:
    return -1 if value is None else value
