"""Fault 5, the events' part: the producer is killed after each fifty of them, and the broker is away in three of its lives.

What libvirt announces while no producer is connected nobody can hear. All that a producer took is on the topic afterwards, in the
order of each VM, exactly once for a reader that drops repeated identities. Where one outage is looked at, the broker is away for half an
hour with ``--long``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from tests.support.figures import figure
from tests.support.lab import Guest, Lab, LabError, await_true
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.long import length
from tests.support.record_tap import RecordTap
from virtflow.producer.hypervisor.connection import start_event_loop
from virtflow.producer.publishing.journal import SUFFIX, Journal
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.records import NodeSnapshot, VmEvent
from virtflow.schemas.topics import EVENTS, SNAPSHOTS

KILLS = length(8, 20)
EVENTS_A_LIFE = 50
WITHOUT_BROKER = length(frozenset({1, 4, 6}), frozenset({5, 11, 17}))
TAKEN_SECONDS = 30.0
OUTAGE_SECONDS = length(20.0, 1800.0)
PAUSE_SECONDS = 0.5
RECONNECT_SECONDS = 30.0

Told = tuple[str, int, int]
"""A life-cycle event: UUID, event, detail."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One node."""
    with Lab(nodes=1) as lab:
        yield lab


@pytest.fixture(scope="module")
def guests(lab: Lab) -> list[Guest]:
    """Three VMs, paused."""
    return lab.nodes[0].load_paused(3)


