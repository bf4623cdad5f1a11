"""SQL over the tables: read-only, in this process, within limits, and with nothing else to be reached.

The database is in memory and knows no file, no network and no extension; the tables are handed to it as Arrow datasets, of which it reads
the columns and row groups that a query needs. Only one SELECT is run at a time. Memory and time are bounded as far as the database itself
looks at its limits, which is enough for queries of our own: what strangers ask runs in a process of its own, by ``limited``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

import duckdb
import pyarrow as pa

from virtflow.history.query.limits import QueryError, too_long, too_many_bytes, too_many_rows, too_much_memory
from virtflow.history.storage.delta import Store
from virtflow.history.storage.errors import translated
from virtflow.history.storage.table_schemas import DAILY, HOURLY, LABEL_SEPARATOR, SAMPLES, TABLE_OF, TABLES, Table, kind_columns
from virtflow.runtime.settings import History
from virtflow.schemas.catalogue.guest_agent import FILESYSTEM_LABELS

BATCH_ROWS: Final = 65_536
VIEWS: Final = {"vm": "vms", "vcpu": "vcpus", "network": "networks", "block": "blocks", "filesystem": "filesystems"}
"""A view for each kind of row of ``samples``."""
FILESYSTEM_VIEWS: Final = {SAMPLES.name: VIEWS["filesystem"], HOURLY.name: "filesystems_hourly", DAILY.name: "filesystems_daily"}
"""Views of filesystems, whose labels are columns there, by their tables."""
VIEW_NAMES: Final = ", ".join([*VIEWS.values(), *(name for name in FILESYSTEM_VIEWS.values() if name not in VIEWS.values())])


PLAIN: Final = (
    frozenset(f"{sign}{number}" for sign in ("", "u") for number in ("tinyint", "smallint", "integer", "bigint"))
    | {"boolean", "float", "double", "decimal", "varchar", "date", "time", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"}
    | {"timestamp with time zone"}
)
"""Types that every format has."""
WIDE: Final = frozenset({"hugeint", "uhugeint", "bignum"})
"""Whole numbers beyond what Arrow has; every sum is one."""
_UNREAD: Final = "Invalid Input Error: reading the stream registered as "
"""How the database begins where a table's rows can't be read. Functions of SQL raise the same type, for example for a wrong pattern."""
MARK: Final = "virtflow"
"""Metadata of a column whose text is JSON, or a number."""

_LABELS: Final = {label: f"split_part(device, chr({ord(LABEL_SEPARATOR)}), {place})" for place, label in enumerate(FILESYSTEM_LABELS, 1)}


class Query:
    """A connection to the tables. Close it, or use it as a context."""

    def __init__(self, store: Store, settings: History, names: Iterable[str] = ()) -> None:
        """Opens the tables ``names``, all that exist when empty; raises ``EnvironmentProblemError`` where one can't be opened."""
        self._settings = settings
        self._connection = duckdb.connect(":memory:")
        wanted = set(names) or {table.name for table in store.tables() if not table.internal}
        self.names: Final = frozenset(wanted)
        """The tables that can be asked."""
        for table in TABLES:
            if table.name in wanted:
                with translated(str(store)):
                    self._connection.register(table.name, store.open(table).dataset())
        views = {name: (SAMPLES.name, kind) for kind, name in VIEWS.items()}
        views |= {name: (table_name, "filesystem") for table_name, name in FILESYSTEM_VIEWS.items()}
        for name, (table_name, kind) in views.items():
            if table_name in wanted:
                self._connection.execute(f"CREATE VIEW {name} AS {_rows_of(TABLE_OF[table_name], kind)}")
        for setting in self._limits():
            self._connection.execute(setting)

    def _limits(self) -> tuple[str, ...]:
        return (
            f"SET memory_limit = '{self._settings.query_memory_bytes // 1024} KiB'",
            "SET threads = 2",
            "SET TimeZone = 'UTC'",
            "SET temp_directory = ''",
            "SET enable_progress_bar = false",
            "SET python_enable_replacements = false",
            "SET autoinstall_known_extensions = false",
            "SET autoload_known_extensions = false",
            "SET allow_community_extensions = false",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        )

    def run(self, sql: str, parameters: Iterable[Any] = ()) -> pa.Table:
        """The answer to one SELECT; raises ``QueryError`` where it is none, takes too long, too much memory or too many rows."""
        _only_select(sql)
        given = list(parameters)
        with self._within_time(), _told(), self._named():
            answer = self._connection.sql(sql, params=given) if given else self._connection.sql(sql)
            reader = answer.to_arrow_reader(BATCH_ROWS)
            return pa.Table.from_batches(self._bounded(reader), reader.schema)

    def stream(self, sql: str, *, text: bool) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The answer to one SELECT as it comes, each column under a name of its own; raises ``QueryError``, but for its time.

        With ``text`` lists, structs and the like become JSON, and what has no column in Arrow that everyone reads becomes the database's words.
        """
        _only_select(sql)
        with _told(), self._named():
            asked = self._connection.sql(sql)
            columns = list(zip(unique(asked.columns), asked.types, strict=True))
            told = asked.query("answer", _projected(columns, text=text))
            assert told is not None
            reader = told.to_arrow_reader(BATCH_ROWS)
        kinds = (kind for _, kind in columns)
        schema = pa.schema([field.with_metadata(_mark(kind) if text else None) for field, kind in zip(reader.schema, kinds, strict=True)])
        return schema, (batch.cast(schema) for batch in self._within(reader))

    def _within(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        with _told():
            yield from self._bounded(reader, self._settings.query_bytes)

    def add(self, name: str, rows: pa.Table) -> None:
        """Lets rows that are in memory be asked under a name."""
        self._connection.register(name, rows)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """A name that is no table's: the database would guess at its own tables."""
        try:
            yield
        except duckdb.CatalogException as error:
            there = ", ".join(sorted(self.names))
            raise QueryError(
                f"{_first_line(error).partition(' Did you mean')[0]} The tables here are {there}, the views {VIEW_NAMES}"
            ) from error

    def _bounded(self, batches: Iterable[pa.RecordBatch], most_bytes: int = 0) -> Iterator[pa.RecordBatch]:
        rows = size = 0
        for batch in batches:
            rows += batch.num_rows
            size += batch.nbytes
            if rows > self._settings.query_rows:
                raise QueryError(too_many_rows(self._settings))
            if most_bytes and size > most_bytes:
                raise QueryError(too_many_bytes(self._settings))
            yield batch

    @contextmanager
    def _within_time(self) -> Iterator[None]:
        over = threading.Event()

        def end() -> None:
            over.set()
            self._connection.interrupt()

        watch = threading.Timer(self._settings.query_seconds, end)
        watch.daemon = True
        watch.start()
        try:
            yield
        except QueryError as error:
            if over.is_set():
                raise QueryError(too_long(self._settings)) from error
            raise
        finally:
            watch.cancel()

    def close(self) -> None:
        """Lets go of the tables."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Closes it."""
        self.close()


