"""Starting and stopping: signals, readiness and watchdog messages to systemd."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio

STOP_SECONDS: Final = 10.0
"""A service is drained, committed and gone this long after SIGTERM."""
LAST_SECONDS: Final = STOP_SECONDS * 0.95
"""When a process ends whatever still hangs: clients wait for brokers and storage that do not answer, and can't be told not to."""

COLLECTED_AT: Final = 50_000
"""New containers after which Python looks for cycles of references; 700 by default."""
YOUNG_SECONDS: Final = 60.0
"""How often cycles of references are looked for among the objects that are young, however few came, and free memory is given back."""
ALL_SECONDS: Final = 600.0
"""How often they are looked for among all objects, where that is a matter of milliseconds."""
ALL_SHARE: Final = 1e-4
"""The part of the time that looking among all objects may take."""


def dump_stacks_on_signal() -> None:
    """Installs a handler: SIGUSR1 writes the stack of every thread to standard error, and the process continues.

    The handler runs in C, so it also works while the main thread is in a call that does not return.
    """
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def collect_seldom() -> None:
    """Runs the garbage collector less often, and excludes the objects that imports created.

    For services that create thousands of records a second. Reference counting frees all of them; the cycle collector would cost a tenth
    of the CPU and find nothing. Cycles come from elsewhere, a few hundred bytes with each connection that is closed, and would fill
    megabytes in the hours until so many containers have come: a thread looks for them by time. It also gives back what is free, of
    which each burst would leave more.
    """
    gc.freeze()
    gc.set_threshold(COLLECTED_AT, 20, 50)
    threading.Thread(target=_tidy, name="memory", daemon=True).start()


def _tidy() -> None:
    from virtflow.runtime.memory import trim  # not above: a producer has no use for it

    cycles = Cycles()
    while True:
        time.sleep(YOUNG_SECONDS)
        cycles.look()
        trim()


class Cycles:
    """Frees objects that only refer to one another; ``look`` is called every ``YOUNG_SECONDS``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, collect: Callable[[int], object] = gc.collect) -> None:
        """``clock`` returns monotonic seconds, ``collect`` looks among the objects of a generation and of those below it."""
        self._clock = clock
        self._collect = collect
        self._all_at = clock() + ALL_SECONDS

    def look(self) -> None:
        """Among the young objects; among all where that is due."""
        began = self._clock()
        if began < self._all_at:
            self._collect(1)
            return
        self._collect(2)
        self._all_at = began + max(ALL_SECONDS, (self._clock() - began) / ALL_SHARE)


_LOG: Final = logging.getLogger("virtflow.runtime.lifecycle")


class Stop:
    """Stop flag: set once, by SIGTERM, SIGINT or the service itself. Setting it wakes all waiters and calls all subscribers.

    Callbacks run in the thread that sets the flag (the main thread for a signal), so they must only forward the request.
    """

    def __init__(self) -> None:
        """Not set."""
        self._event = threading.Event()
        self._callbacks: list[Callable[[], None]] = []

    def on_signals(self) -> Stop:
        """Installs handlers for SIGTERM and SIGINT that set the flag; call it in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        return self

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.set()

    def set(self) -> None:
        """Sets the flag; a second call has no effect."""
        if self._event.is_set():
            return
        self._event.set()
        for callback in self._callbacks:
            callback()

    def is_set(self) -> bool:
        """Whether it is time to stop."""
        return self._event.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until the flag is set or the time is over; returns whether it is set."""
        return self._event.wait(seconds)

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` when the flag is set, immediately if it is set already. For an event loop: ``loop.call_soon_threadsafe``."""
        self._callbacks.append(callback)
        if self._event.is_set():
            callback()


def end_when_late(stop: Stop) -> None:
    """Ends the process ``LAST_SECONDS`` after ``stop`` is set, if it is still there: for services that lose nothing when they are killed.

    A thread in a call that does not return can't be ended, and the interpreter waits for it.
    """
    last = threading.Timer(LAST_SECONDS, _end)
    last.daemon = True
    stop.subscribe(last.start)


def _end() -> None:
    _LOG.error("not gone %.1f s after it was told to stop: ended in the middle of a call", LAST_SECONDS)
    os._exit(1)


def notify(state: str) -> bool:
    """Tells systemd ``state`` (``READY=1``, ``WATCHDOG=1``, ``STOPPING=1``); False where no systemd listens.

    Source: sd_notify(3).
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        return True
    return False


def in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Calls back in the event loop, from any thread; does nothing where the loop is closed already."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def in_background(work: Callable[[], object]) -> asyncio.Future[object]:
    """The result of a blocking call, in a thread that nobody waits for at the end of the process: for calls that may never return."""
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()

    def settle(result: object, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        try:
            result, error = work(), None
        except Exception as failed:  # noqa: BLE001, it is raised where the result is awaited
            result, error = None, failed
        in_loop(loop, lambda: settle(result, error))

    threading.Thread(target=run, name="background", daemon=True).start()
    return future


def stop_event(stop: Stop) -> asyncio.Event:
    """``stop`` as an event of the running event loop."""
    import asyncio

    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    stop.subscribe(lambda: in_loop(loop, stopped.set))
    return stopped


async def until_stopped(stopped: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Waits for the stop; a task that ends earlier has failed, and its exception is raised. Tasks go on: whoever made them ends them."""
    import asyncio

    waiter = asyncio.create_task(stopped.wait())
    try:
        ends: list[asyncio.Task[Any]] = [waiter, *tasks]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiter}:
            task.result()
    finally:
        waiter.cancel()


async def watchdog() -> None:
    """Tells systemd that the event loop turns, until it is cancelled."""
    import asyncio

    every = watchdog_seconds()
    while True:
        if every is not None:
            notify("WATCHDOG=1")
        await asyncio.sleep(every or 3_600.0)


def watchdog_seconds() -> float | None:
    """Interval in seconds for sending ``WATCHDOG=1`` to systemd: half of its limit; None without a watchdog."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    return int(limit) / 2e6 if limit.isdigit() else None
