"""How long the fleet page's API takes to answer of 10,000 VMs, in one process and without HTTP.

    python -m bench.fleet_api

Each figure is the median of some runs in milliseconds of CPU: a look at a fleet in which every VM has a new sample, a page of 100 VMs by each
order, a search, the overview, one VM. And the memory of the last hour and of the counters, in bytes a VM.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from statistics import median
from typing import Final

import msgspec

from tests.support.exporter_intake import Served, sent
from tests.support.fleet_samples import busy, seen_twice, updated
from tests.support.vm_samples import INTERVAL, WALL, fleet, uuid
from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.endpoints import BY_NAME
from virtflow.exporter.api.parameters import parse
from virtflow.exporter.views.fleet_view import FleetView
from virtflow.exporter.views.ring import POINT_SECONDS
from virtflow.exporter.views.vms import COLUMNS

VMS: Final = 10_000
REPEATS: Final = 5
SOME: Final = 1_000
"""VMs whose memory is looked at."""
GOAL_MILLISECONDS: Final = 50.0
"""For a page of VMs in any order."""


def milliseconds(work: Callable[[], object]) -> float:
    """The median of some runs."""
    runs = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        runs.append((time.process_time() - began) * 1_000)
    return median(runs)


def pages(answers: Answers) -> dict[str, float]:
    """A page of 100 VMs by each order, as JSON, and other answers."""

    def vms(**given: str) -> Callable[[], bytes]:
        values = parse(BY_NAME["vms"].parameters, given.items())
        return lambda: msgspec.json.encode(answers.vms(values, WALL))

    found = {f"/vms?sort={sign}{column.name}": milliseconds(vms(sort=f"{sign}{column.name}")) for column in COLUMNS for sign in ("", "-")}
    found["/vms?filter=vm-099"] = milliseconds(vms(filter="vm-099", sort="-cpu"))
    found["/vms?flag=stuck"] = milliseconds(vms(flag="stuck"))
    found["/vms?limit=1000"] = milliseconds(vms(limit="1000", history="cpu_cores"))
    found["/fleet"] = milliseconds(lambda: msgspec.json.encode(anew(answers).fleet(WALL)))
    found["/nodes"] = milliseconds(lambda: msgspec.json.encode(anew(answers).nodes(parse(BY_NAME["nodes"].parameters, []), WALL)))
    found["/vms/UUID"] = milliseconds(lambda: msgspec.json.encode(answers.vm(uuid(1), WALL)))
    return found


def anew(answers: Answers) -> Answers:
    """The same, without the sums that are kept until something in the fleet changes."""
    answers.view.revision += 1
    return answers


def looks(view: FleetView) -> dict[str, float]:
    """A look when nothing has changed, and one when every VM has a new sample; a point of the hour of every VM."""
    found = {"a look, nothing new": milliseconds(lambda: updated(view, 2 * INTERVAL))}
    spent = []
    for round_ in range(2, 2 + REPEATS):
        for number in range(VMS):
            view.fleet.take_metrics(busy(number, round_), round_ * INTERVAL)
        began = time.process_time()
        updated(view, round_ * INTERVAL)
        spent.append((time.process_time() - began) * 1_000)
    found["a look, all new"] = median(spent)
    return found


def point() -> float:
    """A point of the hour of every VM in columns, as a large exporter has them, by itself: nobody has looked, all samples are new."""
    served, spent = Served(together=True), []
    view = FleetView(served.fleet)
    for round_ in range(REPEATS + 2):
        served.now = round_ * POINT_SECONDS
        served.take(*(sent(busy(number, round_, interval=3_600.0)) for number in range(VMS)))
        served.intake.settle()
        began = time.process_time()
        for _ in view.recording(served.now):
            pass
        spent.append((time.process_time() - began) * 1_000)
    return median(spent[2:])


def bytes_a_vm() -> float:
    """What the view keeps of a VM beside the fleet's own, with an hour."""
    vms = fleet()
    for number in range(SOME):
        vms.take_metrics(busy(number, 0), 0.0)
    tracemalloc.start()
    view = updated(FleetView(vms), 0.0)
    for _ in view.recording(1.0):
        pass
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # Rates need the counters of a second sample, as large as those of the first.
    assert len(view.vms()) == SOME
    return kept / SOME


def main() -> int:
    """Print all; 1 where a page takes longer than the goal."""
    view = seen_twice(fleet(), VMS)
    answers = Answers(view, "run", "bench", lambda: "")
    found = pages(answers)
    slow = [name for name, spent in found.items() if name.startswith("/vms?sort") and spent > GOAL_MILLISECONDS]
    for name, spent in (found | looks(view) | {"a point of the hour, in columns": point()}).items():
        print(f"{spent:8.1f} ms  {name}")
    print(f"{bytes_a_vm():8.0f} bytes a VM of its hour and the counters of one sample")
    print(
        f"slower than {GOAL_MILLISECONDS:.0f} ms: {', '.join(slow)}"
        if slow
        else f"every order of {VMS:,} VMs in less than {GOAL_MILLISECONDS:.0f} ms"
    )
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
