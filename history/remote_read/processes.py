"""The server's side of its reading processes: starts them, gives each one request at a time, kills what is over its time, starts others.

    processes = Processes(settings, metrics)
    await processes.start()
    async with processes.asked(Read(tenant, body)) as frames:   # waits for a free process
        head = await frames.next()                                # raises FailedError

A process is kept from answer to answer. An answer that its client takes slowly holds a process only beyond ``HELD`` pieces.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from asyncio.subprocess import PIPE
from asyncio.subprocess import Process as Started
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Final

from msgspec.structs import replace

from virtflow.history.remote_read.ipc import (
    FROM_PROCESS,
    PIECE_BYTES,
    Begin,
    Done,
    Failed,
    Failure,
    FromProcess,
    Job,
    Ready,
)
from virtflow.history.remote_read.process import CANCEL
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.process.child import MEASURED_ALLOCATION, command, environment
from virtflow.runtime.process.frames import LENGTH, BrokenFrameError, encoded, length
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import InputError

AT_ONCE: Final = 2
HELD: Final = 4
"""Pieces of an answer that wait in the server for their client."""
GRACE_SECONDS: Final = 2.0
"""How long a process may take to notice that its time is over, or that nobody waits for its answer."""
STALLED_SECONDS: Final = 1.0
"""A client that takes nothing of its answer for this long may be dropped for one that waits for a process."""
RESTART_SECONDS: Final = 1.0
"""Pause before another process is started where one did not come up."""
MODULE: Final = "virtflow.history.remote_read.process"

_LOG: Final = logging.getLogger("virtflow.history.remote_read.processes")


class FailedError(InputError):
    """A job that has no answer."""

    def __init__(self, failed: Failed) -> None:
        """As the process said it, or as its end looked."""
        super().__init__(failed.text)
        self.why: Final = failed.why


class Frames:
    """The frames of one job, as its process sends them."""

    def __init__(self) -> None:
        """None yet."""
        self._queue: asyncio.Queue[FromProcess] = asyncio.Queue(HELD)
        self._gone = False
        self.stalled_since = math.inf
        """Since when the client takes nothing, by the loop's clock."""
        self.hang_up: Callable[[], None] = lambda: None
        """Ends the connection of the client."""
        self.timeout: asyncio.Timeout | None = None
        """The job's time, which ends early where nobody waits any more."""

    async def next(self) -> FromProcess:
        """The next frame, ``Done`` at the end; raises ``FailedError``."""
        frame = await self._queue.get()
        if isinstance(frame, Failed):
            raise FailedError(frame)
        return frame

    async def put(self, frame: FromProcess) -> None:
        """Waits until there is room; a frame that nobody waits for is dropped."""
        if self._gone:
            return
        if self._queue.full():
            self.stalled_since = asyncio.get_running_loop().time()
        await self._queue.put(frame)
        self.stalled_since = math.inf

    def leave(self) -> None:
        """Nobody waits any more."""
        self._gone = True
        while not self._queue.empty():
            self._queue.get_nowait()


