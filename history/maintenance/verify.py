"""`virtflow history verify`: reads every entry of every log and every byte of every file, and names what is damaged.

A file's footer, which has no checksum, is compared with what it tells of; so is what the log says of the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from virtflow.history.maintenance.kept import Tell
from virtflow.history.storage.delta import ACTIONS_KEY, DIGEST_KEY, File, Opened, Store, digest_of
from virtflow.history.storage.errors import StorageError
from virtflow.history.storage.footer import damage
from virtflow.history.storage.parquet import with_statistics
from virtflow.history.storage.table_schemas import COUNTERS, Table
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
            said = {action["path"]: action for action in pa.table(opened.delta.get_add_actions(flatten=True)).to_pylist()}
        except (StorageError, EnvironmentProblemError) as error:
            fix = f"restore the log entries named above, or move {store.table_uri(table)} away: the writer makes it anew and fills it from Kafka"
            found.append(Damage(table.name, LOG, str(error), fix))
            continue
        for done, file in enumerate(files):
            tell(table.name, done, len(files))
            found += _file(store, opened, file, said[file.path])
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
    if any(
        not isinstance(of_action, dict) for action in actions for of_action in (action.values() if isinstance(action, dict) else [None])
    ):
        return "is JSON, but no commit"
    info = next((action["commitInfo"] for action in actions if "commitInfo" in action), None)
    if info is None:
        return "is cut off: it does not say what made it"
    told = info.get(ACTIONS_KEY)
    there = sum(1 for action in actions if action.keys() & {"add", "remove", "txn"})
    if told not in (None, str(there)):
        return f"is cut off: {there} of its {told} lines are there"
    return (
        "" if info.get(DIGEST_KEY) in (None, _digest(actions)) else "was changed: its files and offsets are not those that were committed"
    )


def _digest(actions: list[dict[str, Any]]) -> str:
    """The digest of what a commit does, by its lines."""
    of = {kind: [action[kind] for action in actions if kind in action] for kind in ("add", "remove", "txn")}
    added, removed = ([one.get("path") for one in of[kind]] for kind in ("add", "remove"))
    return digest_of(added, removed, {one.get("appId"): one.get("version") for one in of["txn"]})


def _log_fix(name: str, entries: list[str]) -> str:
    if entries and name == entries[-1]:
        return "stop the writer and delete this newest entry: the writer then reads its records again, as far as Kafka has them"
    return "restore it from a copy of the storage"


def _file(store: Store, opened: Opened, file: File, said: dict[str, Any]) -> list[Damage]:
    """What is wrong with one file of a table, of which the log has ``said`` this."""
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
                why = why or _bounds(parquet, opened.table, said)
    except FileNotFoundError:
        why = "is missing"
    except DAMAGED as error:
        why = _short(error)
    if not why:
        return []
    fix = f"restore it from a copy of the storage, or delete the day {file.day} of {opened.table.name}; all other files can be read"
    return [Damage(opened.table.name, file.path, why, fix)]


def _bounds(parquet: pq.ParquetFile, table: Table, said: dict[str, Any]) -> str:
    """What the log says wrongly of a file's rows: readers pass the file over, or upkeep takes it for one of another time."""
    for name in with_statistics(parquet.schema_arrow) if parquet.metadata.num_rows else ():
        found = [pc.min_max(batch.column(0)).as_py() for batch in parquet.iter_batches(columns=[name], use_threads=False)]
        least, most = min(each["min"] for each in found), max(each["max"] for each in found)
        first, last = said.get(f"min.{name}"), said.get(f"max.{name}")
        if first is None or last is None:
            if first is not last or name == "time":
                return f"has rows whose bounds of {name} the log does not say"
            continue
        if not first <= least <= most <= last:
            return f"has {name} from {least} to {most}, the log says from {first} to {last}"
        # A row of ``counters`` is of the end of its hour, which may be midnight.
        back, day = timedelta(microseconds=int(table is COUNTERS)), str(said["partition.day"])
        if name == "time" and {(moment - back).date().isoformat() for moment in (least, most, first, last)} != {day}:
            return f"has rows from {least} to {most}, the log says from {first} to {last} and that they are of {day}"
    return ""


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
