"""A program in a real tmux: keys in as tmux sends them, the screen out as tmux has it. What a person uses over ssh."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from tests.support.command import PROGRAM, of_a_terminal

SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.05
LOCALE: Final = "C.UTF-8"


class Tmux:
    """``with Tmux(folder, 80, 24, "top", "--url", url) as tmux`` runs ``virtflow`` with these words, in a tmux server of its own."""

    def __init__(self, folder: Path, columns: int, lines: int, *words: str) -> None:
        """Nothing runs yet; ``folder`` has the server's socket."""
        self._socket = folder / "tmux"
        self._code = folder / "code"
        self._size = ("-x", str(columns), "-y", str(lines))
        # tmux 3.3 may leave a program that has ended unreaped, and then never knows its exit code.
        self._command = f"{shlex.join([str(PROGRAM), *words])}; echo $? >{shlex.quote(str(self._code))}"

    def __enter__(self) -> Self:
        """Starts it. What ends leaves its last screen."""
        keep = ("set-option", "-g", "remain-on-exit", "on", ";", "set-option", "-g", "status", "off", ";")
        self._tmux(*keep, "new-session", "-d", *self._size, self._command)
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the server with all that runs in it."""
        self._tmux("kill-server", check=False)

    def press(self, *keys: str) -> None:
        """Keys by tmux' names: ``Down``, ``Enter``, ``Escape``, or text."""
        self._tmux("send-keys", *keys)

    def text(self) -> str:
        """The screen as lines."""
        return self._tmux("capture-pane", "-p").rstrip("\n")

    def wait_for(self, good: Callable[[str], bool], what: str) -> str:
        """The screen once it is good; fails after 20 seconds."""
        deadline = time.monotonic() + SECONDS
        while not good(text := self.text()):
            assert time.monotonic() < deadline, f"{what}\n{text}"
            time.sleep(LOOK_SECONDS)
        return text

    def end(self) -> int:
        """Waits for the program's end; its exit code."""
        deadline = time.monotonic() + SECONDS
        while not (self._code.exists() and (told := self._code.read_text())):
            assert time.monotonic() < deadline, f"it does not end\n{self.text()}"
            time.sleep(LOOK_SECONDS)
        return int(told)

    def _tmux(self, *words: str, check: bool = True) -> str:
        env = of_a_terminal({"LC_ALL": LOCALE})
        done = subprocess.run(
            ["tmux", "-f", "/dev/null", "-S", str(self._socket), *words],
            env=env,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout
