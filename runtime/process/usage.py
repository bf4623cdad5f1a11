"""What a process takes: its memory, and the CPU time of this one."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import Final

from virtflow.schemas.catalogue.types import ABSENT_LONG

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
STATM_BYTES: Final = 256


def own_cpu_seconds() -> float:
    """CPU seconds that this process has taken since it started, in all its threads."""
    return time.process_time()


def resident_bytes(process: int) -> int:
    """Resident memory of a process in bytes; absent where that can't be read, or the process is gone."""
    try:
        return _resident(Path(f"/proc/{process}/statm").read_bytes())
    except (OSError, IndexError, ValueError):
        return ABSENT_LONG


def own_resident_bytes() -> int:
    """Resident memory of this process in bytes; absent where that can't be read."""
    try:
        return _resident(os.pread(_own_statm(), STATM_BYTES, 0))
    except (OSError, IndexError, ValueError):
        return ABSENT_LONG


def _resident(statm: bytes) -> int:
    return int(statm.split()[1]) * PAGE_BYTES


@cache
def _own_statm() -> int:
    """The file, opened once: opening it each time would cost a twentieth of an uneventful round."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
