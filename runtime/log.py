"""The services' log: standard error, text for people or JSON for programs, at most one line a minute for each problem."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, TextIO

from virtflow.schemas.text import safe_line, safe_lines

THROTTLE_SECONDS: Final = 60.0
REMEMBERED: Final = 1_000
"""Problems whose last line is remembered; beyond that the oldest are forgotten."""
ABOUT: Final = "about"
"""Attribute of a record: what its problem is about, such as a VM, where each has a line of its own."""


class Throttle(logging.Filter):
    """Passes each warning or error once a minute; the next one that passes reports how many were suppressed.

    Two lines are the same problem when logger and message template are equal; the arguments may differ. A line that must not be held
    back for the sake of another one's says what it is about: ``extra={ABOUT: uuid}``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns monotonic seconds."""
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._passed: dict[tuple[str, str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; sets ``held_back`` on those that are."""
        record.held_back = 0
        if record.levelno < logging.WARNING:
            return True
        problem = (record.name, str(record.msg), str(getattr(record, ABOUT, "")))
        now = self._clock()
        with self._lock:
            last, held_back = self._passed.get(problem, (-THROTTLE_SECONDS, 0))
            if now - last < THROTTLE_SECONDS:
                self._passed[problem] = (last, held_back + 1)
                return False
            self._passed.pop(problem, None)
            self._passed[problem] = (now, 0)
            if len(self._passed) > REMEMBERED:
                self._passed.pop(next(iter(self._passed)))
        record.held_back = held_back
        return True


class TextFormatter(logging.Formatter):
    """``time level logger: message``, with the number of similar lines that were suppressed."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on further lines."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{stamp}.{int(record.msecs):03d}Z {record.levelname.lower():7} {record.name}: {_message(record)}"
        return f"{line}\n{safe_lines(self.formatException(record.exc_info))}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (Unix seconds), level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a JSON object."""
        entry: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info:
            entry["traceback"] = safe_lines(self.formatException(record.exc_info))
        return json.dumps(entry)


def _message(record: logging.LogRecord) -> str:
    held_back = getattr(record, "held_back", 0)
    text = safe_line(record.getMessage())
    return f"{text} ({held_back} more like it held back)" if held_back else text


class _MessageFormatter(logging.Formatter):
    """The message alone, as Python writes it where no log is set up."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return safe_line(record.getMessage())


def speak_safely() -> None:
    """Makes warnings harmless for a terminal that appear before ``setup``, or without it, as in commands."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_MessageFormatter())


def setup(level: str, form: str, stream: TextIO | None = None) -> None:
    """Writes all log records of ``level`` and above to ``stream`` (default: standard error), as ``text`` or ``json``."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(Throttle())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
