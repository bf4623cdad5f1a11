"""What a program takes from ``time``, ``threading`` and ``queue``, on a kernel: put in their places in the modules under test.

Every stand-in asks the kernel which task is running: its process's host has the clock.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final, Generic, TypeVar

from tests.support.virtual_time.kernel import FOREVER, Kernel, Task

_Item = TypeVar("_Item")


class Time:
    """The module ``time``."""

    def __init__(self, kernel: Kernel) -> None:
        """On this kernel."""
        self._kernel = kernel

    def monotonic(self) -> float:
        """Seconds that no clock's error moves."""
        return self._kernel.now

    perf_counter = monotonic

    def process_time(self) -> float:
        """CPU seconds: as if the process had computed for a hundredth of the time."""
        return self._kernel.now / 100

    def time(self) -> float:
        """Unix seconds by the clock of the host that asks."""
        return self._kernel.epoch + self._kernel.now + self._kernel.process.host.clock_error

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        self._kernel.sleep(seconds)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, whatever else the module has
        """What moves no clock is real; real time would make two runs differ."""
        if name in _CLOCKS:
            raise AssertionError(f"time.{name} has no stand-in")
        return getattr(time, name)


_CLOCKS: Final = frozenset(
    {
        "clock_gettime",
        "clock_gettime_ns",
        "monotonic_ns",
        "perf_counter_ns",
        "process_time_ns",
        "thread_time",
        "thread_time_ns",
        "time_ns",
    }
)
"""Of the module ``time``: with real ones a program would see time pass."""


class Lock:
    """``threading.Lock``: held by one task at a time."""

    def __init__(self, kernel: Kernel) -> None:
        """Free."""
        self._kernel = kernel
        self._owner: Task | None = None
        self._waiting: dict[int, Task] = {}

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002, the module's signature
        """Take it, when nobody has it."""
        if self._owner is not None:
            until = FOREVER if timeout < 0 else self._kernel.now + timeout
            if not blocking or not self._kernel.wait(self._free, until, self._waiting):
                return False
        self._owner = self._kernel.current
        return True

    def release(self) -> None:
        """Let it go."""
        self._owner = None
        if self._waiting:
            self._kernel.woken.update(self._waiting)

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._owner is not None

    def _free(self) -> bool:
        return self._owner is None

    def __enter__(self) -> bool:
        """Take it."""
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        self.release()


class RLock(Lock):
    """``threading.RLock``: whoever holds it may take it again."""

    def __init__(self, kernel: Kernel) -> None:
        """Free."""
        super().__init__(kernel)
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002, the module's signature
        """Take it, when nobody else has it."""
        if self._owner is not self._kernel.current and not super().acquire(blocking, timeout):
            return False
        self._depth += 1
        return True

    def release(self) -> None:
        """Let it go, as often as it was taken. A dead process's task may have lost it before."""
        me = self._kernel.current
        if self._owner is not me:
            if me.process.alive:
                raise RuntimeError("cannot release un-acquired lock")
            return
        self._depth -= 1
        if not self._depth:
            super().release()


class Condition(RLock):
    """``threading.Condition``: whoever waits hears of it only when it is notified."""

    def __init__(self, kernel: Kernel) -> None:
        """Nobody waits."""
        super().__init__(kernel)
        self._told = 0
        self._listening: dict[int, Task] = {}

    def notify(self, n: int = 1) -> None:
        """Wake who waits: all of them, which a correct program can't tell from some."""
        del n
        self._told += 1
        if self._listening:
            self._kernel.woken.update(self._listening)

    notify_all = notify

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is notified."""
        told = self._told
        return self._waited(lambda: self._told != told, timeout)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> bool:
        """Until something is so, which is looked at when it is notified."""
        looked = self._told
        if predicate():
            return True

        def ready() -> bool:
            nonlocal looked
            if looked == self._told:
                return False
            looked = self._told
            return bool(predicate())

        self._waited(ready, timeout)
        return bool(predicate())

    def _waited(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        kernel, me, depth = self._kernel, self._kernel.current, self._depth
        if self._owner is not me:
            raise RuntimeError("cannot wait on un-acquired lock")
        self._depth = 0
        Lock.release(self)
        try:
            return kernel.wait(ready, FOREVER if timeout is None else kernel.now + max(0.0, timeout), self._listening)
        finally:
            if me.process.alive:
                Lock.acquire(self)
                self._depth = depth


class Event:
    """``threading.Event``."""

    def __init__(self, kernel: Kernel) -> None:
        """Not set."""
        self._kernel, self._set = kernel, False
        self._waiting: dict[int, Task] = {}

    def set(self) -> None:
        """Wake whoever waits."""
        self._set = True
        self._kernel.woken.update(self._waiting)

    def clear(self) -> None:
        """Not set any more."""
        self._set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is set."""
        kernel = self._kernel
        return self._set or kernel.wait(self.is_set, FOREVER if timeout is None else kernel.now + timeout, self._waiting)


