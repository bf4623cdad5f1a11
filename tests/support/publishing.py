"""Publishers of rounds and events on the in-memory broker, for tests of how each gets there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.support.memory_kafka import Cluster
from virtflow.producer.publishing.events import EventPublisher, Pauses
from virtflow.producer.publishing.snapshots import Publisher
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.settings import Producer, Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.encoder import Framed, as_it_is
from virtflow.schemas.records import NodeHealth, NodeSnapshot, VmEvent, VmSnapshot
from virtflow.schemas.topics import EVENTS, SNAPSHOTS

RING: Final = 4
SECONDS: Final = 60.0
RETRY: Final = 0.01
UUIDS: Final = [f"00000000-0000-4000-8000-{number:012x}" for number in range(3)]
CODEC: Final = Codec()


def snapshot(sequence: int, vms: int = 1) -> NodeSnapshot:
    """A round; a VM's name makes it about a kilobyte."""
    found = [VmSnapshot(uuid=f"00000000-0000-4000-8000-{number:012d}", name="n" * 1_000) for number in range(vms)]
    return NodeSnapshot(node="n", boot_id="b", sequence=sequence, collected=1.7e9, interval=1.0, health=NodeHealth(up=1), vms=found)


def happened(number: int, kind: str = "balloon_change") -> HypervisorEvent:
    """An event that libvirt announced."""
    details: tuple[object, ...] = ({"type": 2, "time_elapsed": number},) if kind == "job" else (number,)
    return HypervisorEvent(UUIDS[number % 3], "vm", kind, details, time.time())


def rounds(cluster: Cluster) -> list[tuple[int, int]]:
    """The sequence and part of each message that has arrived, in order."""
    found = [CODEC.decode(record.value or b"", NodeSnapshot) for record in cluster.topics[SNAPSHOTS.name].logs[0].records]
    return [(each.sequence, each.part) for each in found]


def events(cluster: Cluster) -> list[int]:
    """The numbers of the events that have arrived, in order."""
    return [CODEC.decode(record.value or b"", VmEvent).sequence for record in cluster.topics[EVENTS.name].logs[0].records]


def cluster_of_producers() -> Cluster:
    """A broker with the topics that producers write."""
    cluster = Cluster()
    cluster.create(SNAPSHOTS.name)
    cluster.create(EVENTS.name)
    return cluster


def publishers(cluster: Cluster) -> Iterator[Callable[..., Publisher]]:
    """Makes publishers of rounds, and ends them: for a fixture to yield from."""
    made: list[Publisher] = []

    def make(framed: Framed = as_it_is) -> Publisher:
        made.append(Publisher(Settings(producer=Producer(ring_rounds=RING, interval_seconds=1.0)), cluster.producer, framed, RETRY))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close(0.0)


def event_publishers(cluster: Cluster, folder: Path) -> Iterator[Callable[..., EventPublisher]]:
    """Makes publishers of events with journals in a folder, and ends them: for a fixture to yield from."""
    made: list[EventPublisher] = []

    def make(
        name: str = "journal", sync: str = "second", framed: Framed = as_it_is, idle: float = SECONDS, lock: float = SECONDS
    ) -> EventPublisher:
        producer = Producer(journal_folder=str(folder / name), journal_sync=sync)  # type: ignore[arg-type]  # a literal
        made.append(EventPublisher(Settings(producer=producer), "node-1", cluster.producer, framed, Pauses(RETRY, idle, lock)))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close(0.0)
