"""A VM that migrates and stays defined on its source: whatever the interleaving, no scrape shows it shut off, and it never goes back."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import inf
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.vm_samples import INTERVAL, WALL, fleet, sample, series_of, uuid
from virtflow.exporter.fleet import Fleet
from virtflow.schemas import states
from virtflow.schemas.records import VmMetrics, VmMigration

VM = f'{{uuid="{uuid(1)}",name="vm-1"}}'
SHOWN = frozenset({"vm_cpu_seconds_total", "vm_state"})
SOURCE, DESTINATION = "node-1", "node-2"
SOURCE_CPU = 1_000.0
"""Above all that the destination's process counts: the value tells whose it is."""
PAUSED_AT = 45.0
ENDED_SECONDS = 4 * INTERVAL

Item = VmMetrics | VmMigration
PRE_COPY_SOURCE = [(states.RUNNING, 1)] * 4 + [(states.PAUSED, states.PAUSED_MIGRATION)] + [(states.SHUT_OFF, states.SHUT_OFF_MIGRATED)] * 3
POST_COPY_SOURCE = (
    [(states.RUNNING, 1)] * 4 + [(states.PAUSED, states.PAUSED_POSTCOPY)] * 2 + [(states.SHUT_OFF, states.SHUT_OFF_MIGRATED)] * 2
)
INCOMING = [(states.PAUSED, states.PAUSED_STARTING_UP), (states.PAUSED, states.PAUSED_MIGRATION)]


@dataclass
class Seen:
    """What a scrape shows: the CPU counter and the state's word; both None without the VM."""

    cpu: float | None
    state: str | None


def reports(node: str, told: list[tuple[int, int]], first: float, cpu: float) -> list[Item]:
    """A node's samples in their order, one interval apart; ``first`` is the first one's time on the node's clock, relative to WALL."""
    return [
        sample(sequence=at, node=node, state=state, state_reason=reason, cpu_seconds_total=cpu + at, collected=WALL + first + at * INTERVAL)
        for at, (state, reason) in enumerate(told)
    ]


def records(*steps: dict[str, Any]) -> list[Item]:
    """The migration's records in their order."""
    return [
        VmMigration(uuid=uuid(1), id="m", source=SOURCE, destination=DESTINATION, revision=at, **step) for at, step in enumerate(steps, 1)
    ]


@st.composite
def interleaved(draw: st.DrawFn, streams: list[list[Item]]) -> list[Item]:
    """All items, each stream in its own order."""
    turns = draw(st.permutations([number for number, stream in enumerate(streams) for _ in stream]))
    iterators = [iter(stream) for stream in streams]
    return [next(iterators[number]) for number in turns]


def take(vms: Fleet, item: Item, now: float) -> Seen:
    """Feed one item and scrape."""
    if isinstance(item, VmMetrics):
        vms.take_metrics(item, now)
    else:
        vms.take_migration(item, now)
    return scrape(vms, now)


def scrape(vms: Fleet, now: float) -> Seen:
    """The VM's CPU counter and state."""
    series = series_of(vms, now)
    cpu = series.get(f"vm_cpu_seconds_total{VM}")
    state = series.get(f"vm_state{VM}")
    return Seen(None if cpu is None else float(cpu), None if state is None else states.state_word(int(state)))


