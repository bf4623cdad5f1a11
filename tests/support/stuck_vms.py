"""What holds while VMs are stuck, as an operator sees it at Prometheus, on the topic, and as libvirt counts it."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from tests.support.lab import Guest, LabError, Node, await_true
from tests.support.lab_tap import Arrival
from tests.support.long import length
from tests.support.prometheus import Prometheus
from tests.support.watching import Watching
from virtflow.schemas.records import NodeSnapshot

CAP = 3
"""Calls that may hang on a host by default."""
TWO_ROUNDS = 2
MISSED = 0.01
"""Part of the rounds that were due in which a healthy VM may lack its monitor's values."""
MISSED_ROUNDS = length(1, 0)
"""So many it may lack in any case: runs that are cut short have too few rounds for a part of them."""
FOREIGN_SECONDS = 1.0
ATTEMPTS = 3
AT_ONCE = 0.9
"""Part of another client's questions that are answered within FOREIGN_SECONDS when they are asked for the first time."""
ALERT = "VirtflowVmStuck"
ALERT_SECONDS = 120.0
"""The shipped rule waits 30 s; a busy machine may take longer, and nothing depends on how long."""
HANGING_SECONDS = 120.0
"""After which a test that waits is taken to hang."""
JOB = "virtflow"
MONITOR_METRIC = f'vm_block_read_requests_total{{job="{JOB}",device="vda"}}'
SAFE_METRICS = ("vm_state", "vm_cpu_seconds_total", "vm_network_devices")
MEMORY_MIB = 8.0
"""By which a process may have grown without having kept anything: what its allocator holds ready."""


def flagged(snapshot: NodeSnapshot) -> set[str]:
    """The UUIDs of those VMs that do not respond."""
    return {vm.uuid for vm in snapshot.vms if vm.monitor_responsive == 0}


def with_monitor(snapshot: NodeSnapshot) -> set[str]:
    """The UUIDs of those VMs whose monitor has answered in this round."""
    return {vm.uuid for vm in snapshot.vms if not math.isnan(vm.monitor_collected)}


def uuids_of(guests: Iterable[Guest]) -> set[str]:
    """Their UUIDs."""
    return {guest.uuid for guest in guests}


def due(snapshots: Sequence[NodeSnapshot]) -> int:
    """How many rounds were due from the first to the last of one run's snapshots: those that fell out, and those that got lost, are in it."""
    first, last = snapshots[0], snapshots[-1]
    return last.sequence - first.sequence + 1 + last.health.rounds_skipped_total - first.health.rounds_skipped_total


def assert_seldom_missed(rounds: int, answered: dict[str, int]) -> None:
    """Of ``rounds``, hardly any lacks the monitor's values of a VM; ``answered`` is how many have them, by the VM's name."""
    missed = {name: rounds - count for name, count in answered.items() if rounds - count > max(MISSED_ROUNDS, MISSED * rounds)}
    assert missed == {}, f"{missed} of {rounds} rounds"


def assert_healthy_served(runs: Iterable[Sequence[NodeSnapshot]], healthy: Iterable[Guest]) -> None:
    """Of all rounds that were due in these runs of a producer, hardly any lacks what a healthy VM's monitor says."""
    runs = list(runs)
    answered = Counter(uuid for snapshots in runs for seen in snapshots for uuid in with_monitor(seen))
    assert_seldom_missed(sum(map(due, runs)), {guest.name: answered[guest.uuid] for guest in healthy})


def assert_safe_groups_on_time(arrivals: Sequence[Arrival], guests: Iterable[Guest]) -> None:
    """No round is missing or left out, each had come when the next but one began, and every VM was in it with what never waits."""
    uuids = uuids_of(guests)
    sequences = [one.snapshot.sequence for one in arrivals]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert len({one.snapshot.health.rounds_skipped_total for one in arrivals}) == 1, "a point of the grid had no round"
    for one, later in zip(arrivals, arrivals[2:], strict=False):
        assert one.time < later.snapshot.collected, f"round {one.snapshot.sequence} came late"
    for snapshot in (one.snapshot for one in arrivals):
        whole = {vm.uuid for vm in snapshot.vms if vm.state_state >= 0 and vm.cpu_time >= 0 and vm.networks}
        assert uuids - whole == set(), f"round {snapshot.sequence}: tiers took {snapshot.health.sampling_seconds}"
        assert snapshot.health.hung_calls <= CAP


def assert_monitors_late_once(arrivals: Sequence[Arrival], guests: Sequence[Guest]) -> None:
    """Each of these healthy VMs lacked what its monitor says in one round at most."""
    rounds = Counter(uuid for one in arrivals for uuid in with_monitor(one.snapshot))
    assert {guest.name: len(arrivals) - rounds[guest.uuid] for guest in guests if len(arrivals) - rounds[guest.uuid] > 1} == {}


def await_alerts(prometheus: Prometheus, guests: Iterable[Guest]) -> None:
    """Wait until Prometheus' alert about stuck VMs fires for these, and is not even pending for any other."""
    uuids = uuids_of(guests)

    def told() -> bool:
        found = [(alert["state"], alert["labels"]["uuid"]) for alert in prometheus.alerts(ALERT)]
        return sorted(found) == [("firing", uuid) for uuid in sorted(uuids)]

    await_true(told, ALERT_SECONDS, f"{ALERT} fires for {len(uuids)} VMs and no others")


