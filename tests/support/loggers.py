"""Python's loggers are one state of the process: what a test or a command sets of them is taken back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


def _loggers() -> list[logging.Logger]:
    return [logging.root, *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger))]


@contextmanager
def loggers_kept() -> Iterator[None]:
    """Levels, handlers and propagation are afterwards what they were; loggers that are new have none of their own."""
    before = {one: (one.level, one.propagate, one.handlers[:]) for one in _loggers()}
    last = logging.lastResort.formatter if logging.lastResort is not None else None
    try:
        yield
    finally:
        for one in _loggers():
            level, propagate, handlers = before.get(one, (logging.NOTSET, True, []))
            one.setLevel(level)
            one.propagate, one.handlers[:] = propagate, handlers
        if logging.lastResort is not None:
            logging.lastResort.setFormatter(last)
