"""`virtflow history serve` as a process of its own, what it answers, and what it and its reading processes take."""

from __future__ import annotations

import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.command import PROGRAM, environment
from virtflow.history.remote_read.protocol.wire import Asked, ReadRequest, write_request


class Server:
    """One server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        """As ``serving`` started it."""
        self.process, self.port, self.log = process, port, log

    def page(self, path: str, seconds: float = 20.0) -> int:
        """The status of a page, 0 without an answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=seconds) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def read(self, *asked: Asked) -> tuple[int, str]:
        """The status and text of an answer; "" where it is one."""
        return self.send(write_request(ReadRequest(asked)))

    def send(self, body: bytes, seconds: float = 60.0) -> tuple[int, str]:
        """The same for any body; status 0 where the server hung up."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/v1/read", body, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=seconds) as reply:  # noqa: S310, our own
                reply.read()
                return int(reply.status), ""
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def value(self, series: str) -> float:
        """The value of one series of its own metrics; 0 where it is missing."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as reply:
            lines = reply.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} ")), 0.0)

    def children(self) -> list[int]:
        """The process ids of its reading processes."""
        return _children(self.process.pid)

    def peak_bytes(self, pid: int = 0) -> int:
        """The most resident memory that it, or one of its processes, has had."""
        status = Path(f"/proc/{pid or self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))

    def stop(self) -> int:
        """SIGTERM; its exit code, within the time that a service has."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


def until(true: Callable[[], bool], server: Server) -> None:
    """Waits for it; fails with the end of the server's log."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, server.log.read_text()[-2000:]
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    return [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]


@contextmanager
def serving(history: Path | str, folder: Path, env: Mapping[str, str] | None = None, page: str = "/readyz") -> Iterator[Server]:
    """The server with settings of its own, once it is ready, or ``page`` is good; it ends by SIGTERM, as it should, unless it has ended already."""
    (port,) = free_ports(1)
    command = [*DIES_WITH_US, str(PROGRAM), "history", "serve", "--history", str(history), "--listen", f"127.0.0.1:{port}"]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(env or {}), stdout=log, stderr=subprocess.STDOUT)
    server = Server(process, port, folder / "serve.log")
    try:
        deadline = time.monotonic() + 60
        while server.page(page) != 200:
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.05)
        yield server
        if process.poll() is None:
            assert server.stop() == 0
    finally:
        process.kill()
        process.wait(10)
