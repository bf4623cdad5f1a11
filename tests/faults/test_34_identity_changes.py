"""Fault 34: a host's clock jumps, its machine id is another one, it is renamed. One node, one order; the old name vanishes as a node does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.command import PROGRAM, environment
from tests.support.criteria import Criteria
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.lab_process import Namespaces, Process
from tests.support.long import length
from tests.support.processors import Bus, Processors, eventually
from virtflow.schemas.records import NodeSnapshot, NodeStatus
from virtflow.schemas.topics import NODES, SNAPSHOTS

ROW = 34
SECONDS = 60.0
INTERVAL = 1.0
FORGET_SECONDS = 60.0
SHIFTED_CLOCK = '''
"""A clock that is off by as many seconds as a file says: every process that finds this module has it."""
import os, time
_true = time.time
def _shifted():
    with open(os.environ["SHIFT_FILE"]) as file:
        return _true() + float(file.read() or 0)
time.time = _shifted
'''


class Host:
    """A host of its own name, machine id and clock, in namespaces; libvirt's own test driver has its VM."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        """Its name is ``old-name``."""
        self.log = folder / "producer.log"
        self._bus, self._folder = bus, folder
        (folder / "shift").write_text("0")
        (folder / "sitecustomize.py").write_text(SHIFTED_CLOCK)
        self._machine_id = folder / "machine-id"
        self._machine_id.write_text("1" * 32 + "\n")
        first = f"mount --bind {self._machine_id} /etc/machine-id; hostname old-name; echo ready; exec sleep infinity"
        self.namespaces = Namespaces(["sh", "-c", f"test -e /etc/machine-id || touch /etc/machine-id; {first}"], folder / "host.log")
        self.producer: Process | None = None

    def start(self) -> None:
        """Starts its producer."""
        more = {
            "VIRTFLOW_LIBVIRT_URI": "test:///default",
            "VIRTFLOW_PRODUCER_INTERVAL_SECONDS": str(INTERVAL),
            "VIRTFLOW_PRODUCER_JOURNAL_FOLDER": str(self._folder / "journal"),
            "SHIFT_FILE": str(self._folder / "shift"),
            "PYTHONPATH": str(self._folder),
        }
        inside = ["nsenter", "-t", str(self.namespaces.first_pid), "-m", "-u", "-r", "--"]
        self.producer = Process([*inside, str(PROGRAM), "producer"], self.log, environment(self._bus.environment() | more))

    def rename(self, name: str) -> None:
        """As ``hostnamectl`` does."""
        self.namespaces.run("hostname", name)

    def shift(self, seconds: float) -> None:
        """Its clock jumps."""
        (self._folder / "shift").write_text(str(seconds))

    def another_machine_id(self) -> None:
        """As that of a host that was made from another's image, and then got its own."""
        self._machine_id.write_text("2" * 32 + "\n")

    def stop(self) -> None:
        """Ends its producer with TERM."""
        assert self.producer is not None
        assert self.producer.stop() == 0

    def close(self) -> None:
        """Ends all of it."""
        if self.producer is not None:
            self.producer.kill()
        self.namespaces.close()


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with Broker(tmp_path / "broker") as broker:
        bus = Bus(broker, partitions=2)
        bus.create_topics()
        yield bus


@pytest.fixture
def host(bus: Bus, tmp_path: Path) -> Iterator[Host]:
    folder = tmp_path / "host"
    folder.mkdir()
    host = Host(bus, folder)
    try:
        yield host
    finally:
        host.close()


def newest(bus: Bus) -> NodeSnapshot:
    return bus.records(SNAPSHOTS, NodeSnapshot)[-1]


def await_rounds(bus: Bus, count: int) -> None:
    """So many rounds more."""
    begun = len(bus.read(SNAPSHOTS))
    eventually("rounds", lambda: len(bus.read(SNAPSHOTS)) >= begun + count, SECONDS)


def test_one_node_one_order_and_the_old_name_vanishes(bus: Bus, host: Host, tmp_path: Path, criteria: Criteria) -> None:
    settings = {"EXPORTER_FORGET_NODE_SECONDS": FORGET_SECONDS}
    with (
        Processors(bus, tmp_path / "processors") as processors,
        ExporterProcess(tmp_path, bus.broker.address, bus.prefix, settings) as exporter,
    ):
        host.start()
        exporter.wait_until(lambda: exporter.value("virtflow_node_up", node="old-name") == 1.0, SECONDS, "the node")
        criteria.baseline()
        for shift in (3_600.0, -3_600.0, 0.0):
            host.shift(shift)
            await_rounds(bus, 3)
            assert abs(newest(bus).collected - time.time() - shift) < 60.0  # the clock did jump
            assert exporter.value("virtflow_node_up", node="old-name") == 1.0
        host.another_machine_id()
        host.rename("new-name")
        await_rounds(bus, 3)
        assert nodes(exporter) == {"old-name": 1.0}
        host.stop()
        host.start()
        exporter.wait_until(lambda: nodes(exporter).get("new-name") == 1.0, SECONDS, "the new name")
        began = time.monotonic()
        exporter.wait_until(lambda: nodes(exporter) == {"old-name": 0.0, "new-name": 1.0}, 4 * INTERVAL + 5.0, "the old name is down")
        figure(ROW, "the old name is down after", round(time.monotonic() - began, 1), "s")
        # One VM, one series, under the new name: what the old one said has expired.
        assert vm_nodes(exporter) == ["new-name"]
        if length(short=False, full=True):
            exporter.wait_until(lambda: nodes(exporter) == {"new-name": 1.0}, FORGET_SECONDS + SECONDS, "the old name is forgotten")
        criteria.settled(row=ROW)
        host.stop()
        bus.wait_until_committed(SECONDS)
        assert processors.terminate() == 0
    runs: dict[str, list[NodeSnapshot]] = {}
    for snapshot in bus.records(SNAPSHOTS, NodeSnapshot):
        runs.setdefault(snapshot.boot_id, []).append(snapshot)
    assert [{one.node for one in run} for run in runs.values()] == [{"old-name"}, {"new-name"}]
    for run in runs.values():
        assert [one.sequence for one in run] == list(range(len(run)))
    statuses = [(one.boot_id, one.sequence) for one in bus.records(NODES, NodeStatus)]
    assert sorted(statuses) == sorted((boot, one.sequence) for boot, run in runs.items() for one in run)
    figure(ROW, "rounds, numbered without a gap", len(statuses))


def nodes(exporter: ExporterProcess) -> dict[str, float]:
    """The nodes that are shown, and whether each is up."""
    return {dict(labels)["node"]: value for (name, labels), value in exporter.series().items() if name == "virtflow_node_up"}


def vm_nodes(exporter: ExporterProcess) -> list[str]:
    """The node of each VM that is shown."""
    return [dict(labels)["node"] for (name, labels), _ in exporter.series().items() if name == "vm_info"]
