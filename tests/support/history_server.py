"""``virtflow history serve`` as its users run it: a process of its own, ended with TERM."""

from __future__ import annotations

import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.command import PROGRAM, environment
from tests.support.started import Started

START_SECONDS = 30.0
ANSWER_SECONDS = 5.0


class HistoryServer(Started):
    """``with HistoryServer(path, folder) as server`` starts it and waits until it is ready; it is killed at the end if it still runs."""

    def __init__(self, path: Path | str, folder: Path, env: Mapping[str, str] | None = None) -> None:
        """``path`` is the tables' place, ``folder`` the log's; nothing runs before ``start``."""
        (self.port,) = free_ports(1)
        self.log = folder / "serve.log"
        self._command = [*DIES_WITH_US, str(PROGRAM), "history", "serve", "--history", str(path), "--listen", f"127.0.0.1:{self.port}"]
        self._env = environment(env)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._env, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while self.status("/readyz") != 200:
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def stop(self, seconds: float) -> int:
        """TERM; its exit code, which comes in time."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(seconds)
        self._process = None
        return code

    def close(self) -> None:
        """Ends it whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_SECONDS)
            self._process = None

    def status(self, path: str) -> int:
        """The status of a page, 0 where nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=ANSWER_SECONDS) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def read(self, body: bytes, seconds: float = 30.0) -> int:
        """The status of a remote_read request's answer, 0 where the server hung up."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/v1/read", body, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=seconds) as reply:  # noqa: S310, our own
                reply.read()
                return int(reply.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0