@given(data=st.data(), post_copy=st.booleans(), skew=st.sampled_from([0.0, -3600.0, 3600.0]))
def test_no_scrape_shows_the_source_of_a_completed_migration_again(data: st.DataObject, skew: float, *, post_copy: bool) -> None:
    """One change of the process, never shut off; where the hosts' clocks differ, the migration is known before its hand-over."""
    moment = WALL + PAUSED_AT
    kind = "post_copy" if post_copy else "pre_copy"
    resumed = {"kind": kind, "paused_timestamp_seconds": moment, "resumed_timestamp_seconds": moment + 1 + skew}
    source = reports(SOURCE, POST_COPY_SOURCE if post_copy else PRE_COPY_SOURCE, 10.0, SOURCE_CPU)
    destination = reports(DESTINATION, INCOMING + [(states.RUNNING, 2)] * 3, PAUSED_AT + 2 - 2 * INTERVAL + skew, 0.0)
    known = records({"result": "running"}, {"result": "running", **resumed}, {"result": "completed", **resumed})
    first = [source[0], known.pop(0)] if skew else [source[0]]
    vms = fleet(names=SHOWN)
    seen = [take(vms, item, 0.0) for item in [*first, *data.draw(interleaved([source[1:], destination, known]))]]
    assert {one.state for one in seen} <= ({"running"} if post_copy else {"running", "paused"})
    values = [one.cpu for one in seen if one.cpu is not None]
    assert len(values) == len(seen), "the VM is there at every scrape"
    assert sum(later < earlier for earlier, later in itertools.pairwise(values)) == 1
    assert values[-1] < SOURCE_CPU


@given(data=st.data(), silent=st.booleans())
def test_a_definition_left_behind_is_never_exported(data: st.DataObject, *, silent: bool) -> None:
    """For as long as the source lists it, also after its libvirtd forgot the reason; a destination that falls silent takes the VM with it."""
    vms = fleet(names=SHOWN)
    resumed = {"paused_timestamp_seconds": WALL, "resumed_timestamp_seconds": WALL + 1}
    take(vms, records({"result": "completed", **resumed})[0], 0.0)
    reasons = data.draw(st.lists(st.sampled_from([states.SHUT_OFF_MIGRATED, states.SHUT_OFF_UNKNOWN]), min_size=4, max_size=12))
    left = reports(SOURCE, [(states.SHUT_OFF, reason) for reason in reasons], 10.0, 0.0)
    runs = reports(DESTINATION, [(states.RUNNING, 2)] * len(left), 10.0, 5.0)
    last = data.draw(st.integers(0, len(left) - 1)) if silent else len(left) - 1
    silent_from = last * INTERVAL + 3 * INTERVAL
    for at, (there, here) in enumerate(zip(left, runs, strict=True)):
        now = at * INTERVAL
        if at <= last:
            take(vms, here, now)
        expected = "running" if now < silent_from else None
        assert take(vms, there, now).state == expected
    assert scrape(vms, silent_from).state is None


@given(data=st.data(), result=st.sampled_from(["failed", "cancelled", "incomplete"]), persistent=st.booleans())
def test_a_migration_that_does_not_complete_stays_with_its_source(data: st.DataObject, result: str, *, persistent: bool) -> None:
    """The VM runs on at the source with the same counters; what the destination keeps of the attempt is no sample of it."""
    source = reports(SOURCE, [(states.RUNNING, 1)] * 3 + [(states.RUNNING, 6)] * 3, 10.0, SOURCE_CPU)
    remains = [(states.SHUT_OFF, states.SHUT_OFF_CRASHED)] * 2 + [(states.SHUT_OFF, states.SHUT_OFF_UNKNOWN)] if persistent else []
    destination = reports(DESTINATION, INCOMING + remains, 500.0, 0.0)
    known = records({"result": "running"}, {"result": result})
    vms = fleet(names=SHOWN)
    # Only a migration that has begun leaves something behind.
    items = [source[0], known[0], *data.draw(interleaved([source[1:], destination[:2], known[1:]])), *destination[2:]]
    seen = [take(vms, item, 2 * INTERVAL if item in destination[2:] else 0.0) for item in items]
    assert {one.state for one in seen} == {"running"}
    values = [one.cpu or -inf for one in seen]
    assert values == sorted(values)
    assert values[0] >= SOURCE_CPU
    assert scrape(vms, ENDED_SECONDS).state is None, "nor when the source has fallen silent"


