"""The threads for the calls to many daemons: few while calls return, one more for each that takes long, and none too many afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.memory_libvirt import VirtualClock
from tests.support.memory_libvirt.standins import install
from virtflow.producer.daemons import call_pool
from virtflow.producer.daemons.call_pool import SLOW_SECONDS, CallPool


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualClock]:
    """Virtual time for the pool."""
    made = VirtualClock(lag=1e-6)
    install(monkeypatch, made, [call_pool])
    yield made
    made.close()


class Calls:
    """Calls that return when the test says so."""

    def __init__(self, clock: VirtualClock, pool: CallPool) -> None:
        """None is made."""
        self.begun: list[int] = []
        self.released: set[int] = set()
        self._clock, self._pool = clock, pool

    def make(self, number: int) -> None:
        """Make a call."""

        def call() -> None:
            self.begun.append(number)
            self._clock.wait(lambda: number in self.released)

        self._pool.submit(call)

    def release(self, *numbers: int) -> None:
        """They return."""
        with self._clock.lock:
            self.released.update(numbers)
            self._clock.changed()
        self._clock.settle()


def passed(clock: VirtualClock, pool: CallPool, seconds: float) -> None:
    """Let time pass, as the sampling thread does: it ticks whenever the pool asks for it."""
    until = clock.now + seconds
    while clock.now < until:
        clock.advance(min(until - clock.now, pool.due))
        pool.tick(clock.now)
    clock.settle()


def test_calls_that_return_need_as_many_threads_as_there_are_calls_at_a_time(clock: VirtualClock) -> None:
    pool = CallPool(threads=3)
    calls = Calls(clock, pool)
    calls.released.update(range(100))
    calls.make(0)
    clock.settle()
    assert (pool.threads, pool.due) == (1, float("inf"))
    for number in range(1, 100):
        calls.make(number)
    passed(clock, pool, 1.0)
    assert (sorted(calls.begun), pool.threads) == (list(range(100)), 3)


def test_a_call_behind_calls_that_hang_is_made_after_a_moment(clock: VirtualClock) -> None:
    pool = CallPool(threads=3)
    calls = Calls(clock, pool)
    for number in range(10):
        calls.make(number)
    clock.settle()
    assert (sorted(calls.begun), pool.due) == ([0, 1, 2], SLOW_SECONDS)
    passed(clock, pool, 4 * SLOW_SECONDS)
    assert sorted(calls.begun) == list(range(10))
    assert (pool.threads, pool.due) == (10, float("inf"))


def test_threads_beyond_those_that_stay_end_with_their_calls(clock: VirtualClock) -> None:
    pool = CallPool(threads=3)
    calls = Calls(clock, pool)
    for number in range(10):
        calls.make(number)
    passed(clock, pool, 1.0)
    calls.release(*range(8))
    assert pool.threads == 3 + 2, "two calls hang still"
    calls.release(8, 9)
    assert pool.threads == 3


def test_calls_wait_where_as_many_hang_as_may_be_threads(clock: VirtualClock) -> None:
    pool = CallPool(threads=2, most=4)
    calls = Calls(clock, pool)
    for number in range(6):
        calls.make(number)
    passed(clock, pool, 1.0)
    assert (len(calls.begun), pool.threads) == (4, 4)
    calls.release(*calls.begun[:2])
    assert sorted(calls.begun) == list(range(6))


def test_closing_makes_the_calls_that_wait_and_says_whether_one_hangs(clock: VirtualClock) -> None:
    pool = CallPool(threads=2)
    calls = Calls(clock, pool)
    calls.released.update({1, 2, 3})
    for number in range(4):
        calls.make(number)
    clock.settle()
    assert not pool.close(1.0)
    assert sorted(calls.begun) == [0, 1, 2, 3]
    calls.release(0)
    assert pool.close(1.0)
    assert pool.threads == 0
