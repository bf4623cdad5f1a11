"""One sample of the VMs for ``virtflow snapshot``: from libvirt here and now, or the newest one in a recording."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from virtflow.cli.checks.findings import require
from virtflow.cli.checks.probes import libvirt as probe_libvirt
from virtflow.cli.parts import part
from virtflow.processors.inventory import inventories_of
from virtflow.processors.normalise import normalise_snapshot
from virtflow.runtime.secrets import plain_url
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.order import INTERVALS_ALIVE
from virtflow.schemas.ownership import Report, authoritative
from virtflow.schemas.records import NodeSnapshot, VmInventory, VmMetrics
from virtflow.schemas.text import printable

if TYPE_CHECKING:
    from virtflow.producer.replay import Recorded
    from virtflow.producer.source import Round

INTERVAL_SECONDS: Final = 5.0
"""The interval that a single round is made for: most of it is how long a VM that hangs may hold it up."""
DESCRIBE_SECONDS: Final = 10.0
"""The inventory's interval, as short as it can be, so that the one round reads that of every VM."""
CLOSE_SECONDS: Final = 2.0

REPLAY: Final = "replay"
"""The boot id of records that a recording brought."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The VMs in base units, each once. ``node`` and ``collected`` (Unix seconds) are those of the newest; ``stuck`` says that a call hangs."""

    node: str
    collected: float
    vms: tuple[VmMetrics, ...]
    inventories: dict[str, VmInventory] = field(default_factory=dict)
    broken_lines: int = 0
    stuck: bool = False


class Kept:
    """A source whose newest round is kept as it was read."""

    def __init__(self, source: Any) -> None:  # noqa: ANN401, of a part that is imported when it is called
        """``source`` is the producer's ``Source``."""
        self.newest: Any = None
        self._source = source

    def round(self) -> Round:
        """The source's next round."""
        self.newest = self._source.round()
        found: Round = self.newest
        return found

    def close(self, seconds: float) -> bool:
        """Let go of the source; False when a thread is still in a call."""
        ended: bool = self._source.close(seconds)
        return ended


def sample_libvirt(settings: Settings, record: Path | None) -> Sample:
    """One round of the hypervisor's VMs, also appended to ``record`` as it was read. Raises ``EnvironmentProblemError``."""
    require(probe_libvirt(settings), "; or give a recording with --replay FILE")
    service = part("virtflow.producer.service", "producer")
    source = Kept(service.source_of(_for_one_round(settings)))
    try:
        snapshot: NodeSnapshot = service.one_snapshot(settings, source, settings.libvirt.connect_timeout_seconds)
    finally:
        ended = source.close(CLOSE_SECONDS)
    found: Round = source.newest
    if not found.up:
        uri = ", ".join(settings.libvirt.discover) or plain_url(settings.libvirt.uri)
        raise EnvironmentProblemError(thing="libvirt", value=uri, why="does not answer", fix="`virtflow check --for producer` says more")
    if record is not None:
        _append(found, snapshot.node, record)
    inventories = {inventory.uuid: inventory for inventory in inventories_of(snapshot)}
    return Sample(snapshot.node, snapshot.collected, tuple(normalise_snapshot(snapshot).metrics), inventories, stuck=not ended)


def _for_one_round(settings: Settings) -> Settings:
    producer = msgspec.structs.replace(settings.producer, interval_seconds=INTERVAL_SECONDS, inventory_seconds=DESCRIBE_SECONDS)
    return msgspec.structs.replace(settings, producer=producer)


def _append(found: Round, node: str, path: Path) -> None:
    recording = part("virtflow.producer.replay", "producer")
    try:
        with path.open("a", encoding="utf-8") as out:
            recording.write(found, node, out)
    except OSError as error:
        why = error.strerror or str(error)
        raise EnvironmentProblemError(thing="recording", value=str(path), why=why, fix="name a file this user can write") from error


def sample_recording(path: Path, *, kvm: bool = False) -> Sample:
    """The newest line of every VM in a recording, with KVM's own statistics where they are wanted. Raises ``EnvironmentProblemError`` where there is none."""
    recording: Any = part("virtflow.producer.replay", "producer").Recording(path)
    lines: tuple[Recorded, ...] = recording.newest
    records = [record for line in lines for record in _normalised(line, kvm=kvm)]
    by_uuid: dict[str, list[VmMetrics]] = {}
    for record in records:
        by_uuid.setdefault(record.uuid, []).append(record)
    chosen = {uuid: _authoritative(known) for uuid, known in by_uuid.items()}
    # A recording's samples tell nothing of the inventory but where the VM is.
    inventories = {uuid: VmInventory(uuid=uuid, name=record.name, node=record.node) for uuid, record in chosen.items()}
    return Sample(lines[-1].node, lines[-1].time, tuple(chosen.values()), inventories, recording.passed_by["broken_line"])


def _normalised(line: Recorded, *, kvm: bool) -> list[VmMetrics]:
    clean = part("virtflow.producer.records.vm_snapshot", "producer")
    vm = clean.vm_snapshot(line.reading, clean.Tally(), kvm=kvm)
    snapshot = NodeSnapshot(
        node=printable(line.node), boot_id=REPLAY, sequence=0, collected=line.time, interval=line.time - line.before, vms=[vm]
    )
    return normalise_snapshot(snapshot).metrics


def _authoritative(records: list[VmMetrics]) -> VmMetrics:
    """The record of the VM's authoritative node, among those that have not expired by the time of the newest."""
    newest = max(record.collected for record in records)
    live = [record for record in records if record.collected + INTERVALS_ALIVE * _interval(record) >= newest]
    reports = [Report(record.node, record.state, record.collected, record.state_reason, _interval(record)) for record in live]
    node = authoritative(reports).node
    return next(record for record in live if record.node == node)


def _interval(record: VmMetrics) -> float:
    return INTERVAL_SECONDS if math.isnan(record.interval) else record.interval
