"""The threads in which the calls to many daemons are made: a few, and one more for each call that takes long.

A call may never return, and a thread in it can't be ended. So a thread whose call has taken longer than ``SLOW_SECONDS`` does not count
any more, and another one is started where calls wait. Which calls may hang at a time is decided elsewhere, by each daemon's budget.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

THREADS: Final = 8
"""Threads that stay."""
THREADS_MAX: Final = 1024
"""Threads at most, whatever hangs: calls wait from there on."""
SLOW_SECONDS: Final = 0.02
NEVER: Final = float("inf")

Task = Callable[[], None]

_LOGGER: Final = logging.getLogger(__name__)


class CallPool:
    """Runs tasks in threads. ``submit`` may be called from any thread; ``tick`` and ``close`` belong to the sampling thread."""

    def __init__(self, threads: int = THREADS, most: int = THREADS_MAX) -> None:
        """No thread is started before it is needed; ``threads`` of them stay, and there are ``most`` at most."""
        self._stay: Final = threads
        self._most: Final = most
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: dict[int, threading.Thread] = {}
        self._began: dict[int, float] = {}
        """Since when each thread that is in a task has been in it."""
        self._number = 0
        self._waiting = 0
        self._full = False

    def submit(self, task: Task) -> None:
        """Have the task run; returns at once. It must not raise."""
        with self._lock:
            self._waiting += 1
            start = self._new() if len(self._threads) < self._stay and self._waiting > len(self._threads) - len(self._began) else None
        self._tasks.put(task)
        if start is not None:
            start.start()

    def tick(self, now: float) -> None:
        """Start threads where tasks wait and threads are in tasks that take long."""
        if not self._waiting:
            return
        with self._lock:
            room = min(self._stay + self._slow(now), self._most) - len(self._threads)
            started = [self._new() for _ in range(min(room, self._waiting))]
            full = len(self._threads) >= self._most
        for thread in started:
            thread.start()
        if full and not self._full:
            _LOGGER.error("%d calls to libvirt are under way and more wait: many daemons do not answer", self._most)
        self._full = full

    @property
    def due(self) -> float:
        """How long (seconds) may pass before the next ``tick``; infinity while no task waits."""
        return SLOW_SECONDS if self._waiting else NEVER

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    def close(self, seconds: float) -> bool:
        """Let the threads end after the tasks that wait; False when one is still in a task ``seconds`` later."""
        with self._lock:
            threads = list(self._threads.values())
        for _ in threads:
            self._tasks.put(None)
        until = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    # -- under the lock

    def _slow(self, now: float) -> int:
        """How many threads are in a task that takes long."""
        return sum(now - began >= SLOW_SECONDS for began in self._began.values())

    def _new(self) -> threading.Thread:
        self._number += 1
        thread = threading.Thread(target=self._run, args=(self._number,), name="libvirt-call", daemon=True)
        self._threads[self._number] = thread
        return thread

    # -- the threads

    def _run(self, number: int) -> None:
        while (task := self._tasks.get()) is not None:
            with self._lock:
                self._waiting -= 1
                self._began[number] = time.monotonic()
            task()
            with self._lock:
                del self._began[number]
                if not self._waiting and len(self._threads) - self._slow(time.monotonic()) > self._stay:
                    break
        with self._lock:
            self._threads.pop(number, None)
