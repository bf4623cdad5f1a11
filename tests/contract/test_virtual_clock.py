"""Virtual time: it moves only while every thread waits, in the order of the deadlines."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from tests.support.memory_libvirt import HangsForeverError, VirtualClock
from tests.support.memory_libvirt.standins import EPOCH, Queue, Threading, Time


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    clock = VirtualClock(100.0)
    yield clock
    clock.close()


def test_a_sleeping_thread_wakes_at_its_time(clock: VirtualClock) -> None:
    time, woke = Time(clock), list[tuple[str, float]]()

    def sleep(name: str, seconds: float) -> None:
        time.sleep(seconds)
        woke.append((name, time.monotonic()))
        time.sleep(10.0)
        woke.append((name, time.monotonic()))

    for name, seconds in (("late", 3.0), ("early", 1.0)):
        Threading(clock).Thread(target=sleep, args=(name, seconds)).start()
    clock.advance(2.5)
    assert woke == [("early", 101.0)]
    clock.advance(100.0)
    assert woke == [("early", 101.0), ("late", 103.0), ("early", 111.0), ("late", 113.0)]
    assert time.time() == EPOCH + 202.5


def test_time_stands_still_while_a_thread_computes(clock: VirtualClock) -> None:
    """A chain of threads that hand something on takes no time, however long they compute."""
    first, second, out = Queue[int](clock), Queue[int](clock), Queue[tuple[int, float]](clock)

    def double() -> None:
        while True:
            second.put(first.get() * 2)

    def collect() -> None:
        while True:
            out.put((sum(range(20_000)) + second.get(), clock.now))

    for target in (double, collect):
        Threading(clock).Thread(target=target).start()
    first.put(21)
    assert out.get(timeout=5.0) == (sum(range(20_000)) + 42, 100.0)
    assert clock.now == 100.0


def test_a_wait_for_what_never_comes_is_an_error_and_no_hang(clock: VirtualClock) -> None:
    with pytest.raises(HangsForeverError):
        Queue[int](clock).get()
    with pytest.raises(queue.Empty):
        Queue[int](clock).get(timeout=7.0)
    assert clock.now == 107.0


def test_timers_run_in_order_before_those_that_wait_see_the_time(clock: VirtualClock) -> None:
    ran: list[float] = []
    for when in (104.0, 102.0, 103.0):
        clock.at(when, lambda: ran.append(clock.now))
    clock.advance(3.5)
    assert ran == [102.0, 103.0]


def test_the_end_of_the_simulation_ends_every_thread() -> None:
    clock = VirtualClock()
    thread = Threading(clock).Thread(target=lambda: clock.wait(lambda: False))
    thread.start()
    clock.settle()
    assert not thread.over
    clock.close()
    with clock.lock:
        clock.lock.wait_for(lambda: thread.over, 5.0)
    assert thread.over
