"""Where the tables are: files and commits, on a path or on S3-compatible storage.

Files are written by Arrow, commits are Delta Lake's: what a commit names exists, what no commit names is not there and is
vacuumed one day. Every commit carries application transactions, a name and a number each. Two commits that started from the
same state of the table and carry the same name can't both succeed: that fences off a second writer, and a second maintenance.
Source: the Delta transaction log protocol ("Transaction Identifiers") and its conflict rules in delta-rs.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Field, Transaction
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.schema import Schema as DeltaSchema
from deltalake.transaction import AddAction, RemoveAction
from pyarrow import fs

from virtflow.history.storage.durable import sync_commits, sync_file, sync_table
from virtflow.history.storage.errors import FencedError, NewerTableError, StorageError, made, short, translated
from virtflow.history.storage.options import SCHEMES, address, storage_options
from virtflow.history.storage.parquet import (
    ROLLED_GROUP_ROWS,
    ROW_GROUP_ROWS,
    Statistics,
    filled,
    packing,
    row_groups,
    with_own_words,
    with_statistics,
)
from virtflow.history.storage.scope import COLUMNS as OWNER_COLUMNS
from virtflow.history.storage.scope import Owned, condition, owned_by
from virtflow.history.storage.skipping import dataset_of, may_hold
from virtflow.history.storage.table_schemas import INVENTORY_ROWS, LAYOUT_VERSION, SAMPLES, TABLES, Table
from virtflow.runtime.settings import History
from virtflow.schemas.errors import EnvironmentProblemError

_HOUR_MICROSECONDS: Final = 3_600_000_000
LAYOUT_KEY: Final = "virtflow.layout"
ACTIONS_KEY: Final = "virtflow.actions"
"""How many files and names a commit changes: a log entry that was cut off at the end of a line is still JSON."""
DIGEST_KEY: Final = "virtflow.digest"
"""What a commit does, as a digest: an offset or a path of which a byte was changed on the disk is still an offset or a path."""
_CONFIGURATION: Final = {
    LAYOUT_KEY: str(LAYOUT_VERSION),
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 2 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",
}


def digest_of(added: Iterable[str], removed: Iterable[str], numbers: Mapping[str, int]) -> str:
    """The digest of a commit: the paths of the files that it adds and removes, and its names with their numbers."""
    lines = [*(f"add {path}" for path in added), *(f"remove {path}" for path in removed)]
    lines += [f"txn {name} {number}" for name, number in numbers.items()]
    return hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class File:
    """A file of a table as its log has it: path below the table, day, rows, size, and the times of its first and last row (Unix seconds)."""

    path: str
    day: str
    rows: int
    size_bytes: int
    first: float
    last: float


class Store:
    """All tables at one address."""

    def __init__(self, settings: History, tenant: str = "") -> None:
        """Opens nothing yet. With ``tenant`` its tables have the rows of that project alone, whoever reads them.

        Raises ``SettingError`` where the address can't be one or a file with a secret can't be read.
        """
        self.uri: Final = address(settings.path)
        self.options: Final = storage_options(settings)
        self.durable: Final = self.local and settings.sync == "commit"
        """Whether files and commits are forced to the disk."""

        self._tenant = tenant
        self._owned: tuple[int, list[Owned]] | None = None

    def scope(self, table: Table) -> Any:  # noqa: ANN401, an Arrow expression
        """The condition on rows that may be seen of a table; None where all may."""
        return condition(table, self._of_tenant()) if self._tenant else None

    def _of_tenant(self) -> list[Owned]:
        """What is the tenant's now, asked again when the inventory has changed."""
        if not self.exists(INVENTORY_ROWS):
            return []
        uri = self.table_uri(INVENTORY_ROWS)
        with translated(uri):
            delta = DeltaTable(uri, storage_options=self.options or None)
            if self._owned is None or self._owned[0] != delta.version():
                dataset = delta.to_pyarrow_dataset(filesystem=self.filesystem(INVENTORY_ROWS), schema=INVENTORY_ROWS.schema)
                self._owned = delta.version(), owned_by(self._tenant, dataset.to_table(columns=list(OWNER_COLUMNS)))
        return self._owned[1]

    def __str__(self) -> str:
        """The address."""
        return self.uri

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return not self.uri.startswith(SCHEMES)

    def table_uri(self, table: Table) -> str:
        """The table's own address."""
        return f"{self.uri}/{table.name}"

    def tables(self) -> list[Table]:
        """The tables that have been made; raises ``EnvironmentProblemError`` where there is none, as at a wrong address."""
        found = [table for table in TABLES if self.exists(table)]
        if not found:
            fix = "set history.path (--history) to where `virtflow history write` writes"
            raise EnvironmentProblemError(thing="history", value=self.uri, why="no table is there", fix=fix)
        return found

    def exists(self, table: Table) -> bool:
        """Whether the table has been made."""
        with translated(self.table_uri(table)):
            return DeltaTable.is_deltatable(self.table_uri(table), self.options or None)

    def open(self, table: Table) -> Opened:
        """The table as it is now; raises ``EnvironmentProblemError`` where there is none or it is newer than this program."""
        uri = self.table_uri(table)
        with translated(uri):
            try:
                opened = DeltaTable(uri, storage_options=self.options or None)
            except TableNotFoundError as error:
                fix = "run `virtflow history write`, or set history.path to where it writes"
                raise EnvironmentProblemError(thing="history table", value=uri, why="not there", fix=fix) from error
            _refuse_newer(uri, opened)
        return Opened(self, table, opened)

    def at(self, table: Table, version: int) -> Opened:
        """The table as it was at a version; raises ``StorageError`` where its log no longer reaches back so far."""
        uri = self.table_uri(table)
        with translated(uri):
            try:
                return Opened(self, table, DeltaTable(uri, version=version, storage_options=self.options or None))
            except TableNotFoundError as error:
                raise StorageError(f"{uri}: no version {version}: {short(error)}") from error

    def make(self, table: Table) -> Opened:
        """The table, made where it is missing, with all columns of the catalogue: those it lacks are added, the old files read on."""
        uri = self.table_uri(table)
        with translated(uri), made(uri):
            DeltaTable.create(
                uri,
                table.schema,
                mode="ignore",
                partition_by=["day"],
                name=table.name,
                description=table.about,
                configuration={**_CONFIGURATION, "delta.dataSkippingStatsColumns": ",".join(with_statistics(table.schema))},
                storage_options=self.options or None,
                raise_if_key_not_exists=False,
            )
            if self.durable:
                sync_table(uri)
        opened = self.open(table)
        opened.grow()
        return self.open(table)

    def filesystem(self, table: Table) -> fs.FileSystem:
        """The table's files for Arrow."""
        return self.folder(table.name)

    def folder(self, name: str) -> fs.FileSystem:
        """The files below a name for Arrow."""
        if self.local:
            return fs.SubTreeFileSystem(f"{self.uri}/{name}", fs.LocalFileSystem())
        return fs.PyFileSystem(DeltaStorageHandler(f"{self.uri}/{name}", self.options or None))


