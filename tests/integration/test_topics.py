"""``virtflow topics`` on a real broker: makes what is missing, changes nothing that is there, and says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.support.broker import Broker, free_ports
from tests.support.command import one_line_error, virtflow
from virtflow.schemas.topics import TOPICS


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A name of its own in front of the topics of each test."""
    return f"{request.node.name[:60]}."


def topics(broker: Broker, prefix: str, *words: str) -> tuple[int, list[dict[str, Any]]]:
    done = virtflow("topics", *words, "--json", "--bootstrap-servers", broker.address, "--topic-prefix", prefix)
    assert not done.stderr
    return done.returncode, json.loads(done.stdout)


def test_create_makes_every_topic_once(broker: Broker, prefix: str) -> None:
    """The second run changes nothing, and the list then finds nothing wrong."""
    code, made = topics(broker, prefix, "create", "--partitions", "3")
    assert code == 0
    assert [one["topic"] for one in made] == [prefix + topic.name for topic in TOPICS]
    assert {one["action"] for one in made} == {"made"}
    code, again = topics(broker, prefix, "create", "--partitions", "7")
    assert code == 0
    assert {one["action"] for one in again} == {"there already"}
    code, listed = topics(broker, prefix, "list")
    assert code == 0
    assert {one["partitions"] for one in listed} == {3}
    assert [one["cleanup"] for one in listed] == [topic.cleanup.value for topic in TOPICS]


def test_created_topics_have_their_settings_on_the_broker(broker: Broker, prefix: str) -> None:
    """Seen by a client that is not ours: cleanup policy, retention and message limit are the table's."""
    from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]

    topics(broker, prefix, "create")
    admin = AdminClient({"bootstrap.servers": broker.address})
    resources = [ConfigResource(ConfigResource.Type.TOPIC, prefix + topic.name) for topic in TOPICS]
    answers = {resource.name: future.result() for resource, future in admin.describe_configs(resources).items()}
    for topic in TOPICS:
        for key, value in topic.config().items():
            assert answers[prefix + topic.name][key].value == value, (topic.name, key)


def test_dry_run_makes_nothing(broker: Broker, prefix: str) -> None:
    code, told = topics(broker, prefix, "create", "--dry-run")
    assert code == 0
    assert {one["action"] for one in told} == {"would be made"}
    code, listed = topics(broker, prefix, "list")
    assert code == 1
    assert {one["problem"] for one in listed} == {"missing"}
    assert {one["fix"] for one in listed} == {"run `virtflow topics create`"}


def test_wrong_cleanup_policy_is_told_and_left_alone(broker: Broker, prefix: str) -> None:
    """A compacted topic that deletes loses the inventory: exit code 1, the policy it has, and the command that mends it."""
    admin = AdminClient({"bootstrap.servers": broker.address})
    wrong = f"{prefix}vm.inventory"
    admin.create_topics([NewTopic(wrong, num_partitions=1, replication_factor=1)])[wrong].result()
    for words in (("create",), ("list",)):
        code, told = topics(broker, prefix, *words)
        assert code == 1
        found = next(one for one in told if one["topic"] == wrong)
        assert found["problem"] == "cleanup.policy is delete, not compact"
        assert f"--entity-name {wrong} --add-config cleanup.policy=compact" in found["fix"]
        assert [one["topic"] for one in told if one["problem"]] == [wrong]


def test_table_for_people_names_the_problem_and_the_fix(broker: Broker, prefix: str) -> None:
    done = virtflow("topics", "list", "--bootstrap-servers", broker.address, "--topic-prefix", prefix)
    assert done.returncode == 1
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["TOPIC", "PARTITIONS", "CLEANUP", "PROBLEM", "FIX"]
    assert all("missing" in line and "virtflow topics create" in line for line in lines)


def test_replication_that_the_cluster_cannot_give(broker: Broker, prefix: str) -> None:
    """The broker's own reason, and the setting it is about."""
    done = virtflow("topics", "create", "--replication", "3", "--bootstrap-servers", broker.address, "--topic-prefix", prefix)
    line = one_line_error(done, 1)
    assert "topics.replication is 3" in line
    assert "the broker refused it" in line


def test_broker_away() -> None:
    """One line that names the address and what to do, within the broker's time to answer."""
    port = free_ports(1)[0]
    line = one_line_error(virtflow("topics", "list", "--bootstrap-servers", f"127.0.0.1:{port}", seconds=30), 1)
    assert f"broker 127.0.0.1:{port}: does not answer" in line
    assert "--bootstrap-servers" in line
