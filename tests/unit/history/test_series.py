"""Ranges of every sample: of a VM that two nodes report only the node where it runs is asked, and no column is read that is not needed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from virtflow.history.query.range import Range, series
from virtflow.history.storage.delta import Opened, Store
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.states import PAUSED, PAUSED_MIGRATION, RUNNING

VM = "11111111-2222-4333-8444-555555555555"
START = 1_790_000_000.0 // 3_600 * 3_600


def sample(at: float, node: str, state: tuple[int, int], cpu: float) -> VmMetrics:
    """One sample at ten seconds' interval."""
    known = {"uuid": VM, "name": "vm", "node": node, "boot_id": node, "sequence": int(at), "collected": START + at, "interval": 10.0}
    return VmMetrics(**known, state=state[0], state_reason=state[1], cpu_seconds_total=cpu)  # type: ignore[arg-type]


def stored(path: Path, samples: Iterable[VmMetrics]) -> tuple[Store, History]:
    """A history of samples, and its settings."""
    settings = History(path=str(path), raw_days=36_500)
    store = Store(settings)
    writer = TableWriter(store.make(SAMPLES), Sequences())
    writer.begin(["p"])
    for offset, each in enumerate(samples):
        writer.take("p", offset, each)
    writer.commit()
    return store, settings


def test_where_a_vm_only_arrives_it_is_not_asked(tmp_path: Path) -> None:
    """It arrives on one node while it runs on another since before anybody looked: what it had used by then is nobody's growth."""
    samples = [
        each
        for at in (0.0, 10.0, 20.0, 30.0)
        for each in (
            sample(at, "there", (PAUSED, PAUSED_MIGRATION), 0.1),
            sample(at + 1, "here", (RUNNING, 1), 58.0 + at / 10),
        )
    ]
    store, settings = stored(tmp_path, samples)
    every = series(store, settings, Range("vm_cpu_seconds_total", (VM,), START, START + 60, 0)).points
    assert every.column("value").to_pylist() == [58.0, 59.0, 60.0, 61.0]
    stepped = series(store, settings, Range("vm_cpu_seconds_total", (VM,), START, START + 60, 20)).points
    assert sum(stepped.column("increase").to_pylist()) == 3.0


class Recorded:
    """Rows, and which columns of them were read."""

    def __init__(self, rows: Any, read: list[set[str]]) -> None:  # noqa: ANN401, pyarrow is untyped
        """``read`` is added to."""
        self._rows, self._read = rows, read

    def to_table(self, columns: list[str], **rest: Any) -> Any:  # noqa: ANN401, pyarrow is untyped
        """The rows' columns."""
        self._read.append(set(columns))
        return self._rows.to_table(columns=columns, **rest)


def test_of_one_node_s_samples_no_more_is_read_than_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, settings = stored(tmp_path, [sample(at, "here", (RUNNING, 1), 58.0 + at / 10) for at in (0.0, 10.0)])
    read: list[set[str]] = []
    within = Opened.within
    monkeypatch.setattr(Opened, "within", lambda self, *asked: Recorded(within(self, *asked), read))
    every = series(store, settings, Range("vm_cpu_seconds_total", (VM,), START, START + 60, 0)).points
    assert every.column("value").to_pylist() == [58.0, 59.0]
    assert read == [{"time", "uuid", "name", "device", "node", "vm_cpu_seconds_total"}]
