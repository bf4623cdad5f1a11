"""What a program takes from ``time``, ``threading``, ``os`` and the like, in the simulated world: put in their places in the modules under test.

Every stand-in asks the kernel which process is running: that one's host has the clock and the disk.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from types import ModuleType
from typing import Any, Final

from tests.simulation.kernel import EPOCH, FOREVER, Kernel, Task


class Time:
    """The module ``time``."""

    def __init__(self, kernel: Kernel) -> None:
        """On this kernel."""
        self._kernel = kernel

    def monotonic(self) -> float:
        """Seconds that no clock's error moves."""
        return self._kernel.now

    perf_counter = monotonic

    def time(self) -> float:
        """Unix seconds by the clock of the host that asks."""
        return EPOCH + self._kernel.now + self._kernel.process.host.clock_error

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        self._kernel.sleep(seconds)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, whatever else the module has
        """Everything else is real."""
        return getattr(time, name)


class Lock:
    """``threading.Lock`` and ``RLock``: held by one task at a time."""

    def __init__(self, kernel: Kernel) -> None:
        """Free."""
        self._kernel = kernel
        self._owner: Task | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002, the module's signature
        """Take it, when nobody has it."""
        me = self._kernel.current
        if self._owner is not None and self._owner is not me:
            if not blocking:
                return False
            until = FOREVER if timeout < 0 else self._kernel.now + timeout
            if not self._kernel.wait(lambda: self._owner is None or self._owner.over, until):
                return False
            self._depth = 0
        self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        """Let it go."""
        self._depth -= 1
        if self._depth <= 0:
            self._owner = None

    def __enter__(self) -> bool:
        """Take it."""
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        self.release()


class Condition(Lock):
    """``threading.Condition``: whoever waits hears of it only when it is notified."""

    def __init__(self, kernel: Kernel) -> None:
        """Nobody waits."""
        super().__init__(kernel)
        self._told = 0

    def notify(self, n: int = 1) -> None:
        """Wake who waits: all of them, which a correct program can't tell from some."""
        del n
        self._told += 1

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
        owner, depth = self._owner, self._depth
        self._owner, self._depth = None, 0
        try:
            return self._kernel.wait(ready, FOREVER if timeout is None else self._kernel.now + max(0.0, timeout))
        finally:
            if self._kernel.current.process.alive:
                self.acquire()
            self._owner, self._depth = owner, depth


class Event:
    """``threading.Event``."""

    def __init__(self, kernel: Kernel) -> None:
        """Not set."""
        self._kernel, self._set = kernel, False

    def set(self) -> None:
        """Wake whoever waits."""
        self._set = True

    def clear(self) -> None:
        """Not set any more."""
        self._set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is set."""
        return self._set or self._kernel.wait(self.is_set, FOREVER if timeout is None else self._kernel.now + timeout)


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
        del group, daemon
        self.name = name
        self._work = lambda: target(*args) if target is not None else None
        self._task: Task | None = None

    def start(self) -> None:
        """Start the task."""
        process = self.kernel.process
        self._task = self.kernel.spawn(process, f"{process.name}/{self.name}", self._work)

    def join(self, timeout: float | None = None) -> None:
        """Until it has ended."""
        self.kernel.wait(lambda: self._task is None or self._task.over, FOREVER if timeout is None else self.kernel.now + timeout)

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

    RLock = Lock

    def Condition(self) -> Condition:  # noqa: N802, the module's name
        """A condition."""
        return Condition(self._kernel)

    def Event(self) -> Event:  # noqa: N802, the module's name
        """An event."""
        return Event(self._kernel)

    def current_thread(self) -> Any:  # noqa: ANN401, a task in the place of a thread
        """Who runs."""
        return self._kernel.current

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, whatever else the module has
        """Everything else is real."""
        return getattr(threading, name)


class Chance:
    """``os.urandom``, ``uuid.uuid4``, ``secrets`` and ``random`` from the seed."""

    def __init__(self, seed: int) -> None:
        """Of this seed."""
        self._random = Random(f"identities {seed}")  # noqa: S311, reproducible on purpose

    def urandom(self, count: int) -> bytes:
        """``os.urandom``."""
        return self._random.randbytes(count)

    def uuid4(self) -> uuid.UUID:
        """``uuid.uuid4``."""
        return uuid.UUID(int=self._random.getrandbits(128), version=4)

    def randbits(self, bits: int) -> int:
        """``secrets.randbits``."""
        return self._random.getrandbits(bits)

    def randrange(self, stop: int) -> int:
        """``random.randrange``."""
        return self._random.randrange(stop)


class Module:
    """A module of which some names are others."""

    def __init__(self, real: ModuleType, **names: Any) -> None:  # noqa: ANN401, whatever a module holds
        """``names`` in the place of the module's."""
        self._real = real
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, whatever else the module has
        """Everything else is real."""
        return getattr(self._real, name)


def modules_of(kernel: Kernel, chance: Chance, **of_os: Any) -> dict[str, tuple[ModuleType, Any]]:  # noqa: ANN401, as above
    """The stand-ins by the names of the modules that they stand for; ``of_os`` are names of ``os`` beside those of chance."""
    return {
        "time": (time, Time(kernel)),
        "threading": (threading, Threading(kernel)),
        "os": (os, Module(os, urandom=chance.urandom, **of_os)),
        "uuid": (uuid, Module(uuid, uuid4=chance.uuid4)),
        "secrets": (secrets, Module(secrets, randbits=chance.randbits)),
        "random": (random, Module(random, randrange=chance.randrange)),
    }


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
