"""How much memory is left before the kernel kills this process, so that a service can take less before that happens.

Memory that the kernel can take back by itself does not count as used: pages of files, whether mapped or written.
Sources: the kernel's cgroup-v2.rst (``memory.current``, ``memory.max``, ``memory.stat``), cgroup-v1/memory.rst, and proc(5) (``MemAvailable``).
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

MEBIBYTE: Final = 1 << 20
LOOK_SECONDS: Final = 0.05
"""For how long an answer of the kernel is used."""
RELEASE_SECONDS: Final = 1.0
"""How often free memory is given back to the system at most: that takes milliseconds, and longer in a large process."""
RESERVE_BYTES: Final = 8 * MEBIBYTE
"""Left free at least: for what a service has begun."""
RESUME_SHARE: Final = 1.25
"""The part of the reserve that has to be free again. Hardly more than all of it: an idle process may never have twice the reserve free."""
_ARENA_MAX: Final = -8
"""The number of ``M_ARENA_MAX`` (source: the GNU C library's malloc.h)."""
_UNLIMITED: Final = 1 << 60
"""Limits above it mean none: version 1 of control groups reports the largest number of pages."""


class Files(NamedTuple):
    """The files of one version of control groups: limit, usage, and the usage that the kernel can take back (keys of ``memory.stat``)."""

    limit: str
    usage: str
    reclaimable: tuple[str, ...]


_V1: Final = Files("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2: Final = Files("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable"))
_MOUNTS: Final = ((Path("sys/fs/cgroup/memory"), _V1), (Path("sys/fs/cgroup"), _V2))


@dataclass(frozen=True, slots=True)
class Group:
    """A control group that limits this process."""

    folder: Path
    files: Files

    def room(self) -> float:
        """Bytes that its processes may still take together; infinite without a limit, or where it can't be read."""
        try:
            limit = _number((self.folder / self.files.limit).read_text())
            if limit >= _UNLIMITED:
                return math.inf
            used = _number((self.folder / self.files.usage).read_text())
            stat = dict(line.split(" ", 1) for line in (self.folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            return math.inf
        return limit - used + sum(_number(stat.get(key, "0")) for key in self.files.reclaimable)


class Memory:
    """The memory that this process may still take: the least of what its control groups and the machine have left."""

    def __init__(self, root: Path = Path("/")) -> None:
        """``root`` is the folder that contains ``proc`` and ``sys``."""
        self._meminfo = root / "proc" / "meminfo"
        self._groups = tuple(_groups(root))

    def room(self) -> float:
        """Bytes; infinite where nothing reports a limit."""
        return min([self._available(), *(group.room() for group in self._groups)])

    def _available(self) -> float:
        try:
            lines = (line.split() for line in self._meminfo.read_text().splitlines())
            return next((float(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), math.inf)
        except (OSError, ValueError, IndexError):
            return math.inf


class Pressure:
    """Whether memory is short: a service then takes nothing that would need more. Belongs to one thread.

    It is short below ``RESERVE_BYTES``, after all that can be given back to the system has been, and until somewhat more is free.
    """

    def __init__(
        self,
        room: Callable[[], float],
        release: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``room`` returns the bytes that are left, ``release`` gives free memory back to the system, ``clock`` returns monotonic seconds."""
        self._room = room
        self._release = release
        self._clock = clock
        self._looked = self._released = -math.inf
        self.left = math.inf
        """Bytes that were left at the last look."""
        self.problem = ""
        """What is wrong and how to fix it; "" while memory is not short."""

    def look(self) -> bool:
        """Whether memory is short."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self.left = now, self._room()
        least = RESERVE_BYTES * (RESUME_SHARE if self.problem else 1.0)
        if self.left < least and now - self._released >= RELEASE_SECONDS:
            self._release()
            self._released = self._clock()
            self.left = self._room()
        if self.left >= least:
            self.problem = ""
        elif not self.problem or self.left < RESERVE_BYTES:
            free = f"{self.left / MEBIBYTE:.0f} MiB are left"
            self.problem = f"memory is short, {free}: raise the memory limit of this process, or give it less to do"
        return bool(self.problem)


def release() -> None:
    """Gives memory that is free within this process back to the system, as far as the C library's allocator can."""
    gc.collect()
    trim()


def trim() -> None:
    """Gives back what the C library's allocator has free: it keeps it wherever something that is in use lies above it."""
    with suppress(OSError, AttributeError):  # not the GNU C library
        ctypes.CDLL(None).malloc_trim(0)


def one_heap() -> None:
    """Has all threads allocate from one heap; to be called before there are others, and to no effect where the environment sets their number.

    The GNU C library makes a heap for each thread, up to eight for each CPU, and every one keeps what its threads once needed: after
    some faults, which start threads, twice what is in use.
    """
    if "MALLOC_ARENA_MAX" in os.environ or "arena_max" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    with suppress(OSError, AttributeError):  # not the GNU C library
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def _groups(root: Path) -> Iterator[Group]:
    """The control groups that this process is in, from its own up to the root, where their files can be seen."""
    try:
        lines = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines() if line.count(":") > 1]
    except OSError:
        return
    for mount, files in _MOUNTS:
        path = next((path for _, names, path in lines if _is_ours(names, files)), None)
        if path is None:
            continue
        parts = Path(path).parts
        # A container may see its own group as the root, whatever the path is.
        folders = [(root / mount).joinpath(*parts[1:end]) for end in range(len(parts), 0, -1)]
        yield from (Group(folder, files) for folder in folders if (folder / files.limit).exists())


def _is_ours(controllers: str, files: Files) -> bool:
    return "memory" in controllers.split(",") if files is _V1 else not controllers


def _number(text: str) -> float:
    return math.inf if text.strip() == "max" else float(text)