class Truth:
    """Another client of libvirt, that makes VMs run and pause and hears what libvirt announces of it."""

    def __init__(self, uri: str, guests: list[Guest]) -> None:
        """Connect, pause what somebody else has left running, and listen."""
        start_event_loop()
        self.heard: list[Told] = []
        self._connection = libvirt.open(uri)
        self._domains = [self._connection.lookupByUUIDString(guest.uuid) for guest in guests]
        for domain in self._domains:
            if domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
                domain.suspend()
        self._connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._hear, None)
        self._turn = 0

    def _hear(self, _connection: object, domain: libvirt.virDomain, event: int, detail: int, _opaque: object) -> None:
        self.heard.append((domain.UUIDString(), event, detail))

    def make(self, count: int) -> list[Told]:
        """Have so many events happen; what libvirt announced."""
        before = len(self.heard)
        for _ in range(count):
            domain = self._domains[self._turn // 2 % len(self._domains)]
            (domain.resume if self._turn % 2 == 0 else domain.suspend)()
            self._turn += 1
        await_true(lambda: len(self.heard) >= before + count, TAKEN_SECONDS, "libvirt announces them")
        return self.heard[before:]

    def close(self) -> None:
        """Let go."""
        self._connection.close()


def journaled(folder: Path, codec: Codec) -> list[VmEvent]:
    """What is in a journal, read beside the producer that owns it."""
    found: list[VmEvent] = []
    copy = Journal(folder / "copy", 1 << 30)
    copy.folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            (copy.folder / path.name).write_bytes(path.read_bytes())
        except FileNotFoundError:  # delivered meanwhile
            continue
    copy.open()
    while entries := copy.left_behind():
        found += [codec.decode(entry.message, VmEvent) for entry in entries]
    copy.close()
    for path in copy.folder.iterdir():
        path.unlink()
    return found


class Taken:
    """All events that a producer took, wherever they are: on the topic, or still in its journal."""

    def __init__(self, tap: RecordTap[VmEvent], folder: Path) -> None:
        """``folder`` is the journal's."""
        self._tap = tap
        self._folder = folder
        self._codec = Codec()

    def of_boot(self, known: set[str]) -> list[VmEvent]:
        """The life-cycle events of the run of the producer that is not among ``known``, by their numbers."""
        found = {(event.boot_id, event.sequence): event for event in [*self._tap.records(), *journaled(self._folder, self._codec)]}
        fresh = [event for event in found.values() if event.boot_id not in known and event.kind == "lifecycle"]
        return sorted(fresh, key=lambda event: event.sequence)


def told(events: list[VmEvent]) -> list[Told]:
    return [(event.uuid, event.event, event.detail) for event in events]


def test_every_event_that_was_taken_arrives_once(lab: Lab, guests: list[Guest], tmp_path: Path) -> None:
    """Killed at once after it took the last of fifty, again and again (20 times with ``--long``); three of these lives see no broker at all."""
    settings = {"VIRTFLOW_LOG_LEVEL": "error"}
    with Pipeline(lab, tmp_path, settings, whole=False) as pipeline, RecordTap(pipeline.broker.address, EVENTS, VmEvent) as tap:
        producer, truth = pipeline.producers[0], Truth(lab.nodes[0].socket_uri, guests)
        taken = Taken(tap, tmp_path / f"journal-{producer.name}")
        lives: dict[str, list[Told]] = {}
        for life in range(KILLS):
            if life in WITHOUT_BROKER:
                pipeline.broker.stop()
            producer.start()
            one_life(truth, taken, lives)
            producer.kill()
            if life in WITHOUT_BROKER:
                pipeline.broker.start()
        producer.start()
        expected = {(boot, told_) for boot, events in lives.items() for told_ in enumerate(events)}
        await_true(lambda: expected <= arrived(tap, lives), TAKEN_SECONDS, "all of them are on the topic")
        truth.close()
        assert len(lives) == KILLS
        assert sum(map(len, lives.values())) >= KILLS * EVENTS_A_LIFE
        assert arrived(tap, lives) == expected
        figure(5, f"events taken in {KILLS} lives of the producer, each stored once", len(expected))
        producer.stop()


def test_a_long_outage_costs_no_event_and_no_round(lab: Lab, guests: list[Guest], tmp_path: Path) -> None:
    """While the broker is away events go on and so does the sampling, on its grid; afterwards each event is there, once and in order."""
    with (
        Pipeline(lab, tmp_path, {"VIRTFLOW_LOG_LEVEL": "error"}, whole=False) as pipeline,
        RecordTap(pipeline.broker.address, EVENTS, VmEvent) as tap,
        RecordTap(pipeline.broker.address, SNAPSHOTS, NodeSnapshot) as rounds,
    ):
        producer, truth = pipeline.producers[0], Truth(lab.nodes[0].socket_uri, guests)
        taken = Taken(tap, tmp_path / f"journal-{producer.name}")
        producer.start()
        await_true(lambda: bool(truth.make(1) and taken.of_boot(set())), TAKEN_SECONDS, "the producer listens")
        before = rounds.await_record(lambda _: True, "a round")
        pipeline.broker.stop()
        stopped = time.time()
        while time.time() - stopped < OUTAGE_SECONDS:
            truth.make(2)
            time.sleep(PAUSE_SECONDS)
        pipeline.broker.start()
        truth.make(EVENTS_A_LIFE)
        (boot,) = {event.boot_id for event in taken.of_boot(set())}
        await_true(
            lambda: arrived_of(tap, boot)[-EVENTS_A_LIFE:] == truth.heard[-EVENTS_A_LIFE:], TAKEN_SECONDS, "the newest is on the topic"
        )
        found = arrived_of(tap, boot)
        assert found == truth.heard[-len(found) :]
        assert len(found) > OUTAGE_SECONDS / PAUSE_SECONDS
        figure(5, "outage", OUTAGE_SECONDS, "s")
        figure(5, "events around the outage, each stored once and in order", len(found))
        after = rounds.await_record(lambda one: one.collected > stopped + OUTAGE_SECONDS, "a round after the outage", RECONNECT_SECONDS)
        assert after.health.rounds_total - before.health.rounds_total == pytest.approx(
            (after.collected - before.collected) / INTERVAL_SECONDS, abs=1.0
        )
        truth.close()
        producer.stop()


def arrived_of(tap: RecordTap[VmEvent], boot: str) -> list[Told]:
    """The life-cycle events of a producer's run as they lie on the topic, repeated identities dropped."""
    first = {event.sequence: event for event in reversed(tap.records()) if event.kind == "lifecycle" and event.boot_id == boot}
    return told([first[sequence] for sequence in sorted(first)])


def one_life(truth: Truth, taken: Taken, lives: dict[str, list[Told]]) -> None:
    """From the first event that the new producer takes: fifty more, all of which it takes; noted under its boot id."""
    known = set(lives)
    await_true(lambda: bool(truth.make(1) and taken.of_boot(known)), TAKEN_SECONDS, "the producer listens")
    events = truth.make(EVENTS_A_LIFE)
    found: list[VmEvent] = []

    def has_taken_them() -> bool:
        # An event on its way is for a moment neither in the journal nor on the topic: what counts is what was seen here.
        found[:] = taken.of_boot(known)
        return told(found)[-EVENTS_A_LIFE:] == events

    try:
        await_true(has_taken_them, TAKEN_SECONDS, "it has taken them")
    except LabError as error:
        raise LabError(f"{error}; the VMs' events {events}; those taken {[(one.sequence, *told([one])) for one in found]}") from error
    (boot,) = {event.boot_id for event in found}
    assert told(found) == truth.heard[-len(found) :]
    lives[boot] = told(found)


def arrived(tap: RecordTap[VmEvent], lives: dict[str, list[Told]]) -> set[tuple[str, tuple[int, Told]]]:
    """What the topic has of each life, repeated identities dropped: the boot id, and the place and content of each event."""
    first = {(event.boot_id, event.sequence): event for event in reversed(tap.records()) if event.kind == "lifecycle"}
    found: set[tuple[str, tuple[int, Told]]] = set()
    for boot in lives:
        events = sorted((event for event in first.values() if event.boot_id == boot), key=lambda event: event.sequence)
        found |= {(boot, numbered) for numbered in enumerate(told(events))}
    return found


def test_nothing_is_remembered_by_time(tmp_path: Path) -> None:
    """The journal's copy above is a journal of its own: reading it beside its owner disturbs nobody."""
    owner = Journal(tmp_path, 1 << 20)
    owner.open()
    event = VmEvent(uuid="01c4627c-7455-4be4-b014-9523f6d7e739", node="n", boot_id="b", sequence=1, time=time.time(), kind="reboot")
    codec = Codec()
    assert owner.append(b"k", codec.encode(event)) is not None
    assert journaled(tmp_path, codec) == [event]
    assert journaled(tmp_path, codec) == [event]
    owner.close()
