"""``virtflow producer`` on a hypervisor that is simulated: rounds, ring, journal and clients are its own, libvirt alone is not there.

As a program (``python -m tests.support.simulated_producer``) it takes its settings from the environment, as the producer does, and writes
down every event that it has taken, so that a test can compare them with what arrives.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from tests.support import criteria
from tests.support.broker import DIES_WITH_US
from tests.support.command import environment
from tests.support.started import Started
from virtflow.producer.records.vm_snapshot import Reading
from virtflow.producer.simulator.fleet import lasting, vms_at
from virtflow.producer.source import Round
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.settings import Settings
from virtflow.schemas.records import VmSnapshot

ROOT: Final = Path(__file__).resolve().parents[2]
SEED: Final = 1281
"""Whose first 26 VMs of the nodes that tests name run for ever, whatever the clock says: none is off, paused or followed by another."""
TRUTH: Final = "SIMULATED_PRODUCER_TRUTH"
RATE: Final = "SIMULATED_PRODUCER_EVENTS"
VMS: Final = "SIMULATED_PRODUCER_VMS"
RESUMED: Final = 4
"""The life cycle's event that libvirt numbers so."""


class Happened(NamedTuple):
    """An event: of which VM, and the number that it has among all of this producer's runs."""

    uuid: str
    number: int


class SimulatedHost:
    """A ``Source``: VMs that are a function of the time, and a steady stream of events, each with a number of its own."""

    def __init__(self, settings: Settings, offer: Callable[[HypervisorEvent], None], truth: TextIO) -> None:
        """``offer`` takes events, and ``truth`` a line of each that was taken; ValueError where not all VMs would run all the time."""
        self._node = settings.producer.node
        self._offer = offer
        self._truth = truth
        self._vms = int(os.environ[VMS])
        if (running := len(list(lasting(SEED, self._node, self._vms)))) != self._vms:
            raise ValueError(f"{running} of {self._vms} VMs of {self._node} run for ever: choose another SEED")
        self._pause = 1.0 / float(os.environ[RATE])
        self._next = time.monotonic()
        self._interrupted = threading.Event()
        self._number = int(time.time() * 1000)

    def round(self) -> Round:
        """All VMs as they are now."""
        now = time.time()
        readings = tuple(Reading(vm.uuid, vm.name, vm.stats, now) for vm in vms_at(SEED, self._node, self._vms, now))
        return Round(now, up=True, readings=readings)

    def wait(self, until: float) -> None:
        """Events happen meanwhile."""
        while not self._interrupted.is_set() and (now := time.monotonic()) < until:
            if now >= self._next:
                self._next = max(self._next + self._pause, now)
                self._happen()
            self._interrupted.wait(min(until, self._next) - time.monotonic())

    def _happen(self) -> None:
        self._number += 1
        vms = vms_at(SEED, self._node, self._vms, time.time())
        vm = vms[self._number % len(vms)]
        self._offer(HypervisorEvent(vm.uuid, vm.name, "lifecycle", (RESUMED, self._number), time.time()))
        self._truth.write(json.dumps([vm.uuid, self._number]) + "\n")
        self._truth.flush()

    def learn(self, vms: Sequence[VmSnapshot]) -> None:
        """Nothing depends on them."""

    def interrupt(self) -> None:
        """Returns from waiting."""
        self._interrupted.set()

    def close(self, seconds: float) -> bool:
        """Nothing is open."""
        del seconds
        return True


class SimulatedProducer(Started):
    """Such a producer as a process of its own; ``inside`` is what starts it somewhere else, as ``nsenter`` does."""

    def __init__(  # noqa: PLR0913, each of them is a test's own
        self,
        bus_environment: Mapping[str, str],
        folder: Path,
        *,
        node: str = "node-1",
        vms: int = 5,
        interval: float = 0.5,
        events_a_second: float = 20.0,
        ring_rounds: int = 8,
        inside: Sequence[str] = (),
    ) -> None:
        """Nothing runs before ``start``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.node = node
        self.interval = interval
        self.events_a_second = events_a_second
        self.log = folder / f"producer-{node}.log"
        self._truth = folder / f"truth-{node}.jsonl"
        self._inside = inside
        own = {
            "VIRTFLOW_PRODUCER_NODE": node,
            "VIRTFLOW_PRODUCER_INTERVAL_SECONDS": str(interval),
            "VIRTFLOW_PRODUCER_RING_ROUNDS": str(ring_rounds),
            "VIRTFLOW_PRODUCER_JOURNAL_FOLDER": str(folder / f"journal-{node}"),
            TRUTH: str(self._truth),
            RATE: str(events_a_second),
            VMS: str(vms),
            "PYTHONPATH": f"{ROOT / '.types'}:{ROOT}",
        }
        self._environment = environment({**bus_environment, **own})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; what it does is seen in its topics."""
        command = [*self._inside, *DIES_WITH_US, sys.executable, "-m", "tests.support.simulated_producer"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self._environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        criteria.started(f"producer {self.node}", self.process, "", self.log)

    def stop(self, seconds: float = 15.0) -> int:
        """Ends it with TERM; the exit code."""
        assert self.process is not None
        criteria.ends(self.process)
        self.process.terminate()
        code = self.process.wait(seconds)
        self.process = None
        return code

    def close(self) -> None:
        """Ends it if it still runs."""
        if self.process is not None:
            criteria.ends(self.process)
            self.process.kill()
            self.process.wait(15.0)
            self.process = None

    def taken(self) -> list[Happened]:
        """All events that it has taken so far, in their order."""
        lines = self._truth.read_text().splitlines() if self._truth.exists() else []
        return [Happened(*json.loads(line)) for line in lines]


def main() -> None:
    """The producer as its command runs it, with the simulated host in libvirt's place."""
    from virtflow.producer import service
    from virtflow.runtime import log
    from virtflow.runtime.configuration import load
    from virtflow.runtime.lifecycle import Stop

    settings = load(None, os.environ)
    log.setup(settings.log.level, settings.log.format)
    with Path(os.environ[TRUTH]).open("a") as truth:
        setattr(service, "Sampler", lambda settings, offer, _budget: SimulatedHost(settings, offer, truth))  # noqa: B010, it is replaced
        service.run(settings, Stop().on_signals())


if __name__ == "__main__":
    main()
