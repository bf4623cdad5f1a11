"""Fault 1: libvirtd is restarted, 20 times in a row."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

from tests.support.figures import figure
from tests.support.lab import Guest, Lab, await_true
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.lab_release import releases
from tests.support.lab_tap import Tap
from tests.support.long import length
from virtflow.producer.sampler import Sampler
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.settings import Libvirt, Producer, Settings
from virtflow.schemas.records import NodeSnapshot

RELEASES = releases()
VMS = 3
RESTARTS = length(8, 20)
TWO_ROUNDS = 2
HANGING_SECONDS = 60.0


def test_a_good_snapshot_comes_within_two_intervals_of_every_restart(lab: Lab, guests: list[Guest], tmp_path: Path) -> None:
    """The same process goes on through all restarts, and its threads do not grow in number."""
    node = lab.nodes[0]

    def good(snapshot: NodeSnapshot) -> bool:
        return snapshot.health.up == 1 and {vm.uuid for vm in snapshot.vms} == {guest.uuid for guest in guests}

    with Pipeline(lab, tmp_path, whole=False) as pipeline, Tap(pipeline.broker.address) as tap:
        producer = pipeline.producers[0]
        producer.start()
        tap.await_snapshot(node.name, good, 0.0)
        before = threads(producer.process.pid)
        rounds = []
        for _ in range(RESTARTS):
            node.restart_libvirtd()
            rounds.append(tap.await_rounds(node.name, good, time.time()))
            assert rounds[-1] <= TWO_ROUNDS
        figure(1, "restarts", RESTARTS)
        figure(1, "rounds until a good snapshot, at most", max(rounds))
        await_true(lambda: threads(producer.process.pid) <= before, HANGING_SECONDS, "as many threads as before")
        assert producer.stop() == 0
        arrivals = tap.of(node.name)
        assert {one.snapshot.boot_id for one in arrivals} == {arrivals[0].snapshot.boot_id}


class Listening(Sampler):
    """The producer's sampler, which also keeps the events it announced."""

    def __init__(self, settings: Settings) -> None:
        """Begin to connect."""
        self.announced: list[HypervisorEvent] = []
        super().__init__(settings, self.announced.append)

    def has_connected(self, times: int) -> bool:
        """Whether it is connected, for at least the given time."""
        safe = self._sampling._safe
        return safe.connects >= times and safe.worker is not None


def test_each_event_comes_once_after_all_restarts(lab: Lab) -> None:
    """Callbacks are registered anew with each connection, and none of a lost connection is left."""
    node = lab.nodes[0]
    settings = Settings(libvirt=Libvirt(uri=node.socket_uri), producer=Producer(interval_seconds=INTERVAL_SECONDS))
    sampler = Listening(settings)
    stopping = threading.Event()

    def sample() -> None:
        while not stopping.is_set():
            sampler.round()
            sampler.wait(time.monotonic() + 0.1)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        for count in range(RESTARTS):
            node.restart_libvirtd()
            await_true(partial(sampler.has_connected, count + 1), HANGING_SECONDS, "connected again")
        guest = node.load_paused(1, "event")[0]
        node.virsh("resume", guest.uuid)
        node.destroy(guest)
        await_true(
            lambda: any(
                event.uuid == guest.uuid and event.detail[0] == STOPPED for event in list(sampler.announced) if event.what == "lifecycle"
            ),
            HANGING_SECONDS,
            "the VM's end is told",
        )
    finally:
        stopping.set()
        thread.join()
        assert sampler.close(5.0)
    told = [(event.what, event.detail) for event in sampler.announced if event.uuid == guest.uuid and event.what == "lifecycle"]
    assert sorted(told) == sorted(set(told))
    figure(1, "lifecycle events of a VM after the last restart, each once", len(told))
    assert {detail[0] for _, detail in told} >= {STARTED, RESUMED, STOPPED}


STARTED, RESUMED, STOPPED = 2, 4, 5
"""libvirt's numbers of lifecycle events."""


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
