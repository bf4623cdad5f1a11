"""A program on a terminal of its own: keys in, the screen as a person sees it out (pyte emulates the terminal)."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from fcntl import ioctl
from pathlib import Path
from typing import Final, Self

import pyte
import pytest

from tests.support.command import PROGRAM, of_a_terminal

SECONDS: Final = 20.0


def wait_for_golden(file: Path, wait_for: Callable[[Callable[[str], bool], str], str], ready: Callable[[str], bool]) -> None:
    """Waits until a screen is the file's, but for its curves, which depend on how long the program runs.

    To write the file again after a change that is meant, delete it: it gets the first screen that is ``ready``.
    """

    def shown(text: str) -> str:
        return "\n".join(re.sub("[▁-█]", " ", line).rstrip() for line in text.splitlines()).rstrip() + "\n"

    if not file.exists():
        file.write_text(shown(wait_for(ready, "a screen to keep")))
        pytest.fail(f"{file} was not there and is written: look at it, and add it")
    golden = file.read_text()
    wait_for(lambda text: shown(text) == golden, f"the screen of {file}")


class Terminal:
    """``with Terminal("top", "--url", url) as terminal`` runs ``virtflow`` with these words on 80 columns and 24 lines."""

    def __init__(self, *words: str, env: Mapping[str, str] | None = None, columns: int = 80, lines: int = 24) -> None:
        """Nothing runs yet."""
        self._words: Sequence[str] = words
        self._env = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | dict(env or {})
        self._size = columns, lines
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.sent = b""
        """Everything that the program has written."""

    def __enter__(self) -> Self:
        """Starts it."""
        self._mine, theirs = pty.openpty()
        self.resize(*self._size)
        env = of_a_terminal(self._env)
        self._process = subprocess.Popen(
            [str(PROGRAM), *self._words], stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
        os.close(theirs)
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(SECONDS)
        os.close(self._mine)

    def resize(self, columns: int, lines: int) -> None:
        """Gives the terminal another size."""
        ioctl(self._mine, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)
        if hasattr(self, "_process"):
            self._process.send_signal(signal.SIGWINCH)

    def press(self, keys: str) -> None:
        """Types."""
        os.write(self._mine, keys.encode())

    def wait_for(self, good: Callable[[str], bool], what: str = "") -> str:
        """Reads until the screen is good; the screen. Fails after 20 seconds, or where the program ends before."""
        deadline = time.monotonic() + SECONDS
        while not good(text := self.text()):
            assert time.monotonic() < deadline, f"{what}\n{text}"
            assert self._read(), f"it has ended: {what}\n{self.text()}"
        return text

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def drain(self) -> None:
        """Reads what there is, without waiting for more."""
        while select.select([self._mine], [], [], 0)[0] and self._read():
            pass

    def text(self) -> str:
        """The screen as lines."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def end(self) -> int:
        """Waits for its end; the exit code."""
        deadline = time.monotonic() + SECONDS
        while self._read():
            assert time.monotonic() < deadline, f"it does not end\n{self.text()}"
        return self._process.wait(SECONDS)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._mine], [], [], 1.0)
        if not ready:
            return self._process.poll() is None
        try:
            text = os.read(self._mine, 65_536)
        except OSError:  # how a terminal says that its other end is closed
            return False
        self.sent += text
        self._stream.feed(text)
        return bool(text)
