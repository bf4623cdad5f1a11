"""The history of a real VM that is rebooted and then moves live: what the tables say it used is what its hypervisors counted.

The VM is made to stand still before a process of it ends, so that the last sample holds all that the process ever counted, and what is
stored can be held against libvirt's own numbers to the last byte. CPU time goes on in a process that stands still: it is held within what
passes between two samples.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.support.broker import free_ports
from tests.support.command import virtflow
from tests.support.lab import Guest, GuestSpec, Lab, Node
from tests.support.lab_migration import Migrating, job_info
from tests.support.lab_pipeline import INTERVAL_SECONDS, VIRTFLOW, Pipeline
from tests.support.lab_process import Process, await_true
from tests.support.prometheus import Prometheus
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import HOURLY, MIGRATION_ROWS, SAMPLES
from virtflow.runtime.settings import History

AWAIT_SECONDS = 60.0
SLOW_MBPS = 10
FAST_MBPS = 8796093022207
VALUES = 4
"""So many different values of a counter are stored before the VM has worked enough."""
CPU_RATE = 2.5
"""CPU seconds per second that QEMU can truly use: its vCPU, its main loop, and the thread that migrates."""
OF_PROCESS = {
    ("block", "vm_block_write_bytes_total"): "block.0.wr.bytes",
    ("block", "vm_block_write_requests_total"): "block.0.wr.reqs",
    ("block", "vm_block_read_bytes_total"): "block.0.rd.bytes",
    ("block", "vm_block_flush_requests_total"): "block.0.fl.reqs",
}
"""Counters of the VM's process that stand still with it, with libvirt's names: each process begins at 0."""
OF_GUEST = ("vm_guest_memory_minor_faults_total", "balloon.minor_fault")
"""A counter of the guest's: it begins at 0 when the guest boots, and moves with it."""


@dataclass
class Parts:
    """A pipeline with a history behind it, and what libvirt said of each process of the VM when that had counted all."""

    settings: History
    guest: Guest
    nodes: tuple[Node, Node]
    ends: list[dict[str, str]] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)

    def stored(self, kind: str, *names: str) -> pa.Table:
        """The VM's stored samples of a kind, in the order of time."""
        wanted = (pc.field("uuid") == self.guest.uuid) & (pc.field("kind") == kind)
        columns = ["time", "monitor_time", "node", *names]
        return Store(self.settings).open(SAMPLES).dataset().to_table(columns=columns, filter=wanted).sort_by("time")

    def work(self, node: Node) -> None:
        """Waits until the VM has written for a while on ``node``, and that is stored."""
        since, name = time.time(), "vm_block_write_bytes_total"

        def worked() -> bool:
            rows = [row for row in self.stored("block", name).to_pylist() if row["node"] == node.name and row["time"].timestamp() > since]
            return len({row[name] for row in rows}) >= VALUES

        await_true(worked, AWAIT_SECONDS, f"{self.guest.name} works on {node.name}")

    def stand_still(self, node: Node) -> None:
        """Suspends the VM, and waits until a sample taken after that is stored; then libvirt's own numbers are noted."""
        node.virsh("suspend", self.guest.uuid)
        since = time.time()

        def seen() -> bool:
            rows = [row for row in self.stored("vm").to_pylist() if row["node"] == node.name and row["monitor_time"] is not None]
            return bool(rows) and rows[-1]["monitor_time"].timestamp() > since

        await_true(seen, AWAIT_SECONDS, f"{self.guest.name} is stored standing still on {node.name}")
        self.ends.append(node.domstats(self.guest))
        self.moments.append(since)

    def grown(self, name: str, kind: str) -> float:
        """What the roll-ups say a counter grew by."""
        wanted = (pc.field("uuid") == self.guest.uuid) & (pc.field("kind") == kind)
        rows = Store(self.settings).open(HOURLY).dataset().to_table(columns=[f"{name}_increase"], filter=wanted)
        return float(pc.sum(rows.column(0)).as_py())

    def truth(self, name: str, kind: str, counts: str, ends: tuple[int, ...]) -> int:
        """What libvirt says: the last number of each process in ``ends``, less what had been counted before the first sample."""
        first = self.stored(kind, name).column(name).drop_null()[0].as_py()
        return sum(int(self.ends[end][counts]) for end in ends) - int(first)


@contextmanager
def writing(pipeline: Pipeline, folder: Path) -> Iterator[Process]:
    """The history's writer beside the pipeline."""
    (port,) = free_ports(1)
    settings = {
        "VIRTFLOW_HISTORY_PATH": str(folder / "history"),
        "VIRTFLOW_HISTORY_LISTEN": f"127.0.0.1:{port}",
        "VIRTFLOW_HISTORY_COMMIT_SECONDS": "0.5",
        "VIRTFLOW_HISTORY_MAINTAIN_SECONDS": "0",
    }
    writer = Process([VIRTFLOW, "history", "write"], folder / "writer.log", pipeline.environment | settings)
    try:
        yield writer
    finally:
        writer.kill()


