"""The processors on a real broker: what goes in comes out, once and in order, whatever happens to processes and partitions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.support.broker import Broker
from tests.support.processors import CODEC, COLLECTED, Bus, Processors, eventually, snapshot
from virtflow.schemas.records import NodeSnapshot, NodeStatus, VmInventory, VmMetrics, VmSnapshot
from virtflow.schemas.topics import INVENTORY, METRICS, NODES

FOR_GOOD = 3

NODES_OF_TEST = ("rack1-a", "rack1-b", "rack2-c", "rack2-d")
Identity = tuple[str, str, str, int]


@pytest.fixture
def bus(broker: Broker) -> Bus:
    bus = Bus(broker)
    bus.create_topics()
    return bus


def rounds(number: int, vms: int = 5) -> Iterator[NodeSnapshot]:
    return (snapshot(node, sequence, vms) for sequence in range(number) for node in NODES_OF_TEST)


def encoded(snapshots: Iterable[NodeSnapshot]) -> Iterator[tuple[str, bytes]]:
    return ((one.node, CODEC.encode(one)) for one in snapshots)


def expected(snapshots: Iterable[NodeSnapshot]) -> Counter[Identity]:
    return Counter((vm.uuid, one.node, one.boot_id, one.sequence) for one in snapshots for vm in one.vms)


def identities(metrics: Iterable[VmMetrics]) -> Counter[Identity]:
    return Counter((m.uuid, m.node, m.boot_id, m.sequence) for m in metrics)


def assert_newest_is_last(metrics: Iterable[VmMetrics], newest: int) -> None:
    """Per VM, what a reader holds in the end is the newest sample, in spite of redelivery."""
    last: dict[str, VmMetrics] = {m.uuid: m for m in metrics}
    assert {m.sequence for m in last.values()} == {newest}


def test_a_snapshot_becomes_metrics_status_and_inventory(bus: Bus, tmp_path: Path) -> None:
    first = snapshot("node-1", 0, 2)
    described = VmSnapshot(uuid=first.vms[0].uuid, name="web", inventory=[VmInventory(uuid=first.vms[0].uuid, name="web", title="Web")])
    second = NodeSnapshot(node="node-1", boot_id="boot", sequence=1, collected=COLLECTED + 1, interval=1.0, vms=[described])
    with Processors(bus, tmp_path) as processors:
        bus.produce(encoded([first, second]))
        bus.wait_until_committed()
        assert processors.terminate() == 0
    assert identities(bus.records(METRICS, VmMetrics)) == expected([first, second])
    assert {m.uuid: m.cpu_seconds_total for m in bus.records(METRICS, VmMetrics) if m.sequence == 0} == {
        first.vms[0].uuid: 0.0,
        first.vms[1].uuid: 1.0,
    }
    assert [(m.key(), m.partition()) for m in bus.read(NODES)] == [(b"node-1", bus.read(NODES)[0].partition())] * 2
    assert [status.sequence for status in bus.records(NODES, NodeStatus)] == [0, 1]
    (inventory,) = bus.records(INVENTORY, VmInventory)
    assert (inventory.title, inventory.node, inventory.sequence) == ("Web", "node-1", 1)


def test_nothing_is_written_where_it_was_started(bus: Bus, tmp_path: Path) -> None:
    """The stream framework would make a data folder in the working directory."""
    with Processors(bus, tmp_path / "cwd") as processors:
        assert processors.terminate() == 0
    assert [path.name for path in (tmp_path / "cwd").iterdir()] == [processors.log.name]


def test_duplicates_are_passed_by_and_counted(bus: Bus, tmp_path: Path) -> None:
    one = snapshot("node-1", 5)
    with Processors(bus, tmp_path) as processors:
        bus.produce(encoded([one, one, snapshot("node-1", 4), one]))
        bus.wait_until_committed()
        assert processors.value("virtflow_processors_duplicates_total") == 3
        assert processors.value("virtflow_processors_messages_total") == 4
    assert identities(bus.records(METRICS, VmMetrics)) == expected([one])


def test_killed_again_and_again_nothing_is_lost(bus: Bus, tmp_path: Path) -> None:
    """At least once under kill -9: every acknowledged sample is there, and what came twice has the same identity."""
    sent = list(rounds(120))
    feeding = Thread(target=lambda: bus.produce(encoded(sent), pause=0.02))
    processors = Processors(bus, tmp_path)
    feeding.start()
    for _ in range(4):
        processors.start()
        taken = processors.value("virtflow_processors_messages_total")
        eventually("progress", lambda taken=taken: processors.value("virtflow_processors_messages_total") > taken)  # type: ignore[misc]
        processors.kill()
    feeding.join()
    with processors:
        bus.wait_until_committed()
        assert processors.terminate() == 0
    metrics = bus.records(METRICS, VmMetrics)
    assert set(identities(metrics)) == set(expected(sent))
    assert_newest_is_last(metrics, 119)


def test_of_two_with_one_name_the_first_ends_for_good(bus: Bus, tmp_path: Path) -> None:
    """The second has the partitions from then on, and all that comes is handled; the first says who took its place."""
    first, second = Processors(bus, tmp_path / "first"), Processors(bus, tmp_path / "second")
    with first:
        bus.produce(encoded(rounds(10)))
        bus.wait_until_committed()
        with second:
            assert first.wait(30.0) == FOR_GOOD
            line = first.log.read_text().splitlines()[-1]
            assert line.startswith("virtflow: another process has joined group ")
            assert "under the same name 'one'" in line
            bus.produce(encoded(rounds(20)))
            bus.wait_until_committed()
            assert second.terminate() == 0
    assert set(identities(bus.records(METRICS, VmMetrics))) == set(expected(rounds(20)))


def test_partitions_move_between_two_processes_and_nothing_is_lost(bus: Bus, tmp_path: Path) -> None:
    """One process joins, the other leaves, while snapshots come in: each sample is there, and both have worked."""
    sent: list[NodeSnapshot] = []
    enough = Event()

    def until_enough() -> Iterator[NodeSnapshot]:
        for sequence in count():
            for number in range(12):
                sent.append(snapshot(f"node-{number}", sequence, 2))
                yield sent[-1]
            if enough.is_set():
                return

    feeding = Thread(target=lambda: bus.produce(encoded(until_enough()), pause=0.01))
    one, two = (Processors(bus, tmp_path, instance=name) for name in ("one", "two"))
    with one, two:
        feeding.start()
        for each in (one, two):
            eventually("work for both", lambda each=each: each.value("virtflow_processors_vm_samples_total") > 0)  # type: ignore[misc]
        assert one.terminate() == 0
        enough.set()
        feeding.join()
        bus.wait_until_committed()
        assert two.terminate() == 0
    metrics = bus.records(METRICS, VmMetrics)
    assert set(identities(metrics)) == set(expected(sent))
    assert_newest_is_last(metrics, sent[-1].sequence)


def test_samples_of_a_vm_are_in_order(bus: Bus, tmp_path: Path) -> None:
    """Without redelivery, a VM's samples are in its partition in their order, each once."""
    sent = list(rounds(40))
    with Processors(bus, tmp_path) as processors:
        bus.produce(encoded(sent))
        bus.wait_until_committed()
        assert processors.terminate() == 0
    order = defaultdict(list)
    for sample in bus.records(METRICS, VmMetrics):
        order[sample.uuid].append(sample.sequence)
    assert all(sequences == list(range(40)) for sequences in order.values())
    assert len(order) == len(NODES_OF_TEST) * 5


