"""A ``virtflow node`` on a lab's node: one host's VMs without a broker, scraped from within the node."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.lab import Node, Process
from tests.support.lab_pipeline import VIRTFLOW
from tests.support.lab_process import LabError, await_true
from tests.support.lab_scrape import Scrape, parse

SECONDS = 30.0
PORT = 9177
FETCH = f"""
import sys, urllib.request
try:
    sys.stdout.write(urllib.request.urlopen("http://127.0.0.1:{PORT}/metrics", timeout=5).read().decode())
except OSError:
    pass
"""


class NodeAlone:
    """It runs until it is killed, or the node ends."""

    def __init__(self, node: Node, folder: Path, *options: str, settings: Mapping[str, str] | None = None) -> None:
        """Start it with more command-line ``options`` and environment variables."""
        self.node = node
        self._log = folder / f"{node.name}.log"
        self._command = [VIRTFLOW, "node", "--listen", f"127.0.0.1:{PORT}", *options]
        self._environment = {"VIRTFLOW_EXPORTER_KEEP_FILE": str(folder / f"{node.name}.jsonl"), **(settings or {})}
        self._process: Process | None = None
        self.start()

    def start(self) -> None:
        """Start it anew."""
        self._process = self.node.spawn(self._command, self._log, self._environment)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.signal(signal.SIGKILL)
        self._process.wait(SECONDS)

    def scrape(self) -> Scrape:
        """What it shows now; nothing where it does not answer."""
        when = time.time()
        return parse(self.node.exec(str(Path(VIRTFLOW).with_name("python")), "-c", FETCH), when)

    def await_scrape(self, condition: Callable[[Scrape], bool], what: str, timeout_seconds: float = SECONDS) -> Scrape:
        """A scrape for which ``condition`` holds; LabError naming ``what`` and the end of its log when none comes."""
        found: list[Scrape] = []

        def holds() -> bool:
            found.append(self.scrape())
            return condition(found[-1])

        try:
            await_true(holds, timeout_seconds, what)
        except LabError as error:
            raise LabError(f"{error}\n{self._log.read_text(errors='replace')[-3000:]}") from error
        return found[-1]

    def await_value(self, wanted: float, name: str, **labels: str) -> Scrape:
        """A scrape in which the series has that value."""
        return self.await_scrape(lambda seen: seen.value(name, **labels) == wanted, f"{self.node.name} shows {name} {wanted}")