def _rows_of(table: Table, kind: str) -> str:
    """A SELECT of a table's rows of a kind, with the columns that they fill; a filesystem's labels are columns of their own."""
    labels = _LABELS if kind == "filesystem" else {}
    names = [name for name in kind_columns(table, kind) if (name, kind) != ("device", "vm")]
    columns = [f"{labels[name]} AS {name}" if name in labels else name for name in names]
    columns += [f"{words} AS {label}" for label, words in labels.items() if label not in names]
    return f"SELECT {', '.join(columns)} FROM {table.name} WHERE kind = '{kind}'"  # noqa: S608, our own words


def unique(names: Iterable[str]) -> list[str]:
    """The names of columns, each once: the second ``n`` is ``n_1``, as the database itself names columns of tables."""
    names = list(names)
    found: list[str] = []
    for name in names:
        number, new = 0, name
        while new in found or (number and new in names):
            number += 1
            new = f"{name}_{number}"
        found.append(new)
    return found


def _projected(columns: Sequence[tuple[str, Any]], *, text: bool) -> str:
    """A SELECT from ``answer`` that gives its columns their names, and where wanted turns them into text."""
    parts = []
    for place, (name, kind) in enumerate(columns):
        column = f"c{place}"
        if text and _nested(kind):
            column = f"CAST(to_json({column}) AS VARCHAR)"
        elif kind.id not in PLAIN and (text or kind.id == "interval"):
            column = f"CAST({column} AS VARCHAR)"
        parts.append(f'{column} AS "{name.replace(chr(34), chr(34) * 2)}"')
    places = ", ".join(f"c{place}" for place in range(len(columns)))
    return f"SELECT {', '.join(parts)} FROM answer AS told({places})"  # noqa: S608, our own words, and names in quotes


def _mark(kind: Any) -> dict[str, str] | None:  # noqa: ANN401, the database's type
    return {MARK: "json" if _nested(kind) else "number"} if _nested(kind) or kind.id in WIDE else None


def _nested(kind: Any) -> bool:  # noqa: ANN401, the database's type
    return kind.id in {"list", "struct", "map", "array", "union"}


def _only_select(sql: str) -> None:
    with _told():
        statements = duckdb.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kind = statements[0].type.name if len(statements) == 1 else f"{len(statements)} statements"
        raise QueryError(f"only one SELECT can be asked, not {kind}: the tables are only read")


@contextmanager
def _told() -> Iterator[None]:
    """The database's errors as ours."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise QueryError(too_much_memory(_first_line(error))) from error
    except duckdb.InvalidInputException as error:
        text = _first_line(error)
        raise QueryError(f"{text}; `virtflow history verify` names the file" if text.startswith(_UNREAD) else text) from error
    except duckdb.Error as error:
        raise QueryError(_first_line(error)) from error
    except (pa.ArrowException, OSError) as error:
        raise QueryError(f"a file can't be read: {_first_line(error)}; `virtflow history verify` finds it") from error


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
