"""Which worker process runs which test files, and in what order.

A file's tests share fixtures that are expensive to make (hypervisors, a broker), so one worker runs them all. The longest files start
first, so that no worker ends long after the others. Files whose guests compute run on one worker, one after another: they would slow
each other down, while the other workers mostly wait.
"""

from __future__ import annotations

from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

SECONDS: Final[dict[str, int]] = {}
"""How long a file takes by itself on two CPUs; only those of more than half a minute need a line."""
COMPUTING: Final[frozenset[str]] = frozenset()
"""Files whose guests compute all the time."""


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives each worker whole files, the longest first, and those that compute to one worker alone."""

    def __init__(self, config: pytest.Config, log: Producer | None) -> None:
        """As xdist makes it."""
        super().__init__(config, log)
        self._computes: WorkerController | None = None

    def _assign_work_unit(self, node: WorkerController) -> None:
        self.workqueue.move_to_end(self._next_file(node), last=False)
        super()._assign_work_unit(node)

    def _next_file(self, node: WorkerController) -> str:
        if self._computes not in self.nodes:  # the first time, and after the worker's death
            self._computes = node
        files: list[str] = list(self.workqueue)
        computing = [file for file in files if file in COMPUTING]
        waiting = [file for file in files if file not in COMPUTING]
        candidates = (computing or waiting) if node is self._computes else (waiting or computing)
        return max(candidates, key=lambda file: SECONDS.get(file, 0))
