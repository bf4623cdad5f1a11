"""`history forget` beside others: a writer's and upkeep's files stay as long as a commit may name them, and nothing of the subject is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from tests.support.history import fleet_inventories, fleet_samples
from tests.support.history_lives import Kept, record, vm_uuid
from tests.support.history_truth import SECOND, Seen
from virtflow.history.maintenance.compaction import Step, compact_day
from virtflow.history.maintenance.forgetting import subjects
from virtflow.history.maintenance.forgetting.forget import LeftError, forget
from virtflow.history.maintenance.forgetting.subjects import UnknownSubjectError
from virtflow.history.maintenance.kept import Kept as Upkept
from virtflow.history.maintenance.rollup_job import Rolling
from virtflow.history.maintenance.run import maintain
from virtflow.history.storage.delta import Opened, Store
from virtflow.history.storage.errors import FencedError, StorageError
from virtflow.history.storage.table_schemas import COUNTERS, DAILY, FORGOTTEN, HOURLY, INVENTORY_ROWS, SAMPLES, Table
from virtflow.history.writer.rows.record_rows import record_rows
from virtflow.history.writer.rows.sample_rows import sample_rows
from virtflow.runtime.settings import History
from virtflow.schemas.records import VmInventory

START: Final = float(int(time.time()) // 3_600 * 3_600 - 3 * 3_600)
DAY: Final = time.strftime("%Y-%m-%d", time.gmtime(START))
INVENTORIES: Final = fleet_inventories(1, 2, start=START)
GONE, ALIVE = (inventory.uuid for inventory in INVENTORIES)
NOBODY: Final = "00000000-0000-4000-8000-000000000000"


def samples(uuid: str, first: int) -> Any:  # noqa: ANN401, an Arrow table
    """Rows of two samples of a VM."""
    found = [sample for sample in fleet_samples(1, 2, range(first, first + 2), start=START) if sample.uuid == uuid]
    return sample_rows(found)


def add(store: Store, rows: Any, table: Table = SAMPLES) -> None:  # noqa: ANN401, an Arrow table
    """A whole commit of a writer."""
    opened = store.open(table)
    opened.commit(opened.write(rows), {})


@pytest.fixture
def settings(tmp_path: Path) -> History:
    return History(path=str(tmp_path / "history"), sync="never")


@pytest.fixture
def store(settings: History) -> Store:
    """Two VMs, their inventory, rolled up."""
    made = Store(settings)
    for table in (SAMPLES, INVENTORY_ROWS):
        made.make(table)
    for uuid in (GONE, ALIVE):
        add(made, samples(uuid, 0))
    add(made, record_rows(INVENTORY_ROWS, INVENTORIES), INVENTORY_ROWS)
    rolling = Rolling(made, settings, lambda *_: None)
    rolling.run(rolling.due())
    return made


def forgotten(store: Store, settings: History, uuid: str = GONE) -> dict[str, int]:
    (subject,) = subjects.vms(store, [uuid])
    return forget(store, settings, subject, lambda *_: None)


def count(store: Store, uuid: str, table: Table = SAMPLES) -> int:
    """Rows of a VM, read from the files."""
    return int(store.open(table).read(["uuid", "node"], pc.field("uuid") == uuid).num_rows)


def files_with(settings: History, uuid: str) -> list[Path]:
    """Data files with rows of a VM, whether a table names them or not."""
    paths = [path for path in Path(settings.path).rglob("*.parquet") if "_delta_log" not in path.parts]
    return [path for path in paths if "uuid" in (names := pq.read_schema(path).names) and uuid in _uuids(path, names)]


def _uuids(path: Path, names: list[str]) -> list[str]:
    assert "uuid" in names
    uuids: list[str] = pq.ParquetFile(path).read(["uuid"]).column(0).to_pylist()
    return uuids


def commit(opened: Opened, added: list[Any]) -> None:
    """Commits files, again where rows were taken out of the table meanwhile."""
    try:
        opened.commit(added, {})
    except StorageError:
        opened.refresh()
        opened.commit(added, {})


@pytest.mark.parametrize("uuid", [GONE, NOBODY])
def test_a_file_that_is_committed_afterwards_stays(store: Store, settings: History, uuid: str) -> None:
    rows, before = samples(ALIVE, 2), count(store, ALIVE)
    opened = store.open(SAMPLES)
    added = opened.write(rows)
    forgotten(store, settings, uuid)
    commit(opened, added)
    assert count(store, ALIVE) == before + rows.num_rows
    assert not files_with(settings, uuid)


class Written(Store):
    """Whenever somebody has opened the samples, a writer commits: the file it wrote the last time, and another one as a whole."""

    def __init__(self, settings: History) -> None:
        """Nothing is written yet."""
        super().__init__(settings)
        self.rows = 0
        self._pending: tuple[Opened, list[Any], int] | None = None

    def open(self, table: Table) -> Opened:
        found = super().open(table)
        if table is SAMPLES:
            self._write(samples(ALIVE, 2))
        return found

    def _write(self, rows: Any) -> None:  # noqa: ANN401, an Arrow table
        if self._pending:
            writer, added, number = self._pending
            commit(writer, added)
            self.rows += number
        whole = super().open(SAMPLES)
        whole.commit(whole.write(rows), {})
        self.rows += rows.num_rows
        self._pending = whole, whole.write(rows), rows.num_rows


def test_what_a_writer_commits_meanwhile_stays(store: Store, settings: History) -> None:
    before, written = count(store, ALIVE), Written(settings)
    forgotten(written, settings)
    assert written.rows > 4 * before
    assert count(store, ALIVE) == before + written.rows
    assert not files_with(settings, GONE)


class Interrupted(Upkept):
    """Upkeep in the middle of which something happens: its files are written, its commit is not made yet."""

    def __init__(self, opened: Opened, meanwhile: Callable[[], object]) -> None:
        """``meanwhile`` is what happens."""
        super().__init__(opened)
        self._meanwhile = meanwhile

    def commit(self, *given: Any, **named: Any) -> None:  # noqa: ANN401, as it is given
        self._meanwhile()
        super().commit(*given, **named)


@pytest.mark.parametrize("uuid", [GONE, NOBODY])
def test_a_compaction_that_is_under_way_is_refused(store: Store, settings: History, uuid: str) -> None:
    before, opened = count(store, ALIVE), store.open(SAMPLES)
    step = Step("compact", SAMPLES, DAY, tuple(file for file in opened.files() if file.day == DAY))
    with pytest.raises(FencedError):
        compact_day(Interrupted(opened, lambda: forgotten(store, settings, uuid)), step)
    assert count(store, ALIVE) == before
    assert not files_with(settings, uuid)
    maintain(settings, lambda *_: None)
    assert count(store, ALIVE) == before


def test_a_roll_up_from_samples_that_are_gone_is_refused(store: Store, settings: History) -> None:
    class Early(Store):
        """Whoever opens the samples has them as they were before a VM was forgotten."""

        def open(self, table: Table) -> Opened:
            found = super().open(table)
            if table is SAMPLES:
                for made in (COUNTERS, HOURLY, DAILY):
                    Upkept(store.open(made)).commit([], [])
            return found

    before = count(store, GONE, HOURLY)
    add(store, samples(GONE, 2))
    rolling = Rolling(Early(settings), settings, lambda *_: None)
    with pytest.raises(FencedError):
        rolling.run(rolling.due())
    assert count(store, GONE, HOURLY) == before


def test_a_file_that_a_writer_may_still_commit_is_named_and_kept(store: Store, settings: History) -> None:
    opened = store.open(SAMPLES)
    (added,) = opened.write(samples(GONE, 2))
    with pytest.raises(LeftError, match=f"1 file may still hold .*{added.path} first: a writer may still commit it"):
        forgotten(store, settings)
    assert Path(settings.path, "samples", added.path) in files_with(settings, GONE)
    commit(opened, [added])
    assert count(store, GONE) > 0
    forgotten(store, settings)
    assert not files_with(settings, GONE)
    assert [row["outcome"] for row in runs(store)] == ["begun", "left", "begun", "done"]


def test_a_file_that_nobody_can_commit_any_more_is_deleted(store: Store, settings: History) -> None:
    """Of a writer that died a day ago, of upkeep that was cut off, and one that compaction took out."""
    (dead,) = store.open(SAMPLES).write(samples(GONE, 2))
    long_ago = time.time() - 25 * 3_600
    os.utime(Path(settings.path, "samples", dead.path), (long_ago, long_ago))
    hourly = store.open(HOURLY)
    hourly.write_file(DAY, [hourly.dataset().to_table()])
    Path(settings.path, "hourly", f"day={DAY}", "part-cut.parquet").write_bytes(b"PAR1")
    opened = store.open(SAMPLES)
    compact_day(Upkept(opened), Step("compact", SAMPLES, DAY, tuple(file for file in opened.files() if file.day == DAY)))
    forgotten(store, settings)
    assert not files_with(settings, GONE)
    assert not list(Path(settings.path).rglob("part-cut.parquet"))


def test_an_older_file_without_the_vm_stays(store: Store, settings: History) -> None:
    """It is upkeep's to delete, and readers that began before may still read it."""
    opened = store.open(SAMPLES)
    (alone,) = (file for file in opened.files() if opened.only([file]).count_rows(filter=pc.field("uuid") == ALIVE))
    compact_day(Upkept(opened), Step("compact", SAMPLES, DAY, tuple(file for file in opened.files() if file.day == DAY)))
    forgotten(store, settings)
    assert Path(settings.path, "samples", alone.path).exists()


