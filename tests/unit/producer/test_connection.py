"""When a connection has something to do again: never in the past, or the sampling thread would spin while libvirt hangs."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from virtflow.producer.hung_calls.budget import CallBudget, Kind
from virtflow.producer.hung_calls.reconnecting import OPENINGS, Outbox, ReconnectingConnection
from virtflow.producer.hung_calls.version_finder import VersionFinder
from virtflow.producer.hypervisor.messages import FindVersions, Open, Retire, VersionsFound
from virtflow.runtime.settings import Libvirt

TIMEOUT = 10.0


class Stage:
    """A connection whose openings end when the test says so."""

    def __init__(self, limit: int = 6, *, essential: bool = False) -> None:
        """Nothing has begun."""
        self.outbox, self.budget = Outbox(), CallBudget(limit)
        config = Libvirt(connect_timeout_seconds=TIMEOUT)
        rng = random.Random(1)  # noqa: S311, jitter
        self.connection = ReconnectingConnection("safe", config, self.outbox, self.budget, 10.0, rng, essential)
        self.opening: list[int] = []
        self.retired: list[int] = []

    def at(self, now: float) -> None:
        """Time has come to ``now``."""
        self.connection.tick(now)
        for action in self.outbox.take():
            if isinstance(action, Open):
                self.opening.append(action.worker)
            elif isinstance(action, Retire):
                self.retired.append(action.worker)

    def failed(self, now: float) -> None:
        """The oldest opening fails."""
        self.connection.failed(self.opening.pop(0), "refused", now)


def test_a_failed_opening_is_followed_by_a_growing_pause() -> None:
    stage, now, pauses = Stage(), 0.0, []
    for _ in range(8):
        stage.at(now)
        stage.failed(now)
        stage.at(now)
        assert stage.connection.due > now
        assert stage.opening == []
        pauses.append(stage.connection.due - now)
        now = stage.connection.due
    assert pauses[0] < 0.3
    assert max(pauses) <= 10.0
    assert all(longer > shorter * 0.9 for shorter, longer in pairwise(pauses))
    assert pauses[6] > pauses[0] * 8


def test_openings_that_hang_are_given_up_and_bounded() -> None:
    stage = Stage()
    for count in range(1, OPENINGS + 1):
        begun = (count - 1) * TIMEOUT
        stage.at(begun)
        assert len(stage.opening) == count
        stage.at(begun + TIMEOUT - 0.1)
        assert len(stage.opening) == count, "it has its time"
        assert stage.connection.due == pytest.approx(begun + TIMEOUT)
        assert stage.budget.hung == count - 1
    stage.at(1000.0)
    assert (len(stage.opening), stage.budget.hung) == (OPENINGS, OPENINGS)
    assert stage.connection.due == float("inf"), "nothing to do until one comes back"
    assert stage.connection.error == "no answer within 10 s"


def test_an_opening_that_was_given_up_is_used_when_it_succeeds_first() -> None:
    """The other one is sent away, and both leases are free again."""
    stage = Stage()
    stage.at(0.0)
    stage.at(TIMEOUT)
    first, second = stage.opening
    assert stage.connection.opened(first, 9_000_000)
    assert not stage.connection.opened(second, 9_000_000)
    stage.at(TIMEOUT + 1)
    assert (stage.retired, stage.budget.outstanding, stage.connection.connects) == ([second], 0, 1)
    assert stage.connection.worker is not None
    assert stage.connection.worker.libvirt_version == 9_000_000
    assert stage.connection.due == float("inf")


def test_a_pause_after_a_failure_holds_while_another_opening_hangs() -> None:
    stage = Stage()
    stage.at(0.0)
    stage.at(TIMEOUT + 1.0)
    stage.failed(TIMEOUT + 5.0)
    assert stage.connection.opening == 1
    assert stage.connection.due > TIMEOUT + 5.0


def test_an_opening_without_a_lease_waits_for_whatever_happens_next() -> None:
    """It is begun as soon as there is room; meanwhile nothing is due."""
    stage = Stage(limit=1)
    lease = stage.budget.acquire(Kind.MONITOR)
    assert lease is not None
    stage.at(0.0)
    assert (stage.opening, stage.connection.due) == ([], float("inf"))
    lease.release()
    stage.at(1.0)
    assert len(stage.opening) == 1


def test_one_opening_of_the_essential_connection_is_made_without_room() -> None:
    stage = Stage(limit=1, essential=True)
    assert stage.budget.acquire(Kind.MONITOR) is not None
    stage.at(0.0)
    stage.at(TIMEOUT + 1.0)
    assert (len(stage.opening), stage.budget.outstanding) == (1, 2)


def test_a_worker_that_is_left_to_its_call_is_replaced_at_once_and_is_no_reconnect() -> None:
    stage = Stage()
    stage.at(0.0)
    stage.connection.opened(stage.opening[0], 9_000_000)
    assert stage.connection.worker is not None
    stage.connection.leave(stage.connection.worker, 5.0)
    stage.at(5.0)
    assert (stage.retired, len(stage.opening)) == ([stage.opening[0]], 2)
    stage.connection.opened(stage.opening[1], 9_000_000)
    assert stage.connection.connects == 1


def test_a_question_for_versions_that_is_overdue_counts_as_hung_until_it_is_answered() -> None:
    budget, outbox = CallBudget(3), Outbox()
    finder = VersionFinder(outbox, budget, timeout=5.0)
    finder.wanted = True
    finder.tick(100.0)
    assert outbox.take() == [FindVersions()]
    finder.tick(104.9)
    assert (budget.outstanding, budget.hung) == (1, 0)
    finder.tick(105.0)
    assert (budget.outstanding, budget.hung) == (1, 1)
    finder.found(VersionsFound("12.8.0", "10.0.6"))
    assert (budget.outstanding, budget.hung) == (0, 0)
    assert (finder.versions.libvirt, finder.versions.hypervisor) == ("12.8.0", "10.0.6")


@pytest.mark.parametrize(("limit", "out", "asks"), [(3, 1, True), (3, 2, False), (1, 0, True), (1, 1, False)])
def test_the_last_call_that_may_hang_is_kept_from_versions_unless_it_is_the_only_one(limit: int, out: int, *, asks: bool) -> None:
    """Versions are not worth a round's monitors."""
    budget, outbox = CallBudget(limit), Outbox()
    leases = [budget.acquire(Kind.MONITOR) for _ in range(out)]
    finder = VersionFinder(outbox, budget, timeout=5.0)
    finder.wanted = True
    finder.tick(0.0)
    assert outbox.take() == ([FindVersions()] if asks else [])
    for lease in filter(None, leases):
        lease.release()
    finder.tick(1.0)
    assert outbox.take() == ([] if asks else [FindVersions()]), "asked once, as soon as there is room"
