"""Forcing what is written to the disk, where the storage is a folder: a commit that was acknowledged outlives a power cut.

Object stores acknowledge a write when it is durable; there is nothing to do for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

LOG: Final = "_delta_log"


def sync_file(root: str, path: str) -> None:
    """Forces a file below ``root``, its name, and the names of the folders in between to the disk; raises ``OSError``."""
    _force(Path(root, path))
    for folder in Path(path).parents:
        _force(Path(root, folder))


def sync_table(root: str) -> None:
    """Forces a table's first log entry, and the names of all folders that it lies in, to the disk; raises ``OSError``.

    Any of these folders may be new. Those of another file system, or that may not be read, are not: nothing was made in them.
    """
    sync_commits(root, [0])
    table = Path(root).resolve()
    for folder in (table, *table.parents):
        if folder.stat().st_dev != table.stat().st_dev or not os.access(folder, os.R_OK):
            return
        _force(folder)


def sync_commits(root: str, versions: Iterable[int]) -> None:
    """Forces versions' log entries to the disk, and checkpoints that were made with them; raises ``OSError``."""
    log = Path(root, LOG)
    for version in versions:
        for file in (log / f"{version:020d}.json", *log.glob(f"{version:020d}.checkpoint*")):
            if file.exists():
                _force(file)
    _force(log)


def _force(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