def test_a_half_written_file_may_hold_anything(store: Store, settings: History) -> None:
    Path(settings.path, "samples", f"day={DAY}", "part-half.parquet").write_bytes(b"PAR1")
    with pytest.raises(LeftError, match="part-half"):
        forgotten(store, settings)
    assert list(Path(settings.path).rglob("part-half.parquet"))


def test_a_project_can_be_named_again_where_something_is_left(store: Store, settings: History) -> None:
    opened = store.open(SAMPLES)
    opened.write(samples(GONE, 2))
    owner = INVENTORIES[0].project_id or INVENTORIES[0].project
    with pytest.raises(LeftError):
        forget(store, settings, subjects.project(store, owner), lambda *_: None)
    assert subjects.project(store, owner).owned


def test_a_disk_of_the_owner_before_is_in_no_later_hour(tmp_path: Path) -> None:
    """Counters go on from hour to hour, also of a disk that is gone: where it was there in the forgotten project's time alone, they go."""
    kept, vm, change = Kept(tmp_path), vm_uuid(1), START + 5_400
    told = [(("block", "old-disk"), START, change), (("block", "root"), START, START + 3 * 3_600)]
    seen = [
        Seen(
            round((START + at) * SECOND),
            "a",
            "run",
            at + 1,
            60.0,
            1,
            1,
            told={("vm", ""): {}}
            | {of: {"vm_block_read_bytes_total": float(at)} for of, first, last in told if first <= START + at < last},
        )
        for at in range(0, 3 * 3_600, 60)
    ]
    kept.rolled([[record(vm, each) for each in seen]])
    kept.store.make(INVENTORY_ROWS)
    owners = [VmInventory(uuid=vm, node="a", collected=at, project_id=owner) for at, owner in ((START, "old"), (change, "new"))]
    add(kept.store, record_rows(INVENTORY_ROWS, owners), INVENTORY_ROWS)
    forget(kept.store, kept.settings, subjects.project(kept.store, "old"), lambda *_: None)
    counters = kept.store.open(COUNTERS).read(["device", "time"], pc.field("kind") == "block").to_pylist()
    ends = [(row["device"], row["time"].timestamp() - START) for row in counters]
    assert sorted(ends) == [("root", 7_200.0), ("root", 10_800.0)]
    assert files_with(kept.settings, vm)


