"""Whether the history's storage does what it must: answers, takes writes, refuses a second commit of the same version, has room.

The last but one is what exactly-once rests on. It is tried for real, on a table of its own that is removed again.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from pyarrow import fs

from virtflow.history.storage.delta import Store
from virtflow.history.storage.errors import StorageError, translated
from virtflow.history.storage.table_schemas import TABLES
from virtflow.schemas.errors import EnvironmentProblemError

FREE_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Judged:
    """One thing about the storage: whether it is good, what it is, and how to fix it."""

    ok: bool
    what: str
    fix: str = ""


def judge(store: Store) -> Iterator[Judged]:
    """Looks at the storage, the quick things first; later ones are left out where an earlier one failed."""
    try:
        commits = _commits(store)
    except StorageError as error:
        yield Judged(ok=False, what=f"can't be written: {error}", fix=_fix(store))
        return
    yield Judged(ok=True, what="reachable and writable")
    if commits:
        yield Judged(ok=True, what="refuses a second commit of the same version (conditional put)")
    else:
        fix = "use storage with conditional writes (If-None-Match): without them two writers lose rows"
        yield Judged(ok=False, what="takes a second commit of the same version: one of two was lost", fix=fix)
    yield from _room(store)
    yield from _tables(store)


def _commits(store: Store) -> bool:
    """Whether of two commits that start from the same version both are kept. Leaves nothing behind."""
    name = f"check-{uuid.uuid4().hex}"
    uri = f"{store.uri}/{name}"
    row = pa.table({"x": [1]})
    with translated(uri):
        try:
            if store.local:
                Path(uri).mkdir(parents=True)
            write_deltalake(uri, row, storage_options=store.options or None)
            first, second = (DeltaTable(uri, storage_options=store.options or None) for _ in range(2))
            for table in (first, second):
                write_deltalake(table, row, mode="append")
            return bool(DeltaTable(uri, storage_options=store.options or None).count() == 3)  # noqa: PLR2004, one and two
        finally:
            _remove(store, name)


def _remove(store: Store, name: str) -> None:
    if store.local:
        shutil.rmtree(Path(store.uri) / name, ignore_errors=True)
        return
    files = store.folder(name)
    for entry in files.get_file_info(fs.FileSelector("", recursive=True)):
        if entry.type is fs.FileType.File:
            files.delete_file(entry.path)


def _room(store: Store) -> Iterator[Judged]:
    if not store.local:
        return
    free = shutil.disk_usage(store.uri).free
    text = f"{free / (1 << 30):.1f} GiB free"
    if free < FREE_BYTES:
        yield Judged(ok=False, what=text, fix="make room, or shorten history.raw_days and run `virtflow history compact`")
    else:
        yield Judged(ok=True, what=text)


def _tables(store: Store) -> Iterator[Judged]:
    """The tables that are there can be opened by this program."""
    opened = []
    for table in TABLES:
        try:
            if store.exists(table):
                opened.append(f"{table.name} at version {store.open(table).version}")
        except EnvironmentProblemError as error:
            yield Judged(ok=False, what=f"{error.thing} {error.value}: {error.why}", fix=error.fix)
        except StorageError as error:
            yield Judged(ok=False, what=str(error), fix="run `virtflow history verify`")
    if opened:
        yield Judged(ok=True, what=", ".join(opened))


def _fix(store: Store) -> str:
    if store.local:
        return f"make the folder {store.uri} and let this user write there"
    return "check history.s3_endpoint, the keys' files, that the bucket is there and that this key may write to it"
