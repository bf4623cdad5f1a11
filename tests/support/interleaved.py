"""Two threads whose order is chosen, not left to chance: one is stopped before an instruction, another one does its work, then the first goes on.

A stress test hits upon a switch of threads that hurts; here every switch is tried, one for each instruction of the module under test.
The second thread does its work as far as it gets: where the first one holds the lock it waits for that, and is let in once it is free.
"""

from __future__ import annotations

import ast
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any, Final

SECONDS: Final = 60.0
"""Until a thread that does not get on is an error."""


@dataclass(frozen=True)
class Place:
    """One statement that takes a lock."""

    function: str
    line: int

    def __str__(self) -> str:
        """For a test's name, without the line, which changes."""
        return self.function


def places(module: ModuleType, lock: str) -> list[Place]:
    """Every ``with`` of the module that takes the attribute ``lock``, in order; a function that has several comes as often."""
    found = []
    for function in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.With) and any(ast.unparse(item.context_expr) == f"self.{lock}" for item in node.items):
                    found.append(Place(function.name, node.lineno))
    return sorted(found, key=lambda place: place.line)


class WatchedLock:
    """A lock that says when a thread begins to wait for it, and that one place may be made not to take."""

    def __init__(self, without: Place | None = None) -> None:
        """Free; ``without`` is the place."""
        self.waited_for = threading.Event()
        self._without = without
        self._lock = threading.Lock()
        self._taken: dict[int, list[bool]] = {}

    def __enter__(self) -> None:
        """Take it, but at that place."""
        caller = sys._getframe(1)  # noqa: SLF001, the only way to know which place it is
        takes = self._without is None or (caller.f_code.co_name, caller.f_lineno) != (self._without.function, self._without.line)
        if takes and not self._lock.acquire(blocking=False):
            self.waited_for.set()
            assert self._lock.acquire(timeout=SECONDS), "a lock that nobody gives back"
        self._taken.setdefault(threading.get_ident(), []).append(takes)

    def __exit__(self, *_: object) -> None:
        """Give it back, where it was taken."""
        if self._taken[threading.get_ident()].pop():
            self._lock.release()


class Scene:
    """Two pieces of work on one object, and what must be true after both of them."""

    lock: WatchedLock

    def first(self) -> None:
        """What is stopped before an instruction."""

    def second(self) -> None:
        """What another thread does meanwhile."""

    def check(self) -> None:
        """Assert that the outcome is right."""


def run(scene: Scene, module: ModuleType, instruction: int) -> bool:
    """Do both, the second before that instruction of the module in the first; False where the first has fewer."""
    errors: list[BaseException] = []
    moved = threading.Event()
    scene.lock.waited_for = moved
    count = 0

    def do_second() -> None:
        try:
            scene.second()
        except BaseException as error:  # noqa: BLE001, raised again by the test's own thread
            errors.append(error)
        finally:
            moved.set()

    second = threading.Thread(target=do_second, daemon=True)

    def at_event(_frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401, a trace function returns one
        nonlocal count
        if event == "opcode":
            if count == instruction:
                second.start()
                assert moved.wait(SECONDS), "the second thread neither ends nor waits for the lock"
            count += 1
        return at_event

    def at_call(frame: FrameType, _event: str, _argument: object) -> Any:  # noqa: ANN401, as above
        if frame.f_code.co_filename != module.__file__:
            return None
        frame.f_trace_opcodes = True
        return at_event

    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        scene.first()
    finally:
        sys.settrace(before)
        if second.ident is not None:
            second.join(SECONDS)
    if second.ident is None:
        return False
    assert not second.is_alive(), "the second thread does not end"
    if errors:
        raise errors[0]
    scene.check()
    return True


def interleavings(build: Callable[[WatchedLock], Scene], module: ModuleType, without: Place | None = None) -> Iterator[int]:
    """Run the scene once for each instruction of its first piece of work, each time from the start; the instruction's number.

    Raises what the threads or the check raise.
    """
    instruction = 0
    while run(build(WatchedLock(without)), module, instruction):
        yield instruction
        instruction += 1


def fails(build: Callable[[WatchedLock], Scene], module: ModuleType, without: Place) -> bool:
    """Whether some order of the threads has a wrong outcome when the lock is not taken at that place."""
    try:
        for _ in interleavings(build, module, without):
            pass
    except Exception:  # noqa: BLE001, whatever a missing lock leads to
        return True
    return False
