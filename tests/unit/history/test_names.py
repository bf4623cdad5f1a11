"""A VM is found by its name also where its days are all that is left of it, and no inventory ever named it."""

from __future__ import annotations

import time

import pytest

from tests.support.history_lives import Kept, record, vm_uuid
from tests.support.history_truth import SECOND, Seen
from virtflow.history.maintenance.kept import Kept as Upkept
from virtflow.history.query.placement import where
from virtflow.history.query.range import Range, series
from virtflow.history.remote_read.protocol.wire import Asked, Hints, Match, Matcher
from virtflow.history.remote_read.reading.reader import Reader
from virtflow.history.storage.table_schemas import HOURLY, SAMPLES
from virtflow.runtime.settings import History, Settings

DAY = 86_400
START = int(time.time()) // DAY * DAY - 500 * DAY
MEMORY = "vm_memory_balloon_current_bytes"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Two days of a VM, 500 days ago, whose hours and samples have expired; nothing changes it."""
    kept = Kept(tmp_path_factory.mktemp("names"))
    told = {("vm", ""): {MEMORY: 2.0**30}}
    seen = [Seen((START + at) * SECOND, "a", "run", at + 1, 600.0, 1, 1, told=told) for at in range(0, 2 * DAY, 600)]
    kept.rolled([[record(vm_uuid(1), each, "web") for each in seen]])
    for table in (HOURLY, SAMPLES):
        upkept = Upkept(kept.store.open(table))
        upkept.commit([], upkept.opened.files())
    return kept


def test_by_the_commands(history: Kept) -> None:
    settings = History(path=history.settings.path)
    assert [place.node for place in where(history.store, settings, "web", START + 30 * 3_600)] == ["a"]
    points = series(history.store, settings, Range(MEMORY, ("web",), START, START + 2 * DAY, float(DAY))).points
    assert points.column("avg").to_pylist() == [2.0**30] * 2


@pytest.mark.parametrize(("name", "count"), [("web", 1), ("nosuch", 0)])
def test_by_remote_read(history: Kept, name: str, count: int) -> None:
    settings = History(path=history.settings.path)
    start, end = START * 1_000, (START + 2 * DAY) * 1_000
    matchers = (Matcher(Match.EQUAL, "__name__", MEMORY), Matcher(Match.EQUAL, "name", name))
    found = Reader(history.store, Settings(history=settings)).read(Asked(start, end, matchers, Hints(DAY * 1_000, "", start, end, 0)))
    assert [dict(each.labels)["name"] for each in found] == ["web"] * count
