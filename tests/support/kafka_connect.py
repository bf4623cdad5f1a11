"""Apache Kafka Connect with its own sink into a file and Apicurio's converter, from Maven Central: fetched on first use, kept under VIRTFLOW_DATA."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.maven import jars
from tests.support.real_registry import VERSION as REGISTRY_VERSION
from tests.support.started import Started

VERSION: Final = "4.1.1"
ARTIFACTS: Final = (
    f"org.apache.kafka:connect-runtime:{VERSION}",
    f"org.apache.kafka:connect-file:{VERSION}",
    f"io.apicurio:apicurio-registry-utils-converter:{REGISTRY_VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",
)
STOP_SECONDS: Final = 30.0
_WORKER: Final = """bootstrap.servers={broker}
listeners=http://127.0.0.1:{port}
offset.storage.file.filename={folder}/offsets
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
"""
_SINK: Final = """name=sink
connector.class=org.apache.kafka.connect.file.FileStreamSinkConnector
file={file}
"""


def fetched() -> Path:
    """The folder with its jars (37 MB)."""
    return jars("connect", ARTIFACTS)


class FileSink(Started):
    """One worker with one connector, which writes each record's value as a line of a file."""

    def __init__(self, broker: str, properties: str, folder: Path) -> None:
        """``properties`` are what the connector gets beside its name, class and file. Nothing runs before ``start``."""
        self._broker, self._properties, self._folder = broker, properties, folder
        self._file = folder / "sink.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; that it works is seen in its lines."""
        (port,) = free_ports(1)
        worker, sink = self._folder / "worker.properties", self._folder / "sink.properties"
        worker.write_text(_WORKER.format(broker=self._broker, port=port, folder=self._folder))
        sink.write_text(_SINK.format(file=self._file) + self._properties)
        main = "org.apache.kafka.connect.cli.ConnectStandalone"
        command = [*DIES_WITH_US, "java", "-Xmx256m", "-cp", f"{fetched()}/*", main, str(worker), str(sink)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder)

    @property
    def log(self) -> Path:
        """What it says."""
        return self._folder / "connect.log"

    def lines(self) -> list[str]:
        """The lines so far; AssertionError with the end of its log where it has ended."""
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        return self._file.read_text().splitlines() if self._file.exists() else []

    def close(self) -> None:
        """Ends it, as an operator would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
