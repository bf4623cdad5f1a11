"""Starting a few programs in order, following what they write, and ending them all: what scripts/up needs of a supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None

STOP_SECONDS = 20.0
TAIL_LINES = 15
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Whatever ends the supervisor, even kill -9, ends its programs."""


class PartError(Exception):
    """A program could not be started, or ended by itself; the text names it and holds the end of its log."""


class Interrupted(BaseException):
    """SIGTERM arrived: the same as Ctrl-C, so that it passes through every handler of errors."""


@dataclass(frozen=True, slots=True)
class Part:
    """One program: its name for people, its command line, and what tells that it is ready (an URL, or at once)."""

    name: str
    command: Sequence[str]
    ready_url: str = ""


def answers(url: str, seconds: float = 2.0) -> bool:
    """Whether a GET of this loopback URL is answered, and not with an error."""
    with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(url, timeout=seconds):  # noqa: S310 - http only
        return True
    return False


def await_true(condition: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Ask until the condition holds, at most so long; whether it held."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


class Supervisor:
    """Runs parts in their order of starting and ends them in the reverse one, on every way out of its ``with``."""

    def __init__(self, logs: Path) -> None:
        """Write each part's output to ``logs``/NAME.log, anew for each run."""
        self._logs = logs
        self._running: list[tuple[Part, subprocess.Popen[bytes]]] = []
        self._handlers: dict[signal.Signals, Handler] = {}

    def start(self, part: Part) -> None:
        """Start a part; in a session of its own, so that Ctrl-C reaches the supervisor alone and the order of ending holds."""
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log_of(part.name).open("wb") as log:
            try:
                process = subprocess.Popen(
                    [*DIES_WITH_US, *part.command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise PartError(f"{part.name}: cannot run {part.command[0]}: {error.strerror}") from error
        self._running.append((part, process))

    def wait_ready(self, part: Part, seconds: float, is_ready: Callable[[], bool] | None = None) -> None:
        """Wait until a started part is ready; raises PartError when it ends or takes longer."""
        ready = is_ready or (lambda: answers(part.ready_url))

        def settled() -> bool:
            self.check()
            return ready()

        if not await_true(settled, seconds):
            raise PartError(f"{part.name} is not ready after {seconds:.0f} s{self._tail(part.name)}")

    def run_once(self, part: Part, seconds: float) -> None:
        """Run a part to its end; raises PartError unless it ends with 0."""
        self.start(part)
        _, process = self._running[-1]
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise PartError(f"{part.name} is not done after {seconds:.0f} s{self._tail(part.name)}") from error
        self._running.pop()
        if code:
            raise PartError(f"{part.name} failed with {code}{self._tail(part.name)}")

    def check(self) -> None:
        """Raise PartError when a part has ended by itself."""
        for part, process in self._running:
            code = process.poll()
            if code is not None:
                raise PartError(f"{part.name} ended by itself with {code}{self._tail(part.name)}")

    def follow(self) -> Iterator[str]:
        """Yield what the parts write, a line at a time with the part's name before it; raises PartError when one ends."""
        with contextlib.ExitStack() as opened:
            logs = {part.name: opened.enter_context(self.log_of(part.name).open(errors="replace")) for part, _ in self._running}
            width = max(map(len, logs), default=0)
            while True:
                lines = [f"{name:{width}} | {line}" for name, log in logs.items() for line in _new_lines(log)]
                yield from lines
                self.check()
                if not lines:
                    time.sleep(0.2)

    def __enter__(self) -> Self:
        """Let SIGTERM and Ctrl-C end everything, the latter also where a shell started us in the background and ignores it."""
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _interrupt)
        return self

    def __exit__(self, *reason: object) -> None:
        """End every part, the last started first; one that does not end in time is killed, and said so."""
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        for part, process in reversed(self._running):
            _end(part, process)
        self._running.clear()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def log_of(self, name: str) -> Path:
        """Return the file that a part's output goes to."""
        return self._logs / f"{name}.log"

    def _tail(self, name: str) -> str:
        log = self.log_of(name)
        lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "".join(f"\n    {line}" for line in lines) + f"\n  all of its output: {log}"


def _new_lines(log: IO[str]) -> Iterator[str]:
    """Yield the complete lines that came since; half a line is left for the next time."""
    while True:
        place = log.tell()
        line = log.readline()
        if not line.endswith("\n"):
            log.seek(place)
            return
        yield line.rstrip("\n")


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise Interrupted


def _end(part: Part, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"{part.name} is still there {STOP_SECONDS:.0f} s after SIGTERM: killed", file=sys.stderr, flush=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
