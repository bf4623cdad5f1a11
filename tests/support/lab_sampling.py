"""A producer without a bus, in the test's own process, on real daemons: its snapshots as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support.lab import await_true
from tests.support.stuck_vms import HANGING_SECONDS
from virtflow.producer.records.node_health import Outgoing
from virtflow.producer.service import rounds
from virtflow.producer.source import Source
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.settings import Settings
from virtflow.schemas.records import NodeSnapshot

CLOSE_SECONDS = 2.0


class Sampled:
    """``with`` it a source is sampled."""

    def __init__(self, settings: Settings, source: Source) -> None:
        """Nothing runs yet."""
        self.snapshots: list[NodeSnapshot] = []
        self._source = source
        self._stop = Stop()
        self._thread = threading.Thread(target=rounds, args=(settings, source, self._stop, self), daemon=True)

    def offer(self, snapshot: NodeSnapshot) -> None:
        """Keep a snapshot."""
        self.snapshots.append(snapshot)

    def outgoing(self) -> Outgoing:
        """Nothing waits."""
        return Outgoing()

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        self._source.close(CLOSE_SECONDS)

    def await_rounds(self, count: int) -> list[NodeSnapshot]:
        """So many more snapshots."""
        begin = len(self.snapshots)
        await_true(lambda: len(self.snapshots) >= begin + count, HANGING_SECONDS, f"{count} more rounds")
        return self.snapshots[begin:]

    def await_snapshot(self, wanted: Callable[[NodeSnapshot], bool], what: str, seconds: float = HANGING_SECONDS) -> NodeSnapshot:
        """The first snapshot that comes now and is wanted."""
        begin = len(self.snapshots)
        found: list[NodeSnapshot] = []

        def seen() -> bool:
            found.extend(snapshot for snapshot in self.snapshots[begin:] if wanted(snapshot))
            return bool(found)

        await_true(seen, seconds, what)
        return found[0]
