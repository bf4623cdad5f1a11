"""`virtflow history forget`: takes VMs or a project out of every table, removes the files that held them, and looks through all files that are left.

Rows are told by a condition; each file that has some is written again without them, in one commit a table. Then the files that no table names
any more are deleted at once, whoever still reads an older version, and every file there is on the storage is searched.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from virtflow.history.maintenance.kept import Kept, Tell, is_compact
from virtflow.history.maintenance.rollup_job import Rolling
from virtflow.history.storage.delta import Opened, Store, translated
from virtflow.history.storage.scope import COLUMNS, Owned, owned_by, touched
from virtflow.history.storage.table_schemas import FORGOTTEN, INVENTORY_ROWS, SAMPLES, Table
from virtflow.history.writer.rows.arrow import days, times
from virtflow.runtime.settings import History
from virtflow.schemas.errors import InputError


class LeftError(InputError):
    """A file still holds what was to be forgotten; the text names it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be forgotten: ``kind`` is vm or project, ``name`` as it was given, and what of the tables that is."""

    kind: str
    name: str
    owned: tuple[Owned, ...]

    def condition(self, table: Table) -> Any:  # noqa: ANN401, an Arrow expression
        """The table's rows that are to be forgotten."""
        return touched(table, self.owned)


def vms(named: Mapping[str, Sequence[str]]) -> list[Subject]:
    """VMs by what they were named, a name or a UUID: the UUIDs of all that ever had the name."""
    return [Subject("vm", name, tuple(Owned(uuid, None, None) for uuid in uuids)) for name, uuids in named.items()]


def project(store: Store, name: str) -> Subject:
    """A project's VMs in the time in which they were its own."""
    if not store.exists(INVENTORY_ROWS):
        return Subject("project", name, ())
    rows = store.open(INVENTORY_ROWS).dataset().to_table(columns=list(COLUMNS))
    return Subject("project", name, tuple(owned_by(name, rows)))


def counted(store: Store, subject: Subject) -> dict[str, int]:
    """How many rows of each table are the subject's."""
    return {table.name: rows for table in _tables(store) if (rows := _count(store.open(table), subject))}


def forget(store: Store, settings: History, subject: Subject, tell: Tell) -> dict[str, int]:
    """Does it; the rows that were taken out, by table.

    Raises ``FencedError`` where upkeep is running: repeat it. Raises ``LeftError`` where a file still holds something.
    """
    # What is not rolled up yet is found by the names of its files, which are about to change.
    rolling = Rolling(store, settings, tell)
    rolling.run(rolling.due())
    taken: dict[str, int] = {}
    tables = _tables(store)
    for done, table in enumerate(tables):
        tell("tables", done, len(tables))
        rows = _without(Kept(store.open(table)), subject)
        if rows:
            taken[table.name] = rows
    tell("tables", len(tables), len(tables))
    _vacuum(store, tables)
    found = left(store, subject, tell)
    if found:
        raise LeftError(f"{len(found)} files still hold rows of {subject.kind} {subject.name}, {found[0]} first: run it again")
    _note(store, subject, taken)
    return taken


def left(store: Store, subject: Subject, tell: Tell) -> list[str]:
    """Files below the tables that hold rows of the subject, whether a table names them or not."""
    found = []
    for table in _tables(store):
        files = store.filesystem(table)
        paths = [entry.path for entry in files.get_file_info(fs.FileSelector("", recursive=True)) if entry.path.endswith(".parquet")]
        paths = [path for path in paths if not path.startswith("_delta_log")]
        for done, path in enumerate(paths):
            tell(f"searching {table.name}", done, len(paths))
            if _holds(files, path, subject, table):
                found.append(f"{table.name}/{path}")
    return found


def _holds(files: fs.FileSystem, path: str, subject: Subject, table: Table) -> bool:
    columns = ["uuid", "time"]
    with files.open_input_file(path) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(columns=columns):
            if pa.table(batch).filter(subject.condition(table)).num_rows:
                return True
    return False


def _tables(store: Store) -> list[Table]:
    return [table for table in store.tables() if "uuid" in table.schema.names]


def _count(opened: Opened, subject: Subject) -> int:
    return int(opened.dataset().count_rows(filter=subject.condition(opened.table)))


def _without(kept: Kept, subject: Subject) -> int:
    """Writes the files that hold rows of the subject again without them; how many rows that took out."""
    opened, condition = kept.opened, subject.condition(kept.opened.table)
    holding = [(file, rows) for file in opened.files() if (rows := int(opened.only([file]).count_rows(filter=condition)))]
    if not holding:
        return 0
    added = []
    for file, rows in holding:
        if rows >= file.rows > 0:
            continue
        parts = _parts(opened.only([file]), ~condition)
        if (first := next(parts, None)) is not None:
            names = [name for name in opened.table.schema.names if name in _columns_of(opened, file.path)]
            added.append(
                opened.write_file(file.day, _chained(first, parts), compact=is_compact(file) or opened.table is SAMPLES, names=names)
            )
    kept.commit(added, [file for file, _ in holding])
    return sum(rows for _, rows in holding)


def _columns_of(opened: Opened, path: str) -> set[str]:
    """A compacted file has the columns of its kind alone."""
    with opened.files_of_storage.open_input_file(path) as stream:
        return set(pq.read_schema(stream).names)


def _parts(dataset: Any, kept: Any) -> Iterator[pa.Table]:  # noqa: ANN401, pyarrow is untyped
    for batch in dataset.to_batches(filter=kept, use_threads=False):
        if batch.num_rows:
            yield pa.table(batch)


def _chained(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _vacuum(store: Store, tables: Sequence[Table]) -> None:
    """Deletes at once what no table names any more, and notes the tables' state in a checkpoint, so that old log entries may go."""
    for table in tables:
        opened = store.open(table)
        with translated(str(store)):
            opened.delta.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
            opened.delta.create_checkpoint()
            opened.delta.cleanup_metadata()


def _note(store: Store, subject: Subject, taken: dict[str, int]) -> None:
    """Notes that and when it was done, without the name: whoever knows the name can look for it."""
    now = time.time()
    digest = hashlib.sha256(f"{subject.kind}:{subject.name}".encode()).hexdigest()
    columns: dict[str, list[Any]] = {
        "kind": [subject.kind],
        "subject_sha256": [digest],
        "rows": [sum(taken.values())],
        "rows_by_table": [json.dumps(taken, sort_keys=True)],
        "user": [getpass.getuser()],
    }
    moment = np.array([now])
    schema = FORGOTTEN.schema
    rows = pa.table(
        [days(moment), times(moment), *(pa.array(columns[field.name], field.type) for field in list(schema)[2:])], schema=schema
    )
    kept = Kept(store.make(FORGOTTEN))
    kept.commit(kept.opened.write(rows), [])
