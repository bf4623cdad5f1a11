"""The history's tables in memory: what ``history/storage/delta.py`` does, with storage that fails, hangs, and loses its answers.

    tables = Tables()                                  # one storage
    store = MemoryStore(tables, Calm())                # in the place of Store

A commit is atomic, as the real log's are; two commits that started from one version and carry the same name can't both succeed. The suite
``tests/simulation/test_storage_contract.py`` runs on this and on real tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import acero

from virtflow.history.storage.delta import File
from virtflow.history.storage.errors import FencedError, StorageError
from virtflow.history.storage.table_schemas import Table

CONDITIONS: Final = frozenset({"time", "uuid", "kind", "device", "node", "since", "sequence", "day"})
"""Columns that conditions are about."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file: what the log has of it, and its rows."""

    file: File
    rows: pa.Table
    compact: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """One entry of a table's log."""

    added: tuple[Written, ...]
    removed: frozenset[str]
    numbers: Mapping[str, int]
    notes: Mapping[str, str]


class Rows:
    """Rows as an Arrow dataset gives them, worked on in the calling thread: a pool of threads would cost more than the work."""

    def __init__(self, parts: Sequence[pa.Table], schema: pa.Schema) -> None:
        """Those of some files."""
        self._parts = parts
        self._schema = schema

    def to_table(self, columns: Sequence[str] | None = None, filter: Any = None) -> pa.Table:  # noqa: A002, ANN401, as a dataset's
        """Columns of the rows that meet a condition."""
        names = self._schema.names if columns is None else list(columns)
        if filter is None:
            return self._of(names)
        needed = [name for name in self._schema.names if name in names or name in CONDITIONS]
        source = acero.Declaration("table_source", acero.TableSourceNodeOptions(self._of(needed)))
        chosen = acero.Declaration("filter", acero.FilterNodeOptions(filter), [source])
        return chosen.to_table(use_threads=False).select(names)

    def _of(self, names: list[str]) -> pa.Table:
        """Columns of all rows: of wide tables most calls want few."""
        if not self._parts:
            return self._schema.empty_table().select(names)
        whole = names == self._schema.names
        return pa.concat_tables(self._parts if whole else [part.select(names) for part in self._parts])


class Tables:
    """All tables: by name their logs."""

    def __init__(self) -> None:
        """None is made."""
        self.logs: dict[str, list[Commit]] = {}
        self.files = 0
        self.note: Callable[..., None] = _ignore
        """Told of each commit."""


def _ignore(*what: object) -> None:
    del what


class Weather(Protocol):
    """How the storage fares: asked before and after whatever is done with it."""

    def before(self) -> None:
        """Raise ``StorageError`` where it does not answer."""

    def after(self) -> None:
        """Raise ``StorageError`` where the answer is lost."""


class Calm:
    """Nothing goes wrong."""

    def before(self) -> None:
        """Nothing."""

    def after(self) -> None:
        """Nothing."""


class MemoryStore:
    """All tables of one storage."""

    durable = False
    local = True

    def __init__(self, tables: Tables, weather: Weather | None = None) -> None:
        """Nothing is opened yet."""
        self._tables = tables
        self._weather = weather or Calm()
        self.uri = "memory:"

    def __str__(self) -> str:
        """Its address."""
        return self.uri

    def exists(self, table: Table) -> bool:
        """Whether the table has been made."""
        return table.name in self._tables.logs

    def make(self, table: Table) -> MemoryOpened:
        """The table, made where it is missing."""
        self._weather.before()
        self._tables.logs.setdefault(table.name, [Commit((), frozenset(), {}, {})])
        return self.open(table)

    def open(self, table: Table) -> MemoryOpened:
        """The table as it is now."""
        self._weather.before()
        return MemoryOpened(self._tables, self._weather, table, len(self._tables.logs[table.name]) - 1)

    def at(self, table: Table, version: int) -> MemoryOpened:
        """The table as it was."""
        return MemoryOpened(self._tables, self._weather, table, version)


@dataclass(slots=True)
class _State:
    """A table at a version."""

    version: int = -1
    files: dict[str, Written] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def apply(self, commit: Commit) -> None:
        self.version += 1
        for path in commit.removed:
            self.files.pop(path, None)
        self.files |= {written.file.path: written for written in commit.added}
        self.numbers |= commit.numbers


