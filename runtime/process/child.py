"""Child processes of ours: how one is started, and what it does first: it ends with its parent, within a limit of memory, and before others where memory is short.

Sources: prctl(2) for PR_SET_PDEATHSIG, setrlimit(2), proc(5) for ``oom_score_adj``.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
MEASURED_ALLOCATION: Final = {"MALLOC_ARENA_MAX": "2", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Environment of a child with a limit: other allocators and glibc's arenas reserve address space in steps of 64 MiB to 1 GiB, which would all count."""


def command(module: str) -> list[str]:
    """Runs one of our modules in a process of its own, which is told our process id. The working directory is no place to import from."""
    return [sys.executable, "-P", "-m", module, str(os.getpid())]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with ``more``, and the same places to import from."""
    return {**os.environ, **more, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def own_output() -> int:
    """Takes standard output for frames alone: a descriptor of it; whatever prints goes to standard error from now on."""
    out = os.dup(1)
    os.dup2(2, 1)
    return out


def die_with(parent: int) -> None:
    """Lets the kernel kill this process when ``parent`` (a process id) ends, even while this process is stopped."""
    import ctypes  # which a parent has no use for

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
