"""A real schema registry of a test's own: Apicurio, which speaks Confluent's protocol, from Maven Central, with its data in memory."""

from __future__ import annotations

import shutil
import subprocess
import time
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from scripts.embedded_kafka import data_folder, one_at_a_time
from tests.support.broker import DIES_WITH_US, free_ports

if TYPE_CHECKING:
    from types import TracebackType

VERSION: Final = "2.6.13.Final"
ARTIFACT: Final = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
API: Final = "/apis/ccompat/v7"
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 20.0


def fetched() -> Path:
    """The program's folder, filled from Maven Central (109 MB) the first time; raises ``CalledProcessError`` where that fails."""
    folder = data_folder() / "registry" / VERSION
    folder.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder.parent / "fetch.lock"):
        if not folder.is_dir():
            part, repository = folder.with_suffix(".part"), folder.with_suffix(".maven")
            shutil.rmtree(part, ignore_errors=True)
            command = ["mvn", "-q", "-B", f"-Dmaven.repo.local={repository}", "dependency:unpack", f"-Dartifact={ARTIFACT}"]
            subprocess.run([*command, f"-DoutputDirectory={part}"], check=True, stdin=subprocess.DEVNULL, cwd=folder.parent)
            part.rename(folder)
            shutil.rmtree(repository, ignore_errors=True)
    return folder


class RealRegistry:
    """``with RealRegistry(folder) as registry`` starts it on a free loopback port; ``url`` is what ``registry.url`` is set to."""

    def __init__(self, folder: Path) -> None:
        """``folder`` takes its log."""
        (port,) = free_ports(1)
        self._log = folder / "registry.log"
        self._port = port
        self.url = f"http://127.0.0.1:{port}{API}"

    def __enter__(self) -> Self:
        """Starts, and returns when it answers; raises ``AssertionError`` with its log's end where it does not."""
        program = fetched()
        command = [*DIES_WITH_US, "java", "-Xmx256m", "-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self._port}", "-jar"]
        with self._log.open("wb") as log:
            runner = program / f"apicurio-registry-app-{VERSION}-runner.jar"
            self._process = subprocess.Popen([*command, str(runner)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=program)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise AssertionError(f"the registry did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.2)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ends it; its data goes with it."""
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=5.0)
        try:
            connection.request("GET", f"{API}/subjects")
            return connection.getresponse().status == HTTPStatus.OK
        except (HTTPException, OSError):
            return False
        finally:
            connection.close()
