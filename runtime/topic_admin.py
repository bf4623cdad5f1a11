"""Creates and inspects topics on the broker. Nothing else creates topics, and existing topics are never changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]

from virtflow.runtime.kafka import ClientSettings, client_settings, topic_name, unusable
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.topics import TOPICS, Topic

ANSWER_SECONDS: Final = 10.0
"""How long the broker may take to answer before it counts as away."""

CHECKED: Final = ("cleanup.policy", "max.message.bytes")
"""Settings of a topic that must be as the table says: a wrong cleanup policy or a smaller limit loses data.

Retention is the operator's own business once the topic is there.
"""

_AWAY: Final = frozenset({"_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN", "_RESOLVE"})
"""librdkafka's names for a broker that can't be reached."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as declared in ``TOPICS`` and as it is on the broker. ``partitions`` is 0 and ``config`` empty where it is missing."""

    topic: Topic
    name: str
    partitions: int
    config: dict[str, str]

    @property
    def exists(self) -> bool:
        """Whether it exists on the broker."""
        return self.partitions > 0

    @property
    def cleanup(self) -> str:
        """Its cleanup policy on the broker; "" where it is missing."""
        return self.config.get("cleanup.policy", "")

    @property
    def problem(self) -> str:
        """What is wrong with it, "" where nothing is."""
        if not self.exists:
            return "missing"
        wrong = [f"{key} is {self.config.get(key, '')}, not {want}" for key, want in self._wanted() if not _suits(key, self.config, want)]
        return "; ".join(wrong)

    @property
    def fix(self) -> str:
        """What to do about the problem."""
        if not self.exists:
            return "run `virtflow topics create`"
        wanted = ",".join(f"{key}={want}" for key, want in self._wanted() if not _suits(key, self.config, want))
        return f"run `kafka-configs.sh --alter --entity-type topics --entity-name {self.name} --add-config {wanted}`"

    def _wanted(self) -> list[tuple[str, str]]:
        return [(key, want) for key, want in self.topic.config().items() if key in CHECKED]


def _suits(key: str, config: dict[str, str], want: str) -> bool:
    have = config.get(key, "")
    if key == "max.message.bytes":
        return have.isdigit() and int(have) >= int(want)
    return have == want


class TopicAdmin:
    """Administration client for virtflow's topics."""

    def __init__(
        self, settings: Settings, answer_seconds: float = ANSWER_SECONDS, make: Callable[[ClientSettings], Any] = AdminClient
    ) -> None:
        """Connects in the background; ``make`` builds the client. Raises ``SettingError`` where the client's settings are no good."""
        self._settings = settings
        self._seconds = answer_seconds
        config = {**client_settings(settings), **settings.kafka.client}
        try:
            self._client = make(config)
        except KafkaException as error:
            raise unusable(settings.kafka, _reason(error)) from error

    def states(self) -> list[TopicState]:
        """Every topic's state, in the table's order. Raises ``EnvironmentProblemError`` where the broker does not answer."""
        partitions = self._partitions()
        names = {topic: topic_name(self._settings, topic) for topic in TOPICS}
        configs = self._configs([name for name in names.values() if name in partitions])
        return [TopicState(topic, name, partitions.get(name, 0), configs.get(name, {})) for topic, name in names.items()]

    def create(self, states: list[TopicState], *, dry_run: bool) -> list[TopicState]:
        """Creates the missing topics and returns them; with ``dry_run`` the broker only validates the request.

        Raises ``EnvironmentProblemError`` where the broker refuses one.
        """
        missing = [state for state in states if not state.exists]
        if not missing:
            return []
        sizes = self._settings.topics
        wanted = [
            NewTopic(state.name, num_partitions=sizes.partitions, replication_factor=sizes.replication, config=state.topic.config())
            for state in missing
        ]
        futures = self._client.create_topics(wanted, request_timeout=self._seconds, validate_only=dry_run)
        for name, future in futures.items():
            try:
                future.result()
            except KafkaException as error:
                # Another `topics create` at the same time is no problem: the topic is there.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise self._refused(name, error) from error
        return missing

    def _partitions(self) -> dict[str, int]:
        try:
            listed = self._client.list_topics(timeout=self._seconds)
        except KafkaException as error:
            raise self._problem(error, "start the broker, or name another with --bootstrap-servers") from error
        return {name: len(topic.partitions) for name, topic in listed.topics.items() if topic.error is None}

    def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        found = {}
        for resource, future in self._client.describe_configs(resources, request_timeout=self._seconds).items():
            try:
                entries: dict[str, Any] = future.result()
            except KafkaException as error:
                raise self._problem(error, f"let this user describe the settings of topic {resource.name}") from error
            found[resource.name] = {key: str(entry.value) for key, entry in entries.items()}
        return found

    def _problem(self, error: KafkaException, fix: str) -> EnvironmentProblemError:
        return EnvironmentProblemError(thing="broker", value=self._settings.kafka.bootstrap_servers, why=_reason(error), fix=fix)

    def _refused(self, name: str, error: KafkaException) -> EnvironmentProblemError:
        sizes = self._settings.topics
        fix = f"topics.replication is {sizes.replication}, topics.partitions {sizes.partitions}: do they suit this cluster, and may this user?"
        return EnvironmentProblemError(thing="topic", value=name, why=f"the broker refused it: {_reason(error)}", fix=fix)


def _reason(error: KafkaException) -> str:
    first = error.args[0]
    if not isinstance(first, KafkaError):
        return str(first)
    if first.name() in _AWAY:
        return "does not answer"
    return str(first.str() or first.name())
