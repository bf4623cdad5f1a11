"""The events and job polls of the lab's recording, as the records two producers would have made of them."""

from __future__ import annotations

import json
from pathlib import Path

from virtflow.producer.records.vm_event import vm_event
from virtflow.producer.types import HypervisorEvent
from virtflow.schemas.records import VmEvent

RECORDING = Path(__file__).parents[1] / "golden" / "data" / "lab-recording.jsonl"
MIGRATED = "01c4627c-7455-4be4-b014-9523f6d7e739"
"""The VM that migrates in the recording, from node1 to node2."""


def recorded_events(uuid: str = "") -> list[VmEvent]:
    """All events, or those of one VM, numbered per node in the order of the recording."""
    sequences = {"node1": 0, "node2": 0}
    events = []
    for line in RECORDING.read_text().splitlines():
        entry = json.loads(line)
        happened = _happened(entry)
        if happened is None or (uuid and entry["uuid"] != uuid):
            continue
        node = entry["node"]
        events.append(vm_event(happened, node, f"boot-{node}", sequences[node]))
        sequences[node] += 1
    return events


def _happened(entry: dict[str, object]) -> HypervisorEvent | None:
    data = entry["data"]
    if not isinstance(data, dict):
        return None
    uuid, name, at = str(entry["uuid"]), str(entry["vm"]), float(str(entry["t"]))
    if entry["kind"] == "event":
        return HypervisorEvent(uuid, name, str(data["event"]), tuple(data["args"]), at)
    if entry["kind"] == "job":
        return HypervisorEvent(uuid, name, "job", (data,), at)
    return None
