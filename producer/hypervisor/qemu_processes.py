"""The VMs' QEMU processes in the process table: the state of each main thread, read without touching the VM.

Where the table is hidden (a container, ``hidepid``) or a process can't be read, nothing is said of the VM. A process is known by the
``-uuid`` of its command line, and told from a later one with the same number by its start time. Source: proc(5), ``/proc/PID/stat``.

``stat`` is read at once whatever the process does. Its command line lies in its own memory: the kernel waits for whoever changes the layout
of that, so that a read may hang with a QEMU that hangs. It is read in a thread of its own, and a process that a read hangs in is left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

AGAIN_SECONDS: Final = 0.05
"""A main thread that waits for storage is looked at a second time after that: for a moment it is normal."""
WAITING: Final = "D"
SCAN_PAUSE_SECONDS: Final = 5.0
SCAN_SECONDS: Final = 0.5
"""How long the command lines of a host are waited for, from the scan's begin; what is found later counts from then on."""
SCANS_MAX: Final = 8
"""Threads at most, each of which hangs in another process."""
_STATE, _START_TIME = 0, 19
"""Places in ``stat`` after the command's name, which ends with the last parenthesis."""


class _Process(NamedTuple):
    pid: int
    start_time: str


class _Scan(threading.Thread):
    """Reads every command line once. ``at`` is the process that it reads."""

    def __init__(self, root: Path, left_out: frozenset[str], found: Callable[[str, _Process], None]) -> None:
        """``found`` is told of each VM's process; those of ``left_out`` are not read."""
        super().__init__(name="process-table", daemon=True)
        self._root, self._left_out, self._found = root, left_out, found
        self.at = ""

    def run(self) -> None:
        """Read them."""
        try:
            entries = [entry.name for entry in self._root.iterdir() if entry.name.isdecimal()]
        except OSError:
            return
        for name in entries:
            if name in self._left_out:
                continue
            self.at = name
            uuid = _uuid(self._root, name)
            fields = _stat(self._root, int(name)) if uuid else []
            if fields:
                self._found(uuid, _Process(int(name), fields[_START_TIME]))


class Processes:
    """The QEMU processes of this host by their VM's UUID. Workers' threads read it, one at a time."""

    def __init__(self, root: Path = Path("/proc"), scan_seconds: float = SCAN_SECONDS) -> None:
        """``root`` is the process table; ``scan_seconds`` is for how long its command lines are waited for."""
        self._root = root
        self._scan_seconds = scan_seconds
        self._lock = threading.Lock()
        self._known: dict[str, _Process] = {}
        self._next_scan = self._until = float("-inf")
        self._scans: list[_Scan] = []

    def states(self, uuids: Iterable[str]) -> dict[str, str]:
        """The state of each VM's main thread as one letter; VMs of which nothing can be read are missing."""
        wanted = list(uuids)
        with self._lock:
            found = self._states(wanted)
            scan = self._begun() if len(found) < len(wanted) else None
            until = self._until
        if scan is not None:
            scan.join(max(0.0, until - time.monotonic()))
            with self._lock:
                found |= self._states([uuid for uuid in wanted if uuid not in found])
        if waiting := [uuid for uuid, state in found.items() if state == WAITING]:
            time.sleep(AGAIN_SECONDS)
            with self._lock:
                found |= {uuid: self._state(uuid) or WAITING for uuid in waiting}
        return found

    def _states(self, wanted: list[str]) -> dict[str, str]:
        return {uuid: state for uuid in wanted if (state := self._state(uuid))}

    def _begun(self) -> _Scan | None:
        """A scan that has just begun, by this caller or another; None where the last one is over, but too young, or where too many hang.

        A host has thousands of processes, and many daemons' VMs may be looked for at one moment.
        """
        now = time.monotonic()
        if now < self._next_scan:
            return self._scans[-1] if self._scans and now < self._until else None
        self._next_scan, self._until = now + SCAN_PAUSE_SECONDS, now + self._scan_seconds
        self._scans = [scan for scan in self._scans if scan.is_alive()]
        if len(self._scans) >= SCANS_MAX:
            return None
        scan = _Scan(self._root, frozenset(scan.at for scan in self._scans), self._note)
        self._scans.append(scan)
        scan.start()
        return scan

    def _note(self, uuid: str, process: _Process) -> None:
        with self._lock:
            self._known[uuid] = process

    def pid(self, uuid: str) -> int | None:
        """The process that runs the VM, or None where that can't be seen."""
        return self._known[uuid].pid if self.states([uuid]) else None

    def _state(self, uuid: str) -> str:
        known = self._known.get(uuid)
        if known is None:
            return ""
        fields = _stat(self._root, known.pid)
        if not fields or fields[_START_TIME] != known.start_time:
            del self._known[uuid]
            return ""
        return fields[_STATE]


def _stat(root: Path, pid: int) -> list[str]:
    """The fields of ``stat`` after the name; [] when there is no such process or it can't be read."""
    try:
        fields = (root / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return []
    return fields if len(fields) > _START_TIME else []


def _uuid(root: Path, pid: str) -> str:
    """The UUID of the VM that the process runs; "" for any other process."""
    try:
        words = (root / pid / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    if b"qemu" not in words[0] and b"kvm" not in words[0]:
        return ""
    try:
        return words[words.index(b"-uuid") + 1].decode("ascii", "replace").lower()
    except (ValueError, IndexError):
        return ""