def runs(store: Store) -> list[dict[str, Any]]:
    """Rows of the table ``forgotten``."""
    found: list[dict[str, Any]] = store.open(FORGOTTEN).dataset().to_table().sort_by("time").to_pylist()
    return found


def test_a_run_that_is_cut_off_is_noted(store: Store, settings: History, monkeypatch: pytest.MonkeyPatch) -> None:
    def unnamed() -> str:
        raise KeyError(os.getuid())

    class CutError(Exception):
        pass

    def cut(what: str, *_: int) -> None:
        if what.startswith("searching"):
            raise CutError

    monkeypatch.setattr("getpass.getuser", unnamed)
    (subject,) = subjects.vms(store, [GONE])
    with pytest.raises(CutError):
        forget(store, settings, subject, cut)
    (row,) = runs(store)
    assert (row["outcome"], row["rows"], row["user"]) == ("begun", None, str(os.getuid()))
    taken = forgotten(store, settings)
    _, begun, done = runs(store)
    assert (begun["run"], done["outcome"], done["rows"]) == (done["run"], "done", sum(taken.values()))


def test_a_name_of_several_vms_is_refused(store: Store) -> None:
    """Also where only the samples know the second one by that name."""
    name = INVENTORIES[0].name
    (known,) = subjects.vms(store, [name])
    assert [owned.uuid for owned in known.owned] == [GONE]
    rows = samples(ALIVE, 2)
    rows = rows.set_column(rows.schema.get_field_index("name"), "name", [[name] * rows.num_rows])
    add(store, rows)
    with pytest.raises(UnknownSubjectError) as refused:
        subjects.vms(store, [name])
    for each in INVENTORIES:
        assert f"{each.uuid} (project {each.project}" in str(refused.value)
        assert each.project_id in str(refused.value)
    assert [each.owned[0].uuid for each in subjects.vms(store, [ALIVE.upper(), GONE])] == [ALIVE, GONE]


