"""A control group of a test's own, which limits the memory of the processes that are started in it. Both versions of control groups will do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from uuid import uuid4

from tests.support.lab_process import await_true
from tests.support.started import Started
from tests.support.watching import Watching

V1: Final = Path("/sys/fs/cgroup/memory")
V2: Final = Path("/sys/fs/cgroup")
SETTLE_SECONDS: Final = 10.0


class MemoryLimit(Started):
    """``with MemoryLimit() as group``: start processes with ``group.inside`` before their command, then ``set`` the limit."""

    def __init__(self) -> None:
        """Nothing is there before ``start``."""
        self._is_v1 = V1.is_dir()
        self.folder = (V1 if self._is_v1 else V2) / f"virtflow-test-{uuid4().hex[:8]}"

    def start(self) -> None:
        """Make the group; fails where this machine has no memory controller, or not for us."""
        self.folder.mkdir()
        assert self._file("memory.limit_in_bytes", "memory.max").exists(), "the memory controller of control groups is not available"

    def _file(self, v1: str, v2: str) -> Path:
        return self.folder / (v1 if self._is_v1 else v2)

    @property
    def inside(self) -> list[str]:
        """The words before a command that run it in the group."""
        return ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs; exec "$@"', "sh"]

    def set(self, size: int | None) -> None:
        """Limit the group to so many bytes, or no longer. The kernel takes back what it can of files first."""
        none = "-1" if self._is_v1 else "max"
        self._file("memory.limit_in_bytes", "memory.max").write_text(none if size is None else str(size))

    def used(self) -> int:
        """Bytes in use that the kernel can't take back."""
        usage = int(self._file("memory.usage_in_bytes", "memory.current").read_text())
        stat = dict(line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        prefix = "total_" if self._is_v1 else ""
        return usage - int(stat[f"{prefix}inactive_file"]) - int(stat[f"{prefix}active_file"])

    def kills(self) -> int:
        """How many processes the kernel has killed because the group was out of memory."""
        lines = self._file("memory.oom_control", "memory.events").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def close(self) -> None:
        """Remove the group once nothing runs in it."""
        if self.folder.exists():
            await_true(lambda: not (self.folder / "cgroup.procs").read_text(), SETTLE_SECONDS, "nothing runs in the group")
            os.rmdir(self.folder)  # noqa: PTH106, its files are the kernel's


class Peak(Watching):
    """The most memory that a group has used while the context lasts."""

    pause_seconds = 0.02

    def __init__(self, group: MemoryLimit) -> None:
        """Nothing was looked at."""
        self._group = group
        self.bytes = 0

    def look(self) -> None:
        """Look once."""
        self.bytes = max(self.bytes, self._group.used())
