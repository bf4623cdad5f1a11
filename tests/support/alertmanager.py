"""Debian's Alertmanager with the project's example route."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.processors import eventually

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "alertmanager" / "alertmanager.yml"


class Alertmanager:
    """One that runs; ``address`` is its HOST:PORT."""

    def __init__(self, port: int) -> None:
        """As ``alertmanager`` started it."""
        self.address = f"127.0.0.1:{port}"

    def receivers(self, alert: str) -> set[str]:
        """The names of the receivers of all alerts of this name that it has been sent."""
        with urllib.request.urlopen(f"http://{self.address}/api/v2/alerts", timeout=10) as reply:
            found = json.load(reply)
        return {receiver["name"] for one in found if one["labels"]["alertname"] == alert for receiver in one["receivers"]}

    def ready(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=1):
            return True
        return False


@contextmanager
def alertmanager(folder: Path) -> Iterator[Alertmanager]:
    """It, once it is ready; its data goes to the folder."""
    (port,) = free_ports(1)
    command = [*DIES_WITH_US, "prometheus-alertmanager", f"--config.file={CONFIG}", f"--storage.path={folder / 'alertmanager'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    started = Alertmanager(port)
    with (folder / "alertmanager.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process:
        try:
            eventually("an Alertmanager that is ready", started.ready, 30.0)
            yield started
        finally:
            process.terminate()
