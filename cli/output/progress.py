"""Progress of long work on the terminal: one line on standard error, only where a person looks."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

WIDTH: Final = 30
TICK_SECONDS: Final = 0.25
SHOWN_AFTER_SECONDS: Final = 1.0
"""What is over sooner shows no line at all."""


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
        self._draw(f"{what} [{'#' * filled}{'.' * (WIDTH - filled)}] {done}/{of}")

    @contextmanager
    def passing(self, what: str, limit_seconds: int = 0) -> Iterator[None]:
        """Shows how long work takes that can't say how much of it is done; towards ``limit_seconds`` where it is ended then."""
        if not self._shows:
            yield
            return
        over, began = threading.Event(), time.monotonic()

        def tick() -> None:
            while not over.wait(TICK_SECONDS):
                passed = time.monotonic() - began
                if passed < SHOWN_AFTER_SECONDS:
                    continue
                if limit_seconds:
                    self(f"{what}, seconds of at most {limit_seconds}", min(int(passed), limit_seconds), limit_seconds)
                else:
                    self._draw(f"{what}, {int(passed)} s")

        ticking = threading.Thread(target=tick, name="progress", daemon=True)
        ticking.start()
        try:
            yield
        finally:
            over.set()
            ticking.join()

    def _draw(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
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
