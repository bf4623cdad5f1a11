"""`virtflow history verify`: reads every entry of every log and every byte of every file, and names what is damaged.

A file's footer, which has no checksum, is compared with what it tells of.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from virtflow.history.maintenance.kept import Tell
from virtflow.history.storage.delta import ACTIONS_KEY, File, Opened, Store
from virtflow.history.storage.errors import StorageError
from virtflow.history.storage.footer import damage
from virtflow.history.storage.table_schemas import Table
from virtflow.schemas.errors import EnvironmentProblemError

LOG: Final = "_delta_log"
DAMAGED: Final = (OSError, pa.ArrowException, ValueError, OverflowError)
"""What reading a damaged file raises."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that can't be read: the table, the file below it, what is wrong, and what to do."""

    table: str
    file: str
    why: str
    fix: str


def verify(store: Store, tell: Tell) -> list[Damage]:
    """All damage of all tables; nothing is changed."""
    found: list[Damage] = []
    for table in store.tables():
        found += _log(store, table)
        try:
            opened = store.open(table)
            files = opened.files()
        except (StorageError, EnvironmentProblemError) as error:
            fix = f"restore the log entries named above, or move {store.table_uri(table)} away: the writer makes it anew and fills it from Kafka"
            found.append(Damage(table.name, LOG, str(error), fix))
            continue
        for done, file in enumerate(files):
            tell(table.name, done, len(files))
            found += _file(store, opened, file)
    return found


def _log(store: Store, table: Table) -> list[Damage]:
    """Entries of the log that are empty, cut off or missing, checkpoints that are no Parquet."""
    files = store.filesystem(table)
    names = sorted(entry.path.rpartition("/")[2] for entry in files.get_file_info(fs.FileSelector(LOG)))
    entries = [name for name in names if name.endswith(".json") and name[:1].isdigit()]
    damaged = [(name, why) for name in names if (why := _entry(files, name))]
    versions = [int(name.partition(".")[0]) for name in entries]
    damaged += [(f"{v:020d}.json", "is missing") for v in range(versions[0], versions[-1] + 1) if v not in versions] if versions else []
    return [Damage(table.name, f"{LOG}/{name}", why, _log_fix(name, entries)) for name, why in damaged]


def _entry(files: fs.FileSystem, name: str) -> str:
    """What is wrong with a file of the log."""
    try:
        if name.endswith(".json") and name[:1].isdigit():
            with files.open_input_stream(f"{LOG}/{name}") as stream:
                return _commit(bytes(stream.read()))
        if name.endswith(".parquet"):
            with files.open_input_file(f"{LOG}/{name}") as stream:
                pq.read_table(stream)
    except (ValueError, OSError, pa.ArrowException) as error:
        return _short(error)
    return ""


def _commit(text: bytes) -> str:
    """What is wrong with a commit: after a power cut it may be of length zero, full of zeros, or end anywhere."""
    if not text.strip(b"\0\n"):
        return "is empty, as a power cut leaves it: its rows are not in the table"
    actions = [json.loads(line) for line in text.splitlines()]
    info = next((action["commitInfo"] for action in actions if "commitInfo" in action), None)
    if info is None:
        return "is cut off: it does not say what made it"
    told = info.get(ACTIONS_KEY)
    there = sum(1 for action in actions if action.keys() & {"add", "remove", "txn"})
    return "" if told is None or int(told) == there else f"is cut off: {there} of its {told} lines are there"


def _log_fix(name: str, entries: list[str]) -> str:
    if entries and name == entries[-1]:
        return "stop the writer and delete this newest entry: the writer then reads its records again, as far as Kafka has them"
    return "restore it from a copy of the storage"


def _file(store: Store, opened: Opened, file: File) -> list[Damage]:
    """What is wrong with one file of a table."""
    why = ""
    try:
        with store.filesystem(opened.table).open_input_file(file.path) as stream:
            if (size := stream.size()) != file.size_bytes:
                why = f"has {size} bytes, the log says {file.size_bytes}"
            else:
                parquet = pq.ParquetFile(stream, page_checksum_verification=True)
                rows, why = parquet.metadata.num_rows, damage(parquet, opened.columns())
                if not why and file.rows and rows != file.rows:
                    why = f"has {rows} rows, the log says {file.rows}"
    except FileNotFoundError:
        why = "is missing"
    except DAMAGED as error:
        why = _short(error)
    if not why:
        return []
    fix = f"restore it from a copy of the storage, or delete the day {file.day} of {opened.table.name}; all other files can be read"
    return [Damage(opened.table.name, file.path, why, fix)]


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
