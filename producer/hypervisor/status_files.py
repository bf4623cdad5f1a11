"""When libvirt last saved the status of each running VM: the times of its files, of which not even the content is read.

libvirt saves a running VM's status when a job begins that may last, such as a migration, and now and then otherwise (source:
``virDomainObjBeginJobInternal``: the file is what tells a restarted daemon of the job). So a VM whose file has not changed has no job that
was not there before. Where the folder can't be seen (another host's libvirt, a container), nothing is said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

SYSTEM: Final = Path("/run/libvirt/qemu")
SUFFIX: Final = ".xml"
SETTLED_SECONDS: Final = 1.0
"""A folder that changed less than that ago may change again without its time telling, which the kernel keeps by the tick."""


def folder_of(uri: str) -> Path | None:
    """Where the daemon of that URI keeps the status of its VMs; None where that is not known."""
    match uri.partition("?")[0].rstrip("/"):
        case "qemu:///system" if "socket=" not in uri:
            return SYSTEM
        case "qemu:///session" if "socket=" not in uri and (runtime := os.environ.get("XDG_RUNTIME_DIR")):
            return Path(runtime) / "libvirt" / "qemu" / "run"
        case _:
            return None


class StatusFiles:
    """The times by VM name (Unix seconds). Belongs to the thread that calls it; it reads a folder in memory, and asks no daemon."""

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.time) -> None:
        """Nothing has been read."""
        self._folder = folder
        self._clock = clock
        self._read_at = 0
        self._saved: Mapping[str, float] | None = None

    def read(self) -> Mapping[str, float] | None:
        """When each VM's status was saved; None where that can't be seen. Costs one call while nothing has changed."""
        if self._folder is None:
            return None
        try:
            changed = self._folder.stat().st_mtime_ns
            if self._saved is None or changed != self._read_at:
                self._saved = self._times(self._folder)
                self._read_at = changed if self._clock() - changed / 1e9 > SETTLED_SECONDS else 0
        except OSError:
            self._saved = None
        return self._saved

    @staticmethod
    def _times(folder: Path) -> dict[str, float]:
        found = {}
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    try:
                        found[entry.name.removesuffix(SUFFIX)] = entry.stat().st_mtime
                    except FileNotFoundError:  # it has just been replaced or removed
                        continue
        return found
