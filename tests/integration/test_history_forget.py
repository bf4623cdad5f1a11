"""`history forget`: nothing of a VM or a project is left in any file, everything else is as it was, and a row says that it was done."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.support.command import virtflow
from tests.support.history_tenants import owner_of, tenants_of, write_tenants
from virtflow.history.maintenance.rollup_job import Rolling
from virtflow.history.query.sql import Query
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import FORGOTTEN, SAMPLES
from virtflow.runtime.settings import History

START = float(int(time.time()) // 3_600 * 3_600 - 3 * 3_600)


def rows(path: Path, sql: str) -> list[dict[str, object]]:
    with Query(Store(History(path=str(path))), History()) as query:
        found: list[dict[str, object]] = query.run(sql).to_pylist()
        return found


def bytes_of_data(path: Path) -> bytes:
    """All data files there are, named by a table or not."""
    return b"".join(file.read_bytes() for file in sorted(path.rglob("*.parquet")) if "_delta_log" not in file.parts)


def test_a_vm_is_gone_from_every_file_and_the_others_are_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "history"
    samples, inventories = write_tenants(path, START)
    vm = inventories[2]
    tables = ("samples", "hourly", "daily", "inventory")
    before = {t: rows(path, f"SELECT * FROM {t} WHERE uuid <> '{vm.uuid}' ORDER BY ALL") for t in tables}  # noqa: S608
    dry = virtflow("history", "forget", "--history", str(path), "--vm", vm.name, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    told = json.loads(dry.stdout)[vm.name]
    assert set(told) == {*tables, "counters"}
    done = virtflow("history", "forget", "--history", str(path), "--vm", vm.name, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[vm.name] == told
    for table in tables:
        assert not rows(path, f"SELECT uuid FROM {table} WHERE uuid = '{vm.uuid}'")  # noqa: S608
        assert rows(path, f"SELECT * FROM {table} WHERE uuid <> '{vm.uuid}' ORDER BY ALL") == before[table]  # noqa: S608
    left = bytes_of_data(path)
    assert vm.uuid.encode() not in left
    assert len(samples)
    begun, note = rows(path, "SELECT * FROM forgotten ORDER BY time")
    assert (note["kind"], note["rows"], note["outcome"]) == ("vm", sum(told.values()), "done")
    assert (begun["run"], begun["rows"], begun["outcome"]) == (note["run"], None, "begun")
    assert vm.name not in json.dumps(note, default=str)
    # Upkeep goes on where it was, and rolls nothing up again that it had rolled up.
    rolling = Rolling(Store(History(path=str(path))), History(raw_days=3650), lambda *_: None)
    assert not rolling.due().hours
    assert virtflow("history", "verify", "--history", str(path)).returncode == 0


def test_a_project_is_gone_in_its_own_time(tmp_path: Path) -> None:
    """The VM that changed hands stays with its next owner; the hour of the change, which told of both, goes."""
    path = tmp_path / "history"
    samples, inventories = write_tenants(path, START)
    moved = inventories[-1]
    tenant = owner_of(inventories, moved.uuid, START)
    kept = {(s.uuid, s.sequence) for s in samples if owner_of(inventories, s.uuid, s.collected) != tenant}
    done = virtflow("history", "forget", "--history", str(path), "--project", tenant, "--yes")
    assert done.returncode == 0, done.stderr
    found = {(row["uuid"], row["sequence"]) for row in rows(path, "SELECT uuid, sequence FROM vms")}
    assert found == kept
    hours = {row["t"] for row in rows(path, f"SELECT epoch(time) AS t FROM hourly WHERE kind = 'vm' AND uuid = '{moved.uuid}'")}  # noqa: S608
    assert all(float(str(hour)) >= moved.collected for hour in hours)
    store = Store(History(path=str(path)), tenant)
    assert store.open(SAMPLES).dataset().count_rows() == 0
    assert set(tenants_of(inventories)) - {tenant}


def test_a_file_that_still_holds_something_is_found(tmp_path: Path) -> None:
    """The search does not trust the tables: a file that no table names is looked into as well."""
    path = tmp_path / "history"
    _, inventories = write_tenants(path, START)
    samples = Store(History(path=str(path))).open(SAMPLES)
    added = samples.write(samples.dataset().to_table())  # a file for each day: its hours may be of two
    refused = virtflow("history", "forget", "--history", str(path), "--vm", inventories[2].uuid, "--yes")
    assert refused.returncode == 1
    told = re.match(r"virtflow: (\d+) files? may still hold", refused.stderr)
    assert told
    assert int(told[1]) == len(added)
    assert any(f"samples/{file.path}" in refused.stderr for file in added)


@pytest.mark.parametrize("words", [("--vm", "no-such-vm"), ("--project", "no-such-project")])
def test_who_is_not_known_is_an_error_and_nothing_is_noted(words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "history"
    write_tenants(path, START)
    refused = virtflow("history", "forget", "--history", str(path), *words, "--yes")
    assert refused.returncode == 1
    assert words[1] in refused.stderr
    assert not Store(History(path=str(path))).exists(FORGOTTEN)


@pytest.mark.parametrize("words", [(), ("--vm", "a", "--project", "b")])
def test_what_is_to_be_forgotten_must_be_named_once(words: tuple[str, ...], tmp_path: Path) -> None:
    assert virtflow("history", "forget", "--history", str(tmp_path), *words).returncode == 2
