"""The numbers of the breaker and of reconnecting, each at its boundary: pauses, stall timeouts, batches, idle health checks."""

from __future__ import annotations

import random

import pytest

from virtflow.producer.hung_calls.breaker import Breaker
from virtflow.producer.hung_calls.breaker_types import (
    Abandon,
    Action,
    Answered,
    Ask,
    CheckHealth,
    ConnectionChanged,
    Failed,
    Limits,
    RoundBegan,
    State,
    Ticked,
)
from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.producer.hung_calls.executor import limits
from virtflow.producer.hung_calls.reconnecting import Outbox, ReconnectingConnection
from virtflow.producer.hypervisor.messages import Open
from virtflow.producer.types import HealthCheck
from virtflow.runtime.settings import Libvirt, Producer

LIMITS = Limits(stall_timeout=1.0, first_pause=2.0, longest_pause=60.0)
EIGHT = tuple("abcdefgh")


class Chance(random.Random):
    """Always the middle of what could be, or its upper bound."""

    def __init__(self, *, upper: bool = False) -> None:
        """Without luck."""
        super().__init__(1)
        self._upper = upper

    def uniform(self, a: float, b: float) -> float:
        """One number for all."""
        return max(a, b) if self._upper else (a + b) / 2


def numbered(count: int) -> tuple[str, ...]:
    """So many VMs."""
    return tuple(f"vm-{number:03d}" for number in range(count))


def begun(vms: tuple[str, ...] = EIGHT, limit: int = 3, occupied: dict[str, float] | None = None) -> tuple[Breaker, list[Action]]:
    """A breaker in its first round, its health checked and its first call under way since 0; what that call is."""
    breaker = Breaker(LIMITS, CallBudget(limit), Chance())
    breaker.observe(ConnectionChanged(ready=True), 0.0)
    assert breaker.observe(RoundBegan(vms, 1000.0), 0.0) == [CheckHealth()]
    return breaker, breaker.observe(HealthCheck(dict.fromkeys(vms, 0.0) | (occupied or {})), 0.0)


def asked(actions: list[Action]) -> list[tuple[str, ...]]:
    """The VMs of each call that is made."""
    return [action.uuids for action in actions if isinstance(action, Ask)]


def abandoned(actions: list[Action]) -> list[str]:
    """In which VM each call that is given up hangs."""
    return [action.uuid for action in actions if isinstance(action, Abandon)]


def checked(breaker: Breaker, now: float, occupied: dict[str, float] | None = None, processes: dict[str, str] | None = None) -> list[str]:
    """A health check at that time; in which VM the call under way is then taken to hang."""
    assert breaker.observe(Ticked(), now) == [CheckHealth()]
    return abandoned(breaker.observe(HealthCheck(dict.fromkeys(EIGHT, 0.0) | (occupied or {}), processes or {}), now))


# -- pauses


