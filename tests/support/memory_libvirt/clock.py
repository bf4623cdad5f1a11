"""Virtual time for one program's threads, driven by a test: time moves only while every thread waits, and always the same way.

    clock = VirtualClock()               # the thread that makes it drives it
    clock.wait(lambda: done, until=30)   # in another thread: blocks; in the driving thread: lets time pass until then
    clock.advance(2.5)                   # every thread has done what it does within 2.5 s when this returns

The threads are tasks of the kernel that the simulation of the stream runs on. The driving thread first lets all others come to rest, then
moves time to the nearest deadline, and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from tests.support.virtual_time.kernel import FOREVER, HangsForeverError, Host, Kernel, Process, Task

__all__ = ["EPOCH", "FOREVER", "HangsForeverError", "VirtualClock"]

EPOCH: Final = 1_795_476_000.0
"""Unix seconds at the clock's 0."""


class VirtualClock(Kernel):
    """A kernel with one program, whose driver goes on when no other thread can."""

    def __init__(self, now: float = 1000.0, lag: float = 0.0) -> None:
        """``now`` in seconds; the calling thread drives the clock. Whoever waits for a time wakes ``lag`` seconds after it, as in real life."""
        super().__init__(0, Host("test"), now=now, epoch=EPOCH, lag=lag)
        self.driver_last = True
        self.on_error = self._ended_by
        self.lock: Final[AbstractContextManager[None]] = nullcontext()
        """Of everything that is simulated on the clock. One thread runs at a time, up to where it waits: there is nothing to lock."""
        self._program: Final = Process("program", Host("host"))
        self._errors: list[BaseException] = []

    @property
    def process(self) -> Process:
        """The one program."""
        return self._program

    def wait(self, ready: Callable[[], bool] | None, until: float = FOREVER, among: dict[int, Task] | None = None) -> bool:
        """As a kernel's; a thread that runs in a circle meanwhile is ended."""
        if self.current is not self.driver:
            return super().wait(ready, until, among)
        with self.watched():
            return super().wait(ready, until, among)

    def changed(self) -> None:
        """Something that threads wait for may be ready now: they are asked whenever another one waits."""

    def advance(self, seconds: float) -> None:
        """Let so much time pass: all that happens meanwhile has happened on return. Only in the driving thread."""
        self.wait(None, self.now + seconds)

    def settle(self) -> None:
        """Let every thread do what it does without time passing."""
        self.advance(0.0)

    def close(self) -> None:
        """End the simulation: every thread that waits ends. Raises what one has ended by."""
        super().close()
        if self._errors:
            raise self._errors[0]

    def _ended_by(self, thread: Task, error: BaseException) -> None:
        del thread
        self._errors.append(error)
