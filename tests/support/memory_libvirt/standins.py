"""What a program takes from ``time``, ``threading`` and ``queue``, on virtual time: to be put in their place in the modules under test.

    standins.install(monkeypatch, clock, [module, ...])

Locks stay real: they are held for microseconds.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from tests.support.memory_libvirt.clock import FOREVER, EndedError, VirtualClock

if TYPE_CHECKING:
    import pytest

EPOCH: Final = 1_795_476_000.0
"""Unix seconds at the clock's 0."""

_Item = TypeVar("_Item")


class Time:
    """The module ``time``."""

    def __init__(self, clock: VirtualClock) -> None:
        """On this clock."""
        self._clock = clock

    def monotonic(self) -> float:
        """The clock's seconds."""
        return self._clock.now

    def time(self) -> float:
        """The clock's time of day, in Unix seconds."""
        return EPOCH + self._clock.now

    def sleep(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        self._clock.wait(lambda: False, self._clock.now + seconds)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, whatever else the module has
        """Everything else is real."""
        return getattr(time, name)


class Queue(Generic[_Item]):
    """``queue.SimpleQueue``."""

    def __init__(self, clock: VirtualClock) -> None:
        """Empty."""
        self._clock = clock
        self._items: deque[_Item] = deque()

    def put(self, item: _Item) -> None:
        """Append, and wake whoever waits."""
        with self._clock.lock:
            self._items.append(item)
            self._clock.changed()

    def get(self, timeout: float | None = None) -> _Item:
        """The oldest item; ``queue.Empty`` when there is none within ``timeout`` virtual seconds."""
        until = FOREVER if timeout is None else self._clock.now + timeout
        with self._clock.lock:
            if not self._clock.wait(lambda: bool(self._items), until):
                raise queue.Empty
            return self._items.popleft()

    def get_nowait(self) -> _Item:
        """The oldest item, or ``queue.Empty``."""
        with self._clock.lock:
            if not self._items:
                raise queue.Empty
            return self._items.popleft()

    def qsize(self) -> int:
        """How many there are."""
        return len(self._items)

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._items


class Event:
    """``threading.Event``."""

    def __init__(self, clock: VirtualClock) -> None:
        """Not set."""
        self._clock, self._set = clock, False

    def set(self) -> None:
        """Wake whoever waits."""
        with self._clock.lock:
            self._set = True
            self._clock.changed()

    def clear(self) -> None:
        """Not set any more."""
        self._set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set or ``timeout`` virtual seconds have passed; whether it is set."""
        return self._clock.wait(self.is_set, FOREVER if timeout is None else self._clock.now + timeout)


class Thread(threading.Thread):
    """``threading.Thread``: the clock stands still while it computes."""

    clock: VirtualClock

    def start(self) -> None:
        """Start, as a thread that the clock knows."""
        self.over = False
        self.clock.starts()
        super().start()

    def run(self) -> None:
        """Run to the thread's end or to that of the simulation."""
        self.clock.begun()
        try:
            super().run()
        except EndedError:
            pass
        finally:
            self.over = True
            self.clock.ended()

    def join(self, timeout: float | None = None) -> None:
        """Wait in virtual time."""
        self.clock.wait(lambda: self.over, FOREVER if timeout is None else self.clock.now + timeout)

    def is_alive(self) -> bool:
        """Whether it runs."""
        return super().is_alive() and not self.over


class Threading:
    """The module ``threading``."""

    def __init__(self, clock: VirtualClock) -> None:
        """On this clock."""
        self._clock = clock
        self.Thread = type("Thread", (Thread,), {"clock": clock})

    def Event(self) -> Event:  # noqa: N802, the module's name
        """An event on virtual time."""
        return Event(self._clock)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, whatever else the module has
        """Everything else is real."""
        return getattr(threading, name)


def install(monkeypatch: pytest.MonkeyPatch, clock: VirtualClock, modules: Iterable[ModuleType]) -> None:
    """Put the stand-ins into every module that took the real ones."""

    def simple_queue() -> Queue[Any]:
        return Queue(clock)

    places = {"time": (time, Time(clock)), "threading": (threading, Threading(clock)), "SimpleQueue": (queue.SimpleQueue, simple_queue)}
    for module in modules:
        for name, (real, standin) in places.items():
            if getattr(module, name, None) is real:
                monkeypatch.setattr(module, name, standin)
