"""``confluent_kafka.admin.AdminClient`` as far as virtflow uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import ConfigResource, NewTopic  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from tests.support.memory_kafka.cluster import Cluster

LEADER: Final = 1
"""The id of the one broker, which leads every partition."""


class MemoryAdmin:
    """An administration client: every answer is there at once, and so is every failure."""

    def __init__(self, cluster: Cluster) -> None:
        """Connects to nothing."""
        self._cluster = cluster

    def poll(self, timeout: float = -1) -> int:
        """No callback waits here: failures are raised where they happen."""
        del timeout
        return 0

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:  # noqa: ANN401, the parts of ClusterMetadata that are used
        """Every topic with its partitions, or the one that is asked for, if only as an error."""
        del timeout
        with self._cluster.changed:
            self._answer()
            found = {
                name: SimpleNamespace(topic=name, error=None, partitions=dict.fromkeys(range(len(topic.logs))))
                for name, topic in self._cluster.topics.items()
            }
            if topic is not None:
                found = {
                    topic: found.get(topic)
                    or SimpleNamespace(topic=topic, error=KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), partitions={})
                }
            return SimpleNamespace(topics=found)

    def describe_topics(self, topics: TopicCollection, request_timeout: float = -1) -> dict[str, Future[Any]]:
        """Each topic's id, and its partitions with their leader."""
        del request_timeout

        def described(name: str) -> Any:  # noqa: ANN401, the parts of TopicDescription that are used
            topic = self._cluster.topics.get(name)
            if topic is None:
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
            leader = SimpleNamespace(id=LEADER)
            partitions = [SimpleNamespace(id=number, leader=leader) for number in range(len(topic.logs))]
            return SimpleNamespace(name=name, topic_id=topic.id, partitions=partitions)

        return self._answers(topics.topic_names, described)

    def list_offsets(self, topic_partition_offsets: Mapping[TopicPartition, Any], request_timeout: float = -1) -> dict[Any, Future[Any]]:
        """Each partition's end, which is the only question that is asked."""
        del request_timeout

        def end(place: TopicPartition) -> Any:  # noqa: ANN401, the parts of ListOffsetsResultInfo that are used
            log = self._cluster.log(place.topic, place.partition)
            if log is None:
                raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
            return SimpleNamespace(offset=log.high)

        return self._answers(topic_partition_offsets, end)

    def describe_configs(self, resources: Iterable[ConfigResource], request_timeout: float = -1) -> dict[ConfigResource, Future[Any]]:
        """Each topic's settings."""
        del request_timeout

        def described(resource: ConfigResource) -> Any:  # noqa: ANN401, the parts of ConfigEntry that are used
            return {key: SimpleNamespace(value=value) for key, value in self._cluster.topics[resource.name].config.items()}

        return self._answers(resources, described)

    def create_topics(
        self, new_topics: Iterable[NewTopic], request_timeout: float = -1, *, validate_only: bool = False
    ) -> dict[str, Future[Any]]:
        """Make topics."""
        del request_timeout
        wanted = {topic.topic: topic for topic in new_topics}

        def made(name: str) -> None:
            if name in self._cluster.topics:
                raise KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS))
            if wanted[name].replication_factor > 1:
                raise KafkaException(KafkaError(KafkaError.INVALID_REPLICATION_FACTOR))
            if not validate_only:
                self._cluster.create(name, wanted[name].num_partitions, wanted[name].config)

        return self._answers(wanted, made)

    def describe_consumer_groups(self, group_ids: Iterable[str], request_timeout: float = -1) -> dict[str, Future[Any]]:
        """Each group's members."""
        del request_timeout

        def described(name: str) -> Any:  # noqa: ANN401, the parts of ConsumerGroupDescription that are used
            places = self._cluster.group(name).members
            return SimpleNamespace(
                members=[SimpleNamespace(group_instance_id=place.instance or None, member_id=place.id) for place in places]
            )

        return self._answers(group_ids, described)

    def _answer(self) -> None:
        """Raises what the client raises where the broker does not answer."""
        self._cluster.answer()

    def _answers(self, asked: Iterable[Any], answer: Callable[[Any], Any]) -> dict[Any, Future[Any]]:
        found: dict[Any, Future[Any]] = {}
        with self._cluster.changed:
            for each in asked:
                future: Future[Any] = Future()
                found[each] = future
                try:
                    self._answer()
                    future.set_result(answer(each))
                except KafkaException as error:
                    future.set_exception(error)
        return found