@pytest.mark.parametrize(
    ("interval", "maximum", "pauses"),
    [
        (10.0, 30.0, [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]),
        (10.0, 1.0, [0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (0.1, 30.0, [0.1] * 8),
    ],
)
def test_pauses_before_reconnecting_double_up_to_an_interval_and_the_setting(interval: float, maximum: float, pauses: list[float]) -> None:
    outbox = Outbox()
    config = Libvirt(reconnect_maximum_seconds=maximum)
    connection = ReconnectingConnection("safe", config, outbox, CallBudget(3), interval, Chance(upper=True))
    now, found = 0.0, []
    for _ in range(8):
        connection.tick(now)
        (opened,) = [action for action in outbox.take() if isinstance(action, Open)]
        connection.failed(opened.worker, "refused", now)
        found.append(connection.due - now)
        now = connection.due
    assert found == pytest.approx(pauses)
    connection.tick(now)
    (opened,) = [action for action in outbox.take() if isinstance(action, Open)]
    assert connection.opened(opened.worker, 0)
    assert connection.worker is not None
    connection.drop(connection.worker, now, "lost")
    assert connection.due - now == pytest.approx(pauses[0]), "a success begins them again"


def test_pauses_before_reconnecting_are_shortened_by_half_at_most() -> None:
    found = []
    for seed in range(200):
        rng = random.Random(seed)  # noqa: S311, jitter
        connection = ReconnectingConnection("safe", Libvirt(), Outbox(), CallBudget(3), 10.0, rng)
        connection.tick(0.0)
        (opened,) = [action for action in connection.outbox.take() if isinstance(action, Open)]
        connection.failed(opened.worker, "refused", 0.0)
        found.append(connection.due)
    assert 0.1 <= min(found) < 0.102
    assert 0.198 < max(found) <= 0.2


def test_pauses_between_probes_double_to_the_longest() -> None:
    """A VM that another client's call holds is probed; each probe that brings nothing doubles the pause."""
    breaker, _ = begun(occupied={"c": 30.0})
    others = frozenset(EIGHT) - {"c"}
    number, now, pauses = 1, 0.0, [breaker._vms["c"].due]
    breaker.observe(Answered(number, others), now)
    for _ in range(6):
        now = breaker._vms["c"].due
        breaker.observe(RoundBegan(EIGHT, now + 8.0), now)
        breaker.observe(HealthCheck(dict.fromkeys(EIGHT, 0.0) | {"c": 30.0}), now)
        assert asked(breaker.observe(Answered(number + 1, others), now)) == [("c",)]
        breaker.observe(Answered(number + 2, frozenset(), frozenset("c")), now)
        breaker.observe(HealthCheck({"c": 30.0}), now)
        pauses.append(breaker._vms["c"].due - now)
        number += 2
    assert pauses == pytest.approx([2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0])


def test_a_probe_is_not_made_before_its_time() -> None:
    breaker, _ = begun(occupied={"c": 30.0})
    others = frozenset(EIGHT) - {"c"}
    breaker.observe(Answered(1, others), 0.0)
    breaker.observe(RoundBegan(EIGHT, 9.0), 1.99)
    breaker.observe(HealthCheck(dict.fromkeys(EIGHT, 0.0) | {"c": 30.0}), 1.99)
    assert asked(breaker.observe(Answered(2, others), 1.99)) == []


@pytest.mark.parametrize(
    ("interval", "maximum", "expected"),
    [
        (10.0, 300.0, Limits(2.0, 20.0, 300.0)),
        (1.0, 300.0, Limits(0.25, 2.0, 300.0)),
        (60.0, 300.0, Limits(2.5, 120.0, 300.0)),
        (10.0, 5.0, Limits(2.0, 20.0, 20.0)),
    ],
)
def test_limits_follow_from_the_interval_within_their_bounds(interval: float, maximum: float, expected: Limits) -> None:
    assert limits(Producer(interval_seconds=interval, probe_maximum_seconds=maximum)) == expected


# -- the stall timeout


@pytest.mark.parametrize(
    ("process", "seconds", "hangs"),
    [("", 0.99, False), ("", 1.0, True), ("S", 1.99, False), ("S", 2.0, True), ("R", 2.0, True), ("T", 0.5, True), ("D", 0.5, True)],
)
def test_a_call_may_stay_in_a_vm_twice_as_long_where_its_process_runs(process: str, seconds: float, *, hangs: bool) -> None:
    """In one that is stopped or waits for storage it hangs whatever the time."""
    breaker, _ = begun()
    processes = {"d": process} if process else {}
    assert checked(breaker, 3.0, {"d": seconds}, processes) == (["d"] if hangs else [])


@pytest.mark.parametrize(
    ("process", "seconds", "skipped"),
    [("", 0.999, False), ("", 1.0, True), ("S", 1.999, False), ("S", 2.0, True), ("T", 0.0, True)],
)
def test_a_vm_that_somebody_else_s_call_is_in_is_skipped_after_as_long(process: str, seconds: float, *, skipped: bool) -> None:
    """Twice as long where its process runs, and at once where it is stopped."""
    breaker = Breaker(LIMITS, CallBudget(3), Chance())
    breaker.observe(ConnectionChanged(ready=True), 0.0)
    breaker.observe(RoundBegan(EIGHT, 1000.0), 0.0)
    actions = breaker.observe(HealthCheck(dict.fromkeys(EIGHT, 0.0) | {"c": seconds}, {"c": process}), 0.0)
    assert asked(actions) == [tuple("abdefgh")] if skipped else "c" in asked(actions)[0]
    assert breaker.suspects("c") is skipped


def test_no_call_hangs_before_the_stall_timeout() -> None:
    """Not even in a VM whose process has stopped: another check says so in time."""
    breaker, _ = begun()
    assert breaker.due == 1.0
    assert breaker.observe(Ticked(), 0.99) == []
    assert checked(breaker, 1.0, {}, {"d": "T"}) == ["d"]


@pytest.mark.parametrize(("seconds", "culprit"), [(3.5, ["d"]), (3.6, [])])
def test_whoever_is_occupied_for_longer_than_the_call_is_out_holds_another_one(seconds: float, culprit: list[str]) -> None:
    """By more than half a stall timeout."""
    breaker, _ = begun()
    assert checked(breaker, 3.0, {"d": seconds}) == culprit


@pytest.mark.parametrize(("seconds", "due"), [(0.5, 3.5), (0.95, 3.1), (0.0, 4.0)])
def test_the_next_check_is_made_when_the_time_in_the_vm_is_over(seconds: float, due: float) -> None:
    """A tenth of the stall timeout later at the earliest, one later where the call is in no VM."""
    breaker, _ = begun()
    assert checked(breaker, 3.0, {"d": seconds}) == []
    assert breaker.due == pytest.approx(due)


# -- idle checks


def test_a_call_that_is_in_no_vm_hangs_after_two_checks_and_four_stall_timeouts() -> None:
    breaker, _ = begun()
    assert [checked(breaker, now) for now in (1.5, 2.6, 3.7)] == [[], [], []]
    assert checked(breaker, 4.8) == [""]


def test_one_check_of_a_call_that_is_in_no_vm_proves_nothing() -> None:
    """However late it is; the second one in a row does."""
    breaker, _ = begun()
    assert checked(breaker, 10.0) == []
    assert checked(breaker, 11.0) == [""]


def test_progress_between_two_idle_checks_begins_them_again() -> None:
    breaker, _ = begun()
    assert checked(breaker, 10.0) == []
    assert checked(breaker, 11.0, {"d": 0.1}) == []
    assert checked(breaker, 12.0) == []
    assert checked(breaker, 13.0) == [""]


@pytest.mark.parametrize(("seconds", "hangs"), [(23.9, False), (24.0, True)])
def test_where_calls_take_long_an_idle_one_has_three_times_as_long(seconds: float, *, hangs: bool) -> None:
    """One second for each of eight VMs was usual."""
    breaker, _ = begun()
    breaker.observe(Answered(1, frozenset(EIGHT)), 8.0)
    assert asked(breaker.observe(RoundBegan(EIGHT, 1000.0), 100.0)) == [EIGHT]
    assert checked(breaker, 110.0) == []
    assert checked(breaker, 100.0 + seconds) == ([""] if hangs else [])


@pytest.mark.parametrize(("seconds", "hangs"), [(21.5, False), (21.7, True)])
def test_what_is_usual_falls_by_a_tenth_with_each_faster_call(seconds: float, *, hangs: bool) -> None:
    breaker, _ = begun()
    breaker.observe(Answered(1, frozenset(EIGHT)), 8.0)
    breaker.observe(RoundBegan(EIGHT, 1000.0), 50.0)
    breaker.observe(Answered(2, frozenset(EIGHT)), 50.1)
    breaker.observe(RoundBegan(EIGHT, 1000.0), 100.0)
    assert checked(breaker, 110.0) == []
    assert checked(breaker, 100.0 + seconds) == ([""] if hangs else [])


# -- batches


@pytest.mark.parametrize(("count", "size"), [(64, 1), (65, 2), (128, 2), (129, 3)])
def test_after_a_failure_vms_are_asked_in_sixty_four_batches(count: int, size: int) -> None:
    vms = numbered(count)
    breaker, _ = begun(vms)
    assert asked(breaker.observe(Failed(1, lost=False), 1.0)) == [vms[:size]]


@pytest.mark.parametrize(("count", "size"), [(64, 1), (129, 3)])
def test_after_a_hung_call_that_nothing_names_vms_are_asked_in_as_many(count: int, size: int) -> None:
    vms = numbered(count)
    breaker, _ = begun(vms)
    actions: list[Action] = []
    for now in (10.0, 20.0):
        breaker.observe(Ticked(), now)
        actions = breaker.observe(HealthCheck(dict.fromkeys(vms, 0.0)), now)
    assert abandoned(actions) == [""]
    assert asked(actions + breaker.observe(ConnectionChanged(ready=True), 20.0)) == [vms[:size]]


@pytest.mark.parametrize(("count", "size"), [(16, 2), (17, 3), (24, 3)])
def test_the_last_call_that_may_hang_is_risked_on_an_eighth_of_unknown_vms(count: int, size: int) -> None:
    """Where an earlier run has left calls behind, and nothing is known of any VM."""
    vms = numbered(count)
    breaker, actions = begun(vms, occupied=dict.fromkeys(vms[:2], 500.0))
    assert breaker.state is State.DEGRADED
    assert asked(actions) == [vms[2 : 2 + size]]


def test_after_calls_of_our_own_that_hang_it_is_risked_on_one() -> None:
    """And on none while a VM is known to be healthy."""
    breaker, _ = begun(limit=2)
    assert checked(breaker, 3.0, {"a": 1.5}) == ["a"]
    breaker.observe(ConnectionChanged(ready=True), 3.0)
    assert breaker.state is State.DEGRADED
    assert breaker._asking is not None
    assert breaker._asking.uuids == ("b",)
    assert asked(breaker.observe(Answered(2, frozenset("b")), 3.1)) == []


def test_three_openings_may_hang_however_much_room_there_is() -> None:
    outbox = Outbox()
    connection = ReconnectingConnection("safe", Libvirt(connect_timeout_seconds=10.0), outbox, CallBudget(100), 10.0, Chance())
    opened = 0
    for now in range(0, 1000, 20):
        connection.tick(float(now))
        opened += len(outbox.take())
    assert opened == 3
