"""Whether the history's roll-ups equal the plain calculation, sample by sample, of what it has stored."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.storage import MemoryStore
from tests.support.history_lives import METRICS as ROLLED
from tests.support.history_truth import Row, Seen, hours
from virtflow.history.maintenance.rollup_job import Rolling
from virtflow.history.storage.table_schemas import COLUMNS, HOURLY, SAMPLES
from virtflow.runtime.settings import History

if TYPE_CHECKING:
    from tests.simulation.world import World

MICRO: Final = 1_000_000
CELLS: Final = ("_increase", "_rate", "_avg", "_min", "_max", "_known_seconds")
NAMES: Final = tuple(column.name for column in COLUMNS)


def compare_rollups(world: World, checked: Counter[str]) -> None:
    """Rolls up what is stored, and compares each cell."""
    store = MemoryStore(world.tables)
    if not store.open(SAMPLES).files():
        return
    rolling = Rolling(store, History(raw_days=3_650), lambda *_: None)  # type: ignore[arg-type]
    rolling.run(rolling.due())
    truths = {uuid: hours(samples, ROLLED) for uuid, samples in _samples(store).items()}
    found: dict[str, dict[tuple[str, str, int], Row]] = {}
    for row in store.open(HOURLY).dataset().to_table().to_pylist():
        times = {name: round(row[name].timestamp() * MICRO) for name in ("time", "first_time", "last_time")}
        found.setdefault(row["uuid"], {})[row["kind"], row["device"], times["time"]] = row | times
    for uuid, truth in truths.items():
        checked["hours"] += len(truth)
        for wrong in _differences(truth, found.pop(uuid, {})):
            world.watch.problem(f"history: an hour of {uuid} is not the plain calculation: {wrong}")
    if found:
        world.watch.problem(f"history: hours of VMs without samples: {sorted(found)}")


def _samples(store: MemoryStore) -> dict[str, list[Seen]]:
    """What is stored, as samples of each VM."""
    rows = store.open(SAMPLES).dataset().to_table().to_pylist()
    told: dict[tuple[Any, ...], dict[tuple[str, str], dict[str, float]]] = {}
    of_vm: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        identity = row["uuid"], row["node"], row["boot_id"], row["sequence"]
        values = {name: float(row[name]) for name in NAMES if row[name] is not None}
        told.setdefault(identity, {})[row["kind"], row["device"] or ""] = values
        if row["kind"] == "vm":
            of_vm[identity] = row
    found: dict[str, list[Seen]] = {}
    for identity, row in of_vm.items():
        seen = Seen(
            at=round(row["time"].timestamp() * MICRO),
            node=row["node"],
            run=row["boot_id"],
            sequence=row["sequence"],
            interval=row["interval_seconds"],
            state=row["vm_state"],
            reason=row["vm_state_reason"],
            monitored=row["monitor_time"] is not None,
            told=told[identity],
        )
        found.setdefault(row["uuid"], []).append(seen)
    return found


def _differences(truth: dict[tuple[str, str, int], Row], found: dict[tuple[str, str, int], Row]) -> list[str]:
    if truth.keys() != found.keys():
        return [f"rows {sorted(truth.keys() ^ found.keys())}"]
    wrong = []
    for key, right in truth.items():
        row = found[key]
        cells = right.keys() | {name for name, value in row.items() if name.endswith(CELLS) and value is not None}
        wrong += [
            f"{key} {name}: {row.get(name)}, not {right.get(name)}" for name in sorted(cells) if not _equal(right.get(name), row.get(name))
        ]
    return wrong[:3]


def _equal(right: Any, found: Any) -> bool:  # noqa: ANN401, cells of any kind
    if isinstance(right, str) or right is None or found is None:
        return bool(right == found)
    return math.isclose(right, found, rel_tol=1e-9, abs_tol=1e-6)
