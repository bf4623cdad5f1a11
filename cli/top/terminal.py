"""The edge of `virtflow top`: keys from a terminal, lines onto it, and answers as they come."""

from __future__ import annotations

import codecs
import os
import queue
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from virtflow.cli.parts import part
from virtflow.cli.top.client import Answers, Fetcher, Source
from virtflow.cli.top.lines import STYLES, Line
from virtflow.cli.top.screens import Screen, body_height, draw
from virtflow.cli.top.state import State, paths, pressed, rows, settled

NAMES: Final = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    "\x1b[5~": "pageup",
    "\x1b[6~": "pagedown",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1b[1~": "home",
    "\x1b[4~": "end",
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x03": "ctrl-c",
}
_ESCAPE: Final = "\x1b"
LOCAL_FLAGS: Final = 3
"""Where a terminal's mode has its local flags."""


def keys_in(text: str) -> list[str]:
    """The keys in what a terminal has sent at once; sequences that nobody knows are skipped."""
    found = []
    while text:
        name = next((sequence for sequence in sorted(NAMES, key=len, reverse=True) if text.startswith(sequence)), "")
        if text[0] == _ESCAPE and len(text) > 1 and len(name) <= 1 and text[1] in "[O":
            end = next((place for place, char in enumerate(text[2:], 2) if char.isalpha() or char == "~"), len(text) - 1)
            text = text[end + 1 :]
            continue
        found.append(NAMES[name] if name else text[0])
        text = text[len(name) or 1 :]
    return found


class Top:
    """One run on a terminal. Needs rich (``virtflow[terminal]``)."""

    def __init__(self, client: Source, state: State, interval_seconds: float) -> None:
        """Raises ``EnvironmentProblemError`` where rich is missing."""
        self._text = part("rich.text", "terminal").Text
        self._live = part("rich.live", "terminal").Live(screen=True, auto_refresh=False)
        self._client = client
        self._state = state
        self._interval = interval_seconds
        self._answers: dict[str, Any] = {}
        self._problem = ""
        self._came: queue.SimpleQueue[tuple[object, Answers | str]] = queue.SimpleQueue()
        self._wake, self._waker = os.pipe()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")

    def run(self) -> None:
        """Until somebody quits."""
        fetcher = Fetcher(self._client, self._tell)
        try:
            with _one_by_one(sys.stdin.fileno()), self._live:
                self._loop(fetcher)
        finally:
            fetcher.close()

    def _loop(self, fetcher: Fetcher) -> None:
        due, asked = 0.0, None
        while not self._state.over:
            wanted = tuple(paths(self._state).items())
            now = time.monotonic()
            if wanted != asked or (now >= due and not self._state.paused):
                fetcher.ask(wanted, dict(wanted))
                asked, due = wanted, now + self._interval
            self._show()
            self._wait(max(due - now, 0.0) if not self._state.paused else self._interval)

    def _tell(self, mark: object, answers: Answers | str) -> None:
        """Called in the fetcher's thread."""
        self._came.put((mark, answers))
        os.write(self._waker, b".")

    def _wait(self, seconds: float) -> None:
        """Until a key, an answer, or the next question is due."""
        ready, _, _ = select.select([sys.stdin.fileno(), self._wake], [], [], min(seconds, 1.0))
        if self._wake in ready:
            os.read(self._wake, 4_096)
            self._take()
        if sys.stdin.fileno() in ready:
            sent = os.read(sys.stdin.fileno(), 4_096)
            for key in keys_in(self._decoder.decode(sent)) if sent else ["q"]:
                self._state = pressed(self._state, key, rows(self._state, self._answers), body_height(self._state, self._screen()))

    def _take(self) -> None:
        while not self._came.empty():
            mark, came = self._came.get()
            if isinstance(came, str):
                self._problem = came
            elif mark == tuple(paths(self._state).items()):
                self._answers, self._problem = self._answers | came, ""
                self._state = settled(self._state, rows(self._state, self._answers))

    def _screen(self) -> Screen:
        columns, lines = shutil.get_terminal_size()
        blocks = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        return Screen(columns, lines, self._client.url, self._problem, blocks)

    def _show(self) -> None:
        self._live.update(self._styled(draw(self._state, self._answers, self._screen())), refresh=True)

    def _styled(self, lines: list[Line]) -> Any:  # noqa: ANN401, rich's text
        text = self._text(no_wrap=True, overflow="crop")
        for number, line in enumerate(lines):
            if number:
                text.append("\n")
            for piece in line:
                text.append(piece.text, STYLES.get(piece.style))
        return text


@contextmanager
def _one_by_one(terminal: int) -> Iterator[None]:
    """Keys come as they are pressed and are not shown; the terminal is as before at the end."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        mode = termios.tcgetattr(terminal)
        mode[LOCAL_FLAGS] &= ~termios.ISIG  # Ctrl-C is a key like any other: the screen is given back in order
        termios.tcsetattr(terminal, termios.TCSADRAIN, mode)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
