"""Rounds of a few nodes, produced as time goes by, and what the broker has acknowledged of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, Message, Producer
from msgspec.structs import replace

from tests.support.patient_producer import produce_patiently
from tests.support.processors import CODEC, Bus, snapshot
from virtflow.schemas.records import NodeSnapshot
from virtflow.schemas.topics import SNAPSHOTS

Sent = tuple[str, int]
"""A round: its node and its number."""


class SnapshotStream(threading.Thread):
    """Produces until its context ends; never gives a message up, as a producer of events does not."""

    def __init__(self, bus: Bus, nodes: int = 3, vms: int = 4, *, pause: float = 0.05, interval: float = 10.0) -> None:
        """Produces nothing before its context begins; ``interval`` is what the records say."""
        super().__init__(daemon=True)
        self._topic = bus.prefix + SNAPSHOTS.name
        self._nodes = [f"node-{number}" for number in range(nodes)]
        self.vms = vms
        self._pause = pause
        self._interval = interval
        self._over = threading.Event()
        config = {
            "bootstrap.servers": bus.broker.address,
            "enable.idempotence": True,
            "message.timeout.ms": 0,
            "linger.ms": 5,
            "log_level": 0,
        }
        self._producer = Producer({**config, "partitioner": "murmur2_random", "reconnect.backoff.max.ms": 500})
        self.acknowledged: Counter[Sent] = Counter()
        self._failed: list[str] = []

    def round_of(self, node: str, sequence: int) -> NodeSnapshot:
        """The round of a node."""
        return replace(snapshot(node, sequence, self.vms), interval=self._interval, collected=time.time())

    def run(self) -> None:
        """Round by round."""
        sequence = 0
        while not self._over.wait(self._pause):
            for node in self._nodes:
                self._send(node, sequence)
            sequence += 1

    def _send(self, node: str, sequence: int) -> None:
        def report(error: KafkaError | None, message: Message) -> None:
            del message
            if error is None:
                self.acknowledged[node, sequence] += 1
            else:
                self._failed.append(str(error))

        produce_patiently(self._producer, self._topic, CODEC.encode(self.round_of(node, sequence)), node.encode(), report)
        self._producer.poll(0)

    def end(self) -> Counter[Sent]:
        """Produces no more, and waits until everything is acknowledged; what is."""
        self._over.set()
        self.join()
        assert self._producer.flush(60.0) == 0
        assert not self._failed
        return self.acknowledged

    def __enter__(self) -> Self:
        """Begins."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ends, whatever is acknowledged."""
        self._over.set()
        self.join()
