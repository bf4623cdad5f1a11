"""A VM is found by every name that it has had: also where its days are all that is left of it, and where another VM has the name now."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.support.history_lives import Kept, record, vm_uuid
from tests.support.history_truth import SECOND, Seen
from virtflow.history.maintenance.kept import Kept as Upkept
from virtflow.history.query.placement import where
from virtflow.history.query.range import Range, series
from virtflow.history.remote_read.protocol.wire import Asked, Hints, Match, Matcher
from virtflow.history.remote_read.reading.reader import Reader
from virtflow.history.storage.table_schemas import HOURLY, INVENTORY_ROWS, SAMPLES
from virtflow.history.writer.dedup import Changes
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History, Settings
from virtflow.schemas.records import VmInventory

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


RENAMED = 12 * 3_600
"""Half a day after the start the first VM gave its name away; the second one, made then, was never known to an inventory of the first."""


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A VM that is called old-web since another one is called web; only of the second one an inventory has been kept."""
    kept = Kept(tmp_path_factory.mktemp("renamed"))
    lives = ((1, "a", 0, DAY), (2, "b", RENAMED, DAY))
    records = [
        record(
            vm_uuid(number),
            Seen((START + at) * SECOND, node, "run", at + 1, 600.0, 1, 1, told={("vm", ""): {MEMORY: number * 2.0**30}}),
            "web" if number == 2 or at < RENAMED else "old-web",
        )
        for number, node, begin, end in lives
        for at in range(begin, end, 600)
    ]
    kept.rolled([records])
    writer = TableWriter(kept.store.make(INVENTORY_ROWS), Changes())
    writer.begin(["p"])
    writer.take("p", 0, VmInventory(uuid=vm_uuid(2), name="web", node="b", collected=float(START + RENAMED)))
    writer.commit()
    return kept


@pytest.mark.parametrize(
    ("hour", "name", "found"),
    [
        (6, "web", [("web", "a")]),
        (18, "web", [("web", "b")]),
        (18, "old-web", [("old-web", "a")]),
        (6, "old-web", [("web", "a")]),
    ],
    ids=["before", "after", "its new name", "its new name, before it had it"],
)
def test_a_name_is_that_of_its_time(renamed: Kept, hour: int, name: str, found: list[tuple[str, str]]) -> None:
    """Of several VMs that have had a name the one that had it then; a VM that had another one then is told with that."""
    places = where(renamed.store, renamed.settings, name, float(START + hour * 3_600))
    assert [(place.name, place.node) for place in places] == found


def test_every_vm_of_a_name_is_in_a_range(renamed: Kept) -> None:
    """Whichever table knows of it; each point has the name of its time, and the UUID."""
    points = series(renamed.store, renamed.settings, Range(MEMORY, ("web",), START, START + DAY, 3_600.0)).points
    told = Counter((row["name"], row["uuid"]) for row in points.to_pylist())
    assert told == {("web", vm_uuid(1)): 12, ("old-web", vm_uuid(1)): 12, ("web", vm_uuid(2)): 12}
