"""The pauses of the guest-agent helper process and of guests that don't answer: each step of the doubling, and both bounds."""

from __future__ import annotations

import random

import pytest

from virtflow.producer.agent.backoff import FIRST_SECONDS, STEADY, Restarts
from virtflow.producer.agent.ipc import Answered, Command, Listed, Up
from virtflow.producer.agent.poll_cycle import Limits, Ticked
from virtflow.producer.agent.scheduler import Schedule
from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.producer.records.guest_devices import Look
from virtflow.schemas.guest import GuestReason
from virtflow.schemas.records import GuestSample

CYCLE = 60.0
LIMITS = Limits(cycle=CYCLE, timeout=2.0, per_minute=1000, in_flight=2)


class Longest(random.Random):
    """Chance that always draws the upper bound."""

    def uniform(self, a: float, b: float) -> float:
        """The larger one."""
        return max(a, b)


def test_restart_pauses_double_from_a_second_to_the_longest() -> None:
    restarts = Restarts(60.0, Longest())
    assert [restarts.pause(0.5) for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_a_pause_is_shortened_by_a_quarter_at_most() -> None:
    pauses = [Restarts(60.0, random.Random(seed)).pause(0.0) for seed in range(200)]  # noqa: S311, jitter
    assert 0.75 * FIRST_SECONDS <= min(pauses) < 0.76 * FIRST_SECONDS
    assert 0.99 * FIRST_SECONDS < max(pauses) <= FIRST_SECONDS


@pytest.mark.parametrize(("lived", "pause"), [(STEADY * 60.0 - 0.1, 4.0), (STEADY * 60.0, 1.0)])
def test_only_a_life_of_two_longest_pauses_begins_them_again(lived: float, pause: float) -> None:
    restarts = Restarts(60.0, Longest())
    assert [restarts.pause(0.0), restarts.pause(0.0)] == [1.0, 2.0]
    assert restarts.pause(lived) == pause
    assert STEADY == 2


def test_a_longest_pause_below_a_second_is_every_pause() -> None:
    restarts = Restarts(0.25, Longest())
    assert [restarts.pause(0.0) for _ in range(3)] == [0.25] * 3


def test_a_guest_that_does_not_answer_is_asked_after_half_a_cycle_one_and_then_two() -> None:
    """Each pause is counted from the failure, and shortened by a twentieth at least; the first answer begins them again."""
    schedule = Schedule(LIMITS, lambda *_: True, Longest(), CallBudget(3))
    (listing,) = schedule.observe(Up(list(Command)), 0.0)
    schedule.observe(Answered(listing.number, 0.0, 0.1, vms=[Listed("a", "a", running=True)]), 0.0)
    vm = schedule.vms["a"]
    pauses = []
    for reason in (*[GuestReason.TIMEOUT] * 5, None, GuestReason.TIMEOUT):
        now = vm.due
        _turn(schedule, now, reason)
        pauses.append(vm.due - now)
    assert pauses == pytest.approx([0.5 * 0.95 * CYCLE, 0.95 * CYCLE, 1.9 * CYCLE, 1.9 * CYCLE, 1.9 * CYCLE, CYCLE, 0.5 * 0.95 * CYCLE])


def _turn(schedule: Schedule, now: float, reason: GuestReason | None) -> None:
    """One VM's turn, all at one moment, whose agent's calls end for that reason."""
    asked = schedule.observe(Ticked(), now)
    while asked:
        ask = asked.pop(0)
        if ask.command is Command.LIST:
            answer = Answered(ask.number, now, 0.1, vms=[Listed("a", "a", running=True)])
        elif ask.command is Command.LOOK:
            answer = Answered(ask.number, now, 0.1, look=Look("connected", balloon=False, period_seconds=0))
        else:
            answer = Answered(ask.number, now, 0.1, reason=reason, sample=None if reason else GuestSample(cut=0, dropped=0, hostname="h"))
        asked += schedule.observe(answer, now)