@dataclass(frozen=True)
class Graphs:
    """What Prometheus has scraped of the exporter since some moment (Unix seconds)."""

    prometheus: Prometheus
    since: float

    def _points(self, selector: str, until: float) -> dict[str, set[float]]:
        found = self.prometheus.points(selector, until - self.since, until)
        return {labels.get("uuid", ""): {when for when, _ in points} for labels, points in found}

    def assert_whole(self, everyone: Iterable[Guest], healthy: Iterable[Guest], most_missing: int) -> None:
        """Each scrape shows every VM with what never waits, and the healthy ones' monitor values but for ``most_missing`` scrapes in a row."""
        until = time.time()
        scrapes = self._points(f'up{{job="{JOB}"}}', until)[""]
        for name in SAFE_METRICS:
            found = self._points(f'{name}{{job="{JOB}"}}', until)
            assert {guest.name for guest in everyone if found[guest.uuid] != scrapes} == set(), name
        found = self._points(MONITOR_METRIC, until)
        gaps = {guest.name: _longest_run(scrapes, found[guest.uuid]) for guest in healthy}
        assert {name: gap for name, gap in gaps.items() if gap > most_missing} == {}, f"scrapes without {MONITOR_METRIC}"

    def assert_not_repeated(self, stuck: Iterable[Guest], most_repeated: int) -> None:
        """Of a VM that is shown not to respond no monitor value is shown, but for the scrapes of a round that had one."""
        until = time.time()
        said = self.prometheus.points(f'vm_responsive{{job="{JOB}"}}', until - self.since, until)
        deaf = {labels["uuid"]: {when for when, value in points if value == 0} for labels, points in said}
        found = self._points(MONITOR_METRIC, until)
        for guest in stuck:
            assert deaf[guest.uuid], f"{guest.name} was never flagged"
            assert len(deaf[guest.uuid] & found[guest.uuid]) <= most_repeated, guest.name


def _longest_run(scrapes: Iterable[float], seen: set[float]) -> int:
    """The most scrapes in a row that are not in ``seen``."""
    runs = itertools.groupby(sorted(scrapes), lambda when: when in seen)
    return max((len(list(run)) for there, run in runs if not there), default=0)


@dataclass(frozen=True)
class Footprint:
    """What a process has of the machine."""

    threads: int
    descriptors: int
    resident_mib: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """As it is now."""
        process = Path(f"/proc/{pid}")
        resident = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS:"))
        return cls(len(list((process / "task").iterdir())), len(list((process / "fd").iterdir())), int(resident.split()[1]) / 1024)

    def await_again(self, pid: int) -> None:
        """Wait until the process is back here."""
        try:
            await_true(lambda: self._holds(Footprint.of(pid)), HANGING_SECONDS, f"back to {self}")
        except LabError as error:
            raise LabError(f"{error}: it is {Footprint.of(pid)}") from error

    def _holds(self, now: Footprint) -> bool:
        fits = now.threads <= self.threads and now.descriptors <= self.descriptors
        return fits and now.resident_mib <= self.resident_mib + MEMORY_MIB


@dataclass
class Neighbours(Watching):
    """Another client of the host, which asks about a healthy VM all the time, and counts the daemon's hung calls."""

    pause_seconds: ClassVar[float] = 0.2

    node: Node
    healthy: Guest
    hung: list[int] = field(default_factory=list)
    slowest_seconds: float = 0.0
    asked: int = 0
    slow: int = 0

    def look(self) -> None:
        """Ask, and count."""
        self._timed(lambda: self.node.domstats(self.healthy))
        self._timed(lambda: self.node.virsh("dumpxml", self.healthy.uuid))
        self.hung.append(self.node.hung_calls())

    def _timed(self, ask: Callable[[], object]) -> None:
        """A slow answer is asked for again: a busy machine is slow for a moment, workers with hung calls make it slow until the VMs go on."""
        took = list(itertools.islice(_seconds(ask), ATTEMPTS))
        self.slowest_seconds = max(self.slowest_seconds, min(took))
        self.asked += 1
        self.slow += len(took) > 1

    def await_looks(self, count: int) -> None:
        """Wait for so many more looks."""
        enough = len(self.hung) + count
        self.await_seen(lambda: len(self.hung) >= enough, HANGING_SECONDS, f"{count} more looks at the daemon")

    def assert_served(self) -> None:
        """It was answered at once nearly always, within a few attempts every time, and the daemon never held more calls than the cap."""
        assert self.slowest_seconds < FOREIGN_SECONDS
        assert self.slow <= (1 - AT_ONCE) * self.asked
        assert max(self.hung) <= CAP


def _seconds(ask: Callable[[], object]) -> Iterator[float]:
    """How long each ask took, until one was fast enough."""
    took = math.inf
    while took >= FOREIGN_SECONDS:
        begin = time.monotonic()
        ask()
        took = time.monotonic() - begin
        yield took