def test_vms_of_one_name_are_told_apart_by_what_names_their_projects(store: Store) -> None:
    """KubeVirt knows namespaces alone, and an OpenStack that tells no names knows ids."""
    name = INVENTORIES[0].name
    kubevirt = replace(INVENTORIES[0], uuid=NOBODY, project="", project_id="", namespace="shop")
    nameless = replace(INVENTORIES[1], name=name, project="", project_id="5f2d", namespace="")
    unowned = replace(INVENTORIES[1], uuid=NOBODY[:-1] + "1", name=name, project="", project_id="", namespace="")
    later = [replace(each, collected=START + 60.0, sequence=2) for each in (kubevirt, nameless, unowned)]
    add(store, record_rows(INVENTORY_ROWS, later), INVENTORY_ROWS)
    with pytest.raises(UnknownSubjectError) as refused:
        subjects.vms(store, [name])
    said = str(refused.value)
    assert f"{NOBODY} (project shop)" in said
    assert f"{ALIVE} (project 5f2d)" in said
    assert f"{unowned.uuid} (no project)" in said
    assert f"{GONE} (project {INVENTORIES[0].project} {INVENTORIES[0].project_id})" in said


@pytest.mark.parametrize("find", [lambda s: subjects.vms(s, ["no-such"]), lambda s: subjects.project(s, "no-such")])
def test_a_name_that_nobody_has_is_refused(store: Store, find: Callable[[Store], object]) -> None:
    with pytest.raises(UnknownSubjectError, match=r"the history knows no .*no-such"):
        find(store)


def logs_with(settings: History, uuid: str) -> list[Path]:
    """Entries and checkpoints of the tables' logs that have a VM's UUID."""
    paths = [path for path in Path(settings.path).rglob("_delta_log/*") if path.is_file()]
    return [path for path in paths if uuid in (str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text())]


def test_upkeep_deletes_log_entries_that_name_a_vm(store: Store, settings: History) -> None:
    """Two days later, and not with the library's next checkpoint, which a table of few commits may not see in months."""
    store.open(SAMPLES).delta.create_checkpoint()
    forgotten(store, settings)
    assert {path.suffix for path in logs_with(settings, GONE)} == {".json", ".parquet"}
    long_ago = time.time() - 3 * 86_400
    for path in Path(settings.path).rglob("_delta_log/*"):
        os.utime(path, (long_ago, long_ago))
    maintain(settings, lambda *_: None)
    assert logs_with(settings, GONE) == []
