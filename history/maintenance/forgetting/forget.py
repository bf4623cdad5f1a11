"""`virtflow history forget`: takes VMs or a project out of every table, removes the files that held them, and looks through all files that are left.

Rows are told by a condition; each file that has some is written again without them, in one commit a table. Then the files that held them
are deleted at once, whoever still reads an older version, and every file there is on the storage is searched. What others have committed, or may
still commit, is never deleted: see ``sweep``.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from virtflow.history.maintenance.forgetting.subjects import Subject
from virtflow.history.maintenance.forgetting.sweep import Left, Sweep
from virtflow.history.maintenance.kept import Kept, Tell, is_compact
from virtflow.history.maintenance.rollup_job import Rolling
from virtflow.history.storage.delta import File, Opened, Store
from virtflow.history.storage.table_schemas import FORGOTTEN, INVENTORY_ROWS, SAMPLES, Table
from virtflow.history.writer.rows.arrow import days, times
from virtflow.runtime.settings import History
from virtflow.schemas.errors import InputError

ROUNDS: Final = 3
"""How often the tables are gone through where others write meanwhile."""


class LeftError(InputError):
    """A file still holds what was to be forgotten; the text names it."""


def counted(store: Store, subject: Subject) -> dict[str, int]:
    """How many rows of each table are the subject's."""
    return {table.name: rows for table in _tables(store) if (rows := _count(store.open(table), subject))}


def forget(store: Store, settings: History, subject: Subject, tell: Tell) -> dict[str, int]:
    """Does it; the rows that were taken out, by table.

    Raises ``FencedError`` where upkeep is running: repeat it. Raises ``LeftError`` where a file still holds something.
    """
    record = _Record(store, subject)
    record.note("begun")
    # What is not rolled up yet is found by the names of its files, which are about to change.
    rolling = Rolling(store, settings, tell)
    rolling.run(rolling.due())
    sweep = Sweep(store, settings, subject, tell)
    # The inventory says whose a VM is: while it is there, a project can be named again after a run that was cut off.
    last = [table for table in _tables(store) if table is INVENTORY_ROWS]
    first = [table for table in _tables(store) if table is not INVENTORY_ROWS]
    left = _clear(record, sweep, first, tell) or _clear(record, sweep, last, tell)
    record.note("left" if left else "done")
    if left:
        raise LeftError(_why(left, subject, sweep.hours))
    return dict(record.taken)


def _clear(record: _Record, sweep: Sweep, tables: Sequence[Table], tell: Tell) -> list[Left]:
    """Takes the subject out of tables and deletes what held it; the files that still do."""
    removed: dict[str, set[str]] = {table.name: set() for table in tables}
    left: list[Left] = []
    for _ in range(ROUNDS):
        for done, table in enumerate(tables):
            tell("tables", done, len(tables))
            for file, rows in _without(Kept(record.store.open(table)), record.subject):
                record.taken[table.name] += rows
                removed[table.name].add(file.path)
        tell("tables", len(tables), len(tables))
        # All tables are without it before any is cleaned: what upkeep reads from now on has nothing of it.
        for table in tables:
            sweep.clean(table, removed[table.name])
        before, left = left, [each for table in tables for each in sweep.left(table)]
        if left == before and not any(each.committed for each in left):
            break  # nothing, or what only somebody else can settle
    return left


def _why(left: Sequence[Left], subject: Subject, hours: int) -> str:
    """What is left, and what to do about it."""
    first = next((each for each in left if each.committed), left[0])
    if first.committed:
        why = "it is written on; stop it, and run this again"
    else:
        why = f"a writer may still commit it; run this again, at the latest {hours} hours after the file was written"
    files = "1 file" if len(left) == 1 else f"{len(left)} files"
    return f"{files} may still hold rows of {subject.kind} {subject.name}, {first.path} first: {why}"


def _tables(store: Store) -> list[Table]:
    return [table for table in store.tables() if "uuid" in table.schema.names]


def _count(opened: Opened, subject: Subject) -> int:
    return int(opened.dataset().count_rows(filter=subject.condition(opened.table)))


def _without(kept: Kept, subject: Subject) -> list[tuple[File, int]]:
    """Writes the files that hold rows of the subject again without them; these files, and how many rows that took out of each."""
    opened, condition = kept.opened, subject.condition(kept.opened.table)
    holding = [(file, rows) for file in opened.files() if (rows := int(opened.only([file]).count_rows(filter=condition)))]
    if not holding:
        return []
    added = []
    for file, rows in holding:
        if rows >= file.rows > 0:
            continue
        parts = _parts(opened.only([file]), ~condition)
        if (first := next(parts, None)) is not None:
            columns = _columns_of(opened, file.path)
            names = [name for name in opened.table.schema.names if name in columns]
            compact = is_compact(file) or opened.table is SAMPLES
            added.append(opened.write_file(file.day, _chained(first, parts), compact=compact, names=names))
    kept.commit(added, [file for file, _ in holding])
    return holding


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


@dataclass(slots=True)
class _Record:
    """What the table ``forgotten`` keeps of a run, without the name: whoever knows the name can look for it."""

    store: Store
    subject: Subject
    taken: Counter[str] = field(default_factory=Counter)
    run: str = field(default_factory=lambda: str(uuid.uuid4()))

    def note(self, outcome: str) -> None:
        """Adds a row: ``begun`` before anything is changed, then ``done`` or ``left``. A run that was cut off has only the first."""
        begun = outcome == "begun"
        columns: dict[str, list[Any]] = {
            "kind": [self.subject.kind],
            "subject_sha256": [hashlib.sha256(f"{self.subject.kind}:{self.subject.name}".encode()).hexdigest()],
            "rows": [None if begun else sum(self.taken.values())],
            "rows_by_table": [None if begun else json.dumps(self.taken, sort_keys=True)],
            "user": [_user()],
            "run": [self.run],
            "outcome": [outcome],
        }
        moment, schema = np.array([time.time()]), FORGOTTEN.schema
        rows = [days(moment), times(moment), *(pa.array(columns[each.name], each.type) for each in list(schema)[2:])]
        kept = Kept(self.store.make(FORGOTTEN))
        kept.commit(kept.opened.write(pa.table(rows, schema=schema)), [])


def _user() -> str:
    """Who runs this: the name, or the number of a user without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
