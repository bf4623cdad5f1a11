"""The way of a round to a real broker: what is dropped is counted exactly, what arrives arrives in order, nothing waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.broker import Broker
from tests.support.lab_process import await_true
from virtflow.producer.publishing.snapshots import Publisher
from virtflow.runtime.settings import Kafka, Producer, Settings, Topics
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.fields import BlockSample
from virtflow.schemas.records import NodeHealth, NodeSnapshot, VmSnapshot

RING = 5
SECONDS = 30.0
CODEC = Codec()


def snapshot(sequence: int, vms: int = 1) -> NodeSnapshot:
    found = [
        VmSnapshot(uuid=f"00000000-0000-4000-8000-{number:012d}", blocks=[BlockSample(name="vda", rd_bytes=2**62)]) for number in range(vms)
    ]
    return NodeSnapshot(node="n", boot_id="b", sequence=sequence, collected=1.7e9, interval=1.0, health=NodeHealth(up=1), vms=found)


def settings(broker: Broker, prefix: str) -> Settings:
    return Settings(
        kafka=Kafka(bootstrap_servers=broker.address),
        topics=Topics(prefix=prefix),
        producer=Producer(interval_seconds=1.0, ring_rounds=RING),
    )


def make_topic(broker: Broker, prefix: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.address})  # it has to live until its answers are in
    for future in admin.create_topics([NewTopic(f"{prefix}vm.snapshots", 2, 1)]).values():
        future.result()


def arrived(broker: Broker, prefix: str, enough: Callable[[list[NodeSnapshot]], bool]) -> list[NodeSnapshot]:
    """What is in the topic, once it is enough."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": f"{prefix}readers", "auto.offset.reset": "earliest"})
    consumer.subscribe([f"{prefix}vm.snapshots"])
    found: list[NodeSnapshot] = []
    until = time.monotonic() + SECONDS
    while not enough(found):
        assert time.monotonic() < until, f"only {[each.sequence for each in found]}"
        message = consumer.poll(0.2)
        if message is not None and not message.error():
            assert message.key() == b"n"
            found.append(CODEC.decode(message.value(), NodeSnapshot))
    consumer.close()
    return found


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that is not started yet."""
    broker = Broker(tmp_path / "broker")
    yield broker
    broker.close()


def test_rounds_arrive_in_order_and_large_ones_in_parts(broker: Broker) -> None:
    make_topic(broker, "order.")
    publisher = Publisher(settings(broker, "order."))
    for sequence in range(3):
        publisher.offer(snapshot(sequence))
    publisher.offer(snapshot(3, vms=12_000))
    assert publisher.close(SECONDS) == 0
    found = arrived(broker, "order.", lambda each: bool(each) and each[-1].sequence == 3 and each[-1].part == each[-1].parts - 1)
    assert [(each.sequence, each.part) for each in found] == [(0, 0), (1, 0), (2, 0), *((3, part) for part in range(found[-1].parts))]
    assert found[-1].parts > 1
    assert sum(len(each.vms) for each in found[3:]) == 12_000
    assert (publisher.outgoing().drops, publisher.outgoing().spooled_rounds) == ({}, 0)


def test_a_broker_that_is_away_at_start_costs_the_oldest_rounds(own_broker: Broker) -> None:
    """Offering never waits; what was dropped and what arrived is all that was offered, and the newest have arrived."""
    publisher = Publisher(settings(own_broker, ""))
    begin = time.monotonic()
    for sequence in range(20):
        publisher.offer(snapshot(sequence))
    assert time.monotonic() - begin < 1.0
    await_true(lambda: publisher.outgoing().spooled_rounds <= RING + 1, SECONDS, "the ring is full")
    own_broker.start()
    make_topic(own_broker, "")
    found = arrived(own_broker, "", lambda each: bool(each) and each[-1].sequence == 19)
    await_true(lambda: publisher.outgoing().spooled_rounds == 0, SECONDS, "nothing waits any more")
    sequences = [each.sequence for each in found]
    assert sequences == sorted(sequences)
    assert sequences[-4:] == [16, 17, 18, 19]
    assert sum(publisher.outgoing().drops.values()) + len(found) == 20
    assert publisher.close(SECONDS) == 0


def test_a_topic_that_is_missing_is_named(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(settings(broker, "missing."))
    for sequence in range(RING + 3):
        publisher.offer(snapshot(sequence))
    await_true(lambda: "topic missing.vm.snapshots is not there" in caplog.text, SECONDS, "the log names the topic")
    for sequence in range(RING + 3):
        publisher.offer(snapshot(sequence))
    assert publisher.outgoing().drops["topic_missing"] > 0
    make_topic(broker, "missing.")
    await_true(lambda: publisher.outgoing().spooled_rounds == 0, SECONDS, "the rounds that waited are sent")
    assert publisher.close(SECONDS) == 0


def test_stopping_does_not_wait_for_a_broker_that_is_away(own_broker: Broker) -> None:
    publisher = Publisher(settings(own_broker, ""))
    publisher.offer(snapshot(0))
    begin = time.monotonic()
    assert publisher.close(2.0) == 1
    assert time.monotonic() - begin < 4.0
