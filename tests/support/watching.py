"""A thread of a test's own that looks at something again and again, for as long as its context lasts."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self

from tests.support.lab_process import LabError, await_true


class Watching(ABC):
    """Looks until the context is left, with a pause before each look. What is wrong ends it, and leaving the context raises it."""

    pause_seconds: ClassVar[float]

    @abstractmethod
    def look(self) -> None:
        """Look once; LabError, AssertionError or ValueError when something is wrong."""

    def __enter__(self) -> Self:
        """Begin."""
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End, and raise what was wrong, unless something else is wrong already."""
        self._stop.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        while not self._stop.wait(self.pause_seconds):
            try:
                self.look()
            except (LabError, AssertionError, ValueError) as error:
                self._error = error
                return

    def await_seen(self, condition: Callable[[], bool], timeout_seconds: float, what: str) -> None:
        """Wait until the looks have made ``condition`` true; what was wrong when they have ended, LabError naming ``what`` when it never is."""
        await_true(lambda: self._error is not None or condition(), timeout_seconds, what)
        if self._error is not None:
            raise self._error
