"""When a link has something to do again: never in the past, or the sampling thread would spin while libvirt hangs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from virtflow.producer.hypervisor.connection import OPENINGS, Lane, Link, start_event_loop
from virtflow.producer.hypervisor.mailbox import Inbox, OpenFailed
from virtflow.runtime.settings import Libvirt

SECONDS = 30.0


def link(tmp_path: Path, timeout: float = 10.0) -> Link:
    """A link to a socket that is not there: each opening fails by itself, and is not told to the link unless the test does."""
    start_event_loop()
    config = Libvirt(uri=f"qemu:///system?socket={tmp_path}/none", connect_timeout_seconds=timeout)
    return Link("safe", config, Inbox(), 10.0, rng=random.Random(1))  # noqa: S311, jitter


def failed_opening(found: Link, now: float) -> Lane:
    message = found.inbox.take(now + 1e9)
    assert isinstance(message, OpenFailed)
    found.failed(message.lane, message.error, now)
    return message.lane


def test_a_failed_opening_is_followed_by_a_growing_pause(tmp_path: Path) -> None:
    found, now, pauses = link(tmp_path), 0.0, []
    for _ in range(8):
        found.tend(now)
        failed_opening(found, now)
        found.tend(now)
        assert found.due > now
        pauses.append(found.due - now)
        now = found.due
    assert pauses[0] < 0.3
    assert max(pauses) <= 10.0
    assert pauses[6] > pauses[0] * 8


def test_openings_that_hang_are_given_up_and_bounded(tmp_path: Path) -> None:
    """The lanes are taken as they begin; what becomes of them the link has not heard yet."""
    found = link(tmp_path)
    begun = 0.0
    for count in range(1, OPENINGS + 1):
        found.tend(begun)
        assert len(found._openings) == count
        began = found._openings[-1].began
        found.tend(began + 9.0)
        assert len(found._openings) == count, "it has its time"
        begun = began + 10.1
        if count < OPENINGS:
            assert found.due == pytest.approx(began + 10.0)
    found.tend(begun + 1000.0)
    assert len(found._openings) == OPENINGS
    assert found.due == float("inf"), "nothing to do until one comes back"


def test_a_pause_after_a_failure_holds_while_another_opening_hangs(tmp_path: Path) -> None:
    found = link(tmp_path)
    found.tend(0.0)
    late = found._openings[0].began + 11.0
    found.tend(late)
    failed_opening(found, late + 5.0)
    assert len(found._openings) == 1
    assert found.due > late + 5.0


def test_an_opening_that_is_not_allowed_waits_for_whatever_happens_next(tmp_path: Path) -> None:
    """It is begun as soon as it may be; meanwhile nothing is due, and the one that hangs is said once to be given up."""
    found, allowed = link(tmp_path), [True]
    found.allowed = lambda: allowed[0]
    found.tend(0.0)
    late = found._openings[0].began + 11.0
    assert (found.opening, found.hanging(late - 2.0), found.hanging(late)) == (1, 0, 1)
    allowed[0] = False
    found.tend(late)
    assert (found.opening, found.error, found.due) == (1, "no answer within 10 s", float("inf"))
    allowed[0] = True
    found.tend(late)
    assert found.opening == 2
