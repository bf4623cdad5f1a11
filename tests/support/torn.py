"""Threads that are switched where it hurts: between any two lines of a module, where the interpreter does so between a few of them alone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any


@contextmanager
def at_every_line(*modules: ModuleType) -> Iterator[None]:
    """In this thread, and in those that are started meanwhile, each line of the modules gives another thread its turn."""
    files = {module.__file__ for module in modules}

    def at_line(frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401, a trace function returns one
        del frame, event, arg
        time.sleep(0)
        return at_line

    def at_call(frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401, as above
        del event, arg
        return at_line if frame.f_code.co_filename in files else None

    before, of_threads = sys.gettrace(), threading.gettrace()
    threading.settrace(at_call)
    sys.settrace(at_call)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(of_threads)
