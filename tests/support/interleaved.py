"""Two threads whose order is chosen, not left to chance: one is stopped before an instruction, another one does its work, then the first goes on.

A stress test hits upon a switch of threads that hurts; here every switch is tried, one for each instruction of the module under test.
The second thread does its work as far as it gets: where the first one holds the lock it waits for that, and is let in once it is free.
"""

from __future__ import annotations

import ast
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any, ClassVar, Final

import pytest

from tests.support.torn import by_instruction

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
    functions = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.FunctionDef)]
    found = [
        Place(function.name, node.lineno)
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.With) and any(ast.unparse(item.context_expr) == f"self.{lock}" for item in node.items)
    ]
    return sorted(found, key=lambda place: place.line)


class WatchedLock:
    """A lock that says when a thread begins to wait for it, and that one place may be made not to take."""

    def __init__(self, without: Place | None = None) -> None:
        """Free; ``without`` is the place."""
        self.waited_for = threading.Event()
        self._without = without
        self._lock = threading.Lock()
        self._taken: dict[int, list[bool]] = {}

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002, a lock's own interface
        """As a lock's, for conditions."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """As a lock's, for conditions."""
        self._lock.release()

    def __enter__(self) -> None:
        """Take it, but at that place."""
        caller = sys._getframe(1)
        while caller.f_code.co_filename == threading.__file__ and caller.f_back is not None:  # a condition's own
            caller = caller.f_back
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


class _Second:
    """The thread of the second piece of work; it is started once, and gets on until it ends or waits for the lock."""

    def __init__(self, scene: Scene) -> None:
        """Not started."""
        self.errors: list[BaseException] = []
        self._scene = scene
        self._moved = scene.lock.waited_for
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def started(self) -> bool:
        """Whether it was."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Let it get on as far as it can."""
        self._thread.start()
        assert self._moved.wait(SECONDS), "the second thread neither ends nor waits for the lock"

    def join(self) -> None:
        """The first one is through: so is this one."""
        if self.started:
            self._thread.join(SECONDS)
            assert not self._thread.is_alive(), "the second thread does not end"

    def _run(self) -> None:
        try:
            self._scene.second()
        except BaseException as error:  # noqa: BLE001, raised again by the test's own thread
            self.errors.append(error)
        finally:
            self._moved.set()


def run(scene: Scene, module: ModuleType, instruction: int) -> bool:
    """Do both, the second before that instruction of the module in the first; False where the first has fewer."""
    second, count = _Second(scene), 0

    def at_event(_frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401, a trace function returns one
        nonlocal count
        if event == "opcode":
            if count == instruction:
                second.start()
            count += 1
        return at_event

    def at_call(frame: FrameType, _event: str, _argument: object) -> Any:  # noqa: ANN401, as above
        if frame.f_code.co_filename != module.__file__:
            return None
        by_instruction(frame, at_event)
        return at_event

    before = sys.gettrace()
    by_instruction(sys._getframe(), None)
    sys.settrace(at_call)
    try:
        scene.first()
    finally:
        sys.settrace(before)
        second.join()
    if second.errors:
        raise second.errors[0]
    if second.started:
        scene.check()
    return second.started


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


Work = Callable[[Any], object]


@dataclass
class Pair:
    """What two threads do with an object at once, and what must be true of it then."""

    make: Callable[[WatchedLock], Any]
    first: Work
    second: Work
    right: Callable[[Any], bool]
    traced: ModuleType | None = None
    """In which module the first one is stopped, where that is not the object's own."""

    def __call__(self, lock: WatchedLock) -> Scene:
        """A scene from the start."""
        thing = self.make(lock)
        scene = Scene()
        scene.lock = lock
        scene.first = lambda: thing.first.append(self.first(thing))  # type: ignore[method-assign]
        scene.second = lambda: thing.second.append(self.second(thing))  # type: ignore[method-assign]

        def check() -> None:
            assert self.right(thing)

        scene.check = check  # type: ignore[method-assign]
        return scene


@dataclass
class Thing:
    """An object under test, and what the two threads' work returned."""

    it: Any
    lock: str = "_lock"
    more: Any = None
    first: list[Any] = field(default_factory=list)
    second: list[Any] = field(default_factory=list)

    def guarded_by(self, lock: WatchedLock) -> Thing:
        guard = threading.Condition(lock) if self.lock == "_changed" else lock  # type: ignore[arg-type]
        setattr(self.it, self.lock, guard)
        return self


@dataclass(frozen=True)
class Shared:
    """A structure: the module and the lock, and of each place that takes it the scene that needs it there, or why none does."""

    module: ModuleType
    lock: str
    needs: tuple[tuple[str, Pair | str], ...]

    def needed(self) -> list[tuple[str, Place, Pair]]:
        """The places that need the lock, each with a name of its own."""
        found = zip(places(self.module, self.lock), self.needs, strict=False)
        return [(f"{number}-{place}", place, need) for number, (place, (_, need)) in enumerate(found) if isinstance(need, Pair)]


class Orders:
    """The suite over structures that are ``shared``: each place that takes a lock is listed, right in every order, and wrong without the lock."""

    shared: ClassVar[Mapping[str, Shared]]

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """A test of each structure, or of each place in it that needs the lock."""
        if "shared" in metafunc.fixturenames:
            metafunc.parametrize("shared", cls.shared.values(), ids=cls.shared)
            return
        needed = [
            pytest.param(shared.module, place, pair, id=f"{name}-{number}")
            for name, shared in cls.shared.items()
            for number, place, pair in shared.needed()
        ]
        metafunc.parametrize(("module", "place", "pair"), needed)

    def test_every_place_that_takes_a_lock_is_listed(self, shared: Shared) -> None:
        assert [place.function for place in places(shared.module, shared.lock)] == [function for function, _ in shared.needs]

    def test_every_order_of_two_threads_is_right(self, module: ModuleType, place: Place, pair: Pair) -> None:
        """Wherever the first one is interrupted."""
        del place
        assert sum(1 for _ in interleavings(pair, pair.traced or module)) > 10

    def test_the_place_needs_the_lock(self, module: ModuleType, place: Place, pair: Pair) -> None:
        """With the lock taken everywhere else, some order of the two threads has a wrong outcome."""
        assert fails(pair, pair.traced or module, place)


class Still:
    """A thread that is never started."""

    def __init__(self, **_: object) -> None:
        """As ``threading.Thread``."""

    def start(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        pass

    def is_alive(self) -> bool:
        return False


def threads_by_hand() -> SimpleNamespace:
    """In place of the module ``threading``: a structure's own threads are not started."""
    return SimpleNamespace(Thread=Still, Lock=threading.Lock, Condition=threading.Condition)
