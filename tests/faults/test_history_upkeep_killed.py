"""The history's upkeep is killed at every step: no row is lost, none comes twice, and a reader that has begun reads on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.support.command import environment
from tests.support.figures import figure
from tests.support.history import ROOT, fleet_samples, key_of, stored_keys
from virtflow.history.maintenance.run import maintain
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import DAILY, HOURLY, SAMPLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.records import VmMetrics

DAY = 86_400
START = float((int(time.time()) // DAY - 3) * DAY + 22 * 3_600)
POINTS = ("file", "write", "before commit", "commit")


def written(path: Path) -> list[VmMetrics]:
    """Five hours over two days, in many small files."""
    store = Store(History(path=str(path)))
    writer = TableWriter(store.make(SAMPLES), Sequences())
    writer.begin(["p"])
    samples = list(fleet_samples(1, 8, range(5 * 6), interval=600.0, start=START))
    for offset, sample in enumerate(samples):
        writer.take("p", offset, sample)
        if offset % 60 == 59:
            writer.commit()
    writer.commit()
    return samples


def compact(path: Path, *failpoint: str) -> int:
    program = ["-m", "tests.support.failpoints", *failpoint] if failpoint else ["-m", "virtflow.cli.main"]
    env = environment({"PYTHONPATH": f"{ROOT / '.types'}:{ROOT}", "VIRTFLOW_HISTORY_VACUUM_HOURS": "1"})
    command = [sys.executable, *program, "history", "compact", "--history", str(path)]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, check=False).returncode


def rolled(path: Path) -> list[tuple[object, ...]]:
    """What the roll-ups say, in an order of its own."""
    store = Store(History(path=str(path)))
    names = ["time", "uuid", "kind", "device", "samples", "vm_cpu_seconds_total_increase", "vm_block_read_bytes_total_increase"]
    tables = [store.open(table).dataset().to_table(columns=names) for table in (HOURLY, DAILY)]
    return sorted(tuple(row.values()) for table in tables for row in table.to_pylist())


def test_killed_at_every_step_it_loses_nothing(tmp_path: Path) -> None:
    """Killed before and after files and commits, once at each; then run to its end: the same as never killed, and readers read on."""
    path, other = tmp_path / "killed", tmp_path / "whole"
    samples = written(path)
    reader = Store(History(path=str(path))).open(SAMPLES).dataset()
    for point, passes in ((point, passes) for passes in (0, 3) for point in POINTS):
        assert compact(path, point, str(passes)) == -signal.SIGKILL
        assert stored_keys(path) == Counter(map(key_of, samples))
    assert compact(path) == 0
    assert stored_keys(path) == Counter(map(key_of, samples))
    assert reader.to_table(columns=["uuid"]).num_rows == Store(History(path=str(path))).open(SAMPLES).dataset().count_rows()
    written(other)
    maintain(History(path=str(other)), lambda *_: None)
    assert rolled(path) == rolled(other)
    figure(8, "kills of the upkeep, at every step twice; rows lost or twice: none", 2 * len(POINTS))
