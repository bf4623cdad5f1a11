"""The scheduler: one task runs at a time, and which one runs next, and when, follows from the seed alone.

Tasks are what threads are in the real program: each has a stack of its own (a greenlet), so the code under test keeps its own calls, locks and
event loops. A task gives control away where it waits, and now and then at a *step*: a write, a request, a commit. Time moves only while
every task waits. A process that is killed has its tasks end where they are, with ``CrashedError``; what they still try to do to the world fails.

All of it happens in one thread: nothing depends on the operating system's scheduler, and handing over costs a microsecond.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final

from greenlet import GreenletExit, getcurrent, greenlet

FOREVER: Final = float("inf")
PREEMPTED: Final = 0.05
"""Share of the steps at which another task goes first."""
HANGS_SECONDS: Final = 20
"""So much CPU time a task may take between two waits before it is taken to run in a circle."""

_swap_current_task: Callable[[Any, Any], Any] | None = getattr(asyncio.tasks, "_swap_current_task", None)
"""From Python 3.12 on. From 3.14 on the task that runs is known to the thread, and not to its loop alone."""


class CrashedError(BaseException):
    """The process is dead: ends its tasks. No ``except Exception`` may keep one alive."""


class HangsForeverError(AssertionError):
    """Nothing will ever happen any more, or a task never waits again."""


@dataclass(slots=True, eq=False)
class Host:
    """A machine: its clock's error in seconds."""

    name: str
    clock_error: float = 0.0


