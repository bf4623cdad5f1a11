"""The VMs' QEMU processes in the process table: the state of each main thread, read without touching the VM.

Where the table is hidden (a container, ``hidepid``) or a process can't be read, nothing is said of the VM. A process is known by the
``-uuid`` of its command line, and told from a later one with the same number by its start time. Source: proc(5), ``/proc/PID/stat``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

AGAIN_SECONDS: Final = 0.05
"""A main thread that waits for storage is looked at a second time after that: for a moment it is normal."""
WAITING: Final = "D"
SCAN_PAUSE_SECONDS: Final = 5.0
_STATE, _START_TIME = 0, 19
"""Places in ``stat`` after the command's name, which ends with the last parenthesis."""


class _Process(NamedTuple):
    pid: int
    start_time: str


class Processes:
    """The QEMU processes of this host by their VM's UUID. Workers' threads read it, one at a time."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        """``root`` is the process table."""
        self._root = root
        self._lock = threading.Lock()
        self._known: dict[str, _Process] = {}
        self._next_scan = float("-inf")

    def states(self, uuids: Iterable[str]) -> dict[str, str]:
        """The state of each VM's main thread as one letter; VMs of which nothing can be read are missing."""
        wanted = list(uuids)
        with self._lock:
            found = self._states(wanted)
        if waiting := [uuid for uuid, state in found.items() if state == WAITING]:
            time.sleep(AGAIN_SECONDS)
            with self._lock:
                found |= {uuid: self._state(uuid) or WAITING for uuid in waiting}
        return found

    def _states(self, wanted: list[str]) -> dict[str, str]:
        found = {uuid: state for uuid in wanted if (state := self._state(uuid))}
        missing = [uuid for uuid in wanted if uuid not in found]
        if missing and time.monotonic() >= self._next_scan:
            self._scan()
            found |= {uuid: state for uuid in missing if (state := self._state(uuid))}
        return found

    def pid(self, uuid: str) -> int | None:
        """The process that runs the VM, or None where that can't be seen."""
        return self._known[uuid].pid if self.states([uuid]) else None

    def _state(self, uuid: str) -> str:
        known = self._known.get(uuid)
        if known is None:
            return ""
        fields = self._stat(known.pid)
        if not fields or fields[_START_TIME] != known.start_time:
            del self._known[uuid]
            return ""
        return fields[_STATE]

    def _stat(self, pid: int) -> list[str]:
        """The fields of ``stat`` after the name; [] when there is no such process or it can't be read."""
        try:
            fields = (self._root / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            return []
        return fields if len(fields) > _START_TIME else []

    def _scan(self) -> None:
        """Reads every command line once; at most every few seconds, because a host has thousands."""
        self._next_scan = time.monotonic() + SCAN_PAUSE_SECONDS
        try:
            entries = [entry.name for entry in self._root.iterdir() if entry.name.isdecimal()]
        except OSError:
            return
        for name in entries:
            uuid = self._uuid(name)
            fields = self._stat(int(name)) if uuid else []
            if fields:
                self._known[uuid] = _Process(int(name), fields[_START_TIME])

    def _uuid(self, pid: str) -> str:
        """The UUID of the VM that the process runs; "" for any other process."""
        try:
            words = (self._root / pid / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return ""
        if b"qemu" not in words[0] and b"kvm" not in words[0]:
            return ""
        try:
            return words[words.index(b"-uuid") + 1].decode("ascii", "replace").lower()
        except (ValueError, IndexError):
            return ""
