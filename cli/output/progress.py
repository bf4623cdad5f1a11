"""Progress of long work: one line on standard error, only on a terminal and only where rich is installed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

SHOWN_AFTER_SECONDS: Final = 1.0
"""Work without a measure that ends sooner shows no line at all."""


class Progress:
    """A bar of rich that is cleared at the end."""

    def __init__(self) -> None:
        """Draws nothing yet."""
        self._bar: Any = _bar() if sys.stderr.isatty() else None
        self._tasks: dict[str, Any] = {}

    def __call__(self, what: str, done: int, of: int) -> None:
        """``done`` of ``of`` steps of ``what`` are done."""
        if self._bar is None or not of:
            return
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=of)
        self._bar.update(self._tasks[what], completed=done, total=of, refresh=True)

    @contextmanager
    def passing(self, what: str, limit_seconds: int = 0) -> Iterator[None]:
        """Shows how long work takes that cannot say how much of it is done; up to ``limit_seconds`` where it is ended then."""
        if self._bar is None:
            yield
            return
        over = threading.Event()
        showing = threading.Thread(target=self._pass, args=(what, limit_seconds, over), name="progress", daemon=True)
        showing.start()
        try:
            yield
        finally:
            over.set()
            showing.join()

    def _pass(self, what: str, limit_seconds: int, over: threading.Event) -> None:
        began = time.monotonic()
        if over.wait(SHOWN_AFTER_SECONDS):
            return
        words = f"{what}, at most {limit_seconds} s" if limit_seconds else what
        task = self._bar.add_task(words, total=limit_seconds or None)
        while not over.wait(0.25):
            self._bar.update(task, completed=min(time.monotonic() - began, limit_seconds or float("inf")), refresh=True)

    def __enter__(self) -> Self:
        """Takes the line."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Clears the line."""
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Any:  # noqa: ANN401, a class of a library that may be missing
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ModuleNotFoundError:
        return None
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)
