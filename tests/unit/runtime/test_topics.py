"""Topics read as they pass, made and inspected: on the in-memory broker."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.support.memory_kafka import Cluster
from virtflow.runtime.kafka.topic_admin import TopicAdmin
from virtflow.runtime.kafka.topic_reader import END, TopicReader
from virtflow.runtime.settings import Settings, Topics
from virtflow.schemas.errors import EnvironmentProblemError, SettingError
from virtflow.schemas.topics import EVENTS, METRICS, MIGRATIONS, TOPICS

TIMES = (1_700_000_001.0, 1_700_000_002.0, 1_700_000_003.0)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def reader(cluster: Cluster, start: float | None = None) -> TopicReader:
    more = {} if start is None else {"start": start}
    return TopicReader(Settings(), EVENTS, make=cluster.consumer, **more)


def read(tap: TopicReader) -> list[bytes | None]:
    """Everything up to the ends of the partitions."""
    found: list[bytes | None] = []
    while not tap.caught_up:
        found += [message.value() for message in tap.read(1.0)]
    return found


class TestReader:
    @pytest.fixture(autouse=True)
    def _written(self, cluster: Cluster) -> None:
        cluster.create(EVENTS.name, 2)
        for place, when in enumerate(TIMES):
            cluster.write(EVENTS.name, b"k", b"%d" % place, partition=place % 2, timestamp=when)

    @pytest.mark.parametrize(("start", "found"), [(None, [b"0", b"1", b"2"]), (TIMES[1], [b"1", b"2"]), (TIMES[2] + 1, []), (END, [])])
    def test_it_begins_at_the_beginning_a_time_or_the_end(self, cluster: Cluster, start: float | None, found: list[bytes]) -> None:
        with reader(cluster, start) as tap:
            assert sorted(value or b"" for value in read(tap)) == found
            cluster.write(EVENTS.name, b"k", b"new")
            assert [message.value() for message in tap.read(1.0)] == [b"new"]
        assert cluster.consumers == []

    def test_a_broker_that_is_away_is_named(self, cluster: Cluster) -> None:
        cluster.stop()
        with pytest.raises(EnvironmentProblemError, match="does not answer"):
            reader(cluster)
        assert cluster.consumers == []

    def test_a_topic_that_is_missing_is_named(self, cluster: Cluster) -> None:
        cluster.delete(EVENTS.name)
        with pytest.raises(EnvironmentProblemError, match="missing"):
            reader(cluster)

    def test_what_passes_is_waited_out_and_what_does_not_is_raised(self, cluster: Cluster) -> None:
        with reader(cluster) as tap:
            cluster.tell(KafkaError._TRANSPORT, retriable=True)
            cluster.tell(KafkaError._ALL_BROKERS_DOWN)
            assert len(read(tap)) == 3
            cluster.tell(KafkaError.UNKNOWN_TOPIC_OR_PART)
            with pytest.raises(EnvironmentProblemError, match="missing"):
                list(tap.read(1.0))
            cluster.tell(KafkaError.TOPIC_AUTHORIZATION_FAILED)
            with pytest.raises(EnvironmentProblemError, match="uthoriz"):
                list(tap.read(1.0))


class TestAdmin:
    SETTINGS = Settings(topics=Topics(prefix="p.", partitions=3, replication=1))

    def admin(self, cluster: Cluster, settings: Settings | None = None) -> TopicAdmin:
        return TopicAdmin(settings or self.SETTINGS, make=cluster.admin)

    def test_missing_topics_are_made_as_their_rows_say(self, cluster: Cluster) -> None:
        admin = self.admin(cluster)
        states = admin.states()
        assert {state.problem for state in states} == {"missing"}
        assert [state.name for state in admin.create(states, dry_run=True)] == [f"p.{topic.name}" for topic in TOPICS]
        assert cluster.topics == {}
        admin.create(states, dry_run=False)
        again = admin.states()
        assert [(state.problem, state.partitions, state.cleanup) for state in again] == [("", 3, topic.cleanup.value) for topic in TOPICS]
        assert admin.create(again, dry_run=False) == []

    def test_a_topic_that_another_one_made_meanwhile_is_fine(self, cluster: Cluster) -> None:
        admin = self.admin(cluster)
        states = admin.states()
        cluster.create(f"p.{METRICS.name}", 3, METRICS.config())
        admin.create(states, dry_run=False)
        assert {state.problem for state in admin.states()} == {""}

    def test_a_topic_with_the_wrong_settings_is_named_with_the_fix(self, cluster: Cluster) -> None:
        cluster.create(f"p.{MIGRATIONS.name}", 3, {"cleanup.policy": "delete", "max.message.bytes": "1000"})
        [state] = [state for state in self.admin(cluster).states() if state.topic is MIGRATIONS]
        assert state.problem == "cleanup.policy is delete, not compact; max.message.bytes is 1000, not 1048588"
        assert "--add-config cleanup.policy=compact,max.message.bytes=1048588" in state.fix

    def test_a_refused_topic_is_named(self, cluster: Cluster) -> None:
        admin = self.admin(cluster, Settings(topics=Topics(replication=3)))
        with pytest.raises(EnvironmentProblemError, match="the broker refused it") as refused:
            admin.create(admin.states(), dry_run=False)
        assert "topics.replication is 3" in str(refused.value)

    def test_a_broker_that_is_away_is_named(self, cluster: Cluster) -> None:
        admin = self.admin(cluster)
        cluster.create("p.vm.metrics")
        cluster.stop()
        with pytest.raises(EnvironmentProblemError, match="does not answer"):
            admin.states()

    def test_a_client_that_can_not_be_made_is_a_problem_of_its_settings(self, cluster: Cluster) -> None:
        cluster.refuse_clients(KafkaError._INVALID_ARG)
        with pytest.raises(SettingError):
            self.admin(cluster)

    def test_a_broker_that_goes_away_between_two_questions_is_named(self, cluster: Cluster) -> None:
        cluster.create("p.vm.metrics")

        class Goes:
            """Answers the first question only."""

            def __init__(self, config: dict[str, Any]) -> None:
                self._client = cluster.admin(config)

            def poll(self, timeout: float) -> int:
                return self._client.poll(timeout)

            def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:  # noqa: ANN401, the double's answer
                found = self._client.list_topics(topic, timeout)
                cluster.stop()
                return found

            def describe_configs(self, *asked: Any, **more: Any) -> Any:  # noqa: ANN401, as above
                return self._client.describe_configs(*asked, **more)

        with pytest.raises(EnvironmentProblemError, match="does not answer"):
            TopicAdmin(self.SETTINGS, make=Goes).states()

    def test_what_this_user_may_not_know_is_named_with_the_right_that_it_lacks(self, cluster: Cluster) -> None:
        """A topic that is hidden, one whose settings are, and topics that may not be made; ``test_least_rights`` has a real broker say so."""
        refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
        hidden, shown = f"p.{EVENTS.name}", f"p.{METRICS.name}"
        cluster.create(shown, 3, METRICS.config())

        class Denies:
            """Answers as a broker does to a user without rights."""

            def __init__(self, config: dict[str, Any]) -> None:
                self._client = cluster.admin(config)

            def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:  # noqa: ANN401, the double's answer
                found = self._client.list_topics(topic, timeout)
                if topic == hidden:
                    found.topics[topic].error = refused
                return found

            def describe_configs(self, resources: list[Any], request_timeout: float = -1) -> dict[Any, Future[Any]]:
                return {resource: self._refused() for resource in self._client.describe_configs(resources, request_timeout)}

            def create_topics(self, topics: list[Any], **options: Any) -> dict[str, Future[Any]]:  # noqa: ANN401, the client's
                del options
                return {topic.topic: self._refused() for topic in topics}

            @staticmethod
            def _refused() -> Future[Any]:
                future: Future[Any] = Future()
                future.set_exception(KafkaException(refused))
                return future

        admin = TopicAdmin(self.SETTINGS, make=Denies)
        states = {state.name: state for state in admin.states([EVENTS, METRICS])}
        assert (states[hidden].exists, states[hidden].problem) == (False, "missing, or this user may not see it")
        assert states[hidden].fix.startswith("allow the operation Describe: `virtflow topics acls`")
        assert (states[shown].partitions, states[shown].problem) == (3, "this user may not read its settings")
        assert states[shown].fix.startswith("allow the operation DescribeConfigs: `virtflow topics acls`")
        with pytest.raises(EnvironmentProblemError, match="the broker refused it") as told:
            admin.create(list(states.values()), dry_run=False)
        assert "let a user create the topics that may" in str(told.value)
