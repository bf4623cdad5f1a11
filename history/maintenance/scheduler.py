"""The writer's own schedule: `history compact` in a process of its own from time to time, so that its memory and its death are its own."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec

from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History, Settings

_LOG: Final = logging.getLogger("virtflow.history.maintenance.scheduler")
STOP_SECONDS: Final = 5.0


class Upkeep:
    """Rolls up, compacts and cleans on a schedule, while this writer leads."""

    def __init__(self, settings: Settings, metrics: OwnMetrics) -> None:
        """Nothing runs before ``start``."""
        self._settings = settings
        self._runs = metrics.counter("virtflow_history_upkeep_runs_total")
        for outcome in ("done", "failed"):
            self._runs.labels(outcome=outcome)  # from the start, so that its first increase is seen as one
        self._began: float | None = None
        metrics.gauge("virtflow_history_upkeep_running_seconds").set_function(self._running_seconds)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, leads: Callable[[], bool]) -> None:
        """Starts the schedule; ``leads`` says whether it is this writer's turn."""
        if not self._settings.history.maintain_seconds:
            return
        self._thread = threading.Thread(target=self._schedule, args=(leads,), name="upkeep", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Begins no further run, and ends one under way: every step of it can be cut off anywhere. Does not wait."""
        self._over.set()

    def stop(self) -> None:
        """As ``end``, and waits until it has ended."""
        self.end()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _schedule(self, leads: Callable[[], bool]) -> None:
        while not self._over.wait(self._settings.history.maintain_seconds):
            if leads():
                self._began = time.monotonic()
                self._runs.labels(outcome="done" if self._once() else "failed").inc()
                self._began = None

    def _running_seconds(self) -> float:
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def _once(self) -> bool:
        command = [sys.executable, "-m", "virtflow.cli.main", "history", "compact", "--log-level", "warning"]
        variables, nowhere = environment(self._settings.history), subprocess.DEVNULL
        with subprocess.Popen(command, env=variables, stdin=nowhere, stdout=nowhere) as process:  # noqa: S603, ourselves
            while process.poll() is None:
                if self._over.wait(0.2):
                    process.kill()
        return process.returncode == 0


def environment(settings: History) -> dict[str, str]:
    """The environment that gives another process of ours the same settings of the history."""
    import os

    values = msgspec.to_builtins(settings)
    given = {f"VIRTFLOW_HISTORY_{key.upper()}": _text(value) for key, value in values.items() if value not in ("", {})}
    return {**os.environ, **given}


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items())
    return str(value)
