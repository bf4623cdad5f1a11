"""What has to hold once a producer's broker was away, full or out of reach, whatever the reason: the pass column of row 5.

Events: none lost, each once for a reader that drops repeated identities, those of a VM in their order. Snapshots: the newest are kept, the
oldest dropped and counted exactly, in order. All that is on the topic is processed.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tests.support.criteria import Criteria
from tests.support.figures import figure
from tests.support.processors import CODEC, Bus, Processors, eventually
from tests.support.simulated_producer import Happened, SimulatedProducer
from virtflow.schemas.records import NodeSnapshot, NodeStatus, VmEvent, VmMetrics
from virtflow.schemas.topics import EVENTS, METRICS, NODES, SNAPSHOTS

SECONDS = 60.0
IN_FLIGHT = 1
"""Rounds that the client has at a time."""
UNHEARD = 1
"""Rounds whose acknowledgement may be lost with the connection."""
BEGIN_POINTS = 2.0
"""By how many points of the grid the first and the last round may have begun late, together."""


def events_of(bus: Bus, producer: SimulatedProducer) -> list[Happened]:
    """The producer's events as they lie on the topic, repeated identities dropped."""
    first: dict[tuple[str, int], VmEvent] = {}
    for event in bus.records(EVENTS, VmEvent):
        if event.node == producer.node:
            first.setdefault((event.boot_id, event.sequence), event)
    return [Happened(event.uuid, event.detail) for event in first.values()]


def by_vm(events: Iterable[Happened]) -> dict[str, list[int]]:
    """The numbers of each VM's events in their order."""
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        found[event.uuid].append(event.number)
    return dict(found)


def rounds_of(bus: Bus, producer: SimulatedProducer) -> list[NodeSnapshot]:
    """The producer's rounds as they lie on the topic, repeated ones too."""
    return [snapshot for snapshot in bus.records(SNAPSHOTS, NodeSnapshot) if snapshot.node == producer.node]


def drains(bus: Bus, producer: SimulatedProducer, row: int) -> None:
    """Waits until the topic has all events that were taken during an outage that is over, and fewer wait although more happen.

    That fewer wait shows that they are sent faster than they happen, however slow the machine is.
    """
    backlog = set(producer.taken())
    waiting = len(backlog - set(events_of(bus, producer)))

    def left() -> int:
        taken = set(producer.taken())
        return len(taken - set(events_of(bus, producer)))

    eventually("all events of the outage", lambda: backlog <= set(events_of(bus, producer)), SECONDS)
    fresh = len(producer.taken()) - len(backlog)
    eventually("fewer events wait", lambda: left() <= waiting / 2, SECONDS)
    figure(row, "events that waited", waiting)
    figure(row, "events that happened until those were sent", fresh)


def recovers(  # noqa: PLR0913, who takes part
    bus: Bus, producer: SimulatedProducer, processors: Processors, criteria: Criteria, *, row: int, ended: float
) -> None:
    """What waited is sent, rounds of after the outage's end (Unix seconds) come, all is processed, and both services end when they are told to."""
    drains(bus, producer, row)
    eventually("a round after it", lambda: rounds_of(bus, producer)[-1].collected > ended, SECONDS)
    sent = time.time()  # by now all rounds of the outage have been
    # A round that made room for itself was built before that was counted: the next one tells of it.
    eventually("a round taken after all was sent", lambda: rounds_of(bus, producer)[-1].collected > sent, SECONDS)
    criteria.settled(row=row)
    assert producer.stop() == 0
    await_processed(bus, [producer], row)
    assert processors.terminate() == 0


def assert_events(bus: Bus, producer: SimulatedProducer, row: int) -> None:
    """None lost, none invented, and each VM's in order; the producer has been stopped."""
    taken, found = producer.taken(), events_of(bus, producer)
    assert Counter(found) == Counter(taken)
    assert by_vm(found) == by_vm(taken)
    figure(row, "events taken and on the topic", len(taken))


