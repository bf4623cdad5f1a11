"""`virtflow history compact`: roll up, then compact, expire and vacuum."""

from __future__ import annotations

from virtflow.history.maintenance.compaction import Compaction
from virtflow.history.maintenance.kept import Tell, day_of
from virtflow.history.maintenance.rollup_job import Rolling
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.runtime.settings import History


def maintain(settings: History, tell: Tell, *, dry_run: bool = False) -> list[str]:
    """Does all upkeep that is due, or with ``dry_run`` only says what it is; one line for each thing.

    Raises ``FencedError`` where another run is at it, ``StorageError`` where the storage fails; either can be repeated.
    """
    store = Store(settings)
    store.open(SAMPLES)
    rolling = Rolling(store, settings, tell)
    due = rolling.due()
    said = [f"hourly: roll up {day_of(hour)} {hour % 24:02d}:00" for hour in due.hours]
    if not dry_run:
        rolling.run(due)
    compaction = Compaction(store, settings, tell)
    steps = compaction.plan()
    if not dry_run:
        compaction.run(steps)
    return said + [str(step) for step in steps]
