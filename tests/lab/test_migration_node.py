"""One host alone: ``virtflow node`` on either side of a real migration, each with the options, through a restart of both."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import GuestSpec, Lab, Node, Process
from tests.support.lab_migration import CompletedJob, Migrating
from tests.support.lab_pipeline import VIRTFLOW
from tests.support.lab_process import await_true
from tests.support.lab_scrape import Scrape, parse

SECONDS = 30.0
PORT = 9177


class Alone:
    """A ``virtflow node`` on a lab's node, scraped from within it."""

    def __init__(self, node: Node, folder: Path, *options: str) -> None:
        """Start it."""
        self.node = node
        self._log = folder / f"{node.name}.log"
        self._command = [VIRTFLOW, "node", "--interval", "1", "--listen", f"127.0.0.1:{PORT}", "--log-level", "error", *options]
        self._environment = {"VIRTFLOW_EXPORTER_KEEP_FILE": str(folder / f"{node.name}.jsonl")}
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
        fetch = f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{PORT}/metrics', timeout=5).read().decode())"
        return parse(self.node.exec("sh", "-c", f'{Path(VIRTFLOW).with_name("python")} -c "{fetch}" || true'), 0.0)

    def await_value(self, wanted: float, name: str, **labels: str) -> Scrape:
        """A scrape in which the series has that value."""
        found: list[Scrape] = []

        def shows() -> bool:
            found.append(self.scrape())
            return found[-1].value(name, **labels) == wanted

        await_true(shows, SECONDS, f"{self.node.name} shows {name} {wanted}")
        return found[-1]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes."""
    with Lab(nodes=2) as lab:
        yield lab


def test_either_side_tells_what_it_hears_and_keeps_it(lab: Lab, tmp_path: Path) -> None:
    """The source has all numbers and keeps them beyond its own restart; the destination tells that the VM came."""
    source, destination = lab.nodes
    guest = source.start_guest(GuestSpec("swift-1", memory_mib=96, balloon_mib=96))
    still = source.load_paused(1)[0]
    here = Alone(source, tmp_path, "--keep-last", "--always-export")
    there = Alone(destination, tmp_path, "--keep-last")
    here.await_value(0, "vm_migration_active", uuid=guest.uuid)
    there.await_value(1, "virtflow_node_up")
    completed = CompletedJob(source, guest, tmp_path / "event.log")
    Migrating.begin(guest, source, destination).succeed()
    final = completed.statistics()
    seen = there.await_value(1, "vm_migration_info", uuid=guest.uuid, destination=destination.name)
    assert seen.value("vm_migration_resumed_timestamp_seconds", uuid=guest.uuid) is not None
    Migrating.begin(guest, destination, source).succeed()
    # The source of the first one is the destination of the second: its numbers are the other side's.
    back = there.await_value(final["memory_total"], "vm_migration_memory_total_bytes", uuid=guest.uuid)
    assert back.value("vm_migration_active", uuid=guest.uuid) in {0.0, None}
    for alone in (here, there):
        alone.kill()
        alone.start()
    kept = here.await_value(0, "vm_migration_active", uuid=still.uuid)
    absent = kept.value("vm_migration_downtime_seconds", uuid=still.uuid)
    assert absent is not None
    assert absent != absent  # noqa: PLR0124, NaN is not itself
    here.await_value(1, "vm_migration_info", uuid=guest.uuid, destination=source.name)
