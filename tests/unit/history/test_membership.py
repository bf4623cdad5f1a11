"""A client that stays out of its group although the brokers answer is replaced: nothing would be read any more, by a writer that looks healthy."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from tests.support.history import stored_keys
from tests.support.memory_kafka import Cluster
from tests.support.memory_writer import PARTITIONS, put, samples, writing
from virtflow.history.writer import membership
from virtflow.history.writer.membership import Membership
from virtflow.history.writer.offsets import Names
from virtflow.history.writer.pace import Pace
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.topics import METRICS, TOPICS

PACE = Pace(stranded=30.0)


class Client:
    """What is asked of a consumer."""

    def __init__(self) -> None:
        """A member."""
        self.id: str | None = "m"
        self.ends = threading.Event()
        self.ends.set()
        self.closed_by = ""

    def memberid(self) -> str | None:
        """As the client says it."""
        return self.id

    def close(self) -> None:
        """Waits until it may end."""
        self.ends.wait()
        self.closed_by = threading.current_thread().name


def test_a_member_is_never_stranded() -> None:
    of = Membership(Client(), lambda: True, PACE)
    assert not any(of.stranded(now) for now in range(0, 1_000, 10))


@pytest.mark.parametrize("none", ["", None])
def test_one_without_a_group_is_stranded_in_its_time(none: str | None) -> None:
    client = Client()
    of = Membership(client, lambda: True, PACE)
    client.id = none
    assert next(now for now in range(100) if of.stranded(now)) == PACE.stranded


def test_the_time_begins_anew_with_each_membership_and_each_answer() -> None:
    """While no broker answers nothing is known, and nothing could be done."""
    client, answers = Client(), [True]
    of = Membership(client, lambda: answers[0], PACE)
    client.id = ""
    assert not of.stranded(0)
    client.id = "another"
    assert not of.stranded(29)
    client.id = ""
    assert not of.stranded(31)
    answers[0] = False
    assert not of.stranded(62)
    answers[0] = True
    assert not of.stranded(93)
    assert of.stranded(93 + PACE.stranded)


def test_one_that_does_not_end_is_left_behind(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(membership, "LEAVE_SECONDS", 0.05)
    client = Client()
    of = Membership(client, lambda: True, PACE)
    client.id = ""
    client.ends.clear()
    of.stranded(0)
    assert of.stranded(PACE.stranded)
    with caplog.at_level(logging.WARNING):
        of.leave()
    assert "left behind" in caplog.text
    client.ends.set()


def test_a_member_leaves_in_its_own_thread() -> None:
    """Its last calls commit what waits."""
    client = Client()
    Membership(client, lambda: True, PACE).leave()
    assert client.closed_by == threading.current_thread().name


def test_whether_the_brokers_answer_is_what_they_said_last() -> None:
    cluster = Cluster.with_topics(*TOPICS)
    names = Names(Settings(), cluster.admin)
    assert not names.answered
    names.learn()
    assert names.answered
    cluster.stop()
    names.follow()
    names.follow()
    assert not names.answered
    cluster.start()
    names.follow()
    names.follow()
    assert names.answered
    cluster.stop()
    with pytest.raises(EnvironmentProblemError):
        names.learn()
    assert not names.answered


def test_another_client_goes_on_where_the_stranded_one_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.memory_writer.PACE", Pace(read=0.02, measure=0.05, stranded=0.3, retry=(0.05, 1.0)))
    cluster = Cluster.with_topics(*TOPICS)
    old, new = samples(range(5)), samples(range(5, 9))
    with writing(cluster, tmp_path) as writer:
        writer.until(lambda: writer.has(PARTITIONS), "the partitions")
        put(cluster, METRICS, *old)
        writer.until(lambda: stored_keys(tmp_path).total() == len(old), "the old ones")
        first = writer.consumer
        with cluster.changed:
            first.strand()
        put(cluster, METRICS, *new)
        writer.until(lambda: stored_keys(tmp_path).total() == len(old) + len(new), "what came meanwhile")
        assert writer.consumer is not first
    assert set(stored_keys(tmp_path).values()) == {1}
