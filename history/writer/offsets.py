"""The topics' partitions by their names in the tables' logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from virtflow.history.storage.table_schemas import WRITTEN, Table
from virtflow.runtime.kafka.clients import ClientSettings, client_settings, topic_name
from virtflow.runtime.kafka.librdkafka import describe_topics
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError

ANSWER_SECONDS: Final = 3.0
"""How long the broker may take to answer a question; short, because stopping waits for the answer."""


class Names:
    """The partitions' names: topic, the id the broker gave the topic when it was made, and number.

    A topic that was deleted and made again has another id, so its offsets are never taken for the old one's.
    """

    def __init__(self, settings: Settings, make: Callable[[ClientSettings], Any] = AdminClient) -> None:
        """Connects to nothing yet; ``make`` builds the client."""
        self._settings = settings
        self._make = make
        self._admin: Any = None
        self._tables = {topic_name(settings, table.topic): table for table in WRITTEN if table.topic is not None}
        self._ids: dict[str, str] = {}
        self._asked: dict[str, Future[Any]] = {}
        self.answered = False
        """Whether the broker has answered the last question that was asked of it."""

    @property
    def topics(self) -> list[str]:
        """The topics' names on the broker."""
        return list(self._tables)

    def table(self, topic: str) -> Table:
        """The table that a topic is written into."""
        return self._tables[topic]

    def learn(self, topics: Iterable[str] = ()) -> None:
        """Asks the broker for the ids of topics, by default of all; raises ``EnvironmentProblemError`` where it is away or one is missing."""
        servers = self._settings.kafka.bootstrap_servers
        try:
            asked = self._ask(list(topics) or self.topics)
            self._ids |= {name: str(future.result(ANSWER_SECONDS).topic_id) for name, future in asked.items()}
        except (KafkaException, TimeoutError) as error:
            fix = "start the broker, run `virtflow topics create`, or set --bootstrap-servers"
            self.answered = False
            raise EnvironmentProblemError(thing="topics at", value=servers, why=str(error) or "no answer", fix=fix) from error
        self.answered = True
        self._asked = {}  # an answer that is on its way may be older

    def follow(self) -> None:
        """Takes over the ids that topics have by now. Never waits: each call looks at the answers to the last one, and asks again."""
        done = {name: future for name, future in self._asked.items() if future.done()}
        if len(done) == len(self._asked):
            self._asked = self._ask(self.topics)
        good = {name: future.result() for name, future in done.items() if future.exception() is None}
        if done:
            self.answered = bool(good)
        self._ids |= {name: str(found.topic_id) for name, found in good.items()}

    def close(self) -> None:
        """Lets go of the client: whoever holds these names for longer does not hold its connections and threads. Asking makes another."""
        self._admin, self._asked = None, {}

    def part(self, topic: str, partition: int) -> str:
        """The partition's name in the table's log."""
        return f"{topic}/{self._ids[topic]}/{partition}"

    def _ask(self, topics: list[str]) -> dict[str, Future[Any]]:
        if self._admin is None:
            self._admin = self._make(client_settings(self._settings))
        return describe_topics(self._admin, topics, ANSWER_SECONDS)