@pytest.fixture(scope="module")
def parts(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A VM that works, is rebooted, works, moves live, and works there: stored and rolled up."""
    folder = tmp_path_factory.mktemp("history")
    here, there = lab.nodes
    with Pipeline(lab, folder / "pipeline") as pipeline, writing(pipeline, folder) as writer:
        guest = here.start_guest(GuestSpec("busy-1", dirty_mib=24))
        found = Parts(History(path=str(folder / "history")), guest, (here, there))
        found.work(here)
        found.stand_still(here)
        here.reboot(guest)
        found.work(here)
        migrating = Migrating.begin(guest, here, there, SLOW_MBPS)
        await_true(lambda: job_info(here, guest).get("memory_processed", 0) > 1 << 20, AWAIT_SECONDS, "the migration moves memory")
        found.stand_still(here)
        here.virsh("migrate-setspeed", guest.uuid, str(FAST_MBPS))
        migrating.succeed()  # libvirt lets it run on the other side, since it ran when the migration began
        found.work(there)
        found.stand_still(there)
        assert writer.stop() == 0, (folder / "writer.log").read_text()[-3000:]
    done = virtflow("history", "compact", "--history", found.settings.path)
    assert done.returncode == 0, done.stderr
    return found


def test_what_its_processes_counted_is_what_is_stored(parts: Parts) -> None:
    """To the last byte, over a reboot and a live migration."""
    for (kind, name), counts in OF_PROCESS.items():
        assert parts.grown(name, kind) == parts.truth(name, kind, counts, (0, 1, 2)), name


def test_what_the_guest_counted_moved_with_it(parts: Parts) -> None:
    name, counts = OF_GUEST
    assert parts.grown(name, "vm") == parts.truth(name, "vm", counts, (0, 2))


def test_cpu_time_is_the_hypervisors_but_for_the_last_moment_of_a_process(parts: Parts) -> None:
    name = "vm_cpu_seconds_total"
    first = float(parts.stored("vm", name).column(name).drop_null()[0].as_py())
    truth = sum(int(end["cpu.time"]) for end in parts.ends) / 1e9 - first
    assert parts.grown(name, "vm") == pytest.approx(truth, abs=len(parts.ends) * 2 * INTERVAL_SECONDS * CPU_RATE)


def test_promql_says_the_same(parts: Parts, tmp_path: Path) -> None:
    """A Prometheus over the same samples (remote_read): its increase is the history's but for the extrapolation to the window's edges."""
    times = [row["time"].timestamp() for row in parts.stored("vm").to_pylist()]
    window = times[-1] - times[0]
    (port,) = free_ports(1)
    serving = {"VIRTFLOW_HISTORY_PATH": parts.settings.path, "VIRTFLOW_HISTORY_SERVE_LISTEN": f"127.0.0.1:{port}"}
    server = Process([VIRTFLOW, "history", "serve"], tmp_path / "serve.log", serving)
    try:
        with Prometheus(tmp_path, {}, remote_read=f"http://127.0.0.1:{port}/api/v1/read") as prometheus:
            for kind, name in [*OF_PROCESS, ("vm", "vm_cpu_seconds_total")]:
                asked = f'increase({name}{{uuid="{parts.guest.uuid}"}}[{round(window * 1000)}ms] @ {times[-1]:.3f})'
                await_true(lambda asked=asked: prometheus.query(asked) != [], AWAIT_SECONDS, "the history answers")  # type: ignore[misc]
                assert prometheus.value(asked) == pytest.approx(parts.grown(name, kind), rel=4 * INTERVAL_SECONDS / window), name
        assert server.stop() == 0
    finally:
        server.kill()


def test_the_commands_tell_the_same_story(parts: Parts) -> None:
    """The bill, where the VM ran, and its one migration."""
    path = ("--history", parts.settings.path)
    months = {time.strftime("%Y-%m", time.gmtime(moment)) for moment in parts.moments}
    bills = [virtflow("history", "report", "usage", "--month", month, "--by", "vm", "--format", "json", *path).stdout for month in months]
    rows = [row for bill in bills for row in json.loads(bill) if row["uuid"] == parts.guest.uuid]
    kind, name = "block", "vm_block_write_bytes_total"
    assert sum(row["block_write_bytes"] for row in rows) == parts.truth(name, kind, OF_PROCESS[kind, name], (0, 1, 2))
    here, there = parts.nodes
    for moment, node in zip(parts.moments, (here, here, there), strict=True):
        said = virtflow("history", "where", f"{moment:.3f}", "--vm", "busy-1", *path).stdout
        assert node.name in said, said
    moved = Store(parts.settings).open(MIGRATION_ROWS).dataset().to_table().to_pylist()
    assert {(row["result"], row["source"], row["destination"]) for row in moved if row["ended_timestamp_seconds"]} == {
        ("completed", here.name, there.name)
    }
