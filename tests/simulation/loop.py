"""asyncio's event loop on the kernel: where the real one waits for sockets, this one gives control away."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tests.support.virtual_time.kernel import FOREVER, CrashedError, Kernel, Task

UNWINDS: Final = 100
"""Turns of a dead process's loop in which its tasks end; what has not ended by then is left."""


class _Selector:
    """In the place of the selector: nothing is ever selected, but whoever calls from another thread ends the waiting."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._woken = False
        self._waiting: dict[int, Task] = {}
        self.dead = False

    def select(self, timeout: float | None) -> list[Any]:
        if self.dead:
            return []
        if timeout is None or timeout > 0:
            self._kernel.wait(self._is_woken, FOREVER if timeout is None else self._kernel.now + timeout, self._waiting)
        else:
            self._kernel.alive()
        self._woken = False
        return []

    def wake(self) -> None:
        """End the waiting."""
        self._woken = True
        self._kernel.woken.update(self._waiting)

    def _is_woken(self) -> bool:
        return self._woken

    def close(self) -> None:
        pass


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address: asyncio keeps tasks in sets, and walks through them."""

    def __init__(self, coroutine: Any, number: int, **named: Any) -> None:  # noqa: ANN401, as asyncio's
        self.number: Final = number
        super().__init__(coroutine, **named)

    def __hash__(self) -> int:
        return self.number


class Loop(asyncio.BaseEventLoop):
    """An event loop in one task of the kernel; its executors' work are tasks of the same process."""

    def __init__(self, kernel: Kernel) -> None:
        """Empty."""
        super().__init__()
        self._kernel = kernel
        self._selector = _Selector(kernel)
        self._clock_resolution = 1e-9
        self._serials = itertools.count()
        self._lines: dict[Any, deque[object]] = {}
        """What waits for an executor of one thread, the one that runs first."""
        self.set_exception_handler(_ignore)
        self.set_task_factory(self._task)

    def _task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **named: Any) -> asyncio.Task[Any]:  # noqa: ANN401, as asyncio's
        return _Task(coroutine, next(self._serials), loop=loop, **named)

    def time(self) -> float:
        """The kernel's."""
        return self._kernel.now

    def run_forever(self) -> None:
        """As a loop's, without what it sets for its whole thread: other loops run in it meanwhile."""
        base: Any = self
        base._check_closed()
        base._check_running()
        base._thread_id = threading.get_ident()
        asyncio._set_running_loop(self)
        try:
            while True:
                base._run_once()
                if base._stopping:
                    break
        finally:
            base._stopping = False
            base._thread_id = None
            asyncio._set_running_loop(None)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # noqa: ANN401
        """Run a function in a task of its own; where the executor has one thread, when the one before it has ended."""
        future: asyncio.Future[Any] = self.create_future()
        process, place = self._kernel.process, object()
        line = self._lines.setdefault(executor, deque()) if getattr(executor, "_max_workers", 0) == 1 else deque()
        line.append(place)

        def work() -> None:
            if line[0] is not place:
                self._kernel.wait(lambda: line[0] is place)
            try:
                result = func(*args)
            except CrashedError:
                raise
            except BaseException as error:  # noqa: BLE001, whoever awaits gets it
                self.call_soon_threadsafe(_failed, future, error)
            else:
                self.call_soon_threadsafe(_done, future, result)
            line.popleft()

        self._kernel.spawn(process, f"{process.name}/executor", work)
        return future

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401, what the coroutine returns
        """Until the coroutine has ended; where the process dies every task of the loop ends."""
        try:
            return self.run_until_complete(main)
        except CrashedError:
            self._unwind()
            raise
        finally:
            self._cancel_all()
            self.close()

    def _unwind(self) -> None:
        """The tasks of a dead process end: what they still try fails."""
        self._selector.dead = True
        self._cancel_all()

    def _cancel_all(self) -> None:
        tasks = sorted((task for task in asyncio.all_tasks(self) if not task.done()), key=hash)
        for _ in range(UNWINDS):
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            self.call_soon(self.stop)
            try:
                self.run_forever()
            except CrashedError:
                self._selector.dead = True
            tasks = [task for task in tasks if not task.done()]

    def _process_events(self, event_list: Any) -> None:  # noqa: ANN401, the base's signature
        pass

    def _write_to_self(self) -> None:
        self._selector.wake()


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    del loop, context


def _done(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _failed(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
