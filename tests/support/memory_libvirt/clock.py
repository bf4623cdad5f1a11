"""Virtual time for threads: time moves only while every thread waits, so that a test takes milliseconds and always the same way.

    clock = VirtualClock()               # the thread that makes it drives it
    clock.wait(lambda: done, until=30)   # in another thread: blocks; in the driving thread: lets time pass until then
    clock.advance(2.5)                   # every thread has done what it does within 2.5 s when this returns

A thread counts as busy from its start (``standins.Thread``) to its end, except while it waits here. The driving thread first lets all busy
threads come to rest, then moves time to the nearest deadline, and so on.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FOREVER: Final = float("inf")
REAL_SECONDS: Final = 5.0
"""How long a thread may compute between two waits before it is taken to hang outside of virtual time."""


class HangsForeverError(AssertionError):
    """The driving thread waits for something that no thread and no deadline will ever bring."""


class EndedError(SystemExit):
    """The simulation is over; ends the thread that waits."""


@dataclass(slots=True, eq=False)
class _Waiter:
    ready: Callable[[], bool]
    until: float
    woken: threading.Condition
    """Of its own, so that only who can go on is woken: the others would wake to look and wait again, at every change."""


class VirtualClock:
    """The clock, and the one lock of everything that is simulated on it."""

    def __init__(self, now: float = 1000.0, lag: float = 0.0) -> None:
        """``now`` in seconds; the calling thread drives the clock. Whoever waits for a time wakes ``lag`` seconds after it, as in real life."""
        self.now = now
        self._lag = lag
        self._mutex = threading.RLock()
        self.lock = threading.Condition(self._mutex)
        self._driver = threading.get_ident()
        self._busy = 0
        self._known: set[int] = set()
        self._waiters: list[_Waiter] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._closed = False

    # -- threads

    def starts(self) -> None:
        """A thread is about to start: time stands still until it waits or ends."""
        with self.lock:
            self._busy += 1

    def begun(self) -> None:
        """The calling thread is the one that was about to start."""
        with self.lock:
            self._known.add(threading.get_ident())

    def ended(self) -> None:
        """The calling thread ends."""
        with self.lock:
            self._known.discard(threading.get_ident())
            self._busy -= 1
            self._wake()

    # -- waiting

    def wait(self, ready: Callable[[], bool], until: float = FOREVER) -> bool:
        """Block until ``ready()`` (asked under the lock, without side effects) or until that time; whether it is ready."""
        with self.lock:
            if threading.get_ident() == self._driver:
                return self._drive(ready, until)
            waiter, known = _Waiter(ready, until, threading.Condition(self._mutex)), threading.get_ident() in self._known
            self._waiters.append(waiter)
            self._busy -= known
            self._wake()
            try:
                while not self._may_go_on(waiter):
                    waiter.woken.wait()
            finally:
                self._busy += known
                self._waiters.remove(waiter)
            if self._closed:
                raise EndedError
            return ready()

    def changed(self) -> None:
        """Something that threads wait for may be ready now."""
        with self.lock:
            self._wake()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have ``action`` called, under the lock, when time comes to ``when``."""
        with self.lock:
            heapq.heappush(self._timers, (when, next(self._numbers), action))

    # -- driving

    def advance(self, seconds: float) -> None:
        """Let so much time pass: all that happens meanwhile has happened on return. Only in the driving thread."""
        self.wait(lambda: False, self.now + seconds)

    def settle(self) -> None:
        """Let every thread do what it does without time passing."""
        self.advance(0.0)

    def close(self) -> None:
        """End the simulation: every thread that waits ends."""
        with self.lock:
            self._closed = True
            self._wake()

    def _may_go_on(self, waiter: _Waiter) -> bool:
        return self._closed or waiter.ready() or self.now >= waiter.until

    def _wake(self) -> None:
        """Wake the threads that can go on, and the one that drives."""
        for waiter in self._waiters:
            if self._may_go_on(waiter):
                waiter.woken.notify()
        self.lock.notify_all()

    def _drive(self, ready: Callable[[], bool], until: float) -> bool:
        while True:
            if not self._resting():
                if not self.lock.wait(REAL_SECONDS):
                    raise HangsForeverError(
                        f"a thread neither waits on the clock nor ends: {self._busy} are busy, waiting: {self._waiters}"
                    )
                continue
            if ready() or self.now >= until:
                return ready()
            self._step(until)

    def _resting(self) -> bool:
        return self._busy == 0 and not any(waiter.ready() or self.now >= waiter.until for waiter in self._waiters)

    def _step(self, until: float) -> None:
        """Time comes to the nearest deadline."""
        timers = [self._timers[0][0]] if self._timers else []
        then = min([until, *timers, *(waiter.until for waiter in self._waiters)])
        if then == FOREVER:
            raise HangsForeverError("nothing would ever end this wait")
        self.now = max(self.now, then + self._lag)
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()
        self._wake()