@given(reason=st.sampled_from([1, 2, 3, 5, 7, 8]))
def test_a_vm_that_was_really_shut_off_is_exported(reason: int) -> None:
    """Shut down, destroyed, crashed, saved... where it had left or failed to arrive, after it was started there."""
    ended = {"resumed_timestamp_seconds": WALL, "paused_timestamp_seconds": WALL}
    for node, result in ((SOURCE, "completed"), (DESTINATION, "failed")):
        vms = fleet(names=SHOWN)
        take(vms, records({"result": result, **ended})[0], 0.0)
        ran, *stopped = reports(
            node, [(states.RUNNING, 1), (states.SHUT_OFF, reason), (states.SHUT_OFF, states.SHUT_OFF_UNKNOWN)], 10.0, 0.0
        )
        assert take(vms, ran, 0.0).state == "running"
        assert [take(vms, item, 0.0).state for item in stopped] == ["shut_off"] * 2


@given(reason=st.sampled_from([1, 2, 5, 7, 8]))
def test_a_reason_that_tells_of_an_end_is_enough(reason: int) -> None:
    """An exporter that has just started did not see it run."""
    vms = fleet(names=SHOWN)
    take(vms, records({"result": "completed", "resumed_timestamp_seconds": WALL, "paused_timestamp_seconds": WALL})[0], 0.0)
    item = reports(SOURCE, [(states.SHUT_OFF, reason)], 10.0, 0.0)[0]
    assert take(vms, item, 0.0).state == "shut_off"


STAY = 1_000.0
"""What each stay of the VM adds to the CPU counter that these tests tell, so that the value says of which stay it is."""


@st.composite
def stays(draw: st.DrawFn) -> list[list[Item]]:
    """A VM that goes there and back at once: for each hop all that is told of it, in an order of arrival that can be.

    Its records, the hand-over perhaps before the moment when the destination resumed it, the last samples of the stay before, which may
    come late, and as many of the new one as there was time for, which may be none. The destination's samples expire later than the source's.
    """
    turns, revisions = {SOURCE: itertools.count(), DESTINATION: itertools.count()}, itertools.count(1)
    here, there, at = SOURCE, DESTINATION, WALL

    def told(stay: int, node: str, begin: float, seconds: float) -> list[Item]:
        ages = sorted(draw(st.sets(st.integers(1, 9), max_size=3)))
        own: dict[str, Any] = {"node": node, "interval": INTERVAL if node == SOURCE else 3 * INTERVAL}
        return [
            sample(sequence=next(turns[node]), collected=begin + seconds * age / 10, cpu_seconds_total=STAY * stay + age, **own)
            for age in ages
        ]

    hops: list[list[Item]] = [[sample(sequence=next(turns[here]), node=here, collected=at, cpu_seconds_total=0.0)]]
    for hop in range(draw(st.integers(2, 4))):
        seconds = draw(st.sampled_from([1.0, 3.0, 20.0]))
        tail = told(hop, here, at, seconds)
        at += seconds
        ended: dict[str, Any] = {"result": "completed", "paused_timestamp_seconds": at, "ended_timestamp_seconds": at + 0.1}
        steps: list[dict[str, Any]] = [{"result": "running"}, ended, {**ended, "resumed_timestamp_seconds": at + 0.05}]
        known: list[Item] = [
            VmMigration(uuid=uuid(1), id=str(hop), source=here, destination=there, revision=next(revisions), **step)
            for step in draw(st.sampled_from([steps, steps[1:], steps[::2], steps[2:]]))
        ]
        hops.append(draw(interleaved([tail, known])))
        here, there = there, here
    hops.append(told(len(hops) - 1, here, at, 10.0))
    return hops


@given(data=st.data(), hops=stays())
def test_there_and_back_at_once_shows_no_stay_again(data: st.DataObject, hops: list[list[Item]]) -> None:
    """Whatever of a stay was shown, nothing of one before it is shown afterwards: a counter falls at most once for each hop."""
    vms = fleet(names=SHOWN)
    now, shown = 0.0, []
    for hop in hops:
        for item in hop:
            seen = take(vms, item, now)
            if seen.cpu is not None:
                shown.append(seen.cpu // STAY)
        now += data.draw(st.sampled_from([0.0, INTERVAL, 3 * INTERVAL]))
        seen = scrape(vms, now)
        if seen.cpu is not None:
            shown.append(seen.cpu // STAY)
    assert shown == sorted(shown)