class Queue(Generic[_Item]):
    """``queue.SimpleQueue``."""

    def __init__(self, kernel: Kernel) -> None:
        """Empty."""
        self._kernel = kernel
        self._items: deque[_Item] = deque()
        self._waiting: dict[int, Task] = {}

    def put(self, item: _Item) -> None:
        """Append; whoever waits takes it."""
        self._items.append(item)
        self._kernel.woken.update(self._waiting)

    def get(self, timeout: float | None = None) -> _Item:
        """The oldest item; ``queue.Empty`` when there is none within ``timeout`` seconds."""
        until = FOREVER if timeout is None else self._kernel.now + timeout
        if not self._kernel.wait(lambda: bool(self._items), until, self._waiting):
            raise queue.Empty
        return self._items.popleft()

    def get_nowait(self) -> _Item:
        """The oldest item, or ``queue.Empty``."""
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def qsize(self) -> int:
        """How many there are."""
        return len(self._items)

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._items


class Thread:
    """``threading.Thread``: a task of the process that starts it."""

    kernel: Kernel

    def __init__(
        self,
        group: None = None,
        target: Callable[..., Any] | None = None,
        name: str = "thread",
        args: tuple[Any, ...] = (),
        *,
        daemon: bool | None = None,
    ) -> None:
        """Not started."""
        del group
        self.name = name
        self.daemon = bool(daemon)
        self._work = lambda: target(*args) if target is not None else None
        self._task: Task | None = None

    def start(self) -> None:
        """Start the task."""
        process = self.kernel.process
        self._task = self.kernel.spawn(process, f"{process.name}/{self.name}", self._work)

    @property
    def over(self) -> bool:
        """Whether it has run, and ended."""
        return self._task is not None and self._task.over

    @property
    def ident(self) -> int | None:
        """Its number, None before its start."""
        return None if self._task is None else self._task.number

    def join(self, timeout: float | None = None) -> None:
        """Until it has ended."""
        self.kernel.alive()
        if self._task is not None and not self._task.over:
            until = FOREVER if timeout is None else self.kernel.now + timeout
            self.kernel.wait(lambda: self.over, until, self._task.joined_by)

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._task is not None and not self._task.over


class Threading:
    """The module ``threading``."""

    def __init__(self, kernel: Kernel) -> None:
        """On this kernel."""
        self._kernel = kernel
        self.Thread = type("Thread", (Thread,), {"kernel": kernel})

    def Lock(self) -> Lock:  # noqa: N802, the module's name
        """A lock."""
        return Lock(self._kernel)

    def RLock(self) -> RLock:  # noqa: N802, the module's name
        """A lock that its holder may take again."""
        return RLock(self._kernel)

    def Condition(self) -> Condition:  # noqa: N802, the module's name
        """A condition."""
        return Condition(self._kernel)

    def Event(self) -> Event:  # noqa: N802, the module's name
        """An event."""
        return Event(self._kernel)

    def current_thread(self) -> Any:  # noqa: ANN401, a task in the place of a thread
        """Who runs."""
        return self._kernel.current

    def get_ident(self) -> int:
        """The number of who runs."""
        return self._kernel.current.number

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, whatever else the module has
        """Everything else is real."""
        return getattr(threading, name)


class Module:
    """A module of which some names are others."""

    def __init__(self, real: ModuleType, **names: Any) -> None:  # noqa: ANN401, whatever a module holds
        """``names`` in the place of the module's."""
        self._real = real
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, whatever else the module has
        """Everything else is real."""
        return getattr(self._real, name)


Replaced = tuple[Any, str, Any]
MISSING: Final = object()


@contextmanager
def replaced(places: list[Replaced]) -> Iterator[None]:
    """Attributes of modules or classes are others for a while."""
    before = [(owner, name, owner.__dict__.get(name, MISSING)) for owner, name, _ in places]
    for owner, name, value in places:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in reversed(before):
            if value is MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