class _Running:
    """One process."""

    def __init__(self, process: Started) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._in, self._out = process.stdin, process.stdout

    async def send(self, frame: Begin | Job) -> None:
        self._in.write(encoded(frame))
        await self._in.drain()

    async def receive(self) -> FromProcess:
        count = length(await self._out.readexactly(LENGTH.size))
        return FROM_PROCESS.decoded(await self._out.readexactly(count))

    async def greet(self, settings: Settings) -> None:
        """Raises ``BrokenFrameError`` where it does not say that it is ready."""
        await self.send(Begin(settings))
        if not isinstance(frame := await self.receive(), Ready):
            raise BrokenFrameError(f"{type(frame).__name__} in place of Ready")

    def cancel(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(CANCEL)

    async def end(self) -> int:
        """Kills it, and returns its exit code."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self._in.close()
        with suppress(OSError):
            await self._out.read()  # what nobody took: asyncio waits for the pipe's end before it tells that of the process
        return await self.process.wait()


class Processes:
    """All reading processes of a server. Belongs to the event loop."""

    def __init__(self, settings: Settings, metrics: OwnMetrics) -> None:
        """Starts nothing."""
        self._settings = settings
        self._free: list[_Running] = []
        self._all: set[_Running] = set()
        self._busy: Counter[str] = Counter()
        self._answers: set[Frames] = set()
        self._waiting: list[tuple[str, asyncio.Future[_Running]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = metrics.counter("virtflow_history_serve_processes_ended_total")
        self._closed = False
        self._up = False

    async def start(self) -> None:
        """Starts them in the background."""
        for _ in range(AT_ONCE):
            self._spawn(self._begin())

    @property
    def missing(self) -> str:
        """What is missing before anything can be read, "" when nothing is."""
        return "" if self._up else "the reading processes are starting"

    async def close(self) -> None:
        """Kills all, whatever they do."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(each.end() for each in self._all))
        self._all.clear()

    @asynccontextmanager
    async def asked(self, job: Job) -> AsyncIterator[Frames]:
        """The frames that a process answers a job with; raises ``FailedError`` where none is free within the job's time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + job.seconds
        running = await self._taken(job.tenant, until)
        if self._closed:
            raise FailedError(Failed(Failure.UNAVAILABLE, "the server ends"))  # and so does the process, which nobody may read from now
        frames = Frames()
        self._answers.add(frames)
        self._busy[job.tenant] += 1
        work = self._spawn(self._work(running, replace(job, seconds=until - loop.time()), frames, until + GRACE_SECONDS))
        try:
            yield frames
        finally:
            self._answers.discard(frames)
            frames.leave()
            if not work.done():
                running.cancel()
            if frames.timeout is not None:
                frames.timeout.reschedule(min(until, loop.time()) + GRACE_SECONDS)

    async def _taken(self, tenant: str, until: float) -> _Running:
        """A free process; who waits longest is next, but for tenants that have others at work."""
        if self._free:
            return self._free.pop()
        found: asyncio.Future[_Running] = asyncio.get_running_loop().create_future()
        place = (tenant, found)
        self._waiting.append(place)
        try:
            async with asyncio.timeout_at(until):
                while not (await asyncio.wait({found}, timeout=STALLED_SECONDS))[0]:
                    self._make_room()
                return found.result()
        except TimeoutError:
            raise FailedError(Failed(Failure.LATE, "all reading processes were busy (history.query_seconds); try again")) from None
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
            if found.done() and not found.cancelled() and sys.exception() is not None:
                self._offer(found.result())
            found.cancel()

    def _make_room(self) -> None:
        """Hangs up on who has taken nothing of its answer for longest, where that keeps a process from others."""
        slowest = min(self._answers, key=lambda frames: frames.stalled_since, default=None)
        if slowest is not None and asyncio.get_running_loop().time() - slowest.stalled_since > STALLED_SECONDS:
            slowest.hang_up()

    def _offer(self, running: _Running) -> None:
        """Gives a free process to who is next."""
        if self._closed:
            return
        waiting = [place for place in self._waiting if not place[1].done()]
        if not waiting:
            self._free.append(running)
            return
        place = min(waiting, key=lambda each: self._busy[each[0]])
        self._waiting.remove(place)
        place[1].set_result(running)

    async def _work(self, running: _Running, job: Job, frames: Frames, until: float) -> None:
        """One job from begin to end: its frames, or why there are none."""
        failed: Failed | None = None
        try:
            last = await self._passed_on(running, job, frames, until)
            if isinstance(last, Failed) and last.why is Failure.MEMORY:
                await self._lost(running, last.text)
        except TimeoutError:
            seconds = self._settings.history.query_seconds
            failed = Failed(Failure.LATE, f"took more than {seconds:g} s (history.query_seconds), and was ended")
        except (OSError, asyncio.IncompleteReadError, BrokenFrameError):
            failed = Failed(Failure.MEMORY, "the process that read ended in the middle, as one does that runs out of memory")
        finally:
            if isinstance(sys.exception(), Exception):  # or who asked would wait for ever
                await frames.put(Failed(Failure.DEFECT, "a defect of virtflow, which the log tells"))
            self._busy[job.tenant] -= 1
            self._busy += Counter()  # without those that have none
            if failed is None and running in self._all:
                self._offer(running)
        if failed is not None:
            await self._lost(running, failed.text)
            await frames.put(failed)

    async def _passed_on(self, running: _Running, job: Job, frames: Frames, until: float) -> FromProcess:
        """Sends a job, and passes its frames on up to the last one, which it returns; raises ``TimeoutError``."""
        try:
            async with asyncio.timeout_at(until) as frames.timeout:
                await running.send(job)
                while True:
                    frame = await running.receive()
                    await frames.put(frame)
                    if isinstance(frame, Done | Failed):
                        return frame
        finally:
            frames.timeout = None

    async def _lost(self, running: _Running, why: str) -> None:
        """Ends a process that can't go on, and starts another."""
        self._all.discard(running)
        code = await running.end()
        self._ended.inc()
        _LOG.warning("a reading process is ended (exit code %d): %s", code, why)
        self._spawn(self._begin())

    async def _begin(self) -> None:
        """Starts a process; again and again until one is up."""
        while not self._closed:
            try:
                running = await self._started()
            except (OSError, asyncio.IncompleteReadError, BrokenFrameError) as error:
                _LOG.warning("a reading process did not start: %s", error)
                await asyncio.sleep(RESTART_SECONDS)
                continue
            self._up = True
            self._offer(running)
            return

    async def _started(self) -> _Running:
        place = environment(MEASURED_ALLOCATION)
        running = _Running(await asyncio.create_subprocess_exec(*command(MODULE), stdin=PIPE, stdout=PIPE, env=place, limit=PIECE_BYTES))
        self._all.add(running)
        up = False
        try:
            await running.greet(self._settings)
            up = True
        finally:
            if not up:
                self._all.discard(running)
                await running.end()
        return running

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