@dataclass(slots=True, eq=False)
class Process:
    """One run of a program. ``dies_after`` steps more, it is killed; while it is frozen none of its tasks runs."""

    name: str
    host: Host
    alive: bool = True
    frozen_until: float = 0.0
    dies_after: int | None = None
    steps: int = 0
    error: BaseException | None = None
    tasks: list[Task] = field(default_factory=list)
    on_death: list[Callable[[], None]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Task:
    """A thread of a process: what it waits for, and until when. ``stack`` is its greenlet."""

    number: int
    name: str
    process: Process
    stack: Any
    ready: Callable[[], bool] | None = None
    until: float = 0.0
    waits: int = 0
    """How many times it has waited: which of its deadlines counts."""
    over: bool = False
    joined_by: dict[int, Task] = field(default_factory=dict)
    """Tasks that wait for its end, by their numbers."""

    def __hash__(self) -> int:
        """The same in every run, so that sets of tasks have one order."""
        return self.number


class _Stack:
    """A greenlet that is used for one task after the other."""

    __slots__ = ("greenlet", "job")

    def __init__(self, parent: Any) -> None:  # noqa: ANN401, greenlet is untyped
        self.job: Callable[[], None] | None = None
        self.greenlet = greenlet(self._run, parent)

    def _run(self) -> None:
        while self.job is not None:
            self.job()


def _ignore(task: Task, error: BaseException) -> None:
    del task, error


class Kernel:
    """All tasks, the time, and whose turn it is. The thread that makes it drives it, as a task of no program."""

    def __init__(self, seed: int, outside: Host, *, now: float = 0.0, epoch: float = 0.0, lag: float = 0.0) -> None:
        """``outside`` is where the driver is. Time begins at ``now`` seconds, which are ``epoch`` + ``now`` Unix seconds.

        Whoever waits for a time goes on ``lag`` seconds after it.
        """
        self.now = now
        self.epoch: Final = epoch
        self.random: Final = Random(f"schedule {seed}")  # noqa: S311, an order, not a secret
        self.switches = 0
        self.trace: Final[list[tuple[object, ...]]] = []
        """What happened, in order: whose turn it was, and what ``note`` was told. Two runs of a seed have the same."""
        self._lag = lag
        self._numbers = itertools.count()
        self._serials = itertools.count()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._idle: list[_Stack] = []
        self._stuck = ""
        self.driver: Final = Task(next(self._serials), "driver", Process("driver", outside), getcurrent())
        self.driver_last = False
        """Whether the driver goes on only when no other task can."""
        self.on_error: Callable[[Task, BaseException], None] = _ignore
        """Told of a task that ends by an exception."""
        self.tasks: list[Task] = [self.driver]
        self.current = self.driver
        self.woken: Final[dict[int, Task]] = {}
        """Tasks that may be able to go on, by their numbers: something has happened that they wait for, or their time has come."""
        self._polled: dict[int, Task] = {}
        """Tasks that wait for something that wakes nobody: they are asked each time."""
        self._deadlines: list[tuple[float, int, int, Task]] = []
        """Until when tasks wait: the time, the task's number, which of its waits, and the task."""

    # -- for whoever runs in a task

    @property
    def process(self) -> Process:
        """The program whose task runs now."""
        return self.current.process

    def note(self, *what: object) -> None:
        """Something happened that two runs of a seed must have in common."""
        self.trace.append((self.now, *what))

    def wait(self, ready: Callable[[], bool] | None, until: float = FOREVER, among: dict[int, Task] | None = None) -> bool:
        """Give control away until ``ready()``, which has no side effects, or that time; whether it is ready.

        Meanwhile the task is ``among`` those that whoever makes it ready puts among the ``woken``. Without it, ``ready`` is asked each time.
        """
        me = self.current
        process = me.process
        if not process.alive:
            raise CrashedError
        me.ready, me.until = ready, until
        me.waits += 1
        if ready is not None or until <= self.now:
            self.woken[me.number] = me
            if among is not None:
                among[me.number] = me
            elif ready is not None:
                self._polled[me.number] = me
        if self.now < until < FOREVER:
            heapq.heappush(self._deadlines, (until, me.number, me.waits, me))
        following = self._next()
        if following is not me:
            self._hand_over(following)
        if among is not None:
            among.pop(me.number, None)
        if self._stuck and me is self.driver:
            why, self._stuck = self._stuck, ""
            raise HangsForeverError(why)
        if not process.alive:
            raise CrashedError
        return ready is not None and ready()

    def sleep(self, seconds: float) -> None:
        """Wait for so long."""
        self.wait(None, self.now + max(0.0, seconds))

    def step(self) -> None:
        """A boundary between two things that are done to the world: the process may be killed here, or another task go first."""
        process = self.current.process
        if not process.alive:
            raise CrashedError
        process.steps += 1
        if process.dies_after is not None:
            if process.dies_after <= 0:
                self.kill(process)
                raise CrashedError
            process.dies_after -= 1
        if self.random.random() < PREEMPTED:
            self.wait(None, self.now)

    def alive(self) -> None:
        """Raise ``CrashedError`` in a task of a process that is dead."""
        if not self.current.process.alive:
            raise CrashedError

    # -- for whoever arranges the world

    def spawn(self, process: Process, name: str, work: Callable[[], Any]) -> Task:
        """A new task of a process."""
        stack = self._idle.pop() if self._idle else _Stack(self.driver.stack)
        task = Task(next(self._serials), name, process, stack.greenlet, until=self.now)
        stack.greenlet.gr_context = Context()
        stack.job = lambda: self._run(task, work, stack)
        process.tasks.append(task)
        self.tasks.append(task)
        self.woken[task.number] = task
        self.note("starts", task.number, name)
        return task

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have ``action`` called when time comes to ``when``; it must not wait."""
        heapq.heappush(self._timers, (when, next(self._numbers), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Have ``action`` called so many seconds later."""
        self.at(self.now + seconds, action)

    def kill(self, process: Process) -> None:
        """The process is gone from this moment on."""
        if process.alive:
            process.alive = False
            self.note("ends", process.name)
            self._wake_all(process)
            for action in process.on_death:
                action()

    def freeze(self, process: Process, until: float) -> None:
        """None of the process's tasks runs before that time."""
        process.frozen_until = max(process.frozen_until, until)
        self.at(until, partial(self._wake_all, process))

    def close(self) -> None:
        """End every task there is; called by the driver."""
        for task in self.tasks:
            if task is not self.driver:
                self.kill(task.process)
        while any(task is not self.driver for task in self.tasks):
            self.wait(None, self.now)
        while self._idle:
            self._idle.pop().greenlet.throw(GreenletExit)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While a task runs in a circle without ever waiting, ``HangsForeverError`` is raised in it. In the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = -1

        def late(number: int, frame: object) -> None:
            nonlocal before
            del number, frame
            if before == len(self.trace):
                raise HangsForeverError(f"{self.current.name} took {HANGS_SECONDS} s without waiting")
            before = len(self.trace)

        handler = signal.signal(signal.SIGVTALRM, late)
        signal.setitimer(signal.ITIMER_VIRTUAL, HANGS_SECONDS, HANGS_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, handler)

    # -- inside

    def _run(self, task: Task, work: Callable[[], Any], stack: _Stack) -> None:
        try:
            self.alive()
            work()
        except CrashedError:
            pass
        except BaseException as error:  # noqa: BLE001, shown by whoever looks at the process
            task.process.error = task.process.error or error
            self.on_error(task, error)
        task.over = True
        task.waits += 1  # no deadline of its last wait counts any more
        task.process.tasks.remove(task)
        self.tasks.remove(task)
        self.woken.pop(task.number, None)
        self.woken.update(task.joined_by)
        self._idle.append(stack)
        self._hand_over(self._next())

    def _hand_over(self, following: Task) -> None:
        """Let another task go on; returns when this one's turn has come again. Each has its own event loop running, or none."""
        self.switches += 1
        self.current = following
        loop = asyncio._get_running_loop()
        if loop is None:
            following.stack.switch()
            return
        inner = None if _swap_current_task is None else _swap_current_task(loop, None)
        asyncio._set_running_loop(None)
        following.stack.switch()
        asyncio._set_running_loop(loop)
        if _swap_current_task is not None:
            _swap_current_task(loop, inner)

    def _wake_all(self, process: Process) -> None:
        self.woken.update({task.number: task for task in process.tasks})

    def _next(self) -> Task:
        """Whose turn it is: any of those that can go on."""
        woken = self.woken
        while True:
            if self._polled:
                woken.update(self._polled)
            able = self._able(woken)
            if able:
                chosen = able[int(self.random.random() * len(able))] if len(able) > 1 else able[0]
                self.trace.append((self.now, len(able), chosen.number))
                del woken[chosen.number]
                self._polled.pop(chosen.number, None)
                return chosen
            if not self._advance():
                self._stuck = f"nothing would ever happen again: {[task.name for task in self.tasks]}"
                return self.driver

    def _able(self, woken: dict[int, Task]) -> list[Task]:
        """Those that can go on, in the order of their numbers; the others are woken no more."""
        now, able = self.now, []
        for number in sorted(woken) if len(woken) > 1 else list(woken):
            task = woken[number]
            process = task.process
            if task.over:
                del woken[number]
            elif not process.alive or (
                process.frozen_until <= now and (task.until <= now or ((ready := task.ready) is not None and ready()))
            ):
                able.append(task)
            else:
                del woken[number]
        if self.driver_last and len(able) > 1 and able[0] is self.driver:
            del able[0]
        return able

    def _advance(self) -> bool:
        """Time comes to what happens next; False where nothing ever does."""
        deadlines, timers = self._deadlines, self._timers
        while deadlines and deadlines[0][2] != deadlines[0][3].waits:
            heapq.heappop(deadlines)  # it does not wait for that any more
        then = min(deadlines[0][0] if deadlines else FOREVER, timers[0][0] if timers else FOREVER)
        if then == FOREVER:
            return False
        self.now = now = max(self.now, then + self._lag)
        while deadlines and deadlines[0][0] <= now:
            _, number, waits, task = heapq.heappop(deadlines)
            if waits == task.waits:
                self.woken[number] = task
        while timers and timers[0][0] <= now:
            heapq.heappop(timers)[2]()
        return True
