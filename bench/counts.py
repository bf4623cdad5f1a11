"""What each hop of the data does, in counts that are the same on a slow and on a fast machine: the guard against getting dearer unseen.

    python -m bench.counts            says what differs from tests/counts/counts.json
    python -m bench.counts --write    writes it again, when a change is meant

Counted over some rounds of simulated VMs after a first one: calls of functions (Python's own and built-in ones) per VM-sample, objects
that the results keep alive per VM-sample, messages and bytes per round.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from bench.hops import BEGAN, MANY_NODES, VMS, Data, filled, messages_of_rounds, new_fleet
from tests.support.exporter_intake import Served
from virtflow.exporter.exposition import exposition
from virtflow.exporter.fleet import Fleet
from virtflow.processors.normalise import normalise_snapshot
from virtflow.producer.publishing.split import messages
from virtflow.producer.records.vm_snapshot import Reading, vm_snapshot
from virtflow.producer.records.vm_snapshot import Tally as CleanTally
from virtflow.producer.simulator.fleet import vms_at
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History
from virtflow.schemas.catalogue.metrics import METRICS
from virtflow.schemas.records import NodeSnapshot, VmMetrics

BASELINE: Final = Path(__file__).resolve().parent.parent / "tests" / "counts" / "counts.json"
COMMAND: Final = "python -m bench.counts --write"
ALLOWED: Final = 1.05
"""Times the baseline that a count may be."""
ALLOWED_ELSEWHERE: Final = 1.25
"""The same on another Python than the baseline's: interpreters call differently."""

RUNS: Final = 6
"""Rounds of a fleet in columns: the first, and one for each time that the work is done."""

Counts = dict[str, dict[str, float]]


def calls(work: Callable[[], object]) -> int:
    """Calls of functions while ``work`` runs, in this thread: Python's and those written in C.

    Without garbage collection: a library of the same process may have callbacks on it (Hypothesis has), which are none of the work's.
    """
    count = 0

    def seen(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    gc.disable()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count - 1


def kept(work: Callable[[], object]) -> int:
    """Blocks of memory that are in use for what ``work`` returns, and for what it has left behind."""
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        result = work()
        after = sys.getallocatedblocks()
        del result
        return after - before
    finally:
        gc.enable()


def hops(data: Data) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Each hop's name, its work, and the VM-samples in it."""
    codec, samples = data.codec, data.samples
    readings = [Reading(vm.uuid, vm.name, vm.stats, BEGAN) for vm in vms_at(1, "node-1", VMS, BEGAN)]
    tally = CleanTally()
    yield "producer: clean", lambda: [vm_snapshot(reading, tally) for reading in readings], len(readings)
    yield "producer: encode snapshot", lambda: [codec.encode(snapshot) for snapshot in data.snapshots], samples
    yield "processors: decode snapshot", lambda: [codec.decode(encoded, NodeSnapshot) for encoded in data.encoded], samples
    yield "processors: normalise", lambda: [normalise_snapshot(snapshot) for snapshot in data.snapshots], samples
    yield "processors: encode metrics", lambda: [codec.encode(sample) for sample in data.metrics], samples
    yield "exporter: decode", lambda: [codec.decode(encoded, VmMetrics) for encoded in data.encoded_metrics], samples
    fleet, names = filled(data), frozenset(row.name for row in METRICS)
    yield "exporter: take and render", lambda: _taken(data), samples
    columns, many = InColumns(), MANY_NODES * VMS
    yield "exporter: take in columns", columns.take, many
    yield "exporter: scrape from columns", lambda: "".join(exposition(columns.served.fleet, names, BEGAN, {})), many
    yield "exporter: scrape", lambda: "".join(exposition(fleet, names, BEGAN, {})), VMS
    yield "history: rows", _history(data), samples


def _taken(data: Data) -> Fleet:
    """A fleet that sees each round and is looked at after it: the first one renders all lines, the others those that changed."""
    fleet = new_fleet()
    for start in range(0, data.samples, VMS):
        for sample in data.metrics[start : start + VMS]:
            fleet.take_metrics(sample, 0.0)
        fleet.render()
    return fleet


class InColumns:
    """An exporter's fleet in columns: each ``take`` brings it a round of samples."""

    def __init__(self) -> None:
        """The first round is taken one by one."""
        self.served = Served(together=True)
        self._rounds = iter(messages_of_rounds(RUNS))
        self.take()

    def take(self) -> None:
        """The next sample of each VM."""
        self.served.take(*next(self._rounds))
        self.served.intake.settle()


def _history(data: Data) -> Callable[[], object]:
    from virtflow.history.writer.dedup import Sequences
    from virtflow.history.writer.sample_batch import RawSamples
    from virtflow.history.writer.validation import Intake

    intake = Intake(data.codec, History(raw_days=36_500), OwnMetrics("history"))
    waiting: list[tuple[bytes | None, float]] = [(encoded, BEGAN) for encoded in data.encoded_metrics]

    def rows() -> object:
        return RawSamples(intake, Sequences()).rows(waiting)

    return rows


def measure() -> Counts:
    """All counts by hop; each is taken on the second run of the same work, when everything is known."""
    data = Data()
    found: Counts = {}
    for name, work, samples in hops(data):
        work()
        found[name] = {"calls per VM-sample": round(calls(work) / samples, 2), "blocks kept per VM-sample": round(kept(work) / samples, 2)}
    sent = [messages(snapshot, data.codec.encode) for snapshot in data.snapshots]
    found["producer: round"] = {
        "messages": round(sum(map(len, sent)) / len(sent), 2),
        f"bytes of {VMS} VMs": round(sum(len(one) for each in sent for one in each) / len(sent)),
    }
    return found


def dearer(now: Counts, before: dict[str, Any]) -> list[str]:
    """What has become more than is allowed, one sentence for each count, the hop first."""
    allowed = ALLOWED if before["python"] == version() else ALLOWED_ELSEWHERE
    wrong = [f"{hop}: not counted any more" for hop in before["hops"].keys() - now.keys()]
    for hop, counts in now.items():
        for what, count in counts.items():
            known = before["hops"].get(hop, {}).get(what)
            if known is None:
                wrong.append(f"{hop}: {what} is {count:g} and not in the baseline")
            elif count > known * allowed + 0.05:
                wrong.append(f"{hop}: {what} went from {known:g} to {count:g}")
    return wrong


def version() -> str:
    """The Python that counts depend on."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def main() -> int:
    """See the module."""
    now = measure()
    if "--write" in sys.argv[1:]:
        BASELINE.write_text(json.dumps({"command": COMMAND, "python": version(), "hops": now}, indent=1) + "\n")
        return 0
    wrong = dearer(now, json.loads(BASELINE.read_text()))
    print("\n".join(wrong) or "no hop has become dearer")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
