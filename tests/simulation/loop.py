"""asyncio's event loop on the kernel: where the real one waits for sockets, this one gives the baton away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tests.simulation.kernel import FOREVER, CrashedError, Kernel

UNWINDS: Final = 100
"""Turns of a dead process's loop in which its tasks end; what has not ended by then is left."""


class _Selector:
    """In the place of the selector: nothing is ever selected, but whoever calls from another thread ends the waiting."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.woken = False
        self.dead = False

    def select(self, timeout: float | None) -> list[Any]:
        if self.dead:
            return []
        if timeout is None or timeout > 0:
            self._kernel.wait(lambda: self.woken, FOREVER if timeout is None else self._kernel.now + timeout)
        else:
            self._kernel.alive()
        self.woken = False
        return []

    def close(self) -> None:
        pass


class Loop(asyncio.BaseEventLoop):
    """An event loop in one task of the kernel; its executors' work are tasks of the same process."""

    def __init__(self, kernel: Kernel) -> None:
        """Empty."""
        super().__init__()
        self._kernel = kernel
        self._selector = _Selector(kernel)
        self._clock_resolution = 1e-9
        self.set_exception_handler(_ignore)

    def time(self) -> float:
        """The kernel's."""
        return self._kernel.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # noqa: ANN401
        """Run a function in a task of its own, whatever the executor."""
        del executor
        future: asyncio.Future[Any] = self.create_future()
        process = self._kernel.process

        def work() -> None:
            try:
                result = func(*args)
            except CrashedError:
                raise
            except BaseException as error:  # noqa: BLE001, whoever awaits gets it
                self.call_soon_threadsafe(_failed, future, error)
            else:
                self.call_soon_threadsafe(_done, future, result)

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
        tasks = [task for task in asyncio.all_tasks(self) if not task.done()]
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
        self._selector.woken = True


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    del loop, context


def _done(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _failed(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
