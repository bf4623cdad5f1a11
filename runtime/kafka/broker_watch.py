"""How long ago the brokers last answered: what a service that reads topics reports beside its lag.

A lag is known from answers only. While no broker answers it stays what it was, and a topic without new records looks the same with a
broker and without one. So the brokers are asked for something that always has an answer: the topics' partitions, and the end of one
partition of each broker that leads any of them. That is two small requests, by a client and a thread of its own, so that nothing
else waits for a broker that is away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from prometheus_client import Gauge

from virtflow.runtime.kafka.clients import ClientSettings, client_settings, topic_name
from virtflow.runtime.kafka.credentials import Credentials
from virtflow.runtime.kafka.librdkafka import describe_topics
from virtflow.runtime.settings import Settings
from virtflow.schemas.topics import Topic

PAUSE_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 5.0
"""How long a broker may take to answer."""

_NO_LEADER: Final = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
    }
)
"""Answers of a broker that say that another one does not answer."""
_GONE: Final = frozenset({KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001, the client's own names
"""The client's words for an answer that does not hold what was asked for."""

_LOG: Final = logging.getLogger("virtflow.kafka")


class BrokerWatch:
    """Asks from ``start`` to ``stop``. ``age`` and ``problem`` may be called from any thread.

    Any answer about a topic counts, also that it is missing or must not be read: that is somebody else's to report.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Iterable[Topic],
        age: Gauge,
        make: Callable[[ClientSettings], Any] = AdminClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connects to nothing yet. ``age`` is the gauge by topic that is set; ``clock`` returns monotonic seconds."""
        self._settings = settings
        self._make = make
        self._clock = clock
        self._credentials = Credentials(settings.kafka)
        self._client: Any = None
        self._limit = settings.kafka.silence_seconds
        self._names = {topic_name(settings, topic): topic for topic in topics}
        self._answered = dict.fromkeys(self._names, clock())
        self._stopped = threading.Event()
        for name, topic in self._names.items():
            age.labels(topic=topic.name).set_function(lambda name=name: self.age(name))  # type: ignore[misc]

    def start(self) -> None:
        """Begins to ask."""
        threading.Thread(target=self._run, name="broker-watch", daemon=True).start()

    def stop(self) -> None:
        """Asks no more; an answer that is under way is not waited for."""
        self._stopped.set()

    def __enter__(self) -> Self:
        """Begins to ask."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Asks no more."""
        self.stop()

    def age(self, name: str) -> float:
        """Seconds since all brokers that lead partitions of a topic (its name on the broker) last answered."""
        return max(0.0, self._clock() - self._answered[name])

    @property
    def problem(self) -> str:
        """Which topics are not heard of for too long; "" while all are, or where the settings do not ask for it."""
        ages = {name: self.age(name) for name in self._names}
        silent = [name for name, age in ages.items() if age > self._limit > 0]
        if not silent:
            return ""
        servers = self._settings.kafka.bootstrap_servers
        return f"no answer from the brokers {servers} about {', '.join(silent)} for {max(ages.values()):.0f} s"

    def ask(self) -> None:
        """Asks once, and waits for the answers."""
        try:
            if self._client is None:
                self._client = self._make(client_settings(self._settings))
            elif (config := self._credentials.fresh(lambda: client_settings(self._settings))) is not None:
                self._client = self._make(config)
            leaders = self._leaders()
            answering = self._answering({leader: key for found in leaders.values() for leader, key in found.items()})
        except (KafkaException, TimeoutError) as error:
            _LOG.debug("the brokers %s do not answer: %s", self._settings.kafka.bootstrap_servers, error)
            return
        now = self._clock()
        for name, found in leaders.items():
            if found.keys() <= answering:
                self._answered[name] = now

    def _run(self) -> None:
        silent = False
        while not self._stopped.is_set():
            self.ask()
            problem = self.problem
            if problem and not silent:
                _LOG.warning("not ready: %s", problem)
            elif silent and not problem:
                _LOG.info("the brokers %s answer again", self._settings.kafka.bootstrap_servers)
            silent = bool(problem)
            self._stopped.wait(PAUSE_SECONDS)

    def _leaders(self) -> dict[str, dict[int, TopicPartition]]:
        """The brokers that lead partitions of each topic, by id, and one such partition; topics without an answer are left out.

        Raises ``KafkaException`` where no broker answers.
        """
        asked: Mapping[str, Any] = describe_topics(self._client, self._names, ANSWER_SECONDS)
        found: dict[str, dict[int, TopicPartition]] = {}
        for name, future in asked.items():
            try:
                partitions = future.result(2 * ANSWER_SECONDS).partitions
            except KafkaException as error:
                if not _is_answer(error):
                    raise
                partitions = []
            if all(partition.leader is not None for partition in partitions):
                found[name] = {partition.leader.id: TopicPartition(name, partition.id) for partition in partitions}
        return found

    def _answering(self, leaders: Mapping[int, TopicPartition]) -> set[int]:
        """Those of the brokers that give the end of a partition that they lead."""
        if not leaders:
            return set()
        brokers = {(place.topic, place.partition): leader for leader, place in leaders.items()}
        wanted = dict.fromkeys(leaders.values(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
        answering = set()
        for place, future in self._client.list_offsets(wanted, request_timeout=ANSWER_SECONDS).items():
            try:
                future.result(2 * ANSWER_SECONDS)
            except KafkaException as error:
                if not _is_answer(error):
                    _LOG.debug("the broker that leads %s [%d] does not answer: %s", place.topic, place.partition, error)
                    continue
            answering.add(brokers[place.topic, place.partition])
        return answering


def _is_answer(error: KafkaException) -> bool:
    """Whether a broker answered, if only that it will not do what was asked; librdkafka's own errors are negative."""
    code = error.args[0].code()
    return (code > 0 and code not in _NO_LEADER) or code in _GONE