def test_a_broker_that_is_away_at_start_is_waited_for(tmp_path: Path) -> None:
    """It says what it waits for, keeps its health page, and starts to work when broker and topics are there."""
    broker = Broker(tmp_path / "broker")
    bus = Bus(broker)
    processors = Processors(bus, tmp_path)
    processors.start(ready=False)
    eventually("the broker is missed", lambda: "does not answer" in processors.page("/readyz")[1])
    assert processors.page("/healthz")[0] == 200
    with broker:
        eventually("the topics are missed", lambda: "virtflow topics create" in processors.page("/readyz")[1])
        bus.create_topics()
        processors.wait_until_ready()
        bus.produce(encoded([snapshot("node-1", 0)]))
        bus.wait_until_committed()
        assert processors.terminate() == 0
    assert processors.log.read_text().count("does not answer") == 1


def test_a_broker_that_goes_away_for_a_while_costs_nothing(tmp_path: Path) -> None:
    """The process stays, and all samples are there once the broker is back."""
    sent = list(rounds(30))
    with Broker(tmp_path / "broker") as broker:
        bus = Bus(broker)
        bus.create_topics()
        with Processors(bus, tmp_path) as processors:
            bus.produce(encoded(sent[:60]))
            broker.kill()
            eventually("health", lambda: processors.page("/healthz")[0] == 200)
            broker.start()
            bus.produce(encoded(sent[60:]))
            bus.wait_until_committed()
            assert processors.terminate() == 0
        assert set(identities(bus.records(METRICS, VmMetrics))) == set(expected(sent))
