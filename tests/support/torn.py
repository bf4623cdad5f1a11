"""Threads that are switched where it hurts: between any two lines of a module, or any two instructions, where the interpreter seldom does so."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType, ModuleType
from typing import Any, Final

SWITCH_SECONDS: Final = 1e-6
"""Without it a thread that lets go of the interpreter has it again before another one is awake."""


def at_every_line(*modules: ModuleType) -> AbstractContextManager[None]:
    """In this thread, and in those that are started meanwhile, each line of the modules gives another thread its turn."""
    return _torn({module.__file__ for module in modules}, "line")


def at_every_instruction(*modules: ModuleType) -> AbstractContextManager[None]:
    """As ``at_every_line``, in the middle of a line as well. It takes ten times as long."""
    return _torn({module.__file__ for module in modules}, "opcode")


def by_instruction(frame: FrameType, seen: Callable[..., Any] | None) -> None:
    """Have ``seen`` called at each instruction of the frame.

    Call it also with a frame of one's own, and None, before ``sys.settrace``: CPython 3.12 looks then whether any frame wants that.
    The order matters to CPython 3.13, which looks for instructions only where there is a function.
    """
    frame.f_trace = seen
    frame.f_trace_opcodes = True


@contextmanager
def _torn(files: set[str | None], where: str) -> Iterator[None]:
    def at_event(frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401, a trace function returns one
        del frame, arg
        if event == where:
            time.sleep(0)
        return at_event

    def at_call(frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401, as above
        del event, arg
        if frame.f_code.co_filename not in files:
            return None
        if where == "opcode":
            by_instruction(frame, at_event)
        return at_event

    before, of_threads, interval = sys.gettrace(), threading.gettrace(), sys.getswitchinterval()
    if where == "opcode":
        by_instruction(sys._getframe(), None)
    sys.setswitchinterval(SWITCH_SECONDS)
    threading.settrace(at_call)
    sys.settrace(at_call)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(of_threads)
        sys.setswitchinterval(interval)
