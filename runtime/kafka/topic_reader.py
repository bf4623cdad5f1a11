"""Reads a topic for command-line tools: from its beginning, a time or its end, without a consumer group; nothing is committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from virtflow.runtime.kafka.acls import READER_GROUP
from virtflow.runtime.kafka.broker_problem import Heard, broker_problem
from virtflow.runtime.kafka.clients import ClientSettings, consumer_settings, topic_name
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.topics import Topic

ANSWER_SECONDS: Final = 5.0
BATCH: Final = 500
BEGINNING: Final = float("-inf")
END: Final = float("inf")


class TopicReader:
    """All partitions of one topic."""

    def __init__(
        self, settings: Settings, topic: Topic, start: float = BEGINNING, make: Callable[[ClientSettings], Any] = Consumer
    ) -> None:
        """``start`` is Unix seconds, or BEGINNING or END; ``make`` builds the client.

        Raises ``EnvironmentProblemError`` where broker or topic are not there.
        """
        self._name = topic_name(settings, topic)
        self._kafka = settings.kafka
        self._heard = Heard()
        own = {"auto.offset.reset": "latest", "enable.partition.eof": True, "error_cb": self._heard}
        self._consumer = make({**consumer_settings(settings, READER_GROUP), **own})
        self._left: set[int] = set()
        try:
            self._begin(start)
        except KafkaException as error:
            self._consumer.consume(1, 0)  # calls for what the client has heard meanwhile
            self._consumer.close()
            raise self._away(error.args[0]) from error

    @property
    def caught_up(self) -> bool:
        """Whether every partition has been read to its end."""
        return not self._left

    def read(self, seconds: float) -> Iterator[Message]:
        """The messages that arrive within ``seconds``. Raises ``EnvironmentProblemError`` when the topic goes away."""
        for message in self._consumer.consume(BATCH, seconds):
            problem = message.error()
            if problem is None:
                yield message
            elif problem.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001, the client's own name
                self._left.discard(message.partition() or 0)
            elif not problem.retriable() and problem.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001, as above
                raise self._away(problem)

    def close(self) -> None:
        """Lets go of the broker."""
        self._consumer.close()

    def __enter__(self) -> Self:
        """The reader itself: it has been reading since it was created."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Lets go of the broker."""
        self.close()

    def _begin(self, start: float) -> None:
        found = self._consumer.list_topics(self._name, ANSWER_SECONDS).topics[self._name]
        if found.error is not None:
            raise KafkaException(found.error)
        places = [TopicPartition(self._name, number) for number in found.partitions]
        for place in places:
            place.offset = {BEGINNING: OFFSET_BEGINNING, END: OFFSET_END}.get(start, int(start * 1000) if abs(start) < END else 0)
        if abs(start) < END:
            places = self._consumer.offsets_for_times(places, ANSWER_SECONDS)
        self._left = {place.partition for place in places}
        self._consumer.assign(places)

    def _away(self, error: KafkaError) -> EnvironmentProblemError:
        if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001, as above
            return EnvironmentProblemError(thing="topic", value=self._name, why="missing", fix="run `virtflow topics create`")
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            fix = "allow the operation Read: `virtflow topics acls --for tap` shows what is needed, and gives it with --apply"
            return EnvironmentProblemError(thing="topic", value=self._name, why=str(error.str()), fix=fix)
        return broker_problem(self._kafka, self._heard.problems(), error)
