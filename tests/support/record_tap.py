"""Listens to a topic: every record of it, decoded, in the order of its partitions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self

from confluent_kafka import Consumer, TopicPartition

from tests.support.lab_process import LabError, await_true
from virtflow.schemas.avro.codec import Codec, R
from virtflow.schemas.topics import Topic


class RecordTap(Generic[R]):
    """Reads one topic of a broker from its beginning, in a thread of its own; arrivals are Unix seconds."""

    def __init__(self, bootstrap_servers: str, topic: Topic, record: type[R]) -> None:
        """The topic must be there."""
        self.arrivals: list[tuple[float, R]] = []
        self._record = record
        # The broker of a fault test comes and goes: what the client says of that is no news.
        self.settings = {"bootstrap.servers": bootstrap_servers, "group.id": "record-tap", "enable.auto.commit": "false", "log_level": 0}
        self._consumer = Consumer(self.settings)
        numbers = self._consumer.list_topics(topic.name, timeout=10).topics[topic.name].partitions
        self.partitions = [TopicPartition(topic.name, number, 0) for number in numbers]
        self._consumer.assign(self.partitions)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def records(self) -> list[R]:
        """What has come so far."""
        return [record for _, record in list(self.arrivals)]

    def await_record(self, condition: Callable[[R], bool], what: str, timeout_seconds: float = 60.0) -> R:
        """The first record for which ``condition`` holds; LabError naming ``what`` and the last ones when none comes in time."""
        found: list[R] = []

        def there() -> bool:
            found.extend(record for record in self.records() if condition(record))
            return bool(found)

        try:
            await_true(there, timeout_seconds, what)
        except LabError as error:
            raise LabError(f"{error}\n" + "\n".join(map(str, self.records()[-3:]))) from error
        return found[0]

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def __enter__(self) -> Self:
        """Nothing more: it listens since it was made."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening."""
        self.close()

    def _run(self) -> None:
        codec = Codec()
        while not self._stop.is_set():
            message = self._consumer.poll(0.05)
            if message is not None and message.error() is None:
                self.arrivals.append((time.time(), codec.decode(message.value(), self._record)))
