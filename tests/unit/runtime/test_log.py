"""The log's shape, and that no problem floods it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from virtflow.runtime.log import ABOUT, JsonFormatter, TextFormatter, Throttle, setup

THROTTLE_SECONDS = 60.0


def record(message: str, *arguments: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("virtflow.test", level, __file__, 1, message, arguments, None)


def test_a_problem_passes_once_a_minute_and_says_how_many_were_held_back() -> None:
    """Two lines with one template are one problem, whatever is filled in."""
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0])
    assert throttle.filter(record("no answer from %s", "a"))
    assert not throttle.filter(record("no answer from %s", "b"))
    assert throttle.filter(record("another problem"))
    now[0] = THROTTLE_SECONDS
    last = record("no answer from %s", "c")
    assert throttle.filter(last)
    assert "(1 more like it held back)" in TextFormatter().format(last)


def test_lines_about_two_things_are_two_problems() -> None:
    """Each has its line a minute."""
    throttle = Throttle(clock=lambda: 0.0)

    def passes(about: str) -> bool:
        line = record("a call hangs in %s", about)
        setattr(line, ABOUT, about)
        return throttle.filter(line)

    assert [passes("a"), passes("b"), passes("a"), passes("b"), passes("c")] == [True, True, False, False, True]


def test_information_is_never_held_back() -> None:
    throttle = Throttle(clock=lambda: 0.0)
    assert all(throttle.filter(record("started", level=logging.INFO)) for _ in range(3))


def test_json_lines_are_objects_on_one_line() -> None:
    """A message with a newline stays one line."""
    text = JsonFormatter().format(record("two\nlines %d", 5))
    assert "\n" not in text
    assert json.loads(text)["message"] == "two\\nlines 5"


@pytest.fixture
def untouched_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("untouched_root")
def test_setup_writes_from_the_level_on() -> None:
    stream = io.StringIO()
    setup("warning", "text", stream)
    logging.getLogger("virtflow.test").info("quiet")
    logging.getLogger("virtflow.test").warning("loud")
    assert "loud" in stream.getvalue()
    assert "quiet" not in stream.getvalue()
