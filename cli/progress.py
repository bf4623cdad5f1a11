"""Progress of long work on the terminal: one line on standard error, only where a person looks."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Final, Self

WIDTH: Final = 30


class Progress:
    """A bar that is drawn over itself; nothing where standard error is no terminal."""

    def __init__(self) -> None:
        """Draws nothing yet."""
        self._shows = sys.stderr.isatty()
        self._drawn = False

    def __call__(self, what: str, done: int, of: int) -> None:
        """So much of ``what`` is done."""
        if not self._shows or not of:
            return
        filled = WIDTH * done // of
        sys.stderr.write(f"\r\x1b[K{what} [{'#' * filled}{'.' * (WIDTH - filled)}] {done}/{of}")
        sys.stderr.flush()
        self._drawn = True

    def __enter__(self) -> Self:
        """Nothing happens yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Clears the line."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
