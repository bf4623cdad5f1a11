"""The scheduler: one task runs at a time, and which one runs next, and when, follows from the seed alone.

Tasks are threads of this process that hand a baton on: the code under test keeps its own stacks, locks and event loops, and only one of them
runs. A task gives the baton away where it waits, and now and then at a *step*: a write, a request, a commit. Time moves only while
every task waits. A process that is killed has its tasks end where they are, with ``CrashedError``; what they still try to do to the world fails.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.simulation.disk import Disk

FOREVER: Final = float("inf")
EPOCH: Final = 1_795_478_400.0 - 1_060.0
"""Unix seconds at the kernel's 0: a run that begins at 1000 crosses an hour's edge a minute later."""
BEGINS: Final = 1_000.0
PREEMPTED: Final = 0.05
"""Share of the steps at which another task goes first."""


class CrashedError(BaseException):
    """The process is dead: ends its tasks. No ``except Exception`` may keep one alive."""


class StuckError(AssertionError):
    """Nothing will ever happen any more: the simulation itself is at fault."""


@dataclass(slots=True, eq=False)
class Host:
    """A machine: its clock's error in seconds, its disk, and whether its network reaches the broker, and how slowly."""

    name: str
    disk: Disk
    clock_error: float = 0.0
    connected: bool = True
    delay_seconds: float = 0.002


@dataclass(slots=True, eq=False)
class Process:
    """One run of a program. ``dies_after`` steps more, it is killed; while it is frozen none of its tasks runs."""

    name: str
    host: Host
    alive: bool = True
    frozen_until: float = 0.0
    dies_after: int | None = None
    steps: int = 0
    ended: bool = False
    """Whether its main function has returned, or raised."""
    error: BaseException | None = None
    tasks: list[Task] = field(default_factory=list)
    on_death: list[Callable[[], None]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Task:
    """A thread of a process: what it waits for, and until when."""

    name: str
    process: Process
    work: Callable[[], Any]
    baton: threading.Lock | _Worker
    ready: Callable[[], bool] | None = None
    until: float = 0.0
    over: bool = False


class _Worker:
    """A thread that is used for one task after the other."""

    idle: Final[list[_Worker]] = []

    def __init__(self) -> None:
        self.turn = _taken()
        self.job: Callable[[], None] | None = None
        threading.Thread(target=self._run, name="simulated", daemon=True).start()

    @classmethod
    def take(cls) -> _Worker:
        return cls.idle.pop() if cls.idle else cls()

    def _run(self) -> None:
        while True:
            self.turn.acquire()
            assert self.job is not None
            self.job()

    def acquire(self) -> None:
        self.turn.acquire()

    def release(self) -> None:
        self.turn.release()


def _taken() -> threading.Lock:
    """A lock that is released by whoever hands the baton on, and taken again by whoever gets it."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def _ignore(task: Task, error: BaseException) -> None:
    del task, error


class Kernel:
    """All tasks, the time, and whose turn it is. The thread that makes it drives it, as a task of no program."""

    def __init__(self, seed: int, outside: Host) -> None:
        """``outside`` is where the driver is."""
        self.now = BEGINS
        self.random: Final = Random(f"schedule {seed}")  # noqa: S311, an order, not a secret
        self.switches = 0
        self._numbers = itertools.count()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self.driver: Final = Task("driver", Process("driver", outside), lambda: None, _taken())
        self.on_error: Callable[[Task, BaseException], None] = _ignore
        """Told of a task that ends by an exception."""
        self.tasks: list[Task] = [self.driver]
        self.current = self.driver

    # -- for whoever runs in a task

    @property
    def process(self) -> Process:
        """The program whose task runs now."""
        return self.current.process

    def wait(self, ready: Callable[[], bool] | None, until: float = FOREVER) -> bool:
        """Give the baton away until ``ready()``, which has no side effects, or that time; whether it is ready."""
        me = self.current
        self.alive()
        me.ready, me.until = ready, until
        self._give_to(self._next(), me)
        self.alive()
        return ready is not None and ready()

    def sleep(self, seconds: float) -> None:
        """Wait for so long."""
        self.wait(None, self.now + max(0.0, seconds))

    def step(self) -> None:
        """A boundary between two things that are done to the world: the process may be killed here, or another task go first."""
        process = self.current.process
        self.alive()
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
        worker = _Worker.take()
        task = Task(name, process, work, worker, until=self.now)
        worker.job = lambda: self._run(task, worker)
        process.tasks.append(task)
        self.tasks.append(task)
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
            for action in process.on_death:
                action()

    def close(self) -> None:
        """End every task there is; called by the driver."""
        for task in self.tasks:
            if task is not self.driver:
                self.kill(task.process)
        while any(task is not self.driver for task in self.tasks):
            self.wait(None, self.now)

    # -- inside

    def _run(self, task: Task, worker: _Worker) -> None:
        try:
            self.alive()
            task.work()
        except CrashedError:
            pass
        except BaseException as error:  # noqa: BLE001, shown by whoever looks at the process
            task.process.error = task.process.error or error
            self.on_error(task, error)
        task.over = True
        task.process.tasks.remove(task)
        self.tasks.remove(task)
        worker.idle.append(worker)
        following = self._next()
        self.current = following
        following.baton.release()

    def _give_to(self, following: Task, me: Task) -> None:
        if following is me:
            return
        self.switches += 1
        self.current = following
        following.baton.release()
        me.baton.acquire()

    def _next(self) -> Task:
        while True:
            able = self._runnable()
            if able:
                return able[int(self.random.random() * len(able))] if len(able) > 1 else able[0]
            self._advance()

    def _runnable(self) -> list[Task]:
        """The tasks that can go on. Written out in one loop: it runs at every switch."""
        now, found = self.now, []
        for task in self.tasks:
            process = task.process
            if process.alive:
                if process.frozen_until > now:
                    continue
                if now < task.until and ((ready := task.ready) is None or not ready()):
                    continue
            found.append(task)
        return found

    def _advance(self) -> None:
        """Time comes to what happens next."""
        then = self._timers[0][0] if self._timers else FOREVER
        for task in self.tasks:
            frozen = task.process.frozen_until
            then = min(then, frozen if frozen > self.now else task.until)
        if then == FOREVER:
            raise StuckError(f"nothing would ever happen again: {[task.name for task in self.tasks]}")
        self.now = max(self.now, then)
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()
