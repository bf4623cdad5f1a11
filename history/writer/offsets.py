"""The topics' partitions and where each goes on: names in the tables' logs, and what the broker still has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from virtflow.history.storage.table_schemas import WRITTEN, Table
from virtflow.runtime.kafka import ClientSettings, client_settings, topic_name
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError

ANSWER_SECONDS: Final = 10.0


class Names:
    """The partitions' names: topic, the id the broker gave the topic when it was made, and number.

    A topic that was deleted and made again has another id, so its offsets are never taken for the old one's.
    """

    def __init__(self, settings: Settings, make: Callable[[ClientSettings], Any] = AdminClient) -> None:
        """Connects to nothing yet; ``make`` builds the client."""
        self._settings = settings
        self._make = make
        self._tables = {topic_name(settings, table.topic): table for table in WRITTEN if table.topic is not None}
        self._ids: dict[str, str] = {}

    @property
    def topics(self) -> list[str]:
        """The topics' names on the broker."""
        return list(self._tables)

    def table(self, topic: str) -> Table:
        """The table that a topic is written into."""
        return self._tables[topic]

    def learn(self) -> None:
        """Asks the broker for the topics' ids; raises ``EnvironmentProblemError`` where it is away or a topic is missing."""
        servers = self._settings.kafka.bootstrap_servers
        try:
            admin = self._make(client_settings(self._settings))
            asked: dict[str, Any] = admin.describe_topics(TopicCollection(self.topics), request_timeout=ANSWER_SECONDS)
            self._ids = {name: str(future.result(ANSWER_SECONDS).topic_id) for name, future in asked.items()}
        except (KafkaException, TimeoutError) as error:
            fix = "start the broker, run `virtflow topics create`, or set --bootstrap-servers"
            raise EnvironmentProblemError(thing="topics at", value=servers, why=str(error), fix=fix) from error

    def part(self, topic: str, partition: int) -> str:
        """The partition's name in the table's log."""
        return f"{topic}/{self._ids[topic]}/{partition}"


def start_at(consumer: Consumer, partition: TopicPartition, offset: int | None) -> tuple[TopicPartition, int]:
    """Where a partition is to be read from, and how many messages are gone that should have been stored.

    ``offset`` is the stored one. Below what the broker has: the oldest message there is. Above it (the broker has lost its end): the
    end, since what comes there is new.
    """
    if offset is None:
        return TopicPartition(partition.topic, partition.partition, OFFSET_BEGINNING), 0
    low, high = consumer.get_watermark_offsets(partition, timeout=ANSWER_SECONDS)
    begin = min(max(offset, low), high)
    return TopicPartition(partition.topic, partition.partition, begin), abs(begin - offset)
