"""Samples, normalises and exports one host's VMs in one process: ``virtflow node``."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from virtflow.node.migrations import Following, Kept
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.settings import Settings

if TYPE_CHECKING:
    from virtflow.producer.records.node_health import Outgoing
    from virtflow.schemas.records import NodeSnapshot

CLOSE_SECONDS: Final = 3.0
UNTRUE: Final = "out_of_range"
"""The reason under which a value that can't be true is counted, as the producer counts those it sees itself."""


class Sink:
    """Where the rounds go: through the normaliser into the exporter's fleet. Called on the sampling thread."""

    def __init__(self, exporter: Any, settings: Settings) -> None:  # noqa: ANN401, a class of a part that is imported when it is called
        """``exporter`` takes records from any thread."""
        from virtflow.producer.service import node_name

        own = settings.exporter
        kept = Kept(Path(own.keep_file)) if own.keep_last else None
        self._exporter = exporter
        self.following: Final = Following(node_name(settings), settings.processors.migration_silence_seconds, exporter.take, kept)
        self._drops: Counter[str] = Counter()

    def offer(self, snapshot: NodeSnapshot) -> None:
        """Hands a round's records on: the inventory first, so that a VM's first sample has its labels."""
        from virtflow.processors.inventory import inventories_of, status_of
        from virtflow.processors.normalise import normalise_snapshot

        self.following.give_up()
        normalised = normalise_snapshot(snapshot)
        self._drops[UNTRUE] += len(normalised.dropped.values)
        self._exporter.take([*inventories_of(snapshot), *normalised.metrics, status_of(snapshot)])

    def outgoing(self) -> Outgoing:
        """Nothing waits here; what the normaliser left out is told with the node's health."""
        from virtflow.producer.records.node_health import Outgoing

        return Outgoing(drops=+self._drops)


class Sampling:
    """The sampling thread. It begins once the address is had, so that a port that is taken ends the command before libvirt is asked."""

    def __init__(self, settings: Settings, exporter: Any, stop: Stop) -> None:  # noqa: ANN401, as above
        """Nothing runs before ``start``."""
        self.failure: Exception | None = None
        self._settings = settings
        self._sink = Sink(exporter, settings)
        self._stop = stop
        self._source: Any = None
        self._guests: Any = None
        self._thread = threading.Thread(target=self._run, name="sampling", daemon=True)

    def start(self, address: str) -> None:
        """Begins to sample; ``address`` is where the exporter serves."""
        del address
        from virtflow.producer.hung_calls.budget import CallBudget
        from virtflow.producer.service import guest_agents, source_of

        budget = CallBudget(self._settings.producer.hung_calls_max)
        self._source = source_of(self._settings, self._sink.following.offer, budget)
        self._guests = guest_agents(self._settings, budget)
        self._thread.start()

    def end(self) -> bool:
        """Waits for the thread and closes the connections; False when a call to libvirt does not return."""
        if self._source is None:
            return True
        self._thread.join(CLOSE_SECONDS)
        if self._guests is not None:
            self._guests.close()
        ended: bool = self._source.close(CLOSE_SECONDS)
        return ended and not self._thread.is_alive()

    def _run(self) -> None:
        from virtflow.producer.service import rounds

        try:
            rounds(self._settings, self._source, self._stop, self._sink, self._guests)
        except Exception as error:  # noqa: BLE001, the thread's one place: the main thread raises it
            self.failure = error
        finally:
            self._stop.set()
