"""Virtual time: it moves only while every thread waits, in the order of the deadlines."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from tests.support.memory_libvirt import HangsForeverError, VirtualClock
from tests.support.memory_libvirt.clock import EPOCH
from tests.support.virtual_time import kernel
from tests.support.virtual_time.standins import Queue, Threading, Time


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
    assert thread.over


def test_what_ends_a_thread_is_raised_at_the_end() -> None:
    clock = VirtualClock()

    def divide() -> None:
        clock.sleep(1.0)
        raise ZeroDivisionError

    Threading(clock).Thread(target=divide).start()
    clock.advance(2.0)
    with pytest.raises(ZeroDivisionError):
        clock.close()


def test_threads_that_wait_for_each_other_are_an_error_and_no_hang(clock: VirtualClock) -> None:
    locks = [Threading(clock).Lock() for _ in range(2)]

    def take(first: int, second: int) -> None:
        with locks[first]:
            clock.sleep(1.0)
            locks[second].acquire()

    threads = [Threading(clock).Thread(target=take, args=order) for order in ((0, 1), (1, 0))]
    for thread in threads:
        thread.start()
    with pytest.raises(HangsForeverError):
        threads[0].join()


def test_a_thread_that_never_waits_again_is_an_error_and_no_hang(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "HANGS_SECONDS", 0.05)
    ended: list[str] = []

    def run_in_a_circle() -> None:
        try:
            while True:
                ended.clear()
        except HangsForeverError as error:
            ended.append(str(error))

    Threading(clock).Thread(target=run_in_a_circle, name="circle").start()
    clock.settle()
    assert ended == ["program/circle took 0.05 s without waiting"]


def test_two_clocks_see_the_same_order_of_threads() -> None:
    orders = []
    for _ in range(2):
        clock, order = VirtualClock(), list[int]()

        def run(number: int, clock: VirtualClock = clock, order: list[int] = order) -> None:
            for _ in range(3):
                clock.sleep(1.0)
                order.append(number)

        for number in range(4):
            Threading(clock).Thread(target=run, args=(number,)).start()
        clock.advance(5.0)
        clock.close()
        orders.append(order)
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted([0, 1, 2, 3] * 3)
