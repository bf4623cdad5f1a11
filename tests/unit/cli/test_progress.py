"""Progress is seen where a person looks, and nowhere else."""

from __future__ import annotations

import io
import re
import time

import pytest

from virtflow.cli.output import progress
from virtflow.cli.output.progress import Progress


class Terminal(io.StringIO):
    """Standard error as a terminal that remembers all that was drawn."""

    def isatty(self) -> bool:
        """It is one."""
        return True

    @property
    def text(self) -> str:
        """What was drawn, without the terminal's codes."""
        return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", self.getvalue())


def attached(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal in standard error's place. No fixture: pytest puts its own standard error back before the test begins."""
    found = Terminal()
    monkeypatch.setattr("sys.stderr", found)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "SHOWN_AFTER_SECONDS", 0.0)
    return found


def await_drawn(terminal: Terminal, pattern: str) -> None:
    deadline = time.monotonic() + 20
    while not re.search(pattern, terminal.text):
        assert time.monotonic() < deadline, terminal.text
        time.sleep(0.01)


def test_a_bar_is_drawn_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attached(monkeypatch)
    with Progress() as shown:
        shown("days", 10, 30)
        await_drawn(terminal, r"days .*10/30")
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")


def test_work_without_a_measure_shows_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attached(monkeypatch)
    with Progress() as shown, shown.passing("reading"):
        await_drawn(terminal, r"reading .*0:00:00")


def test_work_with_a_limit_shows_how_near_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attached(monkeypatch)
    with Progress() as shown, shown.passing("asking", 60):
        await_drawn(terminal, r"asking, at most 60 s .*/60")


def test_a_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = io.StringIO()
    monkeypatch.setattr("sys.stderr", quiet)
    with Progress() as shown, shown.passing("reading"):
        shown("days", 1, 2)
    assert not quiet.getvalue()
