"""Writes tombstones: messages without a value, by which a compacted topic forgets a key."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from virtflow.runtime.kafka.broker_problem import Heard, broker_problem
from virtflow.runtime.kafka.clients import acknowledged_producer_settings, topic_name
from virtflow.runtime.settings import Settings
from virtflow.schemas.topics import Cleanup, Topic

WRITE_SECONDS: Final = 30.0
"""For all of them together."""


def bury(settings: Settings, dead: Iterable[tuple[Topic, str]]) -> None:
    """Writes a tombstone for each topic and key, and returns when the broker has all of them.

    Raises ``EnvironmentProblemError`` where it does not take them; those it had taken by then stay, and writing them again does no harm.
    """
    heard, failed = Heard(), list[KafkaError]()

    def delivered(error: KafkaError | None, _message: Any) -> None:  # noqa: ANN401, the client's message
        if error is not None:
            failed.append(error)

    limited = {"message.timeout.ms": int(WRITE_SECONDS * 1000), "error_cb": heard}
    client = Producer({**acknowledged_producer_settings(settings), **limited})
    deadline = time.monotonic() + WRITE_SECONDS
    try:
        for topic, key in dead:
            assert topic.cleanup is Cleanup.COMPACT, topic
            client.produce(topic_name(settings, topic), key=key.encode(), value=None, on_delivery=delivered)
            client.poll(0)
        left = client.flush(max(deadline - time.monotonic(), 0.0) + 1.0)
    except KafkaException as error:
        raise broker_problem(settings.kafka, heard.problems(), error.args[0]) from error
    if failed or left:
        raise broker_problem(settings.kafka, heard.problems(), failed[0] if failed else None)
