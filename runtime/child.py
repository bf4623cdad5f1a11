"""What a child process of ours does first: it ends with its parent, within a limit of memory, and before others where memory is short.

Sources: prctl(2) for PR_SET_PDEATHSIG, setrlimit(2), proc(5) for ``oom_score_adj``.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PYTHON_FLAGS: Final = ("-P",)
"""The working directory is no place to import from."""
MEASURED_ALLOCATION: Final = {"MALLOC_ARENA_MAX": "2", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Environment of a child with a limit: other allocators and glibc's arenas reserve address space in steps of 64 MiB to 1 GiB, which would all count."""


def die_with(parent: int) -> None:
    """Lets the kernel kill this process when ``parent`` (a process id) ends, even while this process is stopped."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def limit_memory(limit_bytes: int) -> None:
    """Sets the limit of this process's address space, and lets the kernel kill it first when the machine is out of memory.

    Where a sandbox forbids this, there is no limit but the parent's and the machine's.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def address_space_bytes() -> int:
    """Bytes of address space that this process has now: what its programs and libraries take before any work."""
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return pages * resource.getpagesize()
    return 0
