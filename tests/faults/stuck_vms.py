"""What holds while VMs are stuck, as an operator sees it at the exporter and as libvirtd counts it."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support.lab import Guest, LabError, Node, await_true
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.lab_scrape import Scrape, Watch
from tests.support.lab_tap import Arrival

CAP = 3
"""Calls that may be captured on a host by default."""
WAY_SECONDS = 0.8 * INTERVAL_SECONDS + 0.7
"""From the begin of a round to its deadline, and from there to whoever looks."""
FOREIGN_SECONDS = 1.0
ATTEMPTS = 3
MONITOR_METRIC = "vm_block_read_requests_total"
SAFE_METRICS = ("vm_state", "vm_cpu_seconds_total", "vm_network_devices")
TWO_INTERVALS = 2 * INTERVAL_SECONDS + WAY_SECONDS


def shown_as_stuck(seen: Scrape, guests: Iterable[Guest]) -> set[str]:
    """The UUIDs of those VMs that the scrape says do not respond."""
    return {guest.uuid for guest in guests if seen.value("vm_responsive", uuid=guest.uuid) == 0.0}


def await_flags(pipeline: Pipeline, guests: Iterable[Guest], *, stuck: bool) -> None:
    """Wait, at most two intervals, until all these VMs are flagged, or none is."""
    wanted = {guest.uuid for guest in guests} if stuck else set()
    pipeline.await_scrape(lambda seen: shown_as_stuck(seen, guests) == wanted, "the stuck VMs, and no others, are flagged", TWO_INTERVALS)


def assert_safe_groups_on_time(arrivals: Sequence[Arrival], guests: Iterable[Guest]) -> None:
    """No round is missing, each went out by its deadline, and every VM, stuck or not, was in it with what never waits."""
    uuids = {guest.uuid for guest in guests}
    sequences = [one.snapshot.sequence for one in arrivals]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    for one in arrivals:
        snapshot = one.snapshot
        whole = {vm.uuid for vm in snapshot.vms if vm.state_state >= 0 and vm.cpu_time >= 0 and vm.networks}
        assert sorted(uuids - whole) == [], (
            f"round {snapshot.sequence}: {len(snapshot.vms)} VMs, tiers took {snapshot.health.sampling_seconds}"
        )
        assert one.time - snapshot.collected <= WAY_SECONDS, (
            f"round {snapshot.sequence} was late: tiers took {snapshot.health.sampling_seconds}"
        )
        assert snapshot.health.captured_calls <= CAP


def assert_monitors_late_once(arrivals: Sequence[Arrival], guests: Iterable[Guest]) -> None:
    """Each of these healthy VMs lacked what its monitor says in one round at most."""
    late = Counter(vm.uuid for one in arrivals for vm in one.snapshot.vms if math.isnan(vm.monitor_collected))
    assert {guest.name: late[guest.uuid] for guest in guests if late[guest.uuid] > 1} == {}


def assert_never_missing(watch: Watch, guests: Iterable[Guest]) -> None:
    """At the exporter every VM, stuck or not, was in every scrape."""
    for guest in guests:
        for name in SAFE_METRICS:
            assert len(list(watch.values(name, uuid=guest.uuid))) == len(watch.scrapes), f"{guest.name} was without {name}"


def assert_not_repeated(watch: Watch, guests: Iterable[Guest]) -> None:
    """While the exporter said that a VM does not respond it showed no value of its monitor, but for a round that had one."""
    for guest in guests:
        flagged = {when for when, value in watch.values("vm_responsive", uuid=guest.uuid) if value == 0.0}
        shown = [when for when, _ in watch.values(MONITOR_METRIC, uuid=guest.uuid, device="vda") if when in flagged]
        assert flagged, f"{guest.name} was never flagged"
        assert max(shown, default=0.0) - min(flagged) <= INTERVAL_SECONDS + WAY_SECONDS, guest.name


@dataclass
class Neighbours:
    """Another client of the host, which asks about a healthy VM all the time, and counts the daemon's captured calls."""

    node: Node
    healthy: Guest
    captured: list[int] = field(default_factory=list)
    slowest_seconds: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _error: LabError | None = None

    def __enter__(self) -> Self:
        """Begin."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End, and raise what went wrong."""
        self._stop.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.2):
                self._timed(lambda: self.node.domstats(self.healthy))
                self._timed(lambda: self.node.virsh("dumpxml", self.healthy.uuid))
                self.captured.append(self.node.captured_calls())
        except LabError as error:
            self._error = error

    def _timed(self, ask: Callable[[], object]) -> None:
        """A slow answer is asked for again: a busy machine is slow for a moment, captured workers make it slow until the VMs go on."""
        self.slowest_seconds = max(self.slowest_seconds, min(itertools.islice(_seconds(ask), ATTEMPTS)))

    def await_looks(self, count: int) -> None:
        """Wait for so many more looks."""
        enough = len(self.captured) + count
        await_true(lambda: self._error is not None or len(self.captured) >= enough, 120.0, f"{count} more looks at the daemon")


def _seconds(ask: Callable[[], object]) -> Iterator[float]:
    """How long each ask took, until one was fast enough."""
    took = math.inf
    while took >= FOREIGN_SECONDS:
        begin = time.monotonic()
        ask()
        took = time.monotonic() - begin
        yield took
