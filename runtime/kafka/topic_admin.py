"""Creates and inspects topics on the broker. Nothing else creates topics, and existing topics are never changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from virtflow.runtime.kafka.acls import Acl, Resource
from virtflow.runtime.kafka.broker_problem import Heard, broker_problem
from virtflow.runtime.kafka.clients import ClientSettings, client_settings, topic_name, unusable
from virtflow.runtime.kafka.granted import client_operation, lacking
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.topics import TOPICS, Topic

ANSWER_SECONDS: Final = 10.0
"""How long the broker may take to answer before it counts as away."""

CHECKED: Final = ("cleanup.policy", "max.message.bytes")
"""Settings of a topic that must be as the table says: a wrong cleanup policy or a smaller limit loses data.

Retention is the operator's own business once the topic is there.
"""

STEP_SECONDS: Final = 1.0
"""How often a client that waits for an answer is asked what it has heard."""


class Denied(StrEnum):
    """What this user may not know of a topic, as the operation of the ACL that is missing."""

    NOTHING = ""
    EXISTENCE = "Describe"
    SETTINGS = "DescribeConfigs"


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as declared in ``TOPICS`` and as it is on the broker. ``partitions`` is 0 and ``config`` empty where that is not known."""

    topic: Topic
    name: str
    partitions: int
    config: dict[str, str]
    denied: Denied = Denied.NOTHING

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
        if self.denied is Denied.EXISTENCE:
            return "missing, or this user may not see it"
        if self.denied is Denied.SETTINGS:
            return "this user may not read its settings"
        if not self.exists:
            return "missing"
        wrong = [f"{key} is {self.config.get(key, '')}, not {want}" for key, want in self._wanted() if not _suits(key, self.config, want)]
        return "; ".join(wrong)

    @property
    def fix(self) -> str:
        """What to do about the problem."""
        if self.denied:
            return f"allow the operation {self.denied}: `virtflow topics acls` shows what each service needs, and gives it with --apply"
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
        self._heard = Heard()
        config = {**client_settings(settings), "error_cb": self._heard, **settings.kafka.client}
        try:
            self._client = make(config)
        except KafkaException as error:
            raise unusable(settings.kafka, _reason(error)) from error

    def states(self, topics: Iterable[Topic] = TOPICS) -> list[TopicState]:
        """The topics' states, in their order. Raises ``EnvironmentProblemError`` with the reason where the broker can't be used."""
        partitions = self._partitions()
        names = {topic: topic_name(self._settings, topic) for topic in topics}
        hidden = {name for name in names.values() if name not in partitions and self._is_hidden(name)}
        configs = self._configs([name for name in names.values() if name in partitions])
        return [self._state(topic, name, partitions.get(name, 0), configs.get(name), hidden) for topic, name in names.items()]

    def _state(self, topic: Topic, name: str, partitions: int, config: dict[str, str] | None, hidden: set[str]) -> TopicState:
        if name in hidden:
            return TopicState(topic, name, 0, {}, Denied.EXISTENCE)
        if partitions and config is None:
            return TopicState(topic, name, partitions, {}, Denied.SETTINGS)
        return TopicState(topic, name, partitions, config or {})

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
        listed = self._listed()
        return {name: len(topic.partitions) for name, topic in listed.topics.items() if topic.error is None}

    def allow(self, acls: Iterable[Acl], principal: str, host: str) -> None:
        """Gives rights to a principal (``User:NAME``) that connects from ``host``; those that it has already stay.

        Raises ``EnvironmentProblemError`` where the broker refuses one.
        """
        wanted = {_binding(acl, principal, host): acl for acl in acls}
        self._listed()  # says in time what keeps this client from the brokers
        for binding, future in self._client.create_acls(list(wanted), request_timeout=self._seconds).items():
            try:
                future.result()
            except KafkaException as error:
                acl, first = wanted[binding], _error(error)
                why = f"{acl.operation} can't be allowed: {_reason(error)}"
                fix = "use a user that may alter the cluster, a super user for one"
                if first is not None and first.name() == "CLUSTER_AUTHORIZATION_FAILED":
                    why = "this user may not give rights"
                if first is not None and first.name() == "SECURITY_DISABLED":
                    fix = "the brokers have no authorizer: everyone may do everything; set authorizer.class.name there first"
                raise EnvironmentProblemError(thing=acl.resource.value, value=acl.name, why=why, fix=fix) from error

    def lacking(self, acls: Iterable[Acl]) -> list[Acl]:
        """Those of the rights that this user does not have; raises ``EnvironmentProblemError`` where the broker does not answer."""
        try:
            return lacking(self._client, list(acls), self._seconds)
        except KafkaException as error:
            raise self._problem(error) from error

    def _listed(self) -> Any:  # noqa: ANN401, the client's ClusterMetadata
        """What the cluster holds; waits in steps, because the client tells only in between why it has no answer."""
        self._heard.clear()
        until = time.monotonic() + self._seconds
        while True:
            step = max(0.1, min(STEP_SECONDS, until - time.monotonic()))
            began = time.monotonic()
            try:
                return self._client.list_topics(timeout=step)
            except KafkaException as error:
                self._client.poll(0)
                now = time.monotonic()
                answered = now - began < step / 2  # a refusal, and no answer that did not come
                if answered or now >= until or self._heard.for_good:
                    raise self._problem(error) from error

    def _is_hidden(self, name: str) -> bool:
        """Whether the broker says of a topic that it is not in the list because this user may not see it."""
        try:
            found = self._client.list_topics(name, timeout=self._seconds).topics.get(name)
        except KafkaException as error:
            raise self._problem(error) from error
        return found is not None and found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED

    def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        """The topics' settings; those that this user may not read are left out."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        found = {}
        for resource, future in self._client.describe_configs(resources, request_timeout=self._seconds).items():
            try:
                entries: dict[str, Any] = future.result()
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    continue
                raise self._problem(error) from error
            found[resource.name] = {key: str(entry.value) for key, entry in entries.items()}
        return found

    def _problem(self, error: KafkaException) -> EnvironmentProblemError:
        return broker_problem(self._settings.kafka, self._heard.problems(), _error(error))

    def _refused(self, name: str, error: KafkaException) -> EnvironmentProblemError:
        first = _error(error)
        if first is not None and first.name().endswith("AUTHORIZATION_FAILED"):
            fix = "let a user create the topics that may (`virtflow topics acls --for topics` shows the rights)"
            return EnvironmentProblemError(thing="topic", value=name, why=f"the broker refused it: {first.str()}", fix=fix)
        sizes = self._settings.topics
        fix = f"topics.replication is {sizes.replication}, topics.partitions {sizes.partitions}: do they suit this cluster?"
        return EnvironmentProblemError(thing="topic", value=name, why=f"the broker refused it: {_reason(error)}", fix=fix)


def _binding(acl: Acl, principal: str, host: str) -> Any:  # noqa: ANN401, the client's AclBinding
    kind = {Resource.TOPIC: ResourceType.TOPIC, Resource.GROUP: ResourceType.GROUP}[acl.resource]
    operation = client_operation(acl.operation)
    return AclBinding(kind, acl.name, ResourcePatternType.LITERAL, principal, host, operation, AclPermissionType.ALLOW)


def _error(error: KafkaException) -> Any:  # noqa: ANN401, the client's KafkaError
    """The client's error in an exception; None where it holds a text only."""
    first = error.args[0]
    return first if isinstance(first, KafkaError) else None


def _reason(error: KafkaException) -> str:
    first = _error(error)
    return str(error.args[0]) if first is None else str(first.str() or first.name())
