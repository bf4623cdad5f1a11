"""Lives of VMs for the history: as records that a writer stores, and as samples that the truth is worked out from."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.support.history_truth import SECOND, Metrics, Seen, Series
from virtflow.history.maintenance.run import maintain
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import COLUMNS, SAMPLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.catalogue.types import Tier
from virtflow.schemas.fields import BlockMetrics, NetworkMetrics, VcpuMetrics
from virtflow.schemas.records import VmMetrics

METRICS: Final = Metrics(
    {column.name: column.rollup.value for column in COLUMNS},
    frozenset(column.name for column in COLUMNS if column.of_guest),
    frozenset(column.name for column in COLUMNS if column.tier is Tier.MONITOR),
)
FIELD: Final = {column.name: column.metric.field for column in COLUMNS}
_DEVICES: Final[dict[str, tuple[str, type[Any], str]]] = {
    "vcpu": ("vcpus", VcpuMetrics, "vcpu"),
    "network": ("networks", NetworkMetrics, "device"),
    "block": ("blocks", BlockMetrics, "device"),
}


def vm_uuid(number: int) -> str:
    """The UUID of the VM of that number."""
    return str(uuid.UUID(int=Random(number).getrandbits(128), version=4))  # noqa: S311, an identity, not a secret


def record(vm: str, seen: Seen, name: str = "") -> VmMetrics:
    """A sample as the processors publish it."""
    at = seen.at / SECOND
    devices: dict[str, list[Any]] = {}
    for (kind, device), told in seen.told.items():
        if kind != "vm":
            field, of_kind, key = _DEVICES[kind]
            made = of_kind(**{key: int(device) if kind == "vcpu" else device}, **{FIELD[metric]: value for metric, value in told.items()})
            devices.setdefault(field, []).append(made)
    own: dict[str, Any] = {FIELD[metric]: value for metric, value in seen.told.get(("vm", ""), {}).items()}
    return VmMetrics(
        uuid=vm,
        name=name,
        node=seen.node,
        boot_id=seen.run,
        sequence=seen.sequence,
        collected=at,
        interval=seen.interval,
        **{"monitor_collected": at} if seen.monitored else {},
        **{"state": seen.state, "state_reason": seen.reason, **own, **devices},
    )


class Kept:
    """A history in a folder, written without a broker."""

    def __init__(self, path: Path, **settings: Any) -> None:  # noqa: ANN401, settings of any kind
        """Makes the table of samples."""
        self.settings: Final = History(path=str(path), **{"raw_days": 36_500, "hourly_days": 36_500, "daily_days": 36_500, **settings})
        self.store: Final = Store(self.settings)
        self._samples = TableWriter(self.store.make(SAMPLES), Sequences())
        self._offset = self._samples.begin(["p"], 0)["p"] or 0

    def write(self, records: Iterable[VmMetrics]) -> None:
        """Stores samples in one commit."""
        for each in records:
            self._samples.take("p", self._offset, each)
            self._offset += 1
        self._samples.commit()

    def maintain(self) -> None:
        """Rolls up and compacts."""
        maintain(self.settings, lambda *_: None)

    def rolled(self, commits: Iterable[Sequence[VmMetrics]]) -> None:
        """Stores samples, with upkeep after each commit."""
        for records in commits:
            self.write(records)
            self.maintain()


def told_series(metric: str, device: str) -> Series:
    """Where a metric is told."""
    return next(column.kind for column in COLUMNS if column.name == metric), device
