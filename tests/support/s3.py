"""A real S3-compatible server of a test's own: gofakes3, built from its Go module, with conditional writes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from scripts.embedded_kafka import data_folder, one_at_a_time
from scripts.go_toolchain import go
from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.started import Started
from virtflow.runtime.settings import History

MODULE: Final = "github.com/johannesboyne/gofakes3/cmd/gofakes3@v1.2.0"
FOLDER: Final = data_folder() / "s3"
BUILD_SECONDS: Final = 600
START_SECONDS: Final = 20.0


def program() -> Path:
    """The server's program, built where it is not there yet."""
    found = FOLDER / "gofakes3"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(FOLDER / "build.lock"):
        if not found.exists():
            env = {**os.environ, "GOBIN": str(FOLDER), "GOFLAGS": "-modcacherw"}
            subprocess.run([str(go()), "install", MODULE], env=env, check=True, stdin=subprocess.DEVNULL, timeout=BUILD_SECONDS)
    return found


class ObjectStore(Started):
    """One server with one bucket. Its data is in memory, or ``kept`` in a file and still there when it is started again."""

    def __init__(self, folder: Path, bucket: str = "history", *, kept: bool = False) -> None:
        """Takes a port; nothing runs before ``start``. Keys go into ``folder``, as an operator would lay them."""
        self._backend = ["bolt", "-bolt.db", str(folder / "s3.bolt")] if kept else ["memory"]
        (self.port,) = free_ports(1)
        self.bucket = bucket
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("access", "secret"):
            (folder / name).write_text("virtflow\n")
            (folder / name).chmod(0o600)

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a virtflow that keeps its history here."""
        return {
            "VIRTFLOW_HISTORY_PATH": f"s3://{self.bucket}/virtflow",
            "VIRTFLOW_HISTORY_S3_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "VIRTFLOW_HISTORY_S3_ACCESS_KEY_FILE": str(self._folder / "access"),
            "VIRTFLOW_HISTORY_S3_SECRET_KEY_FILE": str(self._folder / "secret"),
        }

    @property
    def history(self) -> History:
        """The same as settings."""
        return History(**{key.removeprefix("VIRTFLOW_HISTORY_").lower(): value for key, value in self.settings.items()})  # type: ignore[arg-type]

    def start(self) -> None:
        """Starts it and returns when it answers."""
        command = [*DIES_WITH_US, str(program()), "-host", f"127.0.0.1:{self.port}", "-initialbucket", self.bucket]
        command += ["-backend", *self._backend]
        with (self._folder / "s3.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return
            assert time.monotonic() < deadline, (self._folder / "s3.log").read_text()
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        """Sends it a signal: SIGSTOP hangs it, SIGCONT lets it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it at once; nothing happens when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def close(self) -> None:
        """Ends it."""
        self.kill()
