"""What one remote_read request may still take: time, series, samples. All its queries share it."""

from __future__ import annotations

import time
from collections.abc import Callable

from virtflow.runtime.settings import History
from virtflow.schemas.errors import InputError


class LimitError(InputError):
    """A query beyond the limits; the text says which."""


class TookTooLongError(InputError):
    """A request whose time is over, or whose client has gone."""


class Allowance:
    """The rest of a request's time, series and samples. Not for several threads."""

    def __init__(self, settings: History, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """``seconds`` from now on, or all that a query may take."""
        self._settings = settings
        self._seconds = settings.query_seconds if seconds is None else seconds
        self._clock = clock
        self._until = clock() + self._seconds
        self._series = settings.serve_series
        self._samples = settings.serve_samples
        self.cancelled = False
        """Set where nobody waits for the answer any more."""

    def check(self) -> None:
        """Raises ``TookTooLongError`` where the time is over; called between all steps that take long."""
        if self.cancelled or self._clock() > self._until:
            raise TookTooLongError(f"took more than {self._settings.query_seconds:g} s (history.query_seconds)")

    def rows(self, count: int) -> None:
        """Raises ``LimitError`` where so many rows are more than the samples that are left: a row is a sample of each series."""
        self.check()
        if count > self._samples:
            raise LimitError(f"{count} rows or more, at most {self._settings.serve_samples} samples are returned (history.serve_samples)")

    def take(self, samples: int) -> None:
        """Counts one series with its samples; raises ``LimitError`` beyond what is left."""
        self.check()
        self._series -= 1
        self._samples -= samples
        if self._series < 0:
            raise LimitError(f"more than {self._settings.serve_series} series; name VMs, or raise history.serve_series")
        if self._samples < 0:
            raise LimitError(f"more than {self._settings.serve_samples} samples are not returned at once (history.serve_samples)")