class Opened:
    """A table at one version. ``commit`` moves it on to the version it made."""

    def __init__(self, store: Store, table: Table, delta: DeltaTable) -> None:
        """As ``Store.open`` gives it."""
        self.table: Final = table
        self.delta: Final = delta
        self._store = store
        self._files = store.filesystem(table)

    @property
    def files_of_storage(self) -> fs.FileSystem:
        """The table's files for Arrow, by their paths below it."""
        return self._files

    def columns(self) -> dict[str, pa.DataType | None]:
        """The table's columns and their types; None of those that only a newer program knows."""
        known = {field.name: field.type for field in self.table.schema}
        return {field.name: known.get(field.name) for field in self.delta.schema().fields}

    @property
    def version(self) -> int:
        """The version it stands at."""
        return self.delta.version()

    def refresh(self) -> None:
        """Moves on to the newest version."""
        with translated(self._store.table_uri(self.table)):
            self.delta.update_incremental()

    def grow(self) -> None:
        """Adds the columns that the table lacks."""
        have = {field.name for field in self.delta.schema().fields}
        wanted = DeltaSchema.from_arrow(self.table.schema).fields
        missing = [Field(field.name, field.type, nullable=True) for field in wanted if field.name not in have]
        if missing:
            with self._forced():
                self.delta.alter.add_columns(missing)

    def vacuum(self, hours: int) -> None:
        """Deletes files that no version within ``hours`` names."""
        with self._forced():
            self.delta.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)

    @contextmanager
    def _forced(self) -> Iterator[None]:
        """Forces the log entries to the disk that are made within, where that is wanted, and moves on to the newest version."""
        uri, first = self._store.table_uri(self.table), self.version + 1
        with translated(uri):
            yield
            self.refresh()
            if self._store.durable:
                sync_commits(uri, range(first, self.version + 1))

    def number(self, name: str) -> int | None:
        """The number last committed under ``name``, None where there is none. Costs a millisecond of CPU: the log is read for each."""
        with translated(self._store.table_uri(self.table)):
            return self.delta.transaction_version(name)

    def files(self) -> list[File]:
        """The files of this version."""
        with translated(self._store.table_uri(self.table)):
            actions = pa.table(self.delta.get_add_actions(flatten=True)).to_pylist()
        return [_file(action) for action in actions]

    def dataset(self) -> Any:  # noqa: ANN401, pyarrow is untyped
        """The table's rows as an Arrow dataset; of a tenant's store the tenant's rows alone."""
        with translated(self._store.table_uri(self.table)):
            return self._scoped(self.delta.to_pyarrow_dataset(filesystem=self._files, schema=self.table.schema))

    def within(self, start: float, end: float, kind: str) -> Any:  # noqa: ANN401, pyarrow is untyped
        """As ``dataset``, of the files alone that may have rows of a kind from ``start`` up to ``end`` (Unix seconds): filter the rows."""
        with translated(self._store.table_uri(self.table)):
            actions = may_hold(pa.table(self.delta.get_add_actions(flatten=True)), start, end, kind)
            return self._scoped(dataset_of(actions, self.table.schema, self._files))

    def _scoped(self, rows: Any) -> Any:  # noqa: ANN401, pyarrow is untyped
        scope = self._store.scope(self.table)
        return rows if scope is None else rows.filter(scope)

    def read(self, columns: Sequence[str], condition: Any = None, files: Sequence[File] | None = None) -> pa.Table:  # noqa: ANN401, an Arrow expression
        """Columns of the rows that meet a condition, of all files or of some."""
        with translated(self._store.table_uri(self.table)):
            rows = self.dataset() if files is None else self.only(files)
            return rows.to_table(columns=list(columns), filter=condition)

    def only(self, files: Sequence[File]) -> Any:  # noqa: ANN401, pyarrow is untyped
        """Some files' rows as an Arrow dataset; the day comes from the path."""
        days = ds.partitioning(pa.schema([("day", pa.date32())]), flavor="hive")
        return ds.dataset([file.path for file in files], self.table.schema, "parquet", self._files, days)

    def write(self, rows: pa.Table) -> list[AddAction]:
        """Writes rows into files, one per hour, of which nobody knows before they are committed.

        A file of one hour says which hour is to be rolled up again, however late its rows are.
        """
        hours = rows.column("time").cast(pa.int64()).to_numpy() // _HOUR_MICROSECONDS
        found = np.unique(hours).tolist()
        if len(found) > 1:
            # Of a dictionary each file would get all words, also those of the other files' rows.
            rows = rows.cast(self.table.schema)
        added = []
        for hour in found:
            mine = rows if len(found) == 1 else rows.filter(pa.array(hours == hour))  # most batches are of one hour: nothing is copied
            added.append(self.write_file(mine.column("day")[0].as_py().isoformat(), [mine], names=filled(mine)))
        return added

    def write_file(self, day: str, parts: Iterable[pa.Table], *, compact: bool = False, names: Sequence[str] = ()) -> AddAction:
        """Writes one file of rows of one day, part by part as they come; each part is a row group or several.

        ``compact``: packed tightly, and for long; such a file holds rows that the table had before. ``names``: only these columns; the others
        are null to every reader. Words may come as dictionaries: the file has words all the same.
        """
        path = f"day={day}/{'compact' if compact else 'part'}-{uuid.uuid4().hex}.parquet"
        group_rows = ROW_GROUP_ROWS if self.table is SAMPLES else ROLLED_GROUP_ROWS
        seen, coming = Statistics(), iter(parts)
        with translated(self._store.table_uri(self.table)):
            first = next(coming, self.table.schema.empty_table())
            kept = [name for name in self.table.schema.names if name != "day" and (not names or name in names)]
            schema = pa.schema([first.schema.field(name) for name in kept])
            self._files.create_dir(f"day={day}", recursive=True)
            with self._files.open_output_stream(path) as out, pq.ParquetWriter(out, schema, **packing(schema, compact=compact)) as writer:
                for part in chain([first], coming):
                    seen.add(part)
                    for group in row_groups(part, group_rows):
                        writer.write_table(with_own_words(group.select(kept)), row_group_size=group_rows)
            size = self._files.get_file_info(path).size
            if self._store.durable:
                sync_file(self._store.table_uri(self.table), path)
        return AddAction(path, size, {"day": day}, int(time.time() * 1000), not compact, seen.text())

    def notes(self, key: str, commits: int | None = None) -> list[str]:
        """What the newest commits noted under a key, from the newest on; at most what the log still has."""
        with translated(self._store.table_uri(self.table)):
            return [str(commit[key]) for commit in self.delta.history(commits) if key in commit]

    def commit(
        self,
        added: Iterable[AddAction],
        numbers: Mapping[str, int],
        removed: Iterable[File] = (),
        *,
        changes: bool = True,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Makes files part of the table and takes others out of it, at once, under the names ``numbers``.

        ``notes`` are kept with the commit for as long as the log has it. ``changes`` is False where the rows stay the same. Raises ``FencedError`` where another commit since this version carries one
        of the names, ``StorageError`` where the storage failed.
        """
        now = int(time.time() * 1000)
        gone, added = list(removed), list(added)
        actions: list[AddAction | RemoveAction] = [
            RemoveAction(file.path, changes, now, file.size_bytes, {"day": file.day}) for file in gone
        ]
        actions += added
        transactions = [Transaction(name, number) for name, number in numbers.items()]
        told = {
            ACTIONS_KEY: str(len(actions) + len(transactions)),
            DIGEST_KEY: digest_of([one.path for one in added], [file.path for file in gone], numbers),
        }
        with self._forced():
            try:
                self.delta.create_write_transaction(
                    actions,
                    "append",
                    self.delta.schema(),
                    ["day"],
                    commit_properties=CommitProperties(
                        custom_metadata={**(notes or {}), **told},
                        app_transactions=transactions,
                        max_commit_retries=20,
                    ),
                )
            except CommitFailedError as error:
                # Two reasons, one error: whether somebody else has moved a name is what tells them apart.
                before = {name: self.number(name) for name in numbers}
                self.refresh()
                if any(self.number(name) != number for name, number in before.items()):
                    raise FencedError(f"{self._store.table_uri(self.table)}: another writer has committed meanwhile") from error
                raise

    def discard(self, added: Sequence[AddAction]) -> None:
        """Removes files that will not be committed; what can't be removed is vacuumed one day."""
        for action in added:
            try:
                self._files.delete_file(action.path)
            except OSError:
                return


def _file(action: dict[str, Any]) -> File:
    first, last = action.get("min.time"), action.get("max.time")
    return File(
        path=action["path"],
        day=str(action["partition.day"]),
        rows=action.get("num_records") or 0,
        size_bytes=action["size_bytes"],
        first=first.timestamp() if first else float("-inf"),
        last=last.timestamp() if last else float("inf"),
    )


def _refuse_newer(uri: str, opened: DeltaTable) -> None:
    layout = opened.metadata().configuration.get(LAYOUT_KEY, str(LAYOUT_VERSION))
    if not layout.isdecimal() or int(layout) > LAYOUT_VERSION:
        why = f"its layout is {layout}, this program knows up to {LAYOUT_VERSION}"
        raise NewerTableError(thing="history table", value=uri, why=why, fix="upgrade virtflow")