def assert_rounds(bus: Bus, producer: SimulatedProducer, row: int, kept: int) -> None:
    """The newest ``kept`` rounds of the outage are there, what is missing was counted exactly, and nothing is out of order.

    One round may be there although it was dropped and counted: the broker has stored what was in flight as the outage began or ended, and its
    acknowledgement was no longer waited for. Another one is there where the outage ended while it was in flight: what has been handed to the
    client is not taken back, although newer rounds have filled the ring meanwhile.
    """
    arrived = {CODEC.decode(message.value(), NodeSnapshot).sequence: message.timestamp()[1] / 1000 for message in bus.read(SNAPSHOTS)}
    rounds = rounds_of(bus, producer)
    numbers = [one.sequence for one in rounds]
    fresh = list(dict.fromkeys(numbers))
    assert fresh == sorted(fresh)
    missing = sorted(set(range(max(fresh) + 1)) - set(fresh))
    last = max(rounds, key=lambda one: one.sequence)
    dropped = sum(count for reason, count in last.health.drops_total.items() if reason in {"broker_unreachable", "ring_full", "refused"})
    told = f"{dropped} rounds were counted as dropped by round {last.sequence} ({last.health.drops_total}), missing are {missing}"
    assert dropped - UNHEARD <= len(missing) <= dropped, told
    assert missing
    there = sorted(set(range(missing[0], missing[-1])) - set(missing))
    assert len(there) <= UNHEARD + IN_FLIGHT, f"of the rounds {missing[0]} to {missing[-1]} those were not dropped: {there}"
    # The gap ends where the rounds begin that the ring held when the broker took the first of them; one may have been on its way out of it.
    over = arrived[missing[-1] + 1]
    assert len({one.sequence for one in rounds if one.sequence > missing[-1] and one.collected < over}) >= kept - 1
    figure(row, "rounds dropped and counted", dropped)


def assert_sampled(bus: Bus, producer: SimulatedProducer, row: int) -> None:
    """Sampling went on in time: each point of the grid has a round, or was counted as one without, as few are on a machine that is busy."""
    rounds = sorted(rounds_of(bus, producer), key=lambda one: one.sequence)
    first, last = rounds[0], rounds[-1]
    points = (last.collected - first.collected) / producer.interval
    made = last.sequence - first.sequence
    skipped = last.health.rounds_skipped_total - first.health.rounds_skipped_total
    assert abs(points - made - skipped) <= BEGIN_POINTS
    assert skipped <= made / 4
    figure(row, "rounds taken, those that were dropped later included", made + 1)
    figure(row, "points of the grid without a round", skipped)


def identities(samples: Sequence[VmMetrics]) -> set[tuple[str, str, int]]:
    """Which samples there are."""
    return {(sample.uuid, sample.boot_id, sample.sequence) for sample in samples}


def await_processed(bus: Bus, nodes: Sequence[SimulatedProducer], row: int) -> None:
    """Every snapshot that is on the topic has become samples and a node's status, each VM's in order once repeats are dropped."""
    names = {producer.node for producer in nodes}
    wanted = {(vm.uuid, one.boot_id, one.sequence) for one in bus.records(SNAPSHOTS, NodeSnapshot) if one.node in names for vm in one.vms}
    samples: list[VmMetrics] = []

    def all_there() -> bool:
        samples[:] = [sample for sample in bus.records(METRICS, VmMetrics) if sample.node in names]
        return identities(samples) >= wanted

    eventually("all samples", all_there, SECONDS)
    assert identities(samples) == wanted
    assert_ordered(samples)
    statuses = {(one.boot_id, one.sequence) for one in bus.records(NODES, NodeStatus) if one.node in names}
    assert statuses == {(boot, sequence) for _, boot, sequence in wanted}
    figure(row, "samples processed", len(wanted))


def assert_ordered(samples: Sequence[VmMetrics]) -> None:
    """Each VM's samples come in the order of their numbers, run by run, once repeated ones are dropped."""
    newest: dict[tuple[str, str], int] = {}
    seen: set[tuple[str, str, int]] = set()
    for sample in samples:
        identity = (sample.uuid, sample.boot_id, sample.sequence)
        if identity in seen:
            continue
        seen.add(identity)
        assert sample.sequence > newest.get(identity[:2], -1), identity
        newest[identity[:2]] = sample.sequence