class MemoryOpened:
    """A table at one version, until ``refresh``."""

    def __init__(self, tables: Tables, weather: Weather, table: Table, version: int) -> None:
        """At that version."""
        self.table: Final = table
        self._tables = tables
        self._weather = weather
        self._log: Final = tables.logs[table.name]
        self._state = _State()
        self._advance(version)

    @property
    def version(self) -> int:
        """The version it stands at."""
        return self._state.version

    def refresh(self) -> None:
        """Moves on to the newest version."""
        self._weather.before()
        self._advance(len(self._log) - 1)

    def number(self, name: str) -> int | None:
        """The number last committed under ``name``, None where there is none."""
        return self._state.numbers.get(name)

    def files(self) -> list[File]:
        """The files of this version."""
        return [written.file for written in self._state.files.values()]

    def read(self, columns: Sequence[str], condition: Any = None, files: Sequence[File] | None = None) -> pa.Table:  # noqa: ANN401, an Arrow expression
        """Columns of the rows that meet a condition, of all files or of some."""
        self._weather.before()
        rows = self.dataset() if files is None else self.only(files)
        return rows.to_table(columns=list(columns), filter=condition)

    def dataset(self) -> Any:  # noqa: ANN401, pyarrow is untyped
        """The table's rows as an Arrow dataset."""
        return self.only(self.files())

    def only(self, files: Sequence[File]) -> Any:  # noqa: ANN401, pyarrow is untyped
        """Some files' rows as an Arrow dataset."""
        return Rows([self._state.files[file.path].rows for file in files], self.table.schema)

    def write(self, rows: pa.Table) -> list[Written]:
        """Rows in files, one for each hour, of which nobody knows before they are committed."""
        hours = pc.floor_temporal(rows.column("time"), unit="hour")
        found = sorted(hours.unique().to_pylist())
        if len(found) == 1:
            return [self.write_file(rows.column("day")[0].as_py().isoformat(), [rows])]
        added = []
        for hour in found:
            mine = rows.filter(pc.equal(hours, pa.scalar(hour, hours.type)))
            added.append(self.write_file(mine.column("day")[0].as_py().isoformat(), [mine]))
        return added

    def write_file(self, day: str, parts: Iterable[pa.Table], *, compact: bool = False, names: Sequence[str] = ()) -> Written:
        """One file of rows of one day."""
        del names
        self._weather.before()
        schema = self.table.schema
        # A file keeps words and not the dictionaries in which they come.
        chosen = [part if part.schema.equals(schema) else part.select(schema.names).cast(schema) for part in parts]
        rows = chosen[0] if len(chosen) == 1 else pa.concat_tables(chosen).combine_chunks()
        self._tables.files += 1
        path = f"day={day}/{'compact' if compact else 'part'}-{self._tables.files}.parquet"
        times = pc.min_max(rows.column("time"))
        first, last = (times[end].as_py().timestamp() if rows.num_rows else 0.0 for end in ("min", "max"))
        return Written(File(path, day, rows.num_rows, rows.nbytes, first, last), rows, compact)

    def notes(self, key: str, commits: int | None = None) -> list[str]:
        """What the newest commits noted under a key, from the newest on."""
        self._weather.before()
        known = self._log[: self.version + 1][::-1][:commits]
        return [commit.notes[key] for commit in known if key in commit.notes]

    def commit(
        self,
        added: Iterable[Written],
        numbers: Mapping[str, int],
        removed: Iterable[File] = (),
        *,
        changes: bool = True,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Makes files part of the table and takes others out of it, at once, under the names ``numbers``; then stands at the newest version."""
        del changes
        self._weather.before()
        gone = frozenset(file.path for file in removed)
        for other in self._log[self.version + 1 :]:
            if other.numbers.keys() & numbers.keys():
                before = {name: self.number(name) for name in numbers}
                self._advance(len(self._log) - 1)
                if any(self.number(name) != number for name, number in before.items()):
                    raise FencedError(f"{self.table.name}: another writer has committed meanwhile")
                raise StorageError(f"{self.table.name}: not committed")
            if other.removed & gone:
                raise StorageError(f"{self.table.name}: not committed: a file is gone")
        self._log.append(made := Commit(tuple(added), gone, dict(numbers), dict(notes or {})))
        self._tables.note("commit", self.table.name, *((one.file.path, one.file.rows) for one in made.added), *numbers.items())
        self._weather.after()
        self._advance(len(self._log) - 1)

    def discard(self, added: Sequence[Written]) -> None:
        """Nobody knows of the files."""

    def _advance(self, version: int) -> None:
        for commit in self._log[self._state.version + 1 : version + 1]:
            self._state.apply(commit)
