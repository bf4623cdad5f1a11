"""A guest-agent helper process that is a script of the test: the same pipes and frames, no process, no libvirt.

scripts = Scripts(monkeypatch)          # in the place of subprocess.Popen in the supervisor
helper = scripts.started(1)             # waits until the supervisor has started the first one
helper.send(Up([...]))
ask = helper.asked(Command.LIST)        # waits for it
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import IO, Any, TypeVar

import pytest

from virtflow.producer.agent.ipc import Ask, Command, FromProcess, Reader, Start, encoded

WAIT_SECONDS = 10.0
"""After which a test that waits is taken to hang."""
KILL_SECONDS = 0.05

_Found = TypeVar("_Found")


class ScriptedHelper:
    """One life of the process, as ``subprocess.Popen`` shows it to the supervisor and as the test plays it."""

    def __init__(self, number: int) -> None:
        """Running."""
        self.pid = 1_000_000 + number
        self.start: Start | None = None
        self.code: int | None = None
        self.stubborn = False
        """Whether it does not end when its input does."""
        self._changed = threading.Condition(threading.RLock())
        self._asked: list[Ask] = []
        inner_in, outer_in = os.pipe()
        outer_out, inner_out = os.pipe()
        self.stdin: IO[bytes] = os.fdopen(outer_in, "wb", buffering=0)
        self.stdout: IO[bytes] = os.fdopen(outer_out, "rb", buffering=0)
        self._in, self._out = inner_in, inner_out
        threading.Thread(target=self._read, daemon=True).start()

    # -- for the test

    def send(self, frame: FromProcess) -> None:
        """Say something."""
        self.send_bytes(encoded(frame))

    def send_bytes(self, data: bytes) -> None:
        """Say something that need not be a frame."""
        os.write(self._out, data)

    def asked(self, command: Command) -> Ask:
        """The next call of this kind that is asked for; others before it stay."""
        return self._await(lambda: self._take(command), f"{command} is asked for")

    def next_ask(self) -> Ask:
        """The next call that is asked for."""
        return self._await(lambda: self._asked.pop(0) if self._asked else None, "anything is asked for")

    def commands(self) -> list[Command]:
        """What is asked for and has not been taken."""
        with self._changed:
            return [ask.command for ask in self._asked]

    def end(self, code: int) -> None:
        """The process ends by itself, with an exit code or by a signal (negative)."""
        with self._changed:
            if self.code is None:
                self.code = code
                os.close(self._out)
            self._changed.notify_all()

    def ended(self) -> int:
        """Wait for its end; how it ended."""
        self._await(lambda: self.code is not None, "the process ends")
        assert self.code is not None
        return self.code

    # -- for the supervisor

    def kill(self) -> None:
        """End it."""
        self.end(-signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.code is not None, timeout):
                raise subprocess.TimeoutExpired("helper", timeout or 0.0)
            assert self.code is not None
            return self.code

    # -- inside

    def _read(self) -> None:
        reader = Reader(of_process=False)
        while data := os.read(self._in, 65_536):
            with self._changed:
                for frame in reader.frames(data):
                    if isinstance(frame, Ask):
                        self._asked.append(frame)
                    elif isinstance(frame, Start):
                        self.start = frame
                self._changed.notify_all()
        os.close(self._in)
        with self._changed:  # whoever kills it does so at once
            if not self.stubborn and not self._changed.wait_for(lambda: self.code is not None, KILL_SECONDS):
                self.end(0)

    def _take(self, command: Command) -> Ask | None:
        found = next((ask for ask in self._asked if ask.command is command), None)
        if found is not None:
            self._asked.remove(found)
        return found

    def _await(self, look: Callable[[], _Found | None], what: str) -> _Found:
        found: list[_Found | None] = []

        def there() -> bool:
            value = look()
            found.append(value)
            return bool(value)

        with self._changed:
            assert self._changed.wait_for(there, WAIT_SECONDS), f"not within {WAIT_SECONDS:g} s: {what}"
        assert found[-1] is not None
        return found[-1]


class Scripts:
    """All helper processes of a test, in the order of their starts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on the supervisor starts scripted ones."""
        self._helpers: list[ScriptedHelper] = []
        self._changed = threading.Condition()
        module = SimpleNamespace(Popen=self._popen, PIPE=-1, DEVNULL=-3, TimeoutExpired=subprocess.TimeoutExpired)
        monkeypatch.setattr("virtflow.producer.agent.supervisor.subprocess", module)

    def _popen(self, *_command: Any, **_options: Any) -> ScriptedHelper:  # noqa: ANN401, as subprocess has it
        with self._changed:
            self._helpers.append(ScriptedHelper(len(self._helpers)))
            self._changed.notify_all()
            return self._helpers[-1]

    @property
    def count(self) -> int:
        """How many have been started."""
        return len(self._helpers)

    def started(self, number: int) -> ScriptedHelper:
        """The first (1), second... one; waits until it has been started."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._helpers) >= number, WAIT_SECONDS), f"helper {number} is not started"
            return self._helpers[number - 1]
