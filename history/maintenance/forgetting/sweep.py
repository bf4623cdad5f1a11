"""Deletes the files that hold rows of what is forgotten, and no file that another process has committed or may still commit.

A file that the table does not name may be deleted where one of these holds:

- The table named it once: a name is never committed a second time.
- Only upkeep writes files of its kind, and it was there before a commit of ours under ``UPKEEP``. Its run began before that
  commit, so its own commit is refused.
- It is older than a commit can be pending for: ``vacuum_hours``, as everywhere in upkeep, a day at most.

What else holds such rows stays: the file of a writer that may commit it at any moment.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from virtflow.history.maintenance.forgetting.subjects import Subject
from virtflow.history.maintenance.kept import Kept, Tell, has_compact_name
from virtflow.history.maintenance.rollup import HOUR_SECONDS
from virtflow.history.storage.delta import Opened, Store
from virtflow.history.storage.durable import sync_commits
from virtflow.history.storage.errors import translated
from virtflow.history.storage.scope import columns_of
from virtflow.history.storage.table_schemas import WRITTEN, Table
from virtflow.runtime.settings import History

PENDING_HOURS: Final = 24
"""No commit is pending for longer. The log names a removed file for as long, so that an older one is not taken for a new one."""


@dataclass(frozen=True, slots=True)
class Left:
    """A file that holds rows, or that can't be read yet; ``committed`` where the table names it."""

    path: str
    committed: bool


class Sweep:
    """One run's search of all files of the tables. A file is read once: it never changes."""

    def __init__(self, store: Store, settings: History, subject: Subject, tell: Tell) -> None:
        """Reads nothing yet."""
        self.hours: Final = min(settings.vacuum_hours, PENDING_HOURS)
        """From what age on a file that the table does not name is nobody's."""
        self._store = store
        self._subject = subject
        self._tell = tell
        self._searched: dict[tuple[str, str], bool] = {}

    def clean(self, table: Table, removed: Iterable[str]) -> None:
        """Deletes what may be deleted of a table; ``removed`` are the files that this run's own commits took out.

        From here on every run of upkeep that began before is refused its commits. Raises ``FencedError`` where one commits at this moment.
        """
        files = self._store.filesystem(table)
        there = self._list(files)
        kept = Kept(self._store.open(table))
        kept.commit([], [])
        named = {file.path for file in kept.opened.files()}
        gone = {*removed, *_tombstones(kept.opened)}
        oldest = time.time() - self.hours * HOUR_SECONDS
        unnamed = [path for path in there if path not in named]
        for path in self._holding(files, table, unnamed):
            if path in gone or _by_upkeep(table, path) or there[path] < oldest:
                _delete(files, path)
        self._checkpoint(kept.opened)

    def _checkpoint(self, opened: Opened) -> None:
        """Writes the table's state down in the log, so that the entries before it are deleted once they are older than the log's retention.

        The library deletes them with any later commit, but none that is newer than the last checkpoint.
        """
        uri = self._store.table_uri(opened.table)
        with translated(uri):
            opened.delta.create_checkpoint()
            if self._store.durable:
                sync_commits(uri, [opened.version])
            opened.delta.cleanup_metadata()

    def left(self, table: Table) -> list[Left]:
        """Files below a table that hold rows, whether the table names them or not."""
        files = self._store.filesystem(table)
        holding = self._holding(files, table, self._list(files))
        named = {file.path for file in self._store.open(table).files()} if holding else set()
        return [Left(f"{table.name}/{path}", path in named) for path in holding]

    def _list(self, files: fs.FileSystem) -> dict[str, float]:
        """All data files on the storage, and when each was written (Unix seconds)."""
        with translated(str(self._store)):
            entries = files.get_file_info(fs.FileSelector("", recursive=True))
        found = {entry.path: entry.mtime_ns / 1e9 for entry in entries if entry.path.endswith(".parquet")}
        return {path: written for path, written in found.items() if not path.startswith("_delta_log")}

    def _holding(self, files: fs.FileSystem, table: Table, paths: Iterable[str]) -> list[str]:
        paths = list(paths)
        found = []
        for done, path in enumerate(paths):
            self._tell(f"searching {table.name}", done, len(paths))
            if self._holds(files, table, path):
                found.append(path)
        return found

    def _holds(self, files: fs.FileSystem, table: Table, path: str) -> bool:
        """Whether a file holds rows; of one that can't be read, as it is being written or was cut off, nobody knows that it does not."""
        key = table.name, path
        if key not in self._searched:
            try:
                self._searched[key] = holds(files, path, self._subject, table)
            except FileNotFoundError:
                return False
            except (OSError, pa.ArrowInvalid):
                return True
        return self._searched[key]


def holds(files: fs.FileSystem, path: str, subject: Subject, table: Table) -> bool:
    """Whether a data file has rows of a subject."""
    with files.open_input_file(path) as stream:
        parquet, wanted = pq.ParquetFile(stream), columns_of(table)
        # A file of an older layout lacks columns: they are null.
        missing = [name for name in wanted if name not in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(columns=[name for name in wanted if name not in missing]):
            rows = pa.table(batch)
            for name in missing:
                rows = rows.append_column(name, pa.nulls(rows.num_rows, table.schema.field(name).type))
            if rows.filter(subject.condition(table)).num_rows:
                return True
    return False


def _by_upkeep(table: Table, path: str) -> bool:
    """Whether only upkeep can have written a file."""
    return table not in WRITTEN or has_compact_name(path)


def _tombstones(opened: Opened) -> list[str]:
    """The files that the table once named, as far as its log knows."""
    with translated(str(opened.delta.table_uri)):
        return opened.delta.vacuum(0, dry_run=True, enforce_retention_duration=False, full=False)


def _delete(files: fs.FileSystem, path: str) -> None:
    """Deletes a file, unless the vacuum of upkeep did so meanwhile."""
    with translated(path), suppress(FileNotFoundError):
        files.delete_file(path)
