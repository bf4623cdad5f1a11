"""Which thread may use a structure: declared in the code, described in docs/threads.md, and checked where VIRTFLOW_CHECK_THREADS is set."""

from __future__ import annotations

import os
import threading
from typing import Final

VARIABLE: Final = "VIRTFLOW_CHECK_THREADS"
CHECKED: Final = os.environ.get(VARIABLE, "") not in {"", "0"}
"""The tests set the variable; without it a check costs one comparison."""


class WrongThreadError(RuntimeError):
    """A structure was used by another thread than the one that owns it: a defect of ours."""


class Owner:
    """The one thread that may use a structure: the first that does."""

    __slots__ = ("_thread", "_what")

    def __init__(self, what: str) -> None:
        """``what`` names the structure in the error."""
        self._what = what
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Raise ``WrongThreadError`` in any other thread than the owner, if threads are checked at all."""
        if not CHECKED:
            return
        current = threading.current_thread()
        if self._thread is None:
            self._thread = current
        elif self._thread is not current:
            raise WrongThreadError(f"{self._what} belongs to thread {self._thread.name}, and {current.name} used it")
