"""What a test starts for itself ends with its context."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Started(ABC):
    """Starts with its context and ends with it whatever happens, a start that fails half-way included: nothing is left to the next test."""

    @abstractmethod
    def start(self) -> object:
        """Start it, and return once it answers."""

    @abstractmethod
    def close(self) -> None:
        """End it in whatever state it is; nothing happens when it does not run."""

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it."""
        self.close()
