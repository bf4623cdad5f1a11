"""Whether the topic still has the migrations that were stored in it: a broker may lose its end, and then an older record of a VM is the newest.

Nobody would notice otherwise: the events are handled, and the state in memory goes on. What was lost is stored again from there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

from confluent_kafka import Message

from virtflow.runtime.kafka.lineage import Found, Mark, Probe, mark_of


class Stored:
    """The last record that is known of each partition. Thread-safe: reports come in one thread, questions in another."""

    def __init__(self, topic: str, probe: Callable[[], Probe]) -> None:
        """``topic`` is its name on the broker; ``probe`` makes a reader of single messages, which is closed after use."""
        self._topic = topic
        self._probe = probe
        self._lock = threading.Lock()
        self._last: dict[int, Mark] = {}
        self._lost = False

    def forget(self) -> None:
        """Nothing is known: the topic is about to be read."""
        with self._lock:
            self._last, self._lost = {}, False

    def has(self, message: Message) -> None:
        """A record that was read, or that the broker has acknowledged."""
        partition, mark = message.partition() or 0, mark_of(message)
        with self._lock:
            last = self._last.get(partition)
            if last is None or last.offset <= mark.offset:
                self._last[partition] = mark

    def arrived(self, message: Message) -> None:
        """A record that the broker has acknowledged just now: below another one only where the broker has lost that."""
        with self._lock:
            last = self._last.get(message.partition() or 0)
            self._lost |= last is not None and (message.offset() or 0) < last.offset
        self.has(message)

    def intact(self) -> bool:
        """Whether the broker still has all of them; raises ``KafkaException`` where it does not answer."""
        with self._lock:
            last, lost = dict(self._last), self._lost
        if lost:
            return False
        with closing(self._probe()) as probe:
            return all(probe.find(self._topic, partition, mark) is not Found.OTHER for partition, mark in last.items())
