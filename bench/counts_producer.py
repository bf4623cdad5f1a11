"""What a running producer has loaded, and what it asks libvirtd in a round when nothing happens: counts that a test holds.

    python -m bench.counts_producer            says what differs from tests/counts/producer.json
    python -m bench.counts_producer --write    writes it again, when a change is meant

A real libvirtd with some VMs, a real broker, and the command itself, which is watched from within: by the interpreter's own list of
modules, and by a profiler that sees each call into libvirt's binding.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.support.broker import Broker
from tests.support.lab import Lab, await_true
from virtflow.runtime.configuration import load
from virtflow.runtime.kafka.topic_admin import TopicAdmin

BASELINE: Final = Path(__file__).resolve().parent.parent / "tests" / "counts" / "producer.json"
COMMAND: Final = "python -m bench.counts_producer --write"
VMS: Final = 3
ROUNDS: Final = 12
STEADY: Final = 6
"""Rounds at the end that are looked at: before them the VMs' XML is read."""
WAIT_SECONDS: Final = 90.0
LOCAL: Final = frozenset(
    {"virConnectIsAlive", "virDomainGetUUIDString", "virDomainGetName", "virDomainGetID", "virDomainFree", "virEventRunDefaultImpl"}
)
"""Functions of the binding that ask nobody."""
PASSED_BY: Final = ("__editable__", "_distutils_hack", "__main__", "sitecustomize", "typing_extensions", "encodings.")
"""Modules of the way Python was installed, not of the producer."""

INTERNAL: Final = frozenset(name for name in sys.stdlib_module_names if name.startswith("_"))
"""The standard library's own affair, different from Python to Python."""

PROGRAM: Final = """
import atexit, json, os, sys, threading
calls, rounds = {}, []

def seen(frame, event, function):
    if event == "c_call" and getattr(function, "__module__", None) == "libvirtmod":
        if function.__name__ == "virConnectGetAllDomainStats":
            rounds.append(dict(calls))
            if len(rounds) == ROUNDS:
                open(sys.argv[0] + ".done", "w").close()
        calls[function.__name__] = calls.get(function.__name__, 0) + 1

def tell():
    with open(sys.argv[0], "w") as out:
        json.dump({"modules": sorted(sys.modules), "rounds": rounds}, out)

ROUNDS = int(sys.argv[2])
del sys.argv[0], sys.argv[1]
atexit.register(tell)
threading.setprofile(seen)
from virtflow.cli.main import run
sys.exit(run())
"""


def observe(folder: Path) -> dict[str, Any]:
    """Names of the producer's modules, the standard library's by their first word, and its calls to libvirtd per round."""
    told = folder / "told.json"
    with Lab(nodes=1) as lab, Broker(folder / "broker", host=lab.network.address(254)) as broker:
        settings = {
            "VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": broker.address,
            "VIRTFLOW_PRODUCER_INTERVAL_SECONDS": "1",
            "VIRTFLOW_PRODUCER_JOURNAL_FOLDER": str(folder / "journal"),
        }
        admin = TopicAdmin(load(None, settings))
        admin.create(admin.states(), dry_run=False)
        node = lab.nodes[0]
        node.load_paused(VMS)
        command = [sys.executable, "-c", PROGRAM, str(told), str(ROUNDS), "producer"]
        process = node.spawn(command, folder / "producer.log", settings)
        await_true(Path(f"{told}.done").exists, WAIT_SECONDS, f"the producer makes {ROUNDS} rounds (see {folder}/producer.log)")
        process.stop()
    found = json.loads(told.read_text())
    modules = {_shown(name) for name in found["modules"] if not name.startswith(PASSED_BY)}
    return {"modules": sorted(name for name in modules if name not in INTERNAL), "calls_per_round": _steady(found["rounds"])}


def _shown(name: str) -> str:
    first = name.partition(".")[0]
    return first if first in sys.stdlib_module_names else name


def _steady(rounds: list[dict[str, int]]) -> dict[str, float]:
    """Calls that go to libvirtd between the last rounds' begins, per round."""
    first, last = rounds[-STEADY - 1], rounds[-1]
    counts = {name: (count - first.get(name, 0)) / STEADY for name, count in last.items() if name not in LOCAL}
    return {name: round(count, 2) for name, count in sorted(counts.items()) if count}


def brought_along(names: Iterable[str]) -> set[str]:
    """What the standard library's modules among ``names`` load on this Python, them included: ``pathlib`` needs ``glob`` from 3.13 on."""
    imports = "; ".join(f"import {name}" for name in ("sys", *names) if name in sys.stdlib_module_names)
    told = subprocess.run([sys.executable, "-c", f"{imports}; print(*sys.modules)"], check=True, capture_output=True, text=True)
    return {_shown(name) for name in told.stdout.split()}


def more(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """What a producer loads or asks that it did not before."""
    new = set(now["modules"]) - set(before["modules"])
    new -= brought_along(before["modules"]) if new else set()
    wrong = [f"a running producer loads {name}" for name in sorted(new)]
    for name, count in now["calls_per_round"].items():
        known = before["calls_per_round"].get(name, 0)
        if count > known:
            wrong.append(f"a round of the producer calls {name} {count:g} times, not {known:g}")
    return wrong


def main() -> int:
    """See the module."""
    with tempfile.TemporaryDirectory(prefix="virtflow-counts-") as folder:
        now = observe(Path(folder))
    if "--write" in sys.argv[1:]:
        BASELINE.write_text(json.dumps({"command": COMMAND, **now}, indent=1) + "\n")
        return 0
    wrong = more(now, json.loads(BASELINE.read_text()))
    print("\n".join(wrong) or "a producer loads and asks nothing new")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
